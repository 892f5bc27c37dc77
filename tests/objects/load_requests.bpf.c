// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program that takes requests from user space and answers each. Run by BPF_PROG_TEST_RUN. */
#include "../../kernels/vmlinux.h"
#include "../../kernels/bpf_helpers.h"

struct __sk_buff;

struct request {
	__u64 number;
	__u32 kind;
};

struct answer {
	__u64 twice;
	__u64 waiting; /* bytes in the ring before this one */
};

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
	__type(value, struct answer);
} answers SEC(".maps");

DROP_COUNTER_OF(answers);
__u64 short_ones = 0;

static long take(struct bpf_dynptr *sample, void *context)
{
	struct request request;
	struct answer answer = {};

	if (bpf_dynptr_read(&request, sizeof(request), sample, 0, 0)) {
		short_ones++;
		return 0; /* go on; 1 ends the drain */
	}
	answer.twice = 2 * request.number;
	answer.waiting = bpf_ringbuf_query(&answers, BPF_RB_AVAIL_DATA);
	OUTPUT_WITH(answers, &answer, sizeof(answer), answer.waiting ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
	return 0;
}

SEC("tc")
int drain(struct __sk_buff *ctx)
{
	return bpf_user_ringbuf_drain(&requests, take, NULL, 0); /* how many there were */
}

char LICENSE[] SEC("license") = "GPL";
