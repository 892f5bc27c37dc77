// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Chapter 5: compile once, run everywhere. The path of each program that is started, and the process that started it:
 * the fields of the kernel's structs are found when the object is loaded, by their names.
 */
#include "learn.h"

struct message {
	char text[16];
};

struct started {
	__u32 pid;
	__u32 parent;
	__u32 uid;
	char command[16];
	char path[64];
	struct message message;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct message);
} my_config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} output SEC(".maps") EVENT(started);

CARRIES(started);
DROP_COUNTER_OF(output);

struct message message = {"Hello World"};

SEC("raw_tp/sched_process_exec")
int hello(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *) ctx->args[0];
	struct linux_binprm *binary = (void *) ctx->args[2];
	__u32 uid = bpf_get_current_uid_gid();
	struct started *event = RESERVE(output, struct started);

	if (!event)
		return 0;
	event->pid = READ_FIELD(task, tgid);
	event->parent = READ_FIELD(READ_FIELD(task, real_parent), tgid);
	event->uid = uid;
	bpf_get_current_comm(event->command, sizeof(event->command));
	bpf_probe_read_kernel_str(event->path, sizeof(event->path), READ_FIELD(binary, filename));

	struct message *own = bpf_map_lookup_elem(&my_config, &uid); /* before Linux 5.12 keys are on the stack */
	event->message = own ? *own : message;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
