// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapters 3 and 5: a line in the trace log for each packet, and a count of them in a global variable. */
#include "learn.h"

__u64 counter = 0;

SEC("xdp")
int hello(struct xdp_md *ctx)
{
	/* Several CPUs take packets at the same time. (Using the result of this would need Linux 5.12.) */
	__sync_fetch_and_add(&counter, 1);
	bpf_printk("Hello World %d", counter);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
