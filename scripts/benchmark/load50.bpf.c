// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Fifty CO-RE programs, eight maps, globals: what scripts/bench-load loads. Only the first sends an event. */
#include "../../kernels/vmlinux.h"
#include "../../kernels/bpf_helpers.h"

/* Enough of the kernel that the programs together walk some thirty structs, as those of a large tool do. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct qstr {
	__u32 len;
};

struct file_system_type {
	int fs_flags;
};

struct super_block {
	unsigned long s_magic;
	struct file_system_type *s_type;
};

struct address_space {
	unsigned long nrpages;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
	struct address_space *i_mapping;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	int mnt_flags;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file_operations {
	void *owner;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	struct file_operations *f_op;
};

struct mm_struct___bench {
	unsigned long total_vm;
	struct file *exe_file;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct user_namespace {
	int level;
};

struct user_struct {
	kuid_t uid;
};

struct group_info {
	int ngroups;
};

struct cred {
	kuid_t euid;
	struct user_struct *user;
	struct user_namespace *user_ns;
	struct group_info *group_info;
};

struct ns_common {
	unsigned int inum;
};

struct uts_namespace {
	struct ns_common ns;
};

struct ipc_namespace {
	struct ns_common ns;
};

struct pid_namespace {
	unsigned int level;
};

struct net {
	unsigned int ifindex;
};

struct nsproxy {
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct pid_namespace *pid_ns_for_children;
	struct net *net_ns;
};

struct fdtable {
	unsigned int max_fds;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	int umask;
};

struct tty_struct {
	int index;
};

struct signal_struct {
	int nr_threads;
	struct tty_struct *tty;
};

struct pid {
	unsigned int level;
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct task_struct___bench {
	int prio;
	__u64 start_time;
	struct sched_entity se;
	struct mm_struct___bench *mm;
	const struct cred *cred;
	struct nsproxy *nsproxy;
	struct files_struct *files;
	struct fs_struct *fs;
	struct signal_struct *signal;
	struct pid *thread_pid;
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

SETTING __u32 only_pid = 0;
__u64 calls = 0;

static __always_inline void note(void *map, __u64 value)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	if (only_pid && pid != only_pid)
		return;
	bpf_map_update_elem(map, &pid, &value, BPF_ANY);
	__sync_fetch_and_add(&calls, 1);
}

/* What the task's program is: memory, file, directory, file system. */
static __always_inline void work_on_file(void *map, __u64 value)
{
	struct task_struct___bench *task = (void *) bpf_get_current_task();
	struct mm_struct___bench *mm = READ_FIELD(task, mm);
	struct file *file = READ_FIELD(mm, exe_file);
	struct dentry *dentry = READ_FIELD(file, f_path.dentry);
	struct inode *inode = READ_FIELD(file, f_inode);
	struct super_block *super = READ_FIELD(inode, i_sb);

	value += READ_FIELD(mm, total_vm) + READ_FIELD(inode, i_ino) + READ_FIELD(super, s_magic);
	value += READ_FIELD(READ_FIELD(super, s_type), fs_flags) + READ_FIELD(READ_FIELD(inode, i_mapping), nrpages);
	value += READ_FIELD(dentry, d_name.len) + READ_FIELD(READ_FIELD(dentry, d_parent), d_name.len);
	value += (unsigned long) READ_FIELD(READ_FIELD(file, f_op), owner);
	value += READ_FIELD(READ_FIELD(file, f_path.mnt), mnt_flags);
	value += READ_FIELD(READ_FIELD(task, fs), umask);
	value += READ_FIELD(READ_FIELD(READ_FIELD(task, files), fdt), max_fds);
	note(map, value);
}

/* Whose the task is: credentials, namespaces, session. */
static __always_inline void work_on_task(void *map, __u64 value)
{
	struct task_struct___bench *task = (void *) bpf_get_current_task();
	struct cred *cred = (struct cred *) READ_FIELD(task, cred);
	struct nsproxy *spaces = READ_FIELD(task, nsproxy);
	struct signal_struct *signal = READ_FIELD(task, signal);

	value += READ_FIELD(task, prio) + READ_FIELD(task, start_time) + READ_FIELD(task, se.sum_exec_runtime);
	value += READ_FIELD(cred, euid.val) + READ_FIELD(READ_FIELD(cred, user_ns), level);
	value += READ_FIELD(READ_FIELD(cred, user), uid.val) + READ_FIELD(READ_FIELD(cred, group_info), ngroups);
	value += READ_FIELD(READ_FIELD(spaces, uts_ns), ns.inum) + READ_FIELD(READ_FIELD(spaces, ipc_ns), ns.inum);
	value += READ_FIELD(READ_FIELD(spaces, pid_ns_for_children), level);
	value += READ_FIELD(READ_FIELD(spaces, net_ns), ifindex) + READ_FIELD(signal, nr_threads);
	value += READ_FIELD(READ_FIELD(signal, tty), index) + READ_FIELD(READ_FIELD(task, thread_pid), level);
	note(map, value);
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

#define PROGRAM(number, work, map) \
	SEC("raw_tp/sched_process_fork") \
	int program##number(__u64 *ctx) \
	{ \
		work(&map, number); \
		return 0; \
	}

#define SEVEN(tens, work, map) \
	PROGRAM(tens##1, work, map) PROGRAM(tens##2, work, map) PROGRAM(tens##3, work, map) \
	PROGRAM(tens##4, work, map) PROGRAM(tens##5, work, map) PROGRAM(tens##6, work, map) PROGRAM(tens##7, work, map)

SEVEN(1, work_on_file, map1)
SEVEN(2, work_on_task, map2)
SEVEN(3, work_on_file, map3)
SEVEN(4, work_on_task, map4)
SEVEN(5, work_on_file, map5)
SEVEN(6, work_on_task, map6)
SEVEN(7, work_on_file, map7)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
