// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every open(2), openat(2) and openat2(2) with its result: the descriptor, or the negative error number. */
#include "vmlinux.h"
#include "bpf_helpers.h"

struct open {
	__u32 pid;
	__u32 uid;
	__s32 result;
	char comm[16];
	char filename[128];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, const char *);
} running SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps") EVENT(open);

CARRIES(open);
DROP_COUNTER;

/* Report only this process; 0 for every process. */
SETTING __u32 only_pid = 0;
/* Report only calls that failed. */
SETTING bool only_failed = false;

static __always_inline int enter(const char *filename)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 thread = id;

	if (!only_pid || only_pid == id >> 32)
		bpf_map_update_elem(&running, &thread, &filename, BPF_ANY);
	return 0;
}

static __always_inline int leave(long result)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 thread = id;
	const char **filename = bpf_map_lookup_elem(&running, &thread);

	if (!filename)
		return 0;
	if (only_failed && result >= 0)
		goto done;
	struct open *event = RESERVE(events, struct open);

	if (!event)
		goto done;
	event->pid = id >> 32;
	event->uid = bpf_get_current_uid_gid();
	event->result = result;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->filename[0] = 0;
	bpf_probe_read_user_str(event->filename, sizeof(event->filename), *filename);
	bpf_ringbuf_submit(event, 0);
done:
	bpf_map_delete_elem(&running, &thread);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int enter_openat(struct trace_event_raw_sys_enter *ctx)
{
	return enter((const char *) ctx->args[1]);
}

SEC("tracepoint/syscalls/sys_exit_openat")
int exit_openat(struct trace_event_raw_sys_exit *ctx)
{
	return leave(ctx->ret);
}

SEC("tracepoint/syscalls/sys_enter_openat2")
int enter_openat2(struct trace_event_raw_sys_enter *ctx)
{
	return enter((const char *) ctx->args[1]);
}

SEC("tracepoint/syscalls/sys_exit_openat2")
int exit_openat2(struct trace_event_raw_sys_exit *ctx)
{
	return leave(ctx->ret);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
