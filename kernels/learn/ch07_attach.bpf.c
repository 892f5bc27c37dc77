// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 7: six ways to see that a program is started, each with its own context. */
#include "learn.h"

struct started {
	char how[16];
	__u32 pid;
	char command[16];
	char path[64];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} output SEC(".maps") EVENT(started);

CARRIES(started);
DROP_COUNTER_OF(output);

static __always_inline struct started *new_event(const char how[16])
{
	struct started *event = RESERVE(output, struct started);

	if (!event)
		return NULL;
	__builtin_memcpy(event->how, how, sizeof(event->how));
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->command, sizeof(event->command));
	event->path[0] = 0;
	return event;
}

static __always_inline int tell_kernel(const char how[16], const char *path)
{
	struct started *event = new_event(how);

	if (!event)
		return 0;
	bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline int tell_user(const char how[16], const char *path)
{
	struct started *event = new_event(how);

	if (!event)
		return 0;
	bpf_probe_read_user_str(event->path, sizeof(event->path), path);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig;

/* A system call's function gets a pointer to the registers of the process, on most machines. */
SEC("?ksyscall/execve")
int at_ksyscall(void *ctx)
{
	static const char how[16] = "ksyscall";
	void *registers = LINUX_HAS_SYSCALL_WRAPPER ? (void *) argument(ctx, 0) : ctx;

	return tell_user(how, (void *) syscall_argument(registers));
}

/* A kernel function: its arguments are in the registers, untyped. */
SEC("?kprobe/security_bprm_check")
int at_kprobe(void *ctx)
{
	static const char how[16] = "kprobe";
	struct linux_binprm *binary = (void *) argument(ctx, 0);

	return tell_kernel(how, READ_FIELD(binary, filename));
}

/* The same function by a trampoline: arguments have types, pointers can be followed. */
SEC("?fentry/security_bprm_check")
int at_fentry(__u64 *ctx)
{
	static const char how[16] = "fentry";
	struct linux_binprm *binary = (void *) ctx[0];

	return tell_kernel(how, binary->filename);
}

/* A tracepoint of the system call: its layout is in tracefs, events/syscalls/sys_enter_execve/format. */
SEC("?tp/syscalls/sys_enter_execve")
int at_tracepoint(struct syscall_enter *ctx)
{
	static const char how[16] = "tracepoint";

	return tell_user(how, (void *) ctx->args[0]);
}

/* A raw tracepoint: the arguments of the kernel's own call, as numbers. */
SEC("?raw_tp/sched_process_exec")
int at_raw_tracepoint(struct bpf_raw_tracepoint_args *ctx)
{
	static const char how[16] = "raw_tp";
	struct linux_binprm *binary = (void *) ctx->args[2];

	return tell_kernel(how, READ_FIELD(binary, filename));
}

/* The same, with types: ctx is an array of arguments, not the struct of the formatted tracepoint. */
SEC("?tp_btf/sched_process_exec")
int at_typed_tracepoint(__u64 *ctx)
{
	static const char how[16] = "tp_btf";
	struct linux_binprm *binary = (void *) ctx[2];

	return tell_kernel(how, binary->filename);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
