/* Maps as they were defined before BTF, one of them with types given by an annotation. */
#include "bpf_min.h"

struct bpf_map_def {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
#ifdef LARGER
	__u32 id;
	__u32 pinning;
#endif
};

struct bpf_map_def SEC("maps") first = {
	.type = BPF_MAP_TYPE_HASH,
	.key_size = 4,
	.value_size = 16,
	.max_entries = 12,
	.map_flags = 1,
#ifdef LARGER
	.pinning = LARGER,
#endif
};

struct bpf_map_def SEC("maps") second = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = 4,
	.value_size = 8,
	.max_entries = 2,
};

struct point {
	__u64 x;
	__u64 y;
};

struct ____btf_map_first {
	__u32 key;
	struct point value;
};

struct ____btf_map_first SEC(".maps.first") ____btf_map_first = {};

SEC("socket")
int use(void *context)
{
	__u32 key = 1;

	bpf_map_lookup_elem(&first, &key);
	return bpf_map_lookup_elem(&second, &key) != 0;
}

char LICENSE[] SEC("license") = "GPL";
