// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 4: each user has a message of his own, which user space puts into a map. By perf buffer or by ring buffer. */
#include "learn.h"

struct message {
	char text[16];
};

struct greeting {
	__u32 pid;
	__u32 uid;
	char command[16];
	struct message message;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct message);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} perf SEC(".maps") EVENT(greeting);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} ring SEC(".maps") EVENT(greeting);

CARRIES(greeting);
DROP_COUNTER_OF(ring);

static __always_inline void greet(struct greeting *event)
{
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->command, sizeof(event->command));

	struct message *own = bpf_map_lookup_elem(&config, &event->uid);
	if (own)
		event->message = *own;
	else
		event->message = (struct message) {"Hello World"};
}

SEC("?tp/syscalls/sys_enter_execve")
int hello_perf(void *ctx)
{
	struct greeting event = {};

	greet(&event);
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

SEC("?tp/syscalls/sys_enter_execve")
int hello_ring(void *ctx)
{
	struct greeting event = {};

	greet(&event);
	OUTPUT(ring, &event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
