/* struct_ops: one that is registered, one with a link, one that is optional. */
#include "bpf_min.h"

struct sock;

struct tcp_congestion_ops___mine {
	void (*init)(struct sock *sk);
	__u32 (*ssthresh)(struct sock *sk);
	void (*cong_avoid)(struct sock *sk, __u32 ack, __u32 acked);
	__u32 (*undo_cwnd)(struct sock *sk);
	char name[16];
};

SEC("struct_ops/init")
void start(__u64 *context)
{
}

SEC("struct_ops")
__u32 threshold(__u64 *context)
{
	return 2;
}

SEC("struct_ops.s/undo")
__u32 undo(__u64 *context)
{
	return 3;
}

SEC(".struct_ops")
struct tcp_congestion_ops___mine plain = {
	.init = (void *)start,
	.ssthresh = (void *)threshold,
	.name = "plain",
};

SEC(".struct_ops.link")
struct tcp_congestion_ops___mine linked = {
	.ssthresh = (void *)threshold,
	.undo_cwnd = (void *)undo,
	.name = "linked",
};

SEC("?.struct_ops.link")
struct tcp_congestion_ops___mine optional = {
	.undo_cwnd = (void *)undo,
	.name = "optional",
};

char LICENSE[] SEC("license") = "GPL";
