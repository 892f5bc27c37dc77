// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Exceptions: thrown deep in a program, they end it with what its callback returns, or with the cookie. */
#include "bpf_min.h"

#define __exception_callback(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

struct packet {
	__u32 len;
};

void bpf_throw(__u64 cookie) __ksym;

__noinline int rescue(__u64 cookie)
{
	return cookie + 1000;
}

static __noinline int check(__u32 length)
{
	if (length & 1)
		bpf_throw(length);
	return 7;
}

SEC("tc")
__exception_callback(rescue)
int careful(struct packet *context)
{
	return check(context->len) + 1;
}

SEC("tc")
int careless(struct packet *context)
{
	return check(context->len) + 2;
}

char LICENSE[] SEC("license") = "GPL";
