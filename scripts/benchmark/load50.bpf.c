// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Fifty CO-RE programs, nine maps, globals: what scripts/bench-load loads. Only the first sends an event. */
#include "../../kernels/vmlinux.h"
#include "../../kernels/bpf_helpers.h"

/* Enough of the kernel that each program walks some thirty fields of seventeen structs. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct super_block {
	unsigned long s_magic;
};

struct inode {
	unsigned short i_mode;
	unsigned long i_ino;
	long long i_size;
	struct super_block *i_sb;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct path {
	struct dentry *dentry;
};

struct file {
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
};

struct mm_struct___bench {
	unsigned long start_code;
	unsigned long end_code;
	unsigned long start_stack;
	unsigned long total_vm;
	struct file *exe_file;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	int level;
};

struct cred {
	kuid_t uid;
	kuid_t euid;
	struct user_namespace *user_ns;
};

struct ns_common {
	unsigned int inum;
};

struct new_utsname {
	char nodename[65];
};

struct uts_namespace {
	struct new_utsname name;
	struct ns_common ns;
};

struct net {
	unsigned int ifindex;
	struct ns_common ns;
};

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct net *net_ns;
};

struct fdtable {
	unsigned int max_fds;
};

struct files_struct {
	struct fdtable *fdt;
};

struct signal_struct {
	int nr_threads;
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct task_struct___bench {
	int prio;
	unsigned int policy;
	__u64 start_time;
	__u64 utime;
	__u64 stime;
	struct sched_entity se;
	struct mm_struct___bench *mm;
	struct cred *cred;
	struct nsproxy *nsproxy;
	struct files_struct *files;
	struct signal_struct *signal;
};

#pragma clang attribute pop

struct event {
	__u64 time_ns;
	__u32 pid;
	__u32 ppid;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps") EVENT(event);
CARRIES(event);

#define HASH(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1024); \
		__type(key, __u32); \
		__type(value, __u64); \
	} name SEC(".maps")

HASH(map1);
HASH(map2);
HASH(map3);
HASH(map4);
HASH(map5);
HASH(map6);
HASH(map7);
HASH(map8);

SETTING __u32 only_pid = 0;
__u64 calls = 0;

static __always_inline void work(__u64 *ctx, void *map, __u32 number)
{
	struct task_struct___bench *task = (void *) bpf_get_current_task();
	struct mm_struct___bench *mm = READ_FIELD(task, mm);
	struct file *file = READ_FIELD(mm, exe_file);
	struct dentry *dentry = READ_FIELD(file, f_path.dentry);
	struct inode *inode = READ_FIELD(file, f_inode);
	struct super_block *super = READ_FIELD(inode, i_sb);
	struct cred *cred = READ_FIELD(task, cred);
	struct nsproxy *spaces = READ_FIELD(task, nsproxy);
	struct signal_struct *signal = READ_FIELD(task, signal);
	struct files_struct *files = READ_FIELD(task, files);
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 value = number;

	if (only_pid && pid != only_pid)
		return;
	value += READ_FIELD(task, prio) + READ_FIELD(task, policy) + READ_FIELD(task, start_time);
	value += READ_FIELD(task, utime) + READ_FIELD(task, stime) + READ_FIELD(task, se.sum_exec_runtime);
	value += READ_FIELD(mm, start_code) + READ_FIELD(mm, end_code) + READ_FIELD(mm, start_stack);
	value += READ_FIELD(mm, total_vm) + READ_FIELD(file, f_flags) + READ_FIELD(inode, i_ino);
	value += READ_FIELD(inode, i_mode) + READ_FIELD(inode, i_size) + READ_FIELD(super, s_magic);
	value += READ_FIELD(dentry, d_name.len) + READ_FIELD(READ_FIELD(dentry, d_parent), d_name.len);
	value += READ_FIELD(cred, uid.val) + READ_FIELD(cred, euid.val) + READ_FIELD(READ_FIELD(cred, user_ns), level);
	value += READ_FIELD(READ_FIELD(spaces, uts_ns), ns.inum) + READ_FIELD(READ_FIELD(spaces, net_ns), ns.inum);
	value += READ_FIELD(READ_FIELD(spaces, net_ns), ifindex) + READ_FIELD(signal, nr_threads);
	value += READ_FIELD(READ_FIELD(files, fdt), max_fds);
	bpf_map_update_elem(map, &pid, &value, BPF_ANY);
	__sync_fetch_and_add(&calls, 1);
}

SEC("raw_tp/sys_enter")
int first(__u64 *ctx)
{
	struct task_struct *task = (void *) bpf_get_current_task();
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_ns();
	event->pid = READ_FIELD(task, tgid);
	event->ppid = READ_FIELD(READ_FIELD(task, real_parent), tgid);
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#define PROGRAM(number, map) \
	SEC("raw_tp/sched_process_fork") \
	int program##number(__u64 *ctx) \
	{ \
		work(ctx, &map, number); \
		return 0; \
	}

#define SEVEN(tens, map) \
	PROGRAM(tens##1, map) PROGRAM(tens##2, map) PROGRAM(tens##3, map) PROGRAM(tens##4, map) \
	PROGRAM(tens##5, map) PROGRAM(tens##6, map) PROGRAM(tens##7, map)

SEVEN(1, map1)
SEVEN(2, map2)
SEVEN(3, map3)
SEVEN(4, map4)
SEVEN(5, map5)
SEVEN(6, map6)
SEVEN(7, map7)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
