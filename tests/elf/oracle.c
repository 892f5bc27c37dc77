/*
 * Opens and loads a BPF object with libbpf and prints what libbpf hands to the kernel, one line for each bpf(2) call
 * that belongs to the object. Calls that the kernel refuses are answered with a descriptor of /dev/null, so that
 * libbpf goes on: what counts is what it asked for.
 */
#include <bpf/libbpf.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int recording;

static void print_hex(const char *name, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	printf(" %s=", name);
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
}

static int of_object(const char *name)
{
	return recording && strncmp(name, "libbpf_", 7) && strncmp(name, "det_", 4);
}

static void print_program(const union bpf_attr *attr)
{
	printf("program name=%s type=%u attach_type=%u flags=%u license=%s kern_version=%u", attr->prog_name,
	       attr->prog_type, attr->expected_attach_type, attr->prog_flags,
	       ((const char *)attr->license)[0] ? (const char *)attr->license : "-", attr->kern_version);
	print_hex("instructions", (void *)attr->insns, attr->insn_cnt * 8);
	print_hex("func_info", (void *)attr->func_info, attr->func_info_cnt * attr->func_info_rec_size);
	print_hex("line_info", (void *)attr->line_info, attr->line_info_cnt * attr->line_info_rec_size);
	printf("\n");
}

static void print_map(const union bpf_attr *attr, long fd)
{
	printf("map name=%s type=%u key_size=%u value_size=%u max_entries=%u flags=%u map_extra=%llu numa_node=%u "
	       "key_type_id=%u value_type_id=%u fd=%ld\n",
	       attr->map_name, attr->map_type, attr->key_size, attr->value_size, attr->max_entries, attr->map_flags,
	       attr->map_extra, attr->numa_node, attr->btf_key_type_id, attr->btf_value_type_id, fd);
}

long syscall(long number, ...)
{
	static long (*next)(long, ...);
	long a[6], result;
	va_list list;

	if (!next)
		next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	result = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number != SYS_bpf || !recording)
		return result;

	const union bpf_attr *attr = (const union bpf_attr *)a[1];
	int saved = errno;

	if (a[0] == BPF_PROG_LOAD && attr->prog_name[0] && of_object(attr->prog_name)) {
		print_program(attr);
		if (result < 0)
			return open("/dev/null", O_RDONLY | O_CLOEXEC);
	} else if (a[0] == BPF_MAP_CREATE && attr->map_name[0] && of_object(attr->map_name)) {
		if (result < 0)
			result = open("/dev/null", O_RDONLY | O_CLOEXEC);
		print_map(attr, result);
		return result;
	} else if (a[0] == BPF_BTF_LOAD && attr->btf_size > 300) {
		printf("btf accepted=%d", result >= 0);
		print_hex("data", (void *)attr->btf, attr->btf_size);
		printf("\n");
	} else if ((a[0] == BPF_MAP_UPDATE_ELEM || a[0] == BPF_MAP_FREEZE) && result < 0 && errno == EINVAL) {
		return 0;
	} else if (a[0] == BPF_OBJ_PIN) {
		if (result == 0)
			unlink((const char *)attr->pathname);
		return 0;
	}
	errno = saved;
	return result;
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_program *program;

	LIBBPF_OPTS(bpf_object_open_opts, options, .pin_root_path = argc > 2 ? argv[2] : NULL);
	libbpf_set_strict_mode(LIBBPF_STRICT_ALL);
	object = bpf_object__open_file(argv[1], &options);
	if (!object) {
		printf("refused errno=%d\n", errno);
		return 1;
	}
	bpf_object__for_each_program(program, object)
		printf("entry name=%s section=%s autoload=%d type=%u attach_type=%u\n", bpf_program__name(program),
		       bpf_program__section_name(program), bpf_program__autoload(program), bpf_program__type(program),
		       bpf_program__expected_attach_type(program));
	recording = 1;
	if (bpf_object__load(object))
		printf("failed errno=%d\n", errno);
	recording = 0;
	bpf_object__close(object);
	return 0;
}
