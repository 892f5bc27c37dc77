// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: an event for each program that is started, through a perf buffer. */
#include "learn.h"

struct hello {
	__u32 pid;
	__u32 uid;
	char command[16];
	char message[12];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} output SEC(".maps") EVENT(hello);

CARRIES(hello);

SEC("tp/syscalls/sys_enter_execve")
int hello(void *ctx)
{
	struct hello event = {.message = "Hello World"};

	event.pid = bpf_get_current_pid_tgid() >> 32;
	event.uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event.command, sizeof(event.command));
	bpf_perf_event_output(ctx, &output, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
