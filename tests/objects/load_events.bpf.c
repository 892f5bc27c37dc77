// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every way to say what an event buffer carries, and to count what it drops. Run by BPF_PROG_TEST_RUN. */
#include "../../kernels/vmlinux.h"
#include "../../kernels/bpf_helpers.h"

struct __sk_buff;

struct by_tag {
	__u64 number;
	__u32 kind;
	__u32 cpu;
};

struct by_value {
	__u64 number;
	__u64 twice;
};

struct by_name {
	__u64 number;
};

CARRIES(by_tag);
CARRIES(by_name);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} tagged SEC(".maps") EVENT(by_tag);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct by_value);
} valued SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} by_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, int);
	__type(value, struct by_value);
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, int);
	__type(value, int);
} numbers SEC(".maps");

DROP_COUNTER_OF(tagged);
DROP_COUNTER_OF(valued);
__u32 dropped_by_names[4] = {}; /* one for each CPU, say */
__u64 number = 0;

SEC("tc")
int emit_tagged(struct __sk_buff *ctx)
{
	struct by_tag *record = RESERVE(tagged, struct by_tag);

	if (!record)
		return 0;
	record->number = number++;
	record->kind = 7;
	record->cpu = 0;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tc")
int emit_valued(struct __sk_buff *ctx)
{
	struct by_value record = {number, 2 * number};

	if (!OUTPUT(valued, &record, sizeof(record)))
		number++;
	return 0;
}

SEC("tc")
int emit_by_names(struct __sk_buff *ctx)
{
	struct by_name record = {number};

	if (bpf_ringbuf_output(&by_names, &record, sizeof(record), 0))
		dropped_by_names[number & 3] += 1;
	number++;
	return 0;
}

SEC("tc")
int emit_sample(struct __sk_buff *ctx)
{
	struct by_value record = {number, 2 * number};

	number++;
	bpf_perf_event_output(ctx, &samples, BPF_F_CURRENT_CPU, &record, sizeof(record));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
