/*
 * A program with USDT probes, for x86-64. It does one thing for each line that it reads, and answers with a line.
 *
 * The macro writes what <sys/sdt.h> writes: an instruction that does nothing, and a note about it.
 */
#include <stdint.h>
#include <unistd.h>

#define NOTE(nops, name, semaphore, arguments, ...) asm volatile( \
	"990: " nops "\n" \
	".pushsection .note.stapsdt,\"?\",\"note\"\n" \
	".balign 4\n" \
	".4byte 992f-991f, 994f-993f, 3\n" \
	"991: .asciz \"stapsdt\"\n" \
	"992: .balign 4\n" \
	"993: .8byte 990b, _.stapsdt.base, " semaphore "\n" \
	".asciz \"pybpf_test\"\n" \
	".asciz \"" name "\"\n" \
	".asciz \"" arguments "\"\n" \
	"994: .balign 4\n" \
	".popsection\n" \
	".ifndef _.stapsdt.base\n" \
	".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
	".weak _.stapsdt.base\n" \
	".hidden _.stapsdt.base\n" \
	"_.stapsdt.base: .space 1\n" \
	".size _.stapsdt.base, 1\n" \
	".popsection\n" \
	".endif\n" :: __VA_ARGS__)

#define NOP "nop"

unsigned short counted_semaphore __attribute__((section(".probes"), used));

static char line[64];
static volatile struct { int before, value; } global = {.value = -11};

/* At each place where this is inlined the arguments are elsewhere. */
static inline __attribute__((always_inline)) void event(int64_t number, int32_t other)
{
	NOTE(NOP, "event", "0", "-8@%0 -4@%1", "nor"(number), "nor"(other));
}

/* Operands that a compiler chooses rarely: memory by one and by two registers, a part of a register. */
static void from_memory(int8_t *bytes, int32_t *numbers, int64_t index)
{
	register int8_t *r8 asm("r8") = bytes;
	register int32_t *r9 asm("r9") = numbers;
	register int64_t r10 asm("r10") = index;

	NOTE(NOP, "memory", "0", "-1@1(%%r8) 1@(%%r8) 4@(%%r9,%%r10,4) -4@4(%%r9,%%r10,4) 8@$-7 2@%%r10w",
		"r"(r8), "r"(r9), "r"(r10) : "memory");
}

int main(void)
{
	int8_t bytes[] = {-1, -2};
	int32_t numbers[] = {10, -20, 30, -40};
	int64_t received;

	while ((received = read(0, line, sizeof(line))) > 0) {
		switch (line[0]) {
		case 'e':
			event(1, 2);
			event(received << 32, -3);
			event(received << 32, -3);
			break;
		case 'm':
			from_memory(bytes, numbers, 2);
			break;
		case 'c':
			if (counted_semaphore)
				NOTE(NOP, "counted", "counted_semaphore", "2@%0", "nor"(counted_semaphore));
			break;
		case 'g':
			global.value--;
			NOTE(NOP, "global", "0", "-4@%0", "m"(global.value));
			break;
		case 'q':
			NOTE("nop; .byte 0x0f, 0x1f, 0x44, 0x00, 0x00", "quick", "0", "");
			break;
		}
		line[0] = counted_semaphore ? 'S' : '-';
		line[1] = '\n';
		if (write(1, line, 2) != 2)
			break;
	}
	return 0;
}
