// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* One of everything that a load has to bring together. Each program is run with BPF_PROG_TEST_RUN. */
#include "bpf_min.h"

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct inner first_inner SEC(".maps");
struct inner second_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &first_inner, [2] = &second_inner } };

int called(void *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 3);
	__uint(key_size, 4);
	__array(values, int(void *));
} calls SEC(".maps") = { .values = { [1] = (void *)&called } };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} table SEC(".maps");

struct point {
	__s32 x, y;
};

const volatile __u32 setting = 7;
const volatile bool flag = 0;
const volatile char name[16] = "unset";
const volatile struct point origin = { -1, 2 };
__u64 counter = 100;
__s32 results[4];
struct point moved;
static volatile __u32 hidden_static = 3;
__u64 own_section SEC(".data.own") = 5;

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig;
extern __u32 CONFIG_HZ __kconfig;
extern int CONFIG_NO_SUCH_THING __kconfig __weak;
extern const void bpf_prog_put __ksym;
extern const void no_such_symbol_anywhere __ksym __weak;

__u64 version_seen, hz_seen, missing_seen, symbol_seen, missing_symbol_seen;
bool syscall_seen;

__noinline int add(int a, int b)
{
	barrier_var(a);
	return a + b + (int)counter;
}

static __noinline int twice(int a)
{
	barrier_var(a);
	return add(a, a);
}

SEC("socket")
int called(void *ctx)
{
	results[0] = 4711;
	return 77;
}

SEC("socket")
int main_program(void *ctx)
{
	__u32 zero = 0, two = 2;
	__u64 one = 1;

	counter += setting;
	moved.x = origin.x + 10;
	moved.y = origin.y + hidden_static;
	own_section += 1;
	results[1] = twice(20);
	bpf_map_update_elem(&table, &two, &one, 0);
	void *inner = bpf_map_lookup_elem(&outer, &two);
	if (inner) {
		__u64 *value = bpf_map_lookup_elem(inner, &zero);
		if (value)
			*value = 42;
	}
	version_seen = LINUX_KERNEL_VERSION;
	syscall_seen = CONFIG_BPF_SYSCALL;
	hz_seen = CONFIG_HZ;
	missing_seen = CONFIG_NO_SUCH_THING;
	symbol_seen = (__u64)&bpf_prog_put;
	missing_symbol_seen = (__u64)&no_such_symbol_anywhere;
	return 5;
}

SEC("socket")
int tail_caller(void *ctx)
{
	bpf_tail_call(ctx, &calls, 1);
	return -1;
}

SEC("?socket")
int not_by_default(void *ctx)
{
	return 9;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
