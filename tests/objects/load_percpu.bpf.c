// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Global variables of which each CPU has its own (Linux 7.3). */
#include "bpf_min.h"

static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;

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

char LICENSE[] SEC("license") = "Dual BSD/GPL";
