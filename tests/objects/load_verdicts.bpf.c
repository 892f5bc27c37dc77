// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One program for each kind of rejection. All are off until a test asks for one; its name is the kind's.
 *
 * Where the verifier stops there stands a comment with two exclamation marks. What C cannot say without the compiler
 * mending or removing it is said in assembly.
 */
#include "bpf_min.h"

/* Without a parameter: clang would leave it nameless in BTF, which the kernel refuses. */
#define NAKED __attribute__((naked))
#define IN_USE(buffer) asm volatile("" ::"r"(buffer) : "memory")
#define IN_ASM(section, name) SEC(section) NAKED int name(void)

struct ethernet {
	__u8 destination[6], source[6];
	__u16 protocol;
};

struct xdp_md {
	__u32 data, data_end;
};

struct guarded {
	struct bpf_spin_lock {
		__u32 value;
	} lock;
	__u32 counter;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct guarded);
} locks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} jumps SEC(".maps");

const volatile __u32 constant = 7;

static long (*const get_current_comm)(void *buffer, __u64 size) = (void *)16;
static long (*const skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 size, __u64 flags) = (void *)9;
static long (*const xdp_adjust_head)(void *ctx, int delta) = (void *)44;
static long (*const sk_release)(void *sk) = (void *)86;
static long (*const spin_lock)(void *lock) = (void *)93;
static long (*const spin_unlock)(void *lock) = (void *)94;
static void *(*const sk_fullsock)(void *sk) = (void *)95;
static void *(*const ringbuf_reserve)(void *map, __u64 size, __u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static long (*const copy_from_user)(void *to, __u32 size, const void *from) = (void *)148;

struct bpf_cpumask {
};
extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym __weak;

static __u64 *entry(__u32 key)
{
	return bpf_map_lookup_elem(&table, &key);
}

/* Pointers */

SEC("?socket")
int null_pointer(void *ctx)
{
	__u64 *value = entry(1);

	return *value; /* !! */
}

SEC("?socket")
int not_a_pointer(void *ctx)
{
	__u64 *value = entry(1);

	return value ? *(volatile __u32 *)*value : 0; /* !! */
}

SEC("?xdp")
int packet_end_access(struct xdp_md *ctx)
{
	return *(volatile __u8 *)(long)ctx->data_end; /* !! */
}

SEC("?socket")
int null_argument(void *ctx)
{
	__u32 key = 1;

	return bpf_map_update_elem(&table, &key, entry(2), 0); /* !! */
}

IN_ASM("?socket", uninitialised_register)
{
	asm volatile("r0 = r5; exit"); /* !! */
}

IN_ASM("?socket", stack_bounds)
{
	asm volatile("r0 = 0; *(u64 *)(r10 - 520) = r0; exit"); /* !! */
}

IN_ASM("?socket", misaligned)
{
	asm volatile("r0 = 0; *(u64 *)(r10 - 9) = r0; exit"); /* !! */
}

/* Bounds */

SEC("?xdp")
int packet_bounds(struct xdp_md *ctx)
{
	struct ethernet *header = (void *)(long)ctx->data;

	return header->protocol == 8 ? 2 : 1; /* !! */
}

SEC("?socket")
int map_value_bounds(void *ctx)
{
	__u64 *value = entry(1);

	return value ? *(volatile __u32 *)(value + 1) : 0; /* !! */
}

SEC("?socket")
int memory_bounds(void *ctx)
{
	volatile __u64 *record = ringbuf_reserve(&ring, 8, 0);

	if (!record)
		return 0;
	record[1] = 1; /* !! */
	ringbuf_submit((void *)record, 0);
	return 0;
}

SEC("?tracepoint")
int unbounded_memory(void *ctx)
{
	__u64 *value = entry(1);
	char comm[16];
	__u64 size;

	if (!value)
		return 0;
	size = *(volatile __u32 *)value;
	size++;
	get_current_comm(comm, size); /* !! */
	return comm[0];
}

SEC("?tracepoint")
int negative_minimum(void *ctx)
{
	__u64 *value = entry(1);
	char comm[16];

	if (!value)
		return 0;
	get_current_comm(comm, *(volatile __u64 *)value); /* !! */
	return comm[0];
}

SEC("?socket")
int maximum_outside(void *ctx)
{
	__u64 *value = entry(1);

	return value ? ((volatile __u8 *)value)[*(volatile __u8 *)value] : 0; /* !! */
}

SEC("?tracepoint")
int zero_size(void *ctx)
{
	__u64 *value = entry(1);
	char text[8] = "%d";

	return value ? bpf_trace_printk(text, *(volatile __u32 *)value & 7) : 0; /* !! */
}

SEC("?socket")
int pointer_out_of_range(void *ctx)
{
	__u64 *value = entry(1);

	return value ? ((volatile __u8 *)value)[*(volatile __u64 *)value] : 0; /* !! */
}

/* The context */

IN_ASM("?socket", context_access)
{
	asm volatile("r0 = *(u32 *)(r1 + 1000); exit"); /* !! */
}

IN_ASM("?socket", modified_context)
{
	asm volatile("r2 = *(u32 *)(r1 + 0); r1 += r2; r0 = *(u32 *)(r1 + 0); exit"); /* !! */
}

/* What is held */

SEC("?socket")
int unreleased_reference(void *ctx)
{
	__u64 *record = ringbuf_reserve(&ring, 8, 0);

	if (record)
		*record = 1;
	return 0;
}

SEC("?socket")
int reference_at_tail_call(void *ctx)
{
	__u64 *record = ringbuf_reserve(&ring, 8, 0);

	if (record) {
		bpf_tail_call(ctx, &jumps, 0); /* !! */
		ringbuf_submit(record, 0);
	}
	return 0;
}

SEC("?tc")
int not_a_reference(void *ctx)
{
	void *sk = *(void **)(ctx + 168);

	if (sk)
		sk = sk_fullsock(sk);
	if (sk)
		sk_release(sk); /* !! */
	return 0;
}

SEC("?tc")
int lock_held(void *ctx)
{
	__u32 key = 0;
	struct guarded *value = bpf_map_lookup_elem(&locks, &key);

	if (!value)
		return 0;
	spin_lock(&value->lock);
	value->counter = bpf_get_prandom_u32(); /* !! */
	spin_unlock(&value->lock);
	return 0;
}

SEC("?tc")
int two_locks(void *ctx)
{
	__u32 key = 0;
	struct guarded *first = bpf_map_lookup_elem(&locks, &key);
	struct guarded *second = bpf_map_lookup_elem(&locks, &key);

	if (!first || !second)
		return 0;
	spin_lock(&first->lock);
	spin_lock(&second->lock); /* !! */
	spin_unlock(&second->lock);
	spin_unlock(&first->lock);
	return 0;
}

/* Flow */

IN_ASM("?socket", endless_loop)
{
	asm volatile("r0 = 1; 1: if r0 == 1 goto 1b; exit"); /* !! */
}

SEC("?socket")
int too_complex(void *ctx)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < 1 << 21; i++) {
		sum += i;
		barrier_var(sum);
	}
	return sum;
}

