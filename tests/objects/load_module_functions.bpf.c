// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program that calls functions of the module nf_conntrack (Linux 6.0), and one that traces a function of it. */
#include "bpf_min.h"

struct xdp_md {
	__u32 data;
};

struct bpf_sock_tuple {
	__u32 saddr, daddr;
	__u16 sport, dport;
};

struct bpf_ct_opts {
	__s32 netns_id, error;
	__u8 l4proto, dir, reserved[2];
};

struct nf_conn { /* a mere declaration is no struct: the function's type would be another */
	unsigned long status;
};

extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *context, struct bpf_sock_tuple *tuple, __u32 tuple_size,
					 struct bpf_ct_opts *options, __u32 options_size) __ksym;
extern void bpf_ct_release(struct nf_conn *connection) __ksym;

__u8 protocol;
__u64 lookups;

SEC("xdp")
int look_up(struct xdp_md *context)
{
	struct bpf_sock_tuple tuple = {.saddr = 1, .daddr = 2, .sport = 3, .dport = 4};
	struct bpf_ct_opts options = {.netns_id = -1, .l4proto = protocol};
	struct nf_conn *connection = bpf_xdp_ct_lookup(context, &tuple, sizeof(tuple), &options, sizeof(options));

	if (connection) {
		bpf_ct_release(connection);
		return 0;
	}
	return -options.error;
}

SEC("?fentry/nf_conntrack:nf_conntrack_find_get")
int on_lookup(void *context)
{
	lookups += 1;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
