// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Programs for a function of another BPF program: one takes its place, the others watch it. */
#include "bpf_min.h"

__u64 entered, argument, left, result;

SEC("?freplace/replaceable")
int replacement(int number)
{
	return number * 2;
}

SEC("?fentry/replaceable")
int on_entry(__u64 *context)
{
	entered += 1;
	argument = context[0];
	return 0;
}

SEC("?fexit/replaceable")
int on_exit(__u64 *context)
{
	left += 1;
	result = context[1];
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
