/* An exception callback is part of the program that names it, although nothing calls it. */
#include "bpf_min.h"

#define __exception_callback(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

__noinline int help(__u64 cookie)
{
	barrier_var(cookie);
	return cookie;
}

__noinline int rescue(__u64 cookie)
{
	return help(cookie) + 1;
}

SEC("socket")
__exception_callback(rescue)
int careful(void *context)
{
	return 0;
}

SEC("socket")
int careless(void *context)
{
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
