// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program for each section of networking and of cgroups. Each counts its runs, and answers what it is told to. */
#include "bpf_min.h"

#define BPF_MAP_TYPE_DEVMAP 14
#define BPF_MAP_TYPE_CPUMAP 16

static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;

const volatile int answer = 0;
__u64 ran;

#define ROW(section, name) \
	SEC("?" section) \
	int name(void *ctx) \
	{ \
		__sync_fetch_and_add(&ran, 1); \
		return answer; \
	}

ROW("socket", socket)
ROW("sk_reuseport/migrate", sk_reuseport_migrate)
ROW("sk_reuseport", sk_reuseport)
ROW("tc/ingress", tc_ingress)
ROW("tc/egress", tc_egress)
ROW("tcx/ingress", tcx_ingress)
ROW("tcx/egress", tcx_egress)
ROW("tc", tc)
ROW("classifier", classifier)
ROW("action", action)
ROW("netkit/primary", netkit_primary)
ROW("netkit/peer", netkit_peer)
ROW("syscall", syscall)
ROW("xdp.frags", xdp_frags)
ROW("xdp", xdp)
ROW("lwt_in", lwt_in)
ROW("lwt_out", lwt_out)
ROW("lwt_xmit", lwt_xmit)
ROW("lwt_seg6local", lwt_seg6local)
ROW("sockops", sockops)
ROW("sk_skb/stream_verdict", sk_skb_stream_verdict)
ROW("sk_skb/verdict", sk_skb_verdict)
ROW("sk_skb", sk_skb)
ROW("sk_msg", sk_msg)
ROW("lirc_mode2", lirc_mode2)
ROW("flow_dissector", flow_dissector)
ROW("cgroup_skb/ingress", cgroup_skb_ingress)
ROW("cgroup_skb/egress", cgroup_skb_egress)
ROW("cgroup/skb", cgroup_skb)
ROW("cgroup/sock_create", cgroup_sock_create)
ROW("cgroup/sock_release", cgroup_sock_release)
ROW("cgroup/sock", cgroup_sock)
ROW("cgroup/post_bind4", cgroup_post_bind4)
ROW("cgroup/post_bind6", cgroup_post_bind6)
ROW("cgroup/bind4", cgroup_bind4)
ROW("cgroup/bind6", cgroup_bind6)
ROW("cgroup/connect4", cgroup_connect4)
ROW("cgroup/connect6", cgroup_connect6)
ROW("cgroup/connect_unix", cgroup_connect_unix)
ROW("cgroup/sendmsg4", cgroup_sendmsg4)
ROW("cgroup/sendmsg6", cgroup_sendmsg6)
ROW("cgroup/sendmsg_unix", cgroup_sendmsg_unix)
ROW("cgroup/recvmsg4", cgroup_recvmsg4)
ROW("cgroup/recvmsg6", cgroup_recvmsg6)
ROW("cgroup/recvmsg_unix", cgroup_recvmsg_unix)
ROW("cgroup/getpeername4", cgroup_getpeername4)
ROW("cgroup/getpeername6", cgroup_getpeername6)
ROW("cgroup/getpeername_unix", cgroup_getpeername_unix)
ROW("cgroup/getsockname4", cgroup_getsockname4)
ROW("cgroup/getsockname6", cgroup_getsockname6)
ROW("cgroup/getsockname_unix", cgroup_getsockname_unix)
ROW("cgroup/sysctl", cgroup_sysctl)
ROW("cgroup/getsockopt", cgroup_getsockopt)
ROW("cgroup/setsockopt", cgroup_setsockopt)
ROW("cgroup/dev", cgroup_dev)
ROW("sk_lookup", sk_lookup)
ROW("netfilter", netfilter)

/* The parser says how long a message is: here all that has arrived. */
struct __sk_buff {
	__u32 len;
};

SEC("?sk_skb/stream_parser")
int sk_skb_stream_parser(struct __sk_buff *skb)
{
	__sync_fetch_and_add(&ran, 1);
	return skb->len;
}

/* A decoder: a pulse of more than 2 ms is a key, whose scan code is the pulse's length in units of 256 us. */
static long (*const bpf_rc_keydown)(void *ctx, __u32 protocol, __u64 scancode, __u32 toggle) = (void *)78;

#define LIRC_MODE2_MASK 0xFF000000
#define LIRC_MODE2_PULSE 0x01000000
#define PROTOCOL 64 /* the kernel's own are below that */

SEC("?lirc_mode2")
int lirc_decoder(__u32 *sample)
{
	__u32 length = *sample & ~LIRC_MODE2_MASK;

	__sync_fetch_and_add(&ran, 1);
	if ((*sample & LIRC_MODE2_MASK) == LIRC_MODE2_PULSE && length > 2000)
		bpf_rc_keydown(sample, PROTOCOL, length >> 8, 0);
	return 0;
}

/* Programs that packets are handed on to, and the one that hands them on. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 8);
} processors SEC(".maps");

ROW("xdp/devmap", xdp_devmap)
ROW("xdp.frags/devmap", xdp_frags_devmap)
ROW("xdp/cpumap", xdp_cpumap)
ROW("xdp.frags/cpumap", xdp_frags_cpumap)

SEC("?xdp")
int to_device(void *ctx)
{
	return bpf_redirect_map(&devices, 0, 0);
}

SEC("?xdp")
int to_processor(void *ctx)
{
	return bpf_redirect_map(&processors, 0, 0);
}

SEC("?xdp.frags")
int frags_to_device(void *ctx)
{
	return bpf_redirect_map(&devices, 0, 0);
}

SEC("?xdp.frags")
int frags_to_processor(void *ctx)
{
	return bpf_redirect_map(&processors, 0, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
