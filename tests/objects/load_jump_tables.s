# Indirect jumps in a program and in the subprogram that it calls. The assembler does not know `gotox` yet.
	.macro gotox_r1
	.byte 0x0d, 0x01, 0, 0, 0, 0, 0, 0
	.endm

	.text
	.type filler,@function
filler:
	r0 = 0
	exit
	.size filler, .-filler

	.globl choose
	.p2align 3
	.type choose,@function
choose:
	r1 &= 1
	r1 <<= 3
	r2 = r1
	r1 = choices ll
	r1 += r2
	r1 = *(u64 *)(r1 + 0)
	gotox_r1
choose_first:
	r0 = 11
	exit
choose_second:
	r0 = 22
	exit
	.size choose, .-choose

	.section "socket","ax",@progbits
	.globl first
	.p2align 3
	.type first,@function
first:
	r0 = 1
	exit
	.size first, .-first

	.globl jumper
	.p2align 3
	.type jumper,@function
jumper:
	r6 = *(u32 *)(r1 + 0)
	r7 = r6
	r6 &= 1
	r6 <<= 3
	r1 = places ll
	r1 += r6
	r1 = *(u64 *)(r1 + 0)
	gotox_r1
even:
	r1 = r7
	r1 >>= 1
	call choose
	r0 += 100
	exit
odd:
	r0 = 7
	exit
	.size jumper, .-jumper

	.section ".jumptables","",@progbits
	.globl choices
	.type choices,@object
choices:
	.quad choose_first - filler
	.quad choose_second - filler
	.size choices, .-choices
	.globl places
	.type places,@object
places:
	.quad even - first
	.quad odd - first
	.size places, .-places

	.section "license","aw",@progbits
	.asciz "GPL"
