// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* TCP congestion controls: one registered by its value, two that take turns in one link, one only on demand. */
#include "bpf_min.h"

struct sock;

/* Another order than the kernel's, one member that no kernel has, and only those that are needed. */
struct tcp_congestion_ops___mine {
	char name[16];
	__u32 flags;
	__u32 no_such_number;
	void (*no_such_function)(struct sock *sk);
	__u32 (*undo_cwnd)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*ssthresh)(struct sock *sk);
	void (*init)(struct sock *sk);
};

__u64 started_plain, started_first, started_second, started_spare;

SEC("struct_ops/init")
void start_plain(__u64 *context)
{
	started_plain += 1;
}

SEC("struct_ops/init")
void start_first(__u64 *context)
{
	started_first += 1;
}

SEC("struct_ops/init")
void start_second(__u64 *context)
{
	started_second += 1;
}

SEC("struct_ops/init")
void start_spare(__u64 *context)
{
	started_spare += 1;
}

SEC("struct_ops")
__u32 threshold(__u64 *context)
{
	return 2;
}

SEC("struct_ops")
void avoid(__u64 *context)
{
}

SEC("struct_ops")
__u32 undo(__u64 *context)
{
	return 10;
}

#define COMMON .ssthresh = (void *)threshold, .cong_avoid = (void *)avoid, .undo_cwnd = (void *)undo

SEC(".struct_ops")
struct tcp_congestion_ops___mine plain = { COMMON, .init = (void *)start_plain, .name = "pybpf_plain" };

SEC("?.struct_ops.link")
struct tcp_congestion_ops___mine first = { COMMON, .init = (void *)start_first, .name = "pybpf_link" };

SEC("?.struct_ops.link")
struct tcp_congestion_ops___mine second = { COMMON, .init = (void *)start_second, .name = "pybpf_link" };

SEC("?.struct_ops")
struct tcp_congestion_ops___mine spare = { COMMON, .init = (void *)start_spare, .name = "pybpf_spare" };

char LICENSE[] SEC("license") = "GPL";
