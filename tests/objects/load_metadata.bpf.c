// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* An XDP program that asks its interface's driver about each packet: it must be bound to the interface (Linux 6.3). */
#include "bpf_min.h"

struct xdp_md {
	__u32 data;
};

enum xdp_rss_hash_type {
	XDP_RSS_TYPE_NONE = 0,
};

extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, enum xdp_rss_hash_type *rss_type) __ksym;

__u64 ran;
__u32 hash;
int outcome = -1;

SEC("xdp")
int ask_hash(struct xdp_md *ctx)
{
	enum xdp_rss_hash_type type;
	__u32 found = 0;

	outcome = bpf_xdp_metadata_rx_hash(ctx, &found, &type);
	hash = found;
	__sync_fetch_and_add(&ran, 1);
	return 2; /* XDP_PASS */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
