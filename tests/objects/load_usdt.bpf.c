/* Programs on USDT probes, with the header that pybpf brings. Each run says what it saw of the probe's arguments. */
#include "../../kernels/vmlinux.h"
#include "../../kernels/bpf_helpers.h"
#include "../../kernels/usdt.bpf.h"

char LICENSE[] SEC("license") = "GPL";

struct seen {
	long values[12];
	int sizes[12];
	int errors[12];
	int count;
	long cookie;
};

struct seen seen;
unsigned long runs;
int sum;

static __always_inline int record(struct pt_regs *ctx)
{
	seen.count = bpf_usdt_arg_cnt(ctx);
	seen.cookie = bpf_usdt_cookie(ctx);
#pragma unroll
	for (int i = 0; i < 12; i++) {
		long value;

		seen.errors[i] = bpf_usdt_arg(ctx, i, &value);
		seen.values[i] = value;
		seen.sizes[i] = bpf_usdt_arg_size(ctx, i);
	}
	__sync_fetch_and_add(&runs, 1);
	return 0;
}

SEC("usdt")
int on_probe(struct pt_regs *ctx)
{
	return record(ctx);
}

SEC("usdt.s")
int on_probe_sleepable(struct pt_regs *ctx)
{
	return record(ctx);
}

SEC("uprobe")
int on_probe_of_uprobe(struct pt_regs *ctx)
{
	return record(ctx);
}

SEC("usdt")
int BPF_USDT(with_parameters, int first, void *second, long third)
{
	sum = first + (int) (long) second + (int) third;
	__sync_fetch_and_add(&runs, 1);
	return 0;
}
