/* The same in C with libbpf: open, load, attach, first event, exit. */
#include <stdio.h>
#include <stdlib.h>
#include <bpf/libbpf.h>

static int on_event(void *context, void *data, size_t size)
{
	*(int *) context += 1;
	return -1;
}

int main(int count, char **arguments)
{
	int events = 0;
	struct bpf_object *object = bpf_object__open_file(arguments[1], NULL);
	struct bpf_program *program;

	if (!object || bpf_object__load(object))
		return 1;
	bpf_object__for_each_program(program, object)
		if (!bpf_program__attach(program))
			return 2;
	struct ring_buffer *ring =
		ring_buffer__new(bpf_object__find_map_fd_by_name(object, "events"), on_event, &events, NULL);
	if (!ring)
		return 3;
	while (!events)
		ring_buffer__poll(ring, 1000);
	return 0;
}
