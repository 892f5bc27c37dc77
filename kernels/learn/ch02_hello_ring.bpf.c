// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: the files that are opened, through a ring buffer. What finds no room is counted. */
#include "learn.h"

struct opened {
	__u32 pid;
	char command[16];
	char path[256];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} output SEC(".maps") EVENT(opened);

CARRIES(opened);
DROP_COUNTER_OF(output);

SEC("tp/syscalls/sys_enter_openat")
int hello_file(struct syscall_enter *ctx)
{
	struct opened *event = RESERVE(output, struct opened);

	if (!event)
		return 0;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	if (bpf_probe_read_user_str(event->path, sizeof(event->path), (void *) ctx->args[1]) < 0)
		event->path[0] = 0;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
