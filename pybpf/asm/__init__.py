"""eBPF instructions: encode, decode, disassemble, assemble. Pure: bytes in, values out.

    instruction   Instruction, encode, decode       disasm    the kernel's text of instructions
    assembler     Assembler: instructions in Python llvm      llvm-objdump's
    operands      r0 .. w10, u8 .. s32              text      both, read
    build         assemble: an ObjectSpec from them classic   the BPF of 1993

The loader needs only `pybpf.asm.slots`, so the rest is imported when it is first used.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.assembler import Assembler, Reference
    from pybpf.asm.build import assemble
    from pybpf.asm.disasm import disassemble
    from pybpf.asm.instruction import Instruction, decode, encode, swap
    from pybpf.asm.operands import (
        Memory,
        Register,
        r0,
        r1,
        r2,
        r3,
        r4,
        r5,
        r6,
        r7,
        r8,
        r9,
        r10,
        s8,
        s16,
        s32,
        u8,
        u16,
        u32,
        u64,
        w0,
        w1,
        w2,
        w3,
        w4,
        w5,
        w6,
        w7,
        w8,
        w9,
        w10,
    )

__all__ = [  # noqa: RUF022  (the order a reader wants)
    "Assembler",
    "assemble",
    "disassemble",
    "Instruction",
    "decode",
    "encode",
    "swap",
    "Memory",
    "Reference",
    "Register",
    "r0",
    "r1",
    "r2",
    "r3",
    "r4",
    "r5",
    "r6",
    "r7",
    "r8",
    "r9",
    "r10",
    "w0",
    "w1",
    "w2",
    "w3",
    "w4",
    "w5",
    "w6",
    "w7",
    "w8",
    "w9",
    "w10",
    "u8",
    "u16",
    "u32",
    "u64",
    "s8",
    "s16",
    "s32",
]

_HOMES = {
    "assembler": "Assembler Reference",
    "build": "assemble",
    "disasm": "disassemble",
    "instruction": "Instruction decode encode swap",
    "operands": "Memory Register r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 "
    "u8 u16 u32 u64 s8 s16 s32",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
