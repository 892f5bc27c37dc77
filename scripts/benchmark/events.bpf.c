// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Fills a ring buffer and a perf buffer with numbered records of 64 bytes, or of mixed sizes. */
#include "vmlinux.h"
#include "bpf_helpers.h"

struct __sk_buff;

struct event {
	__u64 number;
	__u64 time_ns;
	__u32 pid;
	__u32 cpu;
	__u8 data[40];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} ring SEC(".maps") EVENT(event);

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} perf SEC(".maps") EVENT(event);

CARRIES(event);

__u64 number = 0;
__u64 refused = 0;

static __always_inline void fill(struct event *event)
{
	event->number = number;
	event->time_ns = number * 1000;
	event->pid = number;
	event->cpu = 0;
	__builtin_memset(event->data, 1, sizeof(event->data));
}

SEC("tc")
int fill_ring(struct __sk_buff *ctx)
{
	struct event *event = bpf_ringbuf_reserve(&ring, sizeof(*event), 0);

	if (!event) {
		refused++;
		return 0;
	}
	fill(event);
	bpf_ringbuf_submit(event, 0);
	number++;
	return 0;
}

/* 64 bytes and up to 248 more. */
SEC("tc")
int fill_ring_mixed(struct __sk_buff *ctx)
{
	struct event room[5] = {};

	fill(room);
	if (bpf_ringbuf_output(&ring, room, sizeof(*room) + ((number * 2654435761U >> 16) & 31) * 8, 0)) {
		refused++;
		return 0;
	}
	number++;
	return 0;
}

SEC("tc")
int fill_perf(struct __sk_buff *ctx)
{
	struct event event = {};

	fill(&event);
	if (bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event))) {
		refused++;
		return 0;
	}
	number++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
