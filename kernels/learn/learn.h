/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the examples of docs/learn/examples need beside vmlinux.h and bpf_helpers.h. */
#pragma once

#include "vmlinux.h"
#include "bpf_helpers.h"

/* A line in the trace log, with up to three values. Every process that reads the log sees it. */
#define bpf_printk(format, ...) ({ \
	static const char format_[] = format; \
	bpf_trace_printk(format_, sizeof(format_), ##__VA_ARGS__); \
})

enum {
	BPF_MAP_TYPE_PROG_ARRAY = 3,
};

#define AF_INET 2
#define ETH_P_IP 0x0800
#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define ICMP_ECHOREPLY 0
#define ICMP_ECHO 8
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define EPERM 1

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

/* What the tracepoints of system calls hand to a program; the layout is that of their format files. */
struct syscall_enter {
	__u64 common;
	__s64 number;
	__u64 args[6];
};

/* Where each machine keeps the arguments and the result of a function. Those that this machine lacks are never reached. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct pt_regs___x86 {
	unsigned long di, si, dx, cx, ax;
};
struct pt_regs___arm64 {
	__u64 regs[31];
};
struct pt_regs___s390 {
	unsigned long gprs[16];
	unsigned long orig_gpr2;
};
#pragma clang attribute pop

/* The first (0) to fourth (3) argument of the function that a probe sits at the start of. */
static __always_inline __u64 argument(void *registers, int number)
{
	struct pt_regs___x86 *x86 = registers;
	struct pt_regs___arm64 *arm64 = registers;
	struct pt_regs___s390 *s390 = registers;
	__u64 value = 0;

	if (bpf_core_field_exists(x86->di))
		bpf_core_read(&value, sizeof(value),
			number == 0 ? &x86->di : number == 1 ? &x86->si : number == 2 ? &x86->dx : &x86->cx);
	else if (bpf_core_field_exists(arm64->regs))
		bpf_core_read(&value, sizeof(value), &arm64->regs[number]);
	else if (bpf_core_field_exists(s390->gprs))
		bpf_core_read(&value, sizeof(value), &s390->gprs[2 + number]);
	return value;
}

/* The first argument of a system call, from the registers that the process had. */
static __always_inline __u64 syscall_argument(void *registers)
{
	struct pt_regs___s390 *s390 = registers;
	__u64 value = 0;

	if (!bpf_core_field_exists(s390->orig_gpr2))
		return argument(registers, 0);
	bpf_core_read(&value, sizeof(value), &s390->orig_gpr2); /* gprs[2] is for the result */
	return value;
}

/* The result of the function that a probe sits at the return of. */
static __always_inline __u64 result(void *registers)
{
	struct pt_regs___x86 *x86 = registers;
	__u64 value = 0;

	if (!bpf_core_field_exists(x86->ax))
		return argument(registers, 0); /* the same register */
	bpf_core_read(&value, sizeof(value), &x86->ax);
	return value;
}

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

struct iphdr {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u8 ihl : 4, version : 4;
#else
	__u8 version : 4, ihl : 4;
#endif
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 checksum;
	__be16 id;
	__be16 sequence;
};

struct udphdr {
	__be16 source;
	__be16 dest;
	__be16 len;
	__u16 check;
};

/* The IPv4 header of a packet, whole and with its options, or NULL. */
static __always_inline struct iphdr *ipv4_header(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	struct iphdr *ip = (void *) (ethernet + 1);

	if ((void *) (ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || ip->ihl < 5)
		return NULL;
	return ip;
}

/* The ICMP header of a packet that asks for an echo, or NULL. Options of the IPv4 header are stepped over. */
static __always_inline struct icmphdr *echo_request(void *data, void *end)
{
	struct iphdr *ip = ipv4_header(data, end);

	if (!ip || ip->protocol != IPPROTO_ICMP)
		return NULL;
	struct icmphdr *icmp = (void *) ip + ip->ihl * 4;
	if ((void *) (icmp + 1) > end || icmp->type != ICMP_ECHO)
		return NULL;
	return icmp;
}
