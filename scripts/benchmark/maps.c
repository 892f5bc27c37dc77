/* The C rivals of scripts/bench-maps: a whole block of operations for each call. Keys and values are u64. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>

typedef unsigned long long u64;

/* The least that C can do: the attr is made once, and a lookup is one system call. Gives the sum of the values. */
u64 raw_lookups(int fd, const u64 *keys, int count)
{
	u64 value = 0, sum = 0;
	union bpf_attr attr = { .map_fd = fd, .value = (unsigned long) &value };

	for (int i = 0; i < count; i++) {
		attr.key = (unsigned long) &keys[i];
		if (!syscall(__NR_bpf, BPF_MAP_LOOKUP_ELEM, &attr, 32))
			sum += value;
	}
	return sum;
}

u64 lookups(int fd, const u64 *keys, int count)
{
	u64 value, sum = 0;

	for (int i = 0; i < count; i++)
		if (!bpf_map_lookup_elem(fd, &keys[i], &value))
			sum += value;
	return sum;
}

int updates(int fd, const u64 *keys, const u64 *values, int count)
{
	int done = 0;

	for (int i = 0; i < count; i++)
		done += !bpf_map_update_elem(fd, &keys[i], &values[i], BPF_ANY);
	return done;
}

int deletes(int fd, const u64 *keys, int count)
{
	int done = 0;

	for (int i = 0; i < count; i++)
		done += !bpf_map_delete_elem(fd, &keys[i]);
	return done;
}

/* The whole map by BPF_MAP_LOOKUP_BATCH. Values are `words` u64 long. Gives the sum of all of them; no table is built. */
u64 read_batches(int fd, int key_size, int words, int chunk)
{
	char *keys = malloc((size_t) chunk * key_size);
	u64 *values = malloc((size_t) chunk * words * 8), sum = 0, in = 0, out = 0;
	int err = 0, first = 1;

	while (!err) {
		__u32 count = chunk;
		err = bpf_map_lookup_batch(fd, first ? NULL : &in, &out, keys, values, &count, NULL);
		if (err && errno != ENOENT)
			break;
		for (__u32 i = 0; i < count * words; i++)
			sum += values[i];
		in = out;
		first = 0;
	}
	free(keys);
	free(values);
	return sum;
}

/* The same key by key, as before Linux 5.6. */
u64 read_keys(int fd)
{
	u64 key, next, value, sum = 0;
	void *from = NULL;

	while (!bpf_map_get_next_key(fd, from, &next)) {
		if (!bpf_map_lookup_elem(fd, &next, &value))
			sum += value;
		key = next;
		from = &key;
	}
	return sum;
}
