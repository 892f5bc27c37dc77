"""The opcode tables that the disassembler, the assembler and the parser share: number -> the sign or name in text.

An opcode is a class (low three bits) together with an operation and where its source is, or with a size and a mode.

Source: Linux, Documentation/bpf/standardization/instruction-set.rst; kernel/bpf/disasm.c for signs and names.
"""

from __future__ import annotations

from pybpf import constants as c

REGISTER_SOURCE = c.BPF_X
"""The bit of arithmetic and jumps that says: the source is a register."""

ALU_SIGN = {
    c.BPF_ADD: "+=", c.BPF_SUB: "-=", c.BPF_MUL: "*=", c.BPF_DIV: "/=", c.BPF_OR: "|=", c.BPF_AND: "&=",
    c.BPF_LSH: "<<=", c.BPF_RSH: ">>=", c.BPF_MOD: "%=", c.BPF_XOR: "^=", c.BPF_MOV: "=", c.BPF_ARSH: "s>>=",
}  # fmt: skip
SIGNED_ALU_SIGN = {c.BPF_DIV: "s/=", c.BPF_MOD: "s%="}
"""With offset 1."""
JUMP_SIGN = {
    c.BPF_JEQ: "==", c.BPF_JGT: ">", c.BPF_JGE: ">=", c.BPF_JSET: "&", c.BPF_JNE: "!=", c.BPF_JSGT: "s>",
    c.BPF_JSGE: "s>=", c.BPF_JLT: "<", c.BPF_JLE: "<=", c.BPF_JSLT: "s<", c.BPF_JSLE: "s<=",
}  # fmt: skip

UNSIGNED_SIZE = {c.BPF_W: "u32", c.BPF_H: "u16", c.BPF_B: "u8", c.BPF_DW: "u64"}
SIGNED_SIZE = {c.BPF_W: "s32", c.BPF_H: "s16", c.BPF_B: "s8"}
SIGN_EXTENSION = {8: "(s8)", 16: "(s16)", 32: "(s32)"}
"""The offset of a sign-extending move."""

ATOMIC_SIGN = {c.BPF_ADD: "+=", c.BPF_OR: "|=", c.BPF_AND: "&=", c.BPF_XOR: "^="}
"""Immediates of atomic operations without a result."""
FETCH_NAME = {
    c.BPF_ADD | c.BPF_FETCH: "add", c.BPF_OR | c.BPF_FETCH: "or", c.BPF_AND | c.BPF_FETCH: "and",
    c.BPF_XOR | c.BPF_FETCH: "xor",
}  # fmt: skip

JUMP = c.BPF_JMP | c.BPF_JA
JUMP_LONG = c.BPF_JMP32 | c.BPF_JA
JUMP_INDIRECT = c.BPF_JMP | c.BPF_JA | c.BPF_X
MAY_GOTO = c.BPF_JMP | c.BPF_JCOND
CALL = c.BPF_JMP | c.BPF_CALL
CALL_REGISTER = c.BPF_JMP | c.BPF_CALL | c.BPF_X
EXIT = c.BPF_JMP | c.BPF_EXIT
MOVE = c.BPF_ALU64 | c.BPF_MOV | c.BPF_X
SWAP = c.BPF_ALU64 | c.BPF_END
TO_LITTLE = c.BPF_ALU | c.BPF_END | c.BPF_TO_LE
TO_BIG = c.BPF_ALU | c.BPF_END | c.BPF_TO_BE
NOSPEC = 0xC2
"""The kernel's own barrier against speculation; no program may bring one."""

ADDR_SPACE_CAST = 1
PER_CPU = -1
"""Offsets of a 64-bit move that make something else of it."""


def inverse(table: dict[int, str]) -> dict[str, int]:
    """Text -> number."""
    return {text: number for number, text in table.items()}
