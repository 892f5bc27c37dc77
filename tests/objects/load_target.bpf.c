// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program with a function that other programs replace or trace. */
#include "bpf_min.h"

__weak __noinline int replaceable(int number)
{
	barrier_var(number);
	return number + 1;
}

SEC("tc")
int entry(void *context)
{
	return replaceable(41);
}

char LICENSE[] SEC("license") = "GPL";
