// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Functions that are told by a tag that a parameter is the context: kernels before 6.8 must be told by its type. */
#include "bpf_min.h"

#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))

static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) = (void *)26;
static long (*const bpf_get_stack)(void *context, void *buffer, __u32 size, __u64 flags) = (void *)67;

__weak __noinline int get_byte(__u32 offset, void *context __arg_ctx)
{
	__u8 byte = 0;

	bpf_skb_load_bytes(context, offset, &byte, 1);
	return byte;
}

__weak __noinline int stack_of_probe(void *context __arg_ctx)
{
	__u64 stack[8] = {};

	return bpf_get_stack(context, stack, sizeof(stack), 0);
}

__weak __noinline int stack_of_tracepoint(__u64 *context __arg_ctx)
{
	__u64 stack[8] = {};

	return bpf_get_stack(context, stack, sizeof(stack), 0);
}

SEC("socket")
int socket_program(void *context)
{
	return get_byte(3, context);
}

SEC("tc")
int tc_program(void *context)
{
	return get_byte(5, context) + get_byte(6, context);
}

SEC("kprobe")
int probe_program(void *context)
{
	return stack_of_probe(context) > 0;
}

SEC("raw_tp")
int tracepoint_program(__u64 *context)
{
	return stack_of_tracepoint(context) > 0;
}

char LICENSE[] SEC("license") = "GPL";
