/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every kind of CO-RE relocation against types of the running kernel. The types here are fragments, in an order and
 * with sizes of their own: only the names have to be the kernel's. */
#include "core.h"

struct list_head {
	struct list_head *prev, *next; /* the kernel has them the other way round */
} CORE;

struct pid_link___gone {
	int number;
} CORE;

struct cred {
	struct {
		u32 val;
	} euid, uid;
} CORE;

struct signal_struct {
	struct {
		u64 rlim_max, rlim_cur;
	} rlim[16];
	int nr_threads;
	unsigned int is_child_subreaper : 1;
	unsigned int has_child_subreaper : 1;
} CORE;

struct task_struct {
	int tgid;
	int pid;
	char comm[16];
	struct task_struct *real_parent;
	const struct cred *cred;
	struct signal_struct *signal;
	struct list_head tasks;
	u64 flags; /* 32 bits in the kernel */
	s64 prio; /* signed and 32 bits in the kernel: a load cannot be adjusted */
	u64 start_time;
	unsigned char policy; /* wider in the kernel */
	unsigned in_execve : 1;
	unsigned in_iowait : 1;
	unsigned sched_reset_on_fork : 1;
	unsigned no_cgroup_migration : 1;
	unsigned long no_such_field;
} CORE;

/* The same struct as other kernels have it. */
struct task_struct___old {
	long state;
} CORE;
struct task_struct___new {
	unsigned int __state;
} CORE;

struct sk_buff {
	u32 len;
	u16 protocol;
	unsigned char *head, *data;
	u8 pkt_type : 3;
	u8 cloned : 1;
	u8 ip_summed : 2;
	u8 l4_hash : 1;
	u32 hash;
	char cb[48];
} CORE;

struct tcp_sock {
	u8 repair : 1;
	u8 thin_lto : 1;
	u8 is_sack_reneg : 1;
	u32 snd_cwnd;
	u32 srtt_us;
} CORE;

struct iphdr {
	u8 version : 4;
	u8 ihl : 4;
	u8 ttl;
	u32 saddr, daddr;
} CORE;

struct tcphdr {
	u16 fin : 1, syn : 1, ack : 1, doff : 4;
	u16 source, dest;
} CORE;

struct sock_common {
	u16 skc_dport;
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_family;
	unsigned char skc_reuse : 4;
	unsigned char skc_ipv6only : 1;
} CORE;
struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	u16 sk_type;
} CORE;

struct file {
	struct {
		struct qstr_fragment *mnt, *dentry;
	} f_path;
	long long f_pos;
	u32 f_mode;
} CORE;

struct bpf_map_memory___nowhere {
	int pages;
} CORE;
union sigval___x {
	int sival_int;
	void *sival_ptr;
} CORE;

struct pt_regs {
	u64 ip, sp;
} CORE;

/* Enumerations: one as the kernel has it, one with a flavor and other numbers, one unknown. */
enum pid_type {
	PIDTYPE_TGID = 70,
	PIDTYPE_PID = 71,
	PIDTYPE_NEVER = 72,
};
enum bpf_map_type___mine {
	BPF_MAP_TYPE_RINGBUF___mine = 5,
	BPF_MAP_TYPE_HASH = 9,
	BPF_MAP_TYPE_SURELY_NOT = 10,
};
enum no_such_enum {
	NO_SUCH_VALUE = 3,
};
enum bpf_link_type {
	BPF_LINK_TYPE_XDP = 0x100000001ULL, /* makes it a 64-bit one here */
	BPF_LINK_TYPE_ITER = 0x200000002ULL,
};
enum tcp_ca_state {
	TCP_CA_Open = -5,
	TCP_CA_Loss = -6,
};

typedef u64 size_t;
typedef struct {
	int counter;
} atomic_t;
typedef struct {
	s64 counter;
} atomic64_t;
typedef u32 no_such_typedef;
typedef int (*initcall_t)(void);
typedef void (*ctor_fn_t)(void);

struct rb_node {
	unsigned long __rb_parent_color;
	struct rb_node *rb_left;
} CORE;
struct hlist_node {
	struct hlist_node *next, **pprev;
} CORE;
struct callback_head {
	struct callback_head *next;
	void (*func)(struct callback_head *);
} CORE;
struct timespec64 {
	s64 tv_sec;
	int tv_nsec; /* long in the kernel: no match */
} CORE;

SEC("core/offsets")
int offsets(struct task_struct *task)
{
	put(task->pid);
	put(task->tgid);
	put(task->start_time);
	put(task->real_parent->real_parent->pid);
	put(task->cred->uid.val);
	put(task->cred->euid.val);
	put(task->comm[3]);
	put(&task->comm);
	put(&task->comm[15]);
	put(task->signal->nr_threads);
	put(task->signal->rlim[7].rlim_cur);
	put(task->signal->rlim[7].rlim_max);
	put(task->tasks.next);
	put(&task->tasks.prev);
	put(&task[2].pid);
	return 0;
}

SEC("core/sizes")
int sizes(struct task_struct *task)
{
	put(task->flags);
	put(task->policy);
	put(field_size(task->flags));
	put(field_size(task->comm));
	put(field_size(task->tasks));
	put(field_size(task->comm[1]));
	put(field_size(task->real_parent));
	return 0;
}

