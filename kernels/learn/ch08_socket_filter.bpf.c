// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 8: a filter on a packet socket. It copies TCP packets to user space, and counts the rest by protocol. */
#include "learn.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} protocols SEC(".maps");

SEC("socket")
int socket_filter(struct __sk_buff *skb)
{
	__u8 protocol = 0;
	__u32 key;

	if (skb->protocol != bpf_htons(ETH_P_IP))
		return 0;
	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr) + __builtin_offsetof(struct iphdr, protocol), &protocol, 1))
		return 0;
	key = protocol;
	__u64 *count = bpf_map_lookup_elem(&protocols, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return protocol == IPPROTO_TCP ? skb->len : 0; /* how many bytes of the packet the socket gets */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
