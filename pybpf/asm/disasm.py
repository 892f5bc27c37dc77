"""Instructions as text, in the words of the kernel's own disassembler (kernel/bpf/disasm.c).

Rules of this module:

* The text equals what the verifier's log and ``bpftool prog dump xlated`` print: ``(bf) r1 = r10``.
* 32-bit operations name registers w0 to w10, 64-bit ones r0 to r10.
* Every well-formed slot has a text; what the kernel has no name for shows as ``BUG_xx`` with its opcode.
* What a call or a constant refers to, only the caller knows: it may pass the words.
"""

from __future__ import annotations

import sys

from pybpf import constants as c
from pybpf.asm import opcodes as op
from pybpf.asm.instruction import Instruction, decode
from pybpf.asm.slots import LDIMM64
from pybpf.constants import HELPER_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.asm.slots import ByteOrder, Code

    Words = Callable[[int, Instruction], str | None]
    """Given the slot index and the instruction: the words for its target, or None for the usual ones."""
_OPERATION, _MODE, _SIZE = 0xF0, 0xE0, 0x18
"""Parts of an opcode."""


def disassemble(
    data: Code,
    *,
    byte_order: ByteOrder = sys.byteorder,
    calls: Words | None = None,
    constants: Words | None = None,
) -> list[str]:
    """A program as one line for each instruction: slot index, opcode, text, as bpftool prints it.

    Args:
        data: the program's bytes.
        byte_order: theirs.
        calls: gives the words after ``call`` of the instruction at a slot index, or None for the usual ones.
        constants: gives the words after ``=`` of an ``ldimm64``, for example ``map[id:7]``, or None.

    Raises:
        ObjectError: the bytes are no program (see `decode`).
    """
    lines: list[str] = []
    index = 0
    for insn in decode(data, byte_order):
        words = None
        if insn.code == op.CALL:
            words = calls and calls(index, insn)
        elif insn.code == LDIMM64:
            words = constants and constants(index, insn)
        lines.append(f"{index:4d}: {text(insn, words or '')}")
        index += insn.slots
    return lines


def text(insn: Instruction, words: str = "") -> str:
    """One instruction, for example ``(07) r1 += -8``.

    `words` replace what the instruction calls or, of an ``ldimm64``, loads.
    """
    return f"({insn.code:02x}) {_BY_CLASS[insn.code & 7](insn, words)}"


def _alu(insn: Instruction, _words: str) -> str:
    """Arithmetic of both widths."""
    code, wide = insn.code, insn.code & 7 == c.BPF_ALU64
    operation = code & _OPERATION
    bank = "r" if wide else "w"
    dst = f"{bank}{insn.dst}"
    if operation == c.BPF_END:
        name = "bswap" if wide else "be" if code & op.REGISTER_SOURCE else "le"
        return f"r{insn.dst} = {name}{insn.imm} r{insn.dst}"
    if operation == c.BPF_NEG:
        return f"{dst} = -{dst}"
    if code == op.MOVE and insn.off == op.ADDR_SPACE_CAST:
        return f"{dst} = addr_space_cast(r{insn.src}, {insn.imm >> 16 & 0xFFFF}, {insn.imm & 0xFFFF})"
    if code == op.MOVE and insn.off == op.PER_CPU:
        return f"{dst} = &(void __percpu *)(r{insn.src})"
    signs = op.SIGNED_ALU_SIGN if insn.off == 1 and operation in op.SIGNED_ALU_SIGN else op.ALU_SIGN
    sign = signs.get(operation)
    if sign is None:
        return _unknown(insn)
    if code & op.REGISTER_SOURCE:
        extension = op.SIGN_EXTENSION.get(insn.off, "") if operation == c.BPF_MOV else ""
        return f"{dst} {sign} {extension}{bank}{insn.src}"
    return f"{dst} {sign} {insn.imm}"


def _load(insn: Instruction, _words: str) -> str:
    """LDX: from memory to a register."""
    mode, size = insn.code & _MODE, insn.code & _SIZE
    name = {c.BPF_MEM: op.UNSIGNED_SIZE, c.BPF_MEMSX: op.SIGNED_SIZE}.get(mode, {}).get(size)
    if name is None:
        return _unknown(insn, "ldx_")
    return f"r{insn.dst} = *({name} *)(r{insn.src} {insn.off:+d})"


