// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* System calls counted by number, with the time spent in each. Read them with --dump-maps. */
#include "vmlinux.h"
#include "bpf_helpers.h"

struct total {
	__u64 calls;
	__u64 errors;
	__u64 time_ns;
};

struct call {
	__u64 start_ns;
	__u64 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, struct call);
} running SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct total);
} syscalls SEC(".maps");

/* Count only this process; 0 for every process. */
SETTING __u32 only_pid = 0;

SEC("raw_tp/sys_enter")
int on_enter(__u64 *ctx)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 thread = id;
	struct call call = { .start_ns = bpf_ktime_get_ns(), .number = ctx[1] };

	if (!only_pid || only_pid == id >> 32)
		bpf_map_update_elem(&running, &thread, &call, BPF_ANY);
	return 0;
}

SEC("raw_tp/sys_exit")
int on_exit(__u64 *ctx)
{
	__u32 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&running, &thread);

	if (!call)
		return 0;
	__u32 number = call->number;
	struct total *total = bpf_map_lookup_elem(&syscalls, &number);
	if (!total) {
		struct total none = {};
		bpf_map_update_elem(&syscalls, &number, &none, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&syscalls, &number);
	}
	if (total) {
		__sync_fetch_and_add(&total->calls, 1);
		__sync_fetch_and_add(&total->time_ns, bpf_ktime_get_ns() - call->start_ns);
		if ((__s64) ctx[1] < 0 && (__s64) ctx[1] > -4096)
			__sync_fetch_and_add(&total->errors, 1);
	}
	bpf_map_delete_elem(&running, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
