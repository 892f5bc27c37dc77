/* Subprograms: static, global, weak, hidden, called from each other, and given by address. */
#include "bpf_min.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

__u64 sum;

static __noinline int leaf(int number)
{
	barrier_var(number);
	return number * 3;
}

static __noinline int middle(int number)
{
	__u32 key = number & 3;
	__u64 *value = bpf_map_lookup_elem(&counts, &key);

	if (value)
		*value += leaf(number);
	return leaf(number + 1);
}

__noinline int shared(int number)
{
	sum += number;
	return middle(number) + leaf(number);
}

__weak __noinline int replaceable(int number)
{
	barrier_var(number);
	return number + 77;
}

__hidden __noinline int internal(int number)
{
	barrier_var(number);
	return number + leaf(number);
}

static int each(__u32 index, void *context)
{
	return leaf(index) == 1000;
}

static long every(void *map, const void *key, void *value, void *context)
{
	sum += middle(*(__u32 *)key);
	return 0;
}

SEC("raw_tp/sys_enter")
int first(void *context)
{
	return shared(1) + replaceable(2) + leaf(3);
}

SEC("raw_tp/sys_enter")
int second(void *context)
{
	bpf_loop(10, each, 0, 0);
	bpf_for_each_map_elem(&counts, every, 0, 0);
	return internal(4);
}

SEC("?raw_tp/sys_enter")
int optional(void *context)
{
	return leaf(bpf_get_prandom_u32());
}

SEC("socket")
int alone(void *context)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
