/* To be linked statically with elf_link_b.bpf.c, where the strong `override` is. */
#include "bpf_min.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} common SEC(".maps");

__u32 from_a = 1;
extern __u32 from_b;
static __u32 same_name = 5;

int provided_by_b(int number);

static __noinline int helper(int number)
{
	same_name += number;
	return number + 1;
}

__weak __noinline int override(int number)
{
	__u32 key = 0;

	bpf_map_lookup_elem(&common, &key);
	return helper(number) + 100;
}

SEC("raw_tp/sys_enter")
int program_a(void *context)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&common, &key);

	if (value)
		*value += from_a + from_b;
	return override(1) + helper(2) + provided_by_b(3);
}

char LICENSE[] SEC("license") = "GPL";
