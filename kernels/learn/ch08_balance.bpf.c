// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Chapter 8: a load balancer in XDP. UDP datagrams to its address go to one of the backends, and the answers go back to
 * the client that asked. The same client port always meets the same backend.
 */
#include "learn.h"

struct host {
	__be32 address;
	unsigned char mac[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct host);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 10240);
	__type(key, __be16); /* the port of the client */
	__type(value, struct host);
} clients SEC(".maps");

SETTING __be32 own_address = 0;
SETTING __u32 backend_count = 1;
__u64 forwarded = 0;
__u64 returned = 0;

static __always_inline bool is_backend(__be32 address)
{
	for (__u32 i = 0; i < 16; i++) {
		__u32 key = i;
		struct host *backend = bpf_map_lookup_elem(&backends, &key);

		if (i < backend_count && backend && backend->address == address)
			return true;
	}
	return false;
}

static __always_inline __u16 ip_checksum(struct iphdr *ip)
{
	__u16 *words = (void *) ip;
	__u32 sum = 0;

	ip->check = 0;
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

SEC("xdp")
int balance(struct xdp_md *ctx)
{
	void *data = (void *) (long) ctx->data, *end = (void *) (long) ctx->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = ipv4_header(data, end);

	if (!ip || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || ip->daddr != own_address)
		return XDP_PASS;
	struct udphdr *udp = (void *) (ip + 1);
	if ((void *) (udp + 1) > end)
		return XDP_PASS;

	struct host *target;
	if (is_backend(ip->saddr)) {
		__be16 port = udp->dest;
		target = bpf_map_lookup_elem(&clients, &port);
		if (!target)
			return XDP_DROP; /* nobody has asked */
		__sync_fetch_and_add(&returned, 1);
	} else {
		__be16 port = udp->source;
		struct host client = {.address = ip->saddr};
		__builtin_memcpy(client.mac, ethernet->h_source, 6);
		bpf_map_update_elem(&clients, &port, &client, BPF_ANY);
		__u32 key = (bpf_ntohl(ip->saddr) ^ bpf_ntohs(port) * 2654435761u) >> 8;
		key %= backend_count;
		target = bpf_map_lookup_elem(&backends, &key);
		if (!target)
			return XDP_ABORTED;
		__sync_fetch_and_add(&forwarded, 1);
	}
	ip->saddr = own_address;
	ip->daddr = target->address;
	__builtin_memcpy(ethernet->h_source, ethernet->h_dest, 6);
	__builtin_memcpy(ethernet->h_dest, target->mac, 6);
	ip->check = ip_checksum(ip);
	udp->check = 0; /* "no checksum", which UDP over IPv4 allows: the old one was over the old addresses */
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
