// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Chapter 8: what programs say through OpenSSL, before it is encrypted and after it is decrypted: uprobes. */
#include "learn.h"

#define KEPT 128

struct said {
	__u32 pid;
	__u32 size;
	char command[16];
	char direction[8];
	unsigned char data[KEPT];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} output SEC(".maps") EVENT(said);

CARRIES(said);
DROP_COUNTER_OF(output);

/* A read that has begun: where its bytes will be, and where their number, if it is not the function's result. */
struct reading {
	void *buffer;
	__u64 *count;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct reading);
} readings SEC(".maps");

static __always_inline int tell(const char direction[8], void *buffer, __s64 size)
{
	if (size <= 0)
		return 0;
	struct said *event = RESERVE(output, struct said);
	if (!event)
		return 0;
	event->pid = bpf_get_current_pid_tgid() >> 32;
	event->size = size;
	bpf_get_current_comm(event->command, sizeof(event->command));
	__builtin_memcpy(event->direction, direction, sizeof(event->direction));
	__builtin_memset(event->data, 0, sizeof(event->data));
	bpf_probe_read_user(event->data, size < KEPT ? size : KEPT, buffer);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

static __always_inline int begin(void *buffer, __u64 *count)
{
	struct reading reading = { buffer, count };
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&readings, &thread, &reading, 0);
	return 0;
}

static __always_inline int end(__s32 result)
{
	static const char direction[8] = "reads";
	__u64 thread = bpf_get_current_pid_tgid();
	struct reading *found = bpf_map_lookup_elem(&readings, &thread);
	__u64 size = 0;

	if (!found)
		return 0;
	struct reading reading = *found;
	bpf_map_delete_elem(&readings, &thread);
	if (result <= 0)
		return 0;
	if (!reading.count)
		size = result;
	else
		bpf_probe_read_user(&size, sizeof(size), reading.count);
	return tell(direction, reading.buffer, size);
}

static __always_inline int written(void *registers)
{
	static const char direction[8] = "writes";

	return tell(direction, (void *) argument(registers, 1), (__s32) argument(registers, 2));
}

/* int SSL_write(SSL *ssl, const void *buf, int num) */
SEC("uprobe/libssl.so.3:SSL_write")
int at_write(void *ctx)
{
	return written(ctx);
}

/* int SSL_write_ex(SSL *ssl, const void *buf, size_t num, size_t *written) */
SEC("uprobe/libssl.so.3:SSL_write_ex")
int at_write_ex(void *ctx)
{
	return written(ctx);
}

/* int SSL_read(SSL *ssl, void *buf, int num): the bytes are there when it returns. */
SEC("uprobe/libssl.so.3:SSL_read")
int at_read(void *ctx)
{
	return begin((void *) argument(ctx, 1), NULL);
}

/* int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes) */
SEC("uprobe/libssl.so.3:SSL_read_ex")
int at_read_ex(void *ctx)
{
	return begin((void *) argument(ctx, 1), (void *) argument(ctx, 3));
}

SEC("uretprobe/libssl.so.3:SSL_read")
int at_read_return(void *ctx)
{
	return end(result(ctx));
}

SEC("uretprobe/libssl.so.3:SSL_read_ex")
int at_read_ex_return(void *ctx)
{
	return end(result(ctx));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