IN_ASM("?socket", unreachable)
{
	asm volatile("r0 = 0; exit; r0 = 1; exit"); /* !! */
}

IN_ASM("?socket", falls_off_the_end)
{
	asm volatile("r0 = 0"); /* !! */
}

#define DEEPER(name, next)                     \
	static __noinline int name(int number) \
	{                                      \
		return next(number + 1) + 1;   \
	}

/* 8 are allowed, and 16 since Linux 7.3 or so. */
static __noinline int depth17(int number)
{
	barrier_var(number);
	return number;
}
DEEPER(depth16, depth17)
DEEPER(depth15, depth16)
DEEPER(depth14, depth15)
DEEPER(depth13, depth14)
DEEPER(depth12, depth13)
DEEPER(depth11, depth12)
DEEPER(depth10, depth11)
DEEPER(depth9, depth10)
DEEPER(depth8, depth9)
DEEPER(depth7, depth8)
DEEPER(depth6, depth7)
DEEPER(depth5, depth6)
DEEPER(depth4, depth5)
DEEPER(depth3, depth4)
DEEPER(depth2, depth3)
DEEPER(depth1, depth2)

SEC("?socket")
int frames(void *ctx)
{
	return depth1(0);
}

static __noinline int much_stack(int number)
{
	char buffer[300] = {};

	IN_USE(buffer);
	return number;
}

