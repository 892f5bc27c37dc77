// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 3: a call from one BPF function to another. Counts system calls by their number. */
#include "learn.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, __u64);
} calls SEC(".maps");

static __noinline __u32 get_opcode(struct bpf_raw_tracepoint_args *ctx)
{
	return ctx->args[1];
}

SEC("raw_tp/sys_enter")
int hello(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 opcode = get_opcode(ctx);
	__u64 *count = bpf_map_lookup_elem(&calls, &opcode);

	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
