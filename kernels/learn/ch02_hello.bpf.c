// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 2: a line in the trace log for each program that is started, from a kprobe or from a tracepoint. */
#include "learn.h"

SEC("?ksyscall/execve")
int hello_kprobe(void *ctx)
{
	bpf_printk("Hello World!");
	return 0;
}

SEC("?tp/syscalls/sys_enter_execve")
int hello_tracepoint(void *ctx)
{
	bpf_printk("Hello World!");
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
