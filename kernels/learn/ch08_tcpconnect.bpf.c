// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 8: who opens a TCP connection: a kprobe on the kernel's function for it. */
#include "learn.h"

struct connecting {
	__u32 pid;
	__u32 uid;
	char command[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} output SEC(".maps") EVENT(connecting);

CARRIES(connecting);
DROP_COUNTER_OF(output);

SEC("kprobe/tcp_v4_connect")
int tcpconnect(void *ctx)
{
	struct connecting *event = RESERVE(output, struct connecting);

	if (!event)
		return 0;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
