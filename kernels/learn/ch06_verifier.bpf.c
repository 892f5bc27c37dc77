// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 6: what the verifier rejects, and beside each program the one that it takes. */
#include "learn.h"

struct message {
	char text[12];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct message);
} config SEC(".maps");

/* All globals are one value of one map. The verifier knows where that ends, not where a variable does: here both do. */
__u32 position = 1;
char message[12] = "Hello World";

SEC("?raw_tp/sys_enter")
int bad_null_pointer(void *ctx)
{
	__u32 uid = bpf_get_current_uid_gid();
	struct message *own = bpf_map_lookup_elem(&config, &uid);

	return own->text[0]; /* there may be no entry */
}

SEC("?raw_tp/sys_enter")
int good_null_pointer(void *ctx)
{
	__u32 uid = bpf_get_current_uid_gid();
	struct message *own = bpf_map_lookup_elem(&config, &uid);

	return own ? own->text[0] : 0;
}

SEC("?raw_tp/sys_enter")
int bad_argument(void *ctx)
{
	struct message stack = {};
	__u32 uid = bpf_get_current_uid_gid();

	return bpf_map_lookup_elem(&stack, &uid) != NULL; /* that is no map */
}

SEC("?raw_tp/sys_enter")
int bad_global_index(void *ctx)
{
	__u32 index = position;

	barrier_var(index);
	if (index <= sizeof(message)) /* 12 is one too many */
		return message[index];
	return 0;
}

SEC("?raw_tp/sys_enter")
int good_global_index(void *ctx)
{
	__u32 index = position;

	barrier_var(index);
	if (index < sizeof(message))
		return message[index];
	return 0;
}

SEC("?raw_tp/sys_enter")
int bad_context(__u64 *ctx)
{
	return ctx[100]; /* the tracepoint has not so many arguments */
}

SEC("?xdp")
int bad_packet(struct xdp_md *ctx)
{
	unsigned char *data = (void *) (long) ctx->data;

	return data[12] == 8 ? XDP_PASS : XDP_DROP; /* the packet may be shorter */
}

SEC("?xdp")
int good_packet(struct xdp_md *ctx)
{
	unsigned char *data = (void *) (long) ctx->data;
	unsigned char *end = (void *) (long) ctx->data_end;

	if (data + 13 > end)
		return XDP_DROP;
	return data[12] == 8 ? XDP_PASS : XDP_DROP;
}

SEC("?xdp")
int bad_packet_end(struct xdp_md *ctx)
{
	unsigned char *data = (void *) (long) ctx->data;
	unsigned char *end = (void *) (long) ctx->data_end;

	end++; /* the end of the packet cannot be moved */
	barrier_var(end);
	return data < end ? XDP_PASS : XDP_DROP;
}

SEC("?xdp")
int bad_loop(struct xdp_md *ctx)
{
	for (int i = 0; i < 10;)
		barrier_var(i); /* nothing makes it end */
	return XDP_PASS;
}

SEC("?xdp")
int good_loop(struct xdp_md *ctx)
{
	__u32 sum = 0;

	for (int i = 0; i < 10; i++) {
		barrier_var(i);
		sum += i;
	}
	return sum == 45 ? XDP_PASS : XDP_DROP;
}

SEC("?xdp")
__attribute__((naked)) int bad_no_return_value(struct xdp_md *ctx)
{
	asm volatile("exit"); /* register 0 holds nothing */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
