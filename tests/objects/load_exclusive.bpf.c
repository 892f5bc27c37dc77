// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A map that only one of two programs may use. */
#include "bpf_min.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} secret SEC(".maps");

__u64 counter;

static __noinline __u64 *find(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&secret, &key);
}

SEC("socket")
int owner(void *context)
{
	__u64 *value = find();

	counter += 1;
	if (value)
		*value += 2;
	return 1;
}

SEC("?socket")
int stranger(void *context)
{
	__u64 *value = find();

	return value ? *value : 0;
}

char LICENSE[] SEC("license") = "GPL";