def _store_immediate(insn: Instruction, _words: str) -> str:
    """ST: an immediate to memory, and the kernel's own speculation barrier."""
    mode = insn.code & _MODE
    if mode == c.BPF_MEM:
        return f"*({op.UNSIGNED_SIZE[insn.code & _SIZE]} *)(r{insn.dst} {insn.off:+d}) = {insn.imm}"
    if insn.code == op.NOSPEC:
        return "nospec"
    return _unknown(insn, "st_")


def _store(insn: Instruction, _words: str) -> str:
    """STX: a register to memory, plain or atomic."""
    mode, size = insn.code & _MODE, insn.code & _SIZE
    if mode == c.BPF_MEM:
        return f"*({op.UNSIGNED_SIZE[size]} *)(r{insn.dst} {insn.off:+d}) = r{insn.src}"
    if mode != c.BPF_ATOMIC:
        return _unknown(insn)
    operation, src = insn.imm, insn.src
    type_name = op.UNSIGNED_SIZE[size]
    place = f"({type_name} *)(r{insn.dst} {insn.off:+d})"
    bits = "64" if size == c.BPF_DW else ""
    if operation in op.ATOMIC_SIGN:
        return f"lock *{place} {op.ATOMIC_SIGN[operation]} r{src}"
    if operation in op.FETCH_NAME:
        return f"r{src} = atomic{bits}_fetch_{op.FETCH_NAME[operation]}({place}, r{src})"
    if operation == c.BPF_CMPXCHG:
        return f"r0 = atomic{bits}_cmpxchg({place}, r0, r{src})"
    if operation == c.BPF_XCHG:
        return f"r{src} = atomic{bits}_xchg({place}, r{src})"
    if operation == c.BPF_LOAD_ACQ:
        return f"r{insn.dst} = load_acquire(({type_name} *)(r{src} {insn.off:+d}))"
    if operation == c.BPF_STORE_REL:
        return f"store_release({place}, r{src})"
    return _unknown(insn)


def _load_special(insn: Instruction, words: str) -> str:
    """LD: 64-bit constants, and packet bytes."""
    mode, size = insn.code & _MODE, insn.code & _SIZE
    if mode == c.BPF_ABS:
        return f"r0 = *({op.UNSIGNED_SIZE[size]} *)skb[{insn.imm}]"
    if mode == c.BPF_IND:
        return f"r0 = *({op.UNSIGNED_SIZE[size]} *)skb[r{insn.src} + {insn.imm}]"
    if insn.code == LDIMM64:
        return f"r{insn.dst} = {words or hex(insn.imm64)}"
    return _unknown(insn, "ld_")


def _jump(insn: Instruction, words: str) -> str:
    """Jumps, calls and exit."""
    code, wide = insn.code, insn.code & 7 == c.BPF_JMP
    operation = code & _OPERATION
    if operation == c.BPF_CALL:
        return f"call {words or _callee(insn)}"
    if code == op.JUMP:
        return f"goto pc{insn.off:+d}"
    if code == op.JUMP_INDIRECT:
        return f"gotox r{insn.dst}"
    if code == op.JUMP_LONG:
        return f"gotol pc{insn.imm:+d}"
    if code == op.MAY_GOTO:
        return f"may_goto pc{insn.off:+d}"
    if operation == c.BPF_EXIT:
        return "exit"
    sign = op.JUMP_SIGN.get(operation)
    if sign is None:
        return _unknown(insn)
    bank = "r" if wide else "w"
    operand = f"{bank}{insn.src}" if code & op.REGISTER_SOURCE else hex(insn.imm & 0xFFFFFFFF)
    return f"if {bank}{insn.dst} {sign} {operand} goto pc{insn.off:+d}"


def _callee(insn: Instruction) -> str:
    """What a call calls, as far as the instruction tells."""
    if insn.code == op.CALL_REGISTER:
        return f"r{insn.dst}"
    if insn.src == c.BPF_PSEUDO_CALL:
        return f"pc{insn.imm:+d}"
    if insn.src == c.BPF_PSEUDO_KFUNC_CALL:
        return f"kernel-function#{insn.imm}"
    name = HELPER_NAMES[insn.imm] if 0 <= insn.imm < len(HELPER_NAMES) else None
    return f"bpf_{name}#{insn.imm}" if name else f"unknown#{insn.imm}"


def _unknown(insn: Instruction, prefix: str = "") -> str:
    return f"BUG_{prefix}{insn.code:02x}"


_BY_CLASS = (_load_special, _load, _store_immediate, _store, _alu, _jump, _jump, _alu)
