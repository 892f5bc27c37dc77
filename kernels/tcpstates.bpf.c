// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every change of a TCP socket's state, with its addresses and the time spent in the state before. */
#include "vmlinux.h"
#include "bpf_helpers.h"

#define AF_INET 2
#define IPPROTO_TCP 6

enum tcp_state {
	ESTABLISHED = 1,
	SYN_SENT,
	SYN_RECV,
	FIN_WAIT1,
	FIN_WAIT2,
	TIME_WAIT,
	CLOSE,
	CLOSE_WAIT,
	LAST_ACK,
	LISTEN,
	CLOSING,
	NEW_SYN_RECV,
};

struct tcpstate {
	__u64 duration_us; /* in the old state; 0 when it is not known */
	__u32 pid;         /* of the task that was running, often not the socket's owner */
	char comm[16];
	__u16 family;      /* 2 for IPv4, 10 for IPv6 */
	__u16 local_port;
	__u16 remote_port;
	unsigned char local_address[16];  /* an IPv4 address fills the first four bytes */
	unsigned char remote_address[16];
	enum tcp_state old_state;
	enum tcp_state new_state;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 10240);
	__type(key, __u64);
	__type(value, __u64);
} entered_at SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps") EVENT(tcpstate);

CARRIES(tcpstate);
DROP_COUNTER;

/* Report only sockets with this local or remote port; 0 for all. */
SETTING __u16 only_port = 0;

SEC("raw_tp/inet_sock_set_state")
int on_state_change(__u64 *ctx)
{
	struct sock *sk = (void *) ctx[0];
	__u64 key = (__u64) sk, now = bpf_ktime_get_ns();
	int new_state = ctx[2];

	if (READ_FIELD(sk, sk_protocol) != IPPROTO_TCP)
		return 0;
	__u16 local_port = READ_FIELD(sk, __sk_common.skc_num);
	__u16 remote_port = bpf_ntohs(READ_FIELD(sk, __sk_common.skc_dport));
	if (only_port && local_port != only_port && remote_port != only_port)
		return 0;

	__u64 *since = bpf_map_lookup_elem(&entered_at, &key);
	__u64 duration = since ? (now - *since) / 1000 : 0;
	if (new_state == CLOSE)
		bpf_map_delete_elem(&entered_at, &key);
	else
		bpf_map_update_elem(&entered_at, &key, &now, BPF_ANY);

	struct tcpstate *event = RESERVE(events, struct tcpstate);

	if (!event)
		return 0;
	__builtin_memset(event, 0, sizeof(*event));
	event->duration_us = duration;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	event->family = READ_FIELD(sk, __sk_common.skc_family);
	event->local_port = local_port;
	event->remote_port = remote_port;
	event->old_state = ctx[1];
	event->new_state = new_state;
	if (event->family == AF_INET) {
		bpf_core_read(event->local_address, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(event->remote_address, 4, &sk->__sk_common.skc_daddr);
	} else {
		bpf_core_read(event->local_address, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(event->remote_address, 16, &sk->__sk_common.skc_v6_daddr);
	}
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
