// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs that the verifier must reject, each for its own reason. All are off until a test asks for one. */
#include "bpf_min.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

struct no_such_struct {
	int no_such_field;
} __attribute__((preserve_access_index));

extern int no_such_kfunc(int a) __ksym __weak;

SEC("?socket")
int null_pointer(void *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&table, &key);

	return *value; /* nobody asked whether it is there */
}

SEC("?socket")
int missing_map(void *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&table, &key);

	return value ? *value : 0;
}

SEC("?socket")
int missing_field(void *ctx)
{
	struct no_such_struct *p = ctx;

	return p->no_such_field;
}

SEC("?socket")
int missing_kfunc(void *ctx)
{
	return no_such_kfunc(1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
