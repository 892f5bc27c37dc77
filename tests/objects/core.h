/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the test objects need: the compiler's CO-RE builtins by name, and a place to put numbers. */
#ifndef CORE_H
#define CORE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef _Bool bool;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

#define field_offset(field) __builtin_preserve_field_info(field, 0)
#define field_size(field) __builtin_preserve_field_info(field, 1)
#define field_exists(field) __builtin_preserve_field_info(field, 2)
#define field_signed(field) __builtin_preserve_field_info(field, 3)
#define field_lshift(field) __builtin_preserve_field_info(field, 4)
#define field_rshift(field) __builtin_preserve_field_info(field, 5)
#define field_all(field)                                                                                               \
	(put(field_offset(field)), put(field_size(field)), put(field_exists(field)), put(field_signed(field)),         \
	 put(field_lshift(field)), put(field_rshift(field)))

#define type_id_local(type) __builtin_btf_type_id(*(type *)0, 0)
#define type_id_target(type) __builtin_btf_type_id(*(type *)0, 1)
#define type_exists(type) __builtin_preserve_type_info(*(type *)0, 0)
#define type_size(type) __builtin_preserve_type_info(*(type *)0, 1)
#define type_matches(type) __builtin_preserve_type_info(*(type *)0, 2)
#define type_all(type)                                                                                                 \
	(put(type_id_local(type)), put(type_id_target(type)), put(type_exists(type)), put(type_size(type)),            \
	 put(type_matches(type)))

#define value_exists(type, value) __builtin_preserve_enum_value(*(type *)value, 0)
#define value_of(type, value) __builtin_preserve_enum_value(*(type *)value, 1)
#define value_all(type, value) (put(value_exists(type, value)), put(value_of(type, value)))

/* Uses a number in a way that no optimiser removes or merges. */
#define put(number) ({ asm volatile("" : : "r"((u64)(number))); })

#endif
