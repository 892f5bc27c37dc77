// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: the files that are opened, in the trace log. */
#include "learn.h"

SEC("tp/syscalls/sys_enter_openat")
int hello_file(struct syscall_enter *ctx)
{
	char command[16], path[256];

	bpf_get_current_comm(command, sizeof(command));
	/* The path lies in the memory of the process: it is copied before it is printed. */
	if (bpf_probe_read_user_str(path, sizeof(path), (void *) ctx->args[1]) < 0)
		return 0;
	bpf_printk("File %s", path); /* before Linux 5.13 a line takes one string */
	bpf_printk("     opened by: %s", command);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
