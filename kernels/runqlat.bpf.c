// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* How long tasks wait for a CPU once they could run: a histogram by powers of two. Read it with --dump-maps. */
#include "vmlinux.h"
#include "bpf_helpers.h"

#define SLOTS 40

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10240);
	__type(key, __u32);
	__type(value, __u64);
} runnable_since SEC(".maps");

/* Slot n counts waits of 2^n to 2^(n+1)-1 microseconds; slot 0 also those below one. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} wait_us_log2 SEC(".maps");

/* Count only this process; 0 for every process. */
SETTING __u32 only_pid = 0;

static __always_inline bool wanted(struct task_struct *task)
{
	return READ_FIELD(task, pid) && (!only_pid || (__u32) READ_FIELD(task, tgid) == only_pid);
}

static __always_inline bool is_running(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return READ_FIELD(task, __state) == 0;
	return READ_FIELD((struct task_struct___before_5_14 *) task, state) == 0;
}

static __always_inline __u32 log2_of(__u64 value)
{
	__u32 result = 0;

	for (int shift = 32; shift; shift >>= 1) {
		if (value >> shift) {
			value >>= shift;
			result += shift;
		}
	}
	return result;
}

static __always_inline void start(struct task_struct *task)
{
	__u32 thread = READ_FIELD(task, pid);
	__u64 now = bpf_ktime_get_ns();

	if (wanted(task))
		bpf_map_update_elem(&runnable_since, &thread, &now, BPF_ANY);
}

SEC("raw_tp/sched_wakeup")
int on_wakeup(__u64 *ctx)
{
	start((void *) ctx[0]);
	return 0;
}

SEC("raw_tp/sched_wakeup_new")
int on_wakeup_new(__u64 *ctx)
{
	start((void *) ctx[0]);
	return 0;
}

SEC("raw_tp/sched_switch")
int on_switch(__u64 *ctx)
{
	struct task_struct *previous = (void *) ctx[1];
	struct task_struct *next = (void *) ctx[2];
	__u32 thread = READ_FIELD(next, pid);

	if (is_running(previous)) /* taken off the CPU while it could go on */
		start(previous);
	__u64 *since = bpf_map_lookup_elem(&runnable_since, &thread);
	if (!since)
		return 0;
	__u32 slot = log2_of((bpf_ktime_get_ns() - *since) / 1000);
	if (slot >= SLOTS)
		slot = SLOTS - 1;
	__u64 *count = bpf_map_lookup_elem(&wait_us_log2, &slot);
	if (count)
		*count += 1;
	bpf_map_delete_elem(&runnable_since, &thread);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
