/* Every kind of global variable. */
#include "bpf_min.h"

struct pair {
	__u32 first;
	__s16 second;
	bool third;
};

const volatile __u32 min_us = 7;
const volatile struct pair setting = { 1, -2, 1 };
static const volatile __u64 hidden_setting = 1ULL << 40;
__u64 total;
__s32 level = -5;
__u8 table[6] = { 1, 2, 3 };
char text[16] = "hello";
static __u64 counter;
static __s64 started = 9;
__hidden __u32 private_state = 3;
__weak __u16 overridable = 11;

__u32 tuned SEC(".data.tuning") = 21;
static __u32 only_static SEC(".data.quiet") = 4;
const volatile __u32 frozen SEC(".rodata.tuning") = 22;
__u64 numbers[2] SEC(".bss.tuning");
__u32 growing[1] SEC(".data.growing");

static __noinline int once(int argument)
{
	static __u32 times;

	times++;
	return argument + times;
}

SEC("raw_tp/sys_enter")
int use(void *context)
{
	static __u32 times;
	__u32 index = table[bpf_get_prandom_u32() & 3];

	times += once(index);
	total += min_us + setting.first + setting.second + hidden_setting;
	counter += level + started + private_state + overridable + table[1] + text[2];
	only_static += tuned + frozen + growing[0];
	numbers[1] += counter;
	bpf_trace_printk("a string section", sizeof("a string section"));
	return times;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
__u32 VERSION SEC("version") = 0x050a03;
