// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Hello, world: one event for each program that is started. The first program of most books on eBPF. */
#include "vmlinux.h"
#include "bpf_helpers.h"

struct hello {
	__u32 pid;
	__u32 uid;
	char comm[16];
	char message[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} greetings SEC(".maps") EVENT(hello);

CARRIES(hello);
DROP_COUNTER;

char message[16] = "Hello World";

SEC("raw_tp/sched_process_exec")
int hello(void *ctx)
{
	struct hello *event = bpf_ringbuf_reserve(&greetings, sizeof(*event), 0);
	if (!event) {
		COUNT_DROP();
		return 0;
	}
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	__builtin_memcpy(event->message, message, sizeof(event->message));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
