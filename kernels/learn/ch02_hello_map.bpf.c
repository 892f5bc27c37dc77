// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: how often each user has started a program, in a hash table. */
#include "learn.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} counter_table SEC(".maps");

SEC("tp/syscalls/sys_enter_execve")
int hello_map(void *ctx)
{
	__u32 uid = bpf_get_current_uid_gid();
	__u64 one = 1;

	/* Two CPUs may be here at once: the entry is made by one of them only, and counted up atomically. */
	if (bpf_map_update_elem(&counter_table, &uid, &one, BPF_NOEXIST) == 0)
		return 0;
	__u64 *count = bpf_map_lookup_elem(&counter_table, &uid);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
