/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * USDT probes: their arguments, wherever the compiler has left them.
 *
 *     SEC("usdt/libpython3.11.so.1.0:python:gc__start")
 *     int on_gc(struct pt_regs *ctx)
 *     {
 *             long generation;
 *
 *             if (bpf_usdt_arg(ctx, 0, &generation) < 0)
 *                     return 0;
 *             ...
 *     }
 *
 * or, with the arguments as parameters (those that cannot be read are 0):
 *
 *     SEC("usdt/libpython3.11.so.1.0:python:gc__start")
 *     int BPF_USDT(on_gc, int generation)
 *
 * Include "vmlinux.h" and "bpf_helpers.h" first. The maps, their names and the layout of their values are those of
 * libbpf 1.7, so an object that uses this header can be loaded by both, on any machine.
 */
#pragma once

/* How many different places of arguments the attached probes may have together. */
#ifndef BPF_USDT_MAX_SPEC_CNT
#define BPF_USDT_MAX_SPEC_CNT 256
#endif

/* How many places of code, on kernels without cookies (before Linux 5.15). */
#ifndef BPF_USDT_MAX_IP_CNT
#define BPF_USDT_MAX_IP_CNT (4 * BPF_USDT_MAX_SPEC_CNT)
#endif

#define BPF_USDT_MAX_ARG_CNT 12

enum __bpf_usdt_arg_type {
	BPF_USDT_ARG_CONST,     /* the value is val_off */
	BPF_USDT_ARG_REG,       /* a register */
	BPF_USDT_ARG_REG_DEREF, /* memory at register + val_off */
	BPF_USDT_ARG_SIB,       /* memory at register + (index register << scale_bitshift) + val_off */
};

struct __bpf_usdt_arg_spec {
	__u64 val_off;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	__u8 arg_type;
	__u8 __unused;
	__u16 idx_reg_off : 12;
	__u16 scale_bitshift : 4;
	__u16 __reserved;
#else
	__u16 __reserved;
	__u16 idx_reg_off : 12;
	__u16 scale_bitshift : 4;
	__u8 arg_type;
	__u8 __unused;
#endif
	__s16 reg_off; /* where the register is in struct pt_regs */
	_Bool arg_signed;
	__s8 arg_bitshift; /* 64 less the argument's bits */
};

struct __bpf_usdt_spec {
	struct __bpf_usdt_arg_spec args[BPF_USDT_MAX_ARG_CNT];
	__u64 usdt_cookie;
	__s16 arg_cnt;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BPF_USDT_MAX_SPEC_CNT);
	__type(key, int);
	__type(value, struct __bpf_usdt_spec);
} __bpf_usdt_specs SEC(".maps") __weak;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BPF_USDT_MAX_IP_CNT);
	__type(key, long);
	__type(value, __u32);
} __bpf_usdt_ip_to_spec_id SEC(".maps") __weak;

extern const _Bool LINUX_HAS_BPF_COOKIE __kconfig;

/* The instruction pointer, by whatever name this machine's registers have it. */
struct pt_regs___x86_64 { unsigned long ip; } __attribute__((preserve_access_index));
struct pt_regs___arm64 { unsigned long pc; } __attribute__((preserve_access_index));
struct pt_regs___riscv { unsigned long epc; } __attribute__((preserve_access_index));
struct __bpf_usdt_psw___s390 { unsigned long mask; unsigned long addr; } __attribute__((preserve_access_index));
struct pt_regs___s390 { struct __bpf_usdt_psw___s390 psw; } __attribute__((preserve_access_index));

static __always_inline long __bpf_usdt_ip(struct pt_regs *ctx)
{
	struct pt_regs___x86_64 *x86_64 = (void *) ctx;
	struct pt_regs___arm64 *arm64 = (void *) ctx;
	struct pt_regs___riscv *riscv = (void *) ctx;
	struct pt_regs___s390 *s390 = (void *) ctx;
	unsigned long ip = 0;

	if (bpf_core_field_exists(x86_64->ip))
		bpf_core_read(&ip, sizeof(ip), &x86_64->ip);
	else if (bpf_core_field_exists(arm64->pc))
		bpf_core_read(&ip, sizeof(ip), &arm64->pc);
	else if (bpf_core_field_exists(riscv->epc))
		bpf_core_read(&ip, sizeof(ip), &riscv->epc);
	else if (bpf_core_field_exists(s390->psw.addr))
		bpf_core_read(&ip, sizeof(ip), &s390->psw.addr);
	return ip;
}

/* What describes the place where the program runs now; a null pointer when it is none of a probe. */
static __always_inline struct __bpf_usdt_spec *__bpf_usdt_spec(struct pt_regs *ctx)
{
	int number;

	if (LINUX_HAS_BPF_COOKIE) {
		number = bpf_get_attach_cookie(ctx);
	} else {
		long ip = __bpf_usdt_ip(ctx);
		__u32 *found = bpf_map_lookup_elem(&__bpf_usdt_ip_to_spec_id, &ip);

		if (!found)
			return 0;
		number = *found;
	}
	return bpf_map_lookup_elem(&__bpf_usdt_specs, &number);
}

/* One argument's place; a null pointer when there are not so many. */
static __always_inline struct __bpf_usdt_arg_spec *__bpf_usdt_argument(struct pt_regs *ctx, __u64 number)
{
	struct __bpf_usdt_spec *spec = __bpf_usdt_spec(ctx);

	if (!spec || number >= BPF_USDT_MAX_ARG_CNT)
		return 0;
	barrier_var(number);
	if ((long) number >= spec->arg_cnt)
		return 0;
	return &spec->args[number];
}

