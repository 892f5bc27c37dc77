// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Packets and bytes by Ethernet protocol, counted before the network stack sees them. Needs --interface. */
#include "vmlinux.h"
#include "bpf_helpers.h"

struct total {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 256);
	__type(key, __u16);
	__type(value, struct total);
} protocols SEC(".maps");

SEC("xdp")
int xdp_count(struct xdp_md *ctx)
{
	void *start = (void *) (long) ctx->data;
	void *end = (void *) (long) ctx->data_end;
	struct ethhdr *header = start;

	if ((void *) (header + 1) > end)
		return XDP_PASS;
	__u16 protocol = bpf_ntohs(header->h_proto);
	struct total *total = bpf_map_lookup_elem(&protocols, &protocol);
	if (!total) {
		struct total none = {};
		bpf_map_update_elem(&protocols, &protocol, &none, BPF_NOEXIST);
		total = bpf_map_lookup_elem(&protocols, &protocol);
		if (!total)
			return XDP_PASS;
	}
	total->packets += 1;
	total->bytes += end - start;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
