// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Global variables of which each CPU has its own (Linux 7.3). */
#include "bpf_min.h"

static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;

static long (*const bpf_ringbuf_output)(void *ringbuf, const void *data, __u64 size, __u64 flags) = (void *)130;

struct place {
	__u16 cpu;
	__u16 pair[2];
};

int ran;
__u64 hits SEC(".percpu") = 100;
struct place place SEC(".percpu") = { .cpu = 0xffff, .pair = { 1, 2 } };
static __u8 odd SEC(".percpu");
__u32 other SEC(".percpu.others") = 7;

SEC("socket")
int count(void *ctx)
{
	hits++;
	place.cpu = bpf_get_smp_processor_id();
	place.pair[1] += other;
	odd ^= 1;
	return odd;
}

SEC("?socket")
int bystander(void *ctx)
{
	return ++ran;
}

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

__u64 dropped_ring SEC(".percpu");

SEC("?socket")
int emit(void *ctx)
{
	if (bpf_ringbuf_output(&ring, &ran, sizeof(ran), 0))
		dropped_ring++;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
