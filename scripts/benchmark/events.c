/* SPDX-License-Identifier: BSD-2-Clause */
/* The C rival of bench-events: libbpf's consumers with a callback that adds up the first member. */
#include <bpf/libbpf.h>
#include <stddef.h>
#include <stdint.h>

static uint64_t records, sum;

static int on_record(void *context, void *data, size_t size)
{
	(void) context;
	(void) size;
	records++;
	sum += *(const uint64_t *) data;
	return 0;
}

static void on_sample(void *context, int cpu, void *data, uint32_t size)
{
	(void) cpu;
	on_record(context, data, size);
}

void *ring_open(int map)
{
	return ring_buffer__new(map, on_record, NULL, NULL);
}

void *perf_open(int map, size_t pages)
{
	return perf_buffer__new(map, pages, on_sample, NULL, NULL, NULL);
}

/* Empty the buffer; the number of records, or -1 when their sum is wrong. */
static int64_t checked(int result, uint64_t expected)
{
	return result < 0 || sum != expected ? -1 : (int64_t) records;
}

int64_t ring_drain(void *buffer, uint64_t expected)
{
	records = sum = 0;
	return checked(ring_buffer__consume(buffer), expected);
}

int64_t perf_drain(void *buffer, uint64_t expected)
{
	records = sum = 0;
	return checked(perf_buffer__consume(buffer), expected);
}

void ring_close(void *buffer)
{
	ring_buffer__free(buffer);
}

void perf_close(void *buffer)
{
	perf_buffer__free(buffer);
}
