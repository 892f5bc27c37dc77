// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: tail calls. One program sees every system call and jumps to the program of its number. */
#include "learn.h"

enum what {
	ANOTHER_CALL,
	EXECUTING,
	TIMER_CREATED,
	TIMER_DELETED,
	TIMER_USED,
};

struct seen {
	__u32 pid;
	__u32 number;
	char command[16];
	enum what what;
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 500);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} syscalls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} output SEC(".maps") EVENT(seen);

CARRIES(seen);
DROP_COUNTER_OF(output);

/* The numbers of these system calls differ from machine to machine. */
SETTING __u32 timer_create = 0;
SETTING __u32 timer_delete = 0;

static __always_inline int tell(struct bpf_raw_tracepoint_args *ctx, enum what what)
{
	struct seen *event = RESERVE(output, struct seen);

	if (!event)
		return 0;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->number = ctx->args[1];
	event->what = what;
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("raw_tp/sys_enter")
int hello(struct bpf_raw_tracepoint_args *ctx)
{
	bpf_tail_call(ctx, &syscalls, ctx->args[1]);
	/* Only reached when the array has no program there. */
	return tell(ctx, ANOTHER_CALL);
}

SEC("raw_tp")
int hello_exec(struct bpf_raw_tracepoint_args *ctx)
{
	return tell(ctx, EXECUTING);
}

SEC("raw_tp")
int hello_timer(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[1] == timer_create)
		return tell(ctx, TIMER_CREATED);
	if (ctx->args[1] == timer_delete)
		return tell(ctx, TIMER_DELETED);
	return tell(ctx, TIMER_USED);
}

SEC("raw_tp")
int ignore(struct bpf_raw_tracepoint_args *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
