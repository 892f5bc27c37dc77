/* Prints the instructions that libbpf makes of each program of an object: a line "name hex" for each.
 *
 *   relocated OBJECT [CUSTOM_BTF]
 *
 * A program of a section "core/..." is relocated by libbpf, printed, and then replaced by "return 0", so that the
 * verifier's opinion of it does not matter. Needs libbpf >= 1.0. Exit status 1: libbpf refused the object.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdio.h>

static const struct bpf_insn trivial[] = {
	{.code = 0xb7}, /* r0 = 0 */
	{.code = 0x95}, /* exit */
};

static int print_program(struct bpf_program *prog, struct bpf_prog_load_opts *opts, long cookie)
{
	const unsigned char *bytes = (const unsigned char *)bpf_program__insns(prog);
	size_t size = bpf_program__insn_cnt(prog) * sizeof(struct bpf_insn);

	(void)cookie;
	printf("%s ", bpf_program__name(prog));
	for (size_t i = 0; i < size; i++)
		printf("%02x", bytes[i]);
	printf("\n");
	opts->func_info = NULL;
	opts->func_info_cnt = 0;
	opts->line_info = NULL;
	opts->line_info_cnt = 0;
	return bpf_program__set_insns(prog, (struct bpf_insn *)trivial, 2);
}

int main(int argc, char **argv)
{
	LIBBPF_OPTS(bpf_object_open_opts, open_opts, .btf_custom_path = argc > 2 ? argv[2] : NULL);
	LIBBPF_OPTS(libbpf_prog_handler_opts, handler, .prog_prepare_load_fn = print_program);
	struct bpf_object *object;

	if (argc < 2)
		return 2;
	if (libbpf_register_prog_handler("core+", BPF_PROG_TYPE_RAW_TRACEPOINT, 0, &handler) < 0)
		return 2;
	object = bpf_object__open_file(argv[1], &open_opts);
	if (!object || bpf_object__load(object))
		return 1;
	bpf_object__close(object);
	return 0;
}
