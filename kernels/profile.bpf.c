// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A sampling profiler: how often each task is found on a CPU, and on which stacks. Read it with --dump-maps. */
#include "vmlinux.h"
#include "bpf_helpers.h"

#define STACK_DEPTH 127

struct sample {
	__u32 pid;
	__s32 kernel_stack; /* key of the map stacks, or a negative error number */
	__s32 user_stack;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, struct sample);
	__type(value, __u64);
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 10240);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

/* Sample only this process; 0 for every process. */
SETTING __u32 only_pid = 0;

SEC("perf_event")
int profile(struct bpf_perf_event_data *ctx)
{
	struct sample key = { .pid = bpf_get_current_pid_tgid() >> 32 };
	__u64 one = 1;

	if (!key.pid || (only_pid && key.pid != only_pid))
		return 0;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	key.kernel_stack = bpf_get_stackid(ctx, &stacks, 0);
	key.user_stack = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	__u64 *count = bpf_map_lookup_elem(&samples, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&samples, &key, &one, BPF_NOEXIST);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