SEC("core/poisoned")
int poisoned(struct task_struct *task)
{
	put(task->prio);
	put(task->no_such_field);
	put(field_offset(task->no_such_field));
	put(field_size(task->no_such_field));
	put(field_signed(task->no_such_field));
	put(field_lshift(task->no_such_field));
	put(field_rshift(task->no_such_field));
	put(value_of(enum no_such_enum, NO_SUCH_VALUE));
	put(value_of(enum pid_type, PIDTYPE_NEVER));
	put(((struct pid_link___gone *)task)->number);
	return 0;
}

SEC("core/stores")
int stores(struct task_struct *task)
{
	task->pid = 7;
	task->tgid = (long)task;
	task->start_time = 1;
	task->signal->nr_threads = (long)task;
	return 0;
}

SEC("core/flavors")
int flavors(struct task_struct___old *old)
{
	struct task_struct___new *new = (void *)old;

	put(field_exists(old->state));
	put(field_exists(new->__state));
	if (field_exists(new->__state))
		put(new->__state);
	else
		put(old->state);
	return 0;
}

SEC("core/bitfields")
int bitfields(struct task_struct *task, struct sk_buff *skb, struct tcp_sock *tp)
{
	field_all(task->in_execve);
	field_all(task->in_iowait);
	field_all(task->sched_reset_on_fork);
	field_all(task->no_cgroup_migration);
	field_all(skb->pkt_type);
	field_all(skb->cloned);
	field_all(skb->ip_summed);
	field_all(skb->l4_hash);
	field_all(tp->repair);
	field_all(tp->thin_lto);
	field_all(tp->is_sack_reneg);
	field_all(task->signal->is_child_subreaper);
	field_all(task->signal->has_child_subreaper);
	return 0;
}

SEC("core/headers")
int headers(struct iphdr *ip, struct tcphdr *tcp, struct sock *sk)
{
	field_all(ip->version);
	field_all(ip->ihl);
	field_all(ip->ttl);
	field_all(tcp->fin);
	field_all(tcp->syn);
	field_all(tcp->doff);
	field_all(sk->__sk_common.skc_reuse);
	field_all(sk->__sk_common.skc_ipv6only);
	put(ip->saddr);
	put(ip->daddr);
	put(tcp->dest);
	return 0;
}

SEC("core/fields")
int fields(struct task_struct *task, struct sk_buff *skb, struct tcp_sock *tp, struct sock *sk, struct file *file)
{
	field_all(task->pid);
	field_all(task->flags);
	field_all(skb->len);
	field_all(skb->protocol);
	put(field_size(skb->head));
	field_all(skb->hash);
	field_all(tp->snd_cwnd);
	field_all(tp->srtt_us);
	field_all(sk->__sk_common.skc_family);
	field_all(sk->sk_protocol);
	field_all(file->f_pos);
	field_all(file->f_mode);
	return 0;
}

SEC("core/anonymous")
int anonymous(struct sock *sk, struct sk_buff *skb, struct file *file, struct pt_regs *regs, union sigval___x *value)
{
	put(sk->__sk_common.skc_dport);
	put(sk->__sk_common.skc_daddr);
	put(sk->__sk_common.skc_rcv_saddr);
	put(sk->sk_type);
	put(skb->cb[40]);
	put(skb->data);
	put(file->f_path.dentry);
	put(file->f_path.mnt);
	put(regs->ip);
	put(regs->sp);
	put(value->sival_ptr);
	return 0;
}

SEC("core/types")
int types(void *ctx)
{
	type_all(struct task_struct);
	type_all(struct task_struct___old);
	type_all(struct list_head);
	type_all(struct rb_node);
	type_all(struct hlist_node);
	type_all(struct callback_head);
	type_all(struct timespec64);
	type_all(struct pid_link___gone);
	type_all(struct bpf_map_memory___nowhere);
	type_all(union sigval___x);
	type_all(enum pid_type);
	type_all(enum bpf_map_type___mine);
	type_all(enum bpf_link_type);
	type_all(enum no_such_enum);
	type_all(size_t);
	type_all(atomic_t);
	type_all(atomic64_t);
	type_all(initcall_t);
	type_all(ctor_fn_t);
	type_all(no_such_typedef);
	type_all(u64);
	return 0;
}

SEC("core/values")
int values(void *ctx)
{
	value_all(enum pid_type, PIDTYPE_PID);
	value_all(enum pid_type, PIDTYPE_TGID);
	put(value_exists(enum pid_type, PIDTYPE_NEVER));
	value_all(enum bpf_map_type___mine, BPF_MAP_TYPE_RINGBUF___mine);
	value_all(enum bpf_map_type___mine, BPF_MAP_TYPE_HASH);
	put(value_exists(enum bpf_map_type___mine, BPF_MAP_TYPE_SURELY_NOT));
	put(value_exists(enum no_such_enum, NO_SUCH_VALUE));
	value_all(enum bpf_link_type, BPF_LINK_TYPE_XDP);
	value_all(enum bpf_link_type, BPF_LINK_TYPE_ITER);
	value_all(enum tcp_ca_state, TCP_CA_Open);
	value_all(enum tcp_ca_state, TCP_CA_Loss);
	return 0;
}
