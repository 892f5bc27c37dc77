/* Every field of a map definition. */
#include "bpf_min.h"

struct key {
	__u32 pid;
	__u32 tgid;
};

struct value {
	__u64 count;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__uint(map_flags, 1 | 4); /* BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE */
	__uint(numa_node, 0);
	__type(key, struct key);
	__type(value, struct value);
} typed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 24);
	__uint(max_entries, 3);
} sized SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(key_size, sizeof(__u32));
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 8);
	__uint(pinning, 1);
} pinned_with_a_long_name SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_BLOOM_FILTER);
	__uint(max_entries, 64);
	__uint(value_size, 4);
#ifdef LIBBPF_1_1 /* which does not know __ulong */
	__uint(map_extra, 3);
#else
	__ulong(map_extra, 3);
#endif
} bloom SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} inner_one SEC(".maps"), inner_two SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 5);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { [1] = &inner_one, [4] = &inner_two },
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 9);
	__uint(key_size, 4);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 4);
		__uint(key_size, 4);
		__uint(value_size, 8);
	});
} outer_hash SEC(".maps") = {
	.values = { [3] = (void *)&inner_one },
};

int tail(void *context);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = {
	.values = { [0] = &tail, [2] = &tail },
};

SEC("raw_tp/sys_enter")
int tail(void *context)
{
	struct key key = { 1, 2 };
	struct value *value = bpf_map_lookup_elem(&typed, &key);

	if (value)
		value->count++;
	return 0;
}

SEC("raw_tp/sys_enter")
int entry(void *context)
{
	__u32 index = 1;
	void *inner = bpf_map_lookup_elem(&outer, &index);

	if (inner)
		bpf_map_lookup_elem(inner, &index);
	inner = bpf_map_lookup_elem(&outer_hash, &index);
	if (inner)
		bpf_map_lookup_elem(inner, &index);
	bpf_map_lookup_elem(&sized, &index);
	bpf_map_lookup_elem(&pinned_with_a_long_name, &index);
	bpf_tail_call(context, &jumps, 2);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
