/* To be linked statically with elf_link_a.bpf.c. */
#include "bpf_min.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} common __weak SEC(".maps");

__u32 from_b = 2;
static __u32 same_name = 6;

static __noinline int helper(int number)
{
	same_name -= number;
	return number * 2;
}

__noinline int override(int number)
{
	return helper(number) + 200;
}

__noinline int provided_by_b(int number)
{
	__u32 key = number;

	bpf_map_lookup_elem(&common, &key);
	return helper(number) + from_b;
}

SEC("raw_tp/sys_enter")
int program_b(void *context)
{
	return override(4);
}

char LICENSE[] SEC("license") = "GPL";