/* How many arguments the probe has, or -3 (ESRCH). */
static __always_inline int bpf_usdt_arg_cnt(struct pt_regs *ctx)
{
	struct __bpf_usdt_spec *spec = __bpf_usdt_spec(ctx);

	return spec ? spec->arg_cnt : -3;
}

/* The size of an argument in bytes, or -2 (ENOENT). The first one has the number 0. */
static __always_inline int bpf_usdt_arg_size(struct pt_regs *ctx, __u64 number)
{
	struct __bpf_usdt_arg_spec *argument = __bpf_usdt_argument(ctx, number);

	return argument ? (int) (64u - (unsigned char) argument->arg_bitshift) >> 3 : -2;
}

/* The number that was given when the program was attached. */
static __always_inline long bpf_usdt_cookie(struct pt_regs *ctx)
{
	struct __bpf_usdt_spec *spec = __bpf_usdt_spec(ctx);

	return spec ? spec->usdt_cookie : 0;
}

/* The value of an argument. Returns 0, or a negative error and the value 0. */
static __noinline int bpf_usdt_arg(struct pt_regs *ctx, __u64 number, long *value)
{
	struct __bpf_usdt_arg_spec *argument;
	unsigned long read = 0, index = 0;
	int error = 0;

	*value = 0;
	argument = __bpf_usdt_argument(ctx, number);
	if (!argument)
		return -2;
	if (argument->arg_type == BPF_USDT_ARG_CONST) {
		read = argument->val_off;
	} else {
		error = bpf_probe_read_kernel(&read, sizeof(read), (void *) ctx + argument->reg_off);
		if (!error && argument->arg_type == BPF_USDT_ARG_SIB)
			error = bpf_probe_read_kernel(&index, sizeof(index), (void *) ctx + argument->idx_reg_off);
		if (!error && argument->arg_type != BPF_USDT_ARG_REG) {
			read += (index << argument->scale_bitshift) + argument->val_off;
			error = bpf_probe_read_user(&read, sizeof(read), (void *) read);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
			read >>= argument->arg_bitshift;
#endif
		}
	}
	if (error)
		return error;
	read <<= argument->arg_bitshift;
	*value = argument->arg_signed ? (long) read >> argument->arg_bitshift : read >> argument->arg_bitshift;
	return 0;
}

/* Up to 12 parameters. */
#define __BPF_USDT_COUNT(...) __BPF_USDT_THIRTEENTH(0, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define __BPF_USDT_THIRTEENTH(_0, _1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, count, ...) count
#define __BPF_USDT_JOIN(a, b) a##b
#define __BPF_USDT_VALUES(count) __BPF_USDT_JOIN(__BPF_USDT_VALUES_, count)
#define __BPF_USDT_VALUE(number) ({ long value_; bpf_usdt_arg(ctx, number, &value_); (void *) value_; })
#define __BPF_USDT_VALUES_0 ctx
#define __BPF_USDT_VALUES_1 __BPF_USDT_VALUES_0, __BPF_USDT_VALUE(0)
#define __BPF_USDT_VALUES_2 __BPF_USDT_VALUES_1, __BPF_USDT_VALUE(1)
#define __BPF_USDT_VALUES_3 __BPF_USDT_VALUES_2, __BPF_USDT_VALUE(2)
#define __BPF_USDT_VALUES_4 __BPF_USDT_VALUES_3, __BPF_USDT_VALUE(3)
#define __BPF_USDT_VALUES_5 __BPF_USDT_VALUES_4, __BPF_USDT_VALUE(4)
#define __BPF_USDT_VALUES_6 __BPF_USDT_VALUES_5, __BPF_USDT_VALUE(5)
#define __BPF_USDT_VALUES_7 __BPF_USDT_VALUES_6, __BPF_USDT_VALUE(6)
#define __BPF_USDT_VALUES_8 __BPF_USDT_VALUES_7, __BPF_USDT_VALUE(7)
#define __BPF_USDT_VALUES_9 __BPF_USDT_VALUES_8, __BPF_USDT_VALUE(8)
#define __BPF_USDT_VALUES_10 __BPF_USDT_VALUES_9, __BPF_USDT_VALUE(9)
#define __BPF_USDT_VALUES_11 __BPF_USDT_VALUES_10, __BPF_USDT_VALUE(10)
#define __BPF_USDT_VALUES_12 __BPF_USDT_VALUES_11, __BPF_USDT_VALUE(11)

#define BPF_USDT(name, ...) \
name(struct pt_regs *ctx); \
static __always_inline typeof(name(0)) __bpf_usdt_body_##name(struct pt_regs *ctx, ##__VA_ARGS__); \
typeof(name(0)) name(struct pt_regs *ctx) \
{ \
	_Pragma("clang diagnostic push") \
	_Pragma("clang diagnostic ignored \"-Wint-conversion\"") \
	_Pragma("clang diagnostic ignored \"-Wvoid-pointer-to-int-cast\"") \
	return __bpf_usdt_body_##name(__BPF_USDT_VALUES(__BPF_USDT_COUNT(__VA_ARGS__))); \
	_Pragma("clang diagnostic pop") \
} \
static __always_inline typeof(name(0)) __bpf_usdt_body_##name(struct pt_regs *ctx, ##__VA_ARGS__)