SEC("?socket")
int combined_stack(void *ctx)
{
	char buffer[300] = {};

	IN_USE(buffer);
	return much_stack(buffer[0]);
}

static __noinline int jump(void *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return 1;
}

SEC("?socket")
int tail_call_stack(void *ctx)
{
	char buffer[300] = {};

	IN_USE(buffer);
	return jump(ctx) + buffer[0];
}

/* Calls */

SEC("?socket")
int unknown_helper(void *ctx)
{
	return xdp_adjust_head(ctx, 1); /* !! */
}

SEC("?socket")
int gpl_only(void *ctx)
{
	char text[8] = "hello";

	return bpf_trace_printk(text, sizeof(text)); /* !! */
}

SEC("?socket")
int kfunc_not_allowed(void *ctx)
{
	return bpf_cpumask_create() != 0; /* !! */
}

SEC("?tracepoint")
int sleeping(void *ctx)
{
	__u64 to = 0;

	copy_from_user(&to, sizeof(to), 0); /* !! */
	return to;
}

SEC("?socket")
int argument_constant(void *ctx)
{
	__u64 *value = entry(1);
	void *record;

	if (!value)
		return 0;
	record = ringbuf_reserve(&ring, *(volatile __u32 *)value, 0); /* !! */
	if (record)
		ringbuf_submit(record, 0);
	return 0;
}

SEC("?socket")
int argument_type(void *ctx)
{
	return bpf_map_lookup_elem(&table, (void *)8L) != 0; /* !! */
}

SEC("?tc")
int packet_helper(void *ctx)
{
	void *data = (void *)(long)*(__u32 *)(ctx + 76), *end = (void *)(long)*(__u32 *)(ctx + 80);

	if (data + 14 > end)
		return 0;
	return skb_store_bytes(ctx, 0, data, 14, 0); /* !! */
}

struct pair {
	int first, second;
};

__noinline int sum_of(struct pair *pair)
{
	return pair ? pair->first + pair->second : 0;
}

SEC("?socket")
int caller_arguments(void *ctx)
{
	return sum_of((void *)(long)bpf_get_prandom_u32()); /* !! */
}

/* What may not be done */

IN_ASM("?socket", pointer_arithmetic)
{
	asm volatile("r1 *= 2; r0 = 0; exit"); /* !! */
}

SEC("?socket")
int read_only(void *ctx)
{
	*(volatile __u32 *)&constant = 1; /* !! */
	return 0;
}

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define R10_IS_R1 ".8byte 0x1abf"
#else
#define R10_IS_R1 ".8byte 0xbfa1000000000000"
#endif

IN_ASM("?socket", frame_pointer)
{
	asm volatile(R10_IS_R1 "; r0 = 0; exit"); /* !! */
}

IN_ASM("?socket", atomic)
{
	asm volatile("r0 = 0; lock *(u64 *)(r1 + 0) += r0; exit"); /* !! */
}

SEC("?cgroup/sock_create")
int return_value(void *ctx)
{
	return 5;
}

IN_ASM("?socket", division)
{
	asm volatile("r0 = 1; r0 /= 0; exit"); /* !! */
}

IN_ASM("?socket", shift)
{
	asm volatile("r0 = 1; r0 <<= 64; exit"); /* !! */
}

/* What only those without CAP_PERFMON hear */

IN_ASM("?socket", uninitialised_stack)
{
	asm volatile("r1 = %[table] ll; r2 = r10; r2 += -4; call 1; r0 = 0; exit" ::[table] "i"(&table)); /* !! */
}

IN_ASM("?socket", stack_variable_offset)
{
	asm volatile("r3 = 0; *(u64 *)(r10 - 8) = r3; r2 = *(u32 *)(r1 + 0)");
	asm volatile("r2 &= 7; r2 -= 8; r2 += r10; r0 = *(u8 *)(r2 + 0); exit"); /* !! */
}

IN_ASM("?socket", leak)
{
	asm volatile("r0 = r1; exit"); /* !! */
}

IN_ASM("?socket", pointer_comparison)
{
	asm volatile("r0 = 0; if r1 > r10 goto 1f; r0 = 1; 1: exit"); /* !! */
}

IN_ASM("?socket", partial_pointer)
{
	asm volatile("r0 = 0; w2 = w1; exit"); /* !! */
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
