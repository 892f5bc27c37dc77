// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 9: a hook of the Linux security modules sees each file that one user opens, and may deny it. */
#include "learn.h"

struct access {
	__u32 pid;
	__u32 uid;
	char command[16];
	char path[128];
	bool denied;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} output SEC(".maps") EVENT(access);

CARRIES(access);
DROP_COUNTER_OF(output);

SETTING __u32 only_uid = 0;
SETTING char forbidden[128] = ""; /* a path; the whole path must agree */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct path {
	void *dentry;
};
struct file {
	struct path f_path;
};
#pragma clang attribute pop

SEC("lsm/file_open")
int file_open(__u64 *ctx)
{
	struct file *file = (void *) ctx[0];
	__u32 uid = bpf_get_current_uid_gid();

	if (uid != only_uid)
		return 0;
	struct access *event = RESERVE(output, struct access);

	if (!event)
		return 0;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->uid = uid;
	bpf_get_current_comm(event->command, sizeof(event->command));
	if (bpf_d_path((void *) &file->f_path, event->path, sizeof(event->path)) < 0)
		event->path[0] = 0;
	event->denied = forbidden[0] != 0;
	for (__u32 i = 0; i < sizeof(forbidden); i++) {
		if (event->path[i] != forbidden[i]) {
			event->denied = false;
			break;
		}
		if (!forbidden[i])
			break;
	}
	int result = event->denied ? -EPERM : 0;
	bpf_ringbuf_submit(event, 0);
	return result;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
