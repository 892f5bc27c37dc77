# A jump table as LLVM writes it: byte offsets of instructions, found through a symbol with the table's size.
	.section "socket","ax",@progbits
	.globl jumper
	.p2align 3
	.type jumper,@function
jumper:
	r1 = table ll
	r0 = 0
	exit
	.size jumper, .-jumper

	.section ".jumptables","",@progbits
	.globl table
	.type table,@object
	.quad 99
table:
	.quad 16
	.quad 24
	.size table, .-table

	.section "license","aw",@progbits
	.asciz "GPL"
