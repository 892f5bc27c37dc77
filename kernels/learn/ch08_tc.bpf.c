// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 8: three programs for traffic control: drop everything, drop echo requests, or answer them on the spot. */
#include "learn.h"

#define IP_OFFSET sizeof(struct ethhdr)
#define SOURCE (IP_OFFSET + __builtin_offsetof(struct iphdr, saddr))
#define DESTINATION (IP_OFFSET + __builtin_offsetof(struct iphdr, daddr))

__u64 seen = 0;
__u64 answered = 0;

SEC("tc")
int tc_drop(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&seen, 1);
	return TC_ACT_SHOT;
}

SEC("tc")
int tc_drop_ping(struct __sk_buff *skb)
{
	void *data = (void *) (long) skb->data, *end = (void *) (long) skb->data_end;

	if (!echo_request(data, end))
		return TC_ACT_OK;
	__sync_fetch_and_add(&seen, 1);
	return TC_ACT_SHOT;
}

static __always_inline void swap(struct __sk_buff *skb, __u32 one, __u32 other, __u32 size)
{
	unsigned char a[6], b[6];

	bpf_skb_load_bytes(skb, one, a, size);
	bpf_skb_load_bytes(skb, other, b, size);
	bpf_skb_store_bytes(skb, one, b, size, 0);
	bpf_skb_store_bytes(skb, other, a, size, 0);
}

SEC("tc")
int tc_pingpong(struct __sk_buff *skb)
{
	void *data = (void *) (long) skb->data, *end = (void *) (long) skb->data_end;
	struct icmphdr *icmp = echo_request(data, end);
	__u8 reply = ICMP_ECHOREPLY;

	if (!icmp)
		return TC_ACT_OK;
	__sync_fetch_and_add(&seen, 1);
	__u32 offset = (void *) icmp - data;

	swap(skb, 0, 6, 6); /* the addresses of Ethernet */
	swap(skb, SOURCE, DESTINATION, 4); /* the checksum of IP stays: the same words in another order */
	/* The type is the first byte of its word on the wire, whatever the byte order of the machine. */
	bpf_l4_csum_replace(skb, offset + __builtin_offsetof(struct icmphdr, checksum), bpf_htons(ICMP_ECHO << 8),
			    bpf_htons(ICMP_ECHOREPLY << 8), sizeof(__u16));
	bpf_skb_store_bytes(skb, offset + __builtin_offsetof(struct icmphdr, type), &reply, sizeof(reply), 0);
	__sync_fetch_and_add(&answered, 1);
	return bpf_redirect(skb->ifindex, 0); /* out where it came in; no copy is made */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
