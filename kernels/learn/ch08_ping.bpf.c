// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 8: drop echo requests before the network stack sees them. */
#include "learn.h"

__u64 pings = 0;
bool drop = true; /* user space may change it while the program runs */

SEC("xdp")
int ping(struct xdp_md *ctx)
{
	void *data = (void *) (long) ctx->data, *end = (void *) (long) ctx->data_end;

	if (!echo_request(data, end))
		return XDP_PASS;
	__sync_fetch_and_add(&pings, 1);
	return drop ? XDP_DROP : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
