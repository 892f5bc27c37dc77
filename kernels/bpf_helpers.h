/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a program for pybpf is written with: sections, map definitions, CO-RE reads, and a count of lost events.
 *
 * Include "vmlinux.h" first. Nothing here needs libbpf's headers.
 */
#pragma once

#include "bpf_helper_defs.h"

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __weak __attribute__((weak))
#define __hidden __attribute__((visibility("hidden")))
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))

/* Members of a map definition in SEC(".maps"). */
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name
#define __array(name, value) typeof(value) *name[]

/* A global that user space sets before the load (obj.globals, pybpf run --set). */
#define SETTING const volatile

/*
 * The convention by which pybpf knows what a ring buffer or perf buffer carries:
 *
 *     struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1 << 18); } events SEC(".maps") EVENT(event);
 *
 * The struct must be in the object's BTF: CARRIES(event) makes the compiler keep it.
 */
#define EVENT(name) __attribute__((btf_decl_tag("event:" #name)))
#define CARRIES(name) const struct name *__pybpf_keep_##name __attribute__((unused)) = 0

/*
 * Events that could not be delivered: the global dropped_MAP counts those of the ring buffer MAP. pybpf's readers give
 * it as `lost`, and `pybpf run` reports it when it ends. DROP_COUNTER is that of a ring buffer named `events`, or of the
 * only one that an object has.
 */
#define DROP_COUNTER_OF(map) __u64 dropped_##map = 0
#define COUNT_DROP_OF(map) __sync_fetch_and_add(&dropped_##map, 1)
#define DROP_COUNTER DROP_COUNTER_OF(events)
#define COUNT_DROP() COUNT_DROP_OF(events)

/* Room for a record in a ring buffer; without room it counts the drop and gives NULL. */
#define RESERVE(map, type) ({ \
	type *record_ = bpf_ringbuf_reserve(&map, sizeof(type), 0); \
	if (!record_) \
		COUNT_DROP_OF(map); \
	record_; \
})

/*
 * Copy a record of any size into a ring buffer; without room it counts the drop and gives an error. OUTPUT_WITH takes
 * flags: BPF_RB_NO_WAKEUP or BPF_RB_FORCE_WAKEUP.
 */
#define OUTPUT(map, data, size) OUTPUT_WITH(map, data, size, 0)
#define OUTPUT_WITH(map, data, size, flags) ({ \
	long result_ = bpf_ringbuf_output(&map, data, size, flags); \
	if (result_) \
		COUNT_DROP_OF(map); \
	result_; \
})

/* CO-RE. */
#define bpf_core_read(destination, size, source) \
	bpf_probe_read_kernel(destination, size, (const void *) __builtin_preserve_access_index(source))
#define bpf_core_field_exists(field) __builtin_preserve_field_info(field, 2)
#define bpf_core_type_exists(type) __builtin_preserve_type_info(*(typeof(type) *) 0, 0)
#define READ_FIELD(pointer, field) ({ \
	typeof(pointer) base_ = (pointer); \
	typeof(base_->field) value_; \
	bpf_core_read(&value_, sizeof(value_), &base_->field); \
	value_; \
})

#define barrier_var(variable) asm volatile("" : "+r"(variable))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define bpf_ntohs(value) __builtin_bswap16(value)
#define bpf_ntohl(value) __builtin_bswap32(value)
#else
#define bpf_ntohs(value) (value)
#define bpf_ntohl(value) (value)
#endif
#define bpf_htons(value) bpf_ntohs(value)
