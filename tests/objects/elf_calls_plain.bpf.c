/* Programs without maps and without type information. */
#include "bpf_min.h"

static __noinline int leaf(int number)
{
	barrier_var(number);
	return number * 3;
}

__noinline int twice(int number)
{
	return leaf(number) + leaf(number + 1);
}

SEC("socket")
int first(void *context)
{
	return twice(1);
}

char LICENSE[] SEC("license") = "GPL";
