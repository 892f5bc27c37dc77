/* Globals that live in an arena. */
#include "bpf_min.h"

#define __arena __attribute__((address_space(1)))

struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, 1024); /* BPF_F_MMAPABLE */
	__uint(max_entries, 10);
} arena SEC(".maps");

__u64 __arena numbers[3] SEC(".addr_space.1") = { 1, 2, 3 };
__u32 __arena state SEC(".addr_space.1") = 42;

SEC("syscall")
int use(void *context)
{
	__u32 key = 0;

	bpf_map_lookup_elem(&arena, &key);
	numbers[1] += state;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
