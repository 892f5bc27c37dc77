// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 6: without a license that fits the GPL, some helpers cannot be called. */
#include "learn.h"

SEC("raw_tp/sys_enter")
int bad_license(void *ctx)
{
	bpf_printk("Hello World!");
	return 0;
}
