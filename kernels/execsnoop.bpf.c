// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every program that is executed: who, from where, and with which arguments. */
#include "vmlinux.h"
#include "bpf_helpers.h"

#define ARGUMENTS 256

struct exec {
	__u64 time_ns; /* since boot */
	__u32 pid;
	__u32 ppid;
	__u32 uid;
	__u32 arguments_size; /* of all, of which at most 255 bytes are here */
	char comm[16];
	char filename[128];
	char arguments[ARGUMENTS]; /* separated by a blank */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps") EVENT(exec);

CARRIES(exec);
DROP_COUNTER;

/* Report only this user's programs; -1 for everybody's. */
SETTING __s64 only_uid = -1;

/* Blanks for the NULs of eight characters at once, without a branch: the verifier walks it only once. */
static __always_inline __u64 blank_nuls(__u64 text)
{
	const __u64 low = 0x7f7f7f7f7f7f7f7fULL;
	__u64 nuls = ~(((text & low) + low) | text | low); /* 0x80 where a byte is 0 */

	return text | nuls >> 2;
}

static __always_inline void read_arguments(struct exec *event, struct task_struct *task)
{
	struct mm_struct *mm = READ_FIELD(task, mm);
	unsigned long start = READ_FIELD(mm, arg_start);
	unsigned long size = READ_FIELD(mm, arg_end) - start;
	__u64 *words = (__u64 *) event->arguments;

	event->arguments_size = size;
	if (size > ARGUMENTS - 1)
		size = ARGUMENTS - 1;
	barrier_var(size);
	if (size > ARGUMENTS - 1 || bpf_probe_read_user(event->arguments, size, (const void *) start))
		size = 0;
	/* The strings lie one behind the other, each with its NUL; the last one ends the text. */
	for (int i = 0; i < ARGUMENTS / 8; i++)
		words[i] = blank_nuls(words[i]);
	if (size && event->arguments_size == size)
		size--;
	event->arguments[size & (ARGUMENTS - 1)] = 0;
}

SEC("tp_btf/sched_process_exec")
int execsnoop(__u64 *ctx)
{
	struct task_struct *task = (void *) ctx[0];
	struct linux_binprm *program = (void *) ctx[2];
	__u32 uid = bpf_get_current_uid_gid();

	if (only_uid >= 0 && uid != only_uid)
		return 0;
	struct exec *event = RESERVE(events, struct exec);

	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_boot_ns();
	event->pid = READ_FIELD(task, tgid);
	event->ppid = READ_FIELD(READ_FIELD(task, real_parent), tgid);
	event->uid = uid;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->filename[0] = 0;
	bpf_probe_read_kernel_str(event->filename, sizeof(event->filename), READ_FIELD(program, filename));
	read_arguments(event, task);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
