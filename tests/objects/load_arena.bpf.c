// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* An arena with global variables, and a list in it that the program builds and user space follows. */
#include "bpf_min.h"

#define __arena __attribute__((address_space(1)))
#define PAGES 10

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, 1024); /* BPF_F_MMAPABLE */
	__uint(max_entries, PAGES);
} arena SEC(".maps");

struct node {
	struct node __arena *next;
	__u64 value;
};

__u64 __arena numbers[3] SEC(".addr_space.1") = { 1, 2, 3 };
__u32 __arena state SEC(".addr_space.1") = 42;
struct node __arena *__arena head SEC(".addr_space.1");
__u64 list_address;

void __arena *bpf_arena_alloc_pages(void *map, void __arena *address, __u32 count, int node, __u64 flags) __ksym;

SEC("syscall")
int add(void *context)
{
	numbers[1] += state;
	state += 1;
	return numbers[1];
}

SEC("syscall")
int build_list(void *context)
{
	struct node __arena *nodes = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);

	if (!nodes)
		return 1;
	nodes[0].value = 10;
	nodes[1].value = 20;
	nodes[0].next = &nodes[1];
	nodes[1].next = 0;
	head = nodes;
	list_address = (__u64)nodes;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
