"""Instructions as text, in the words of the kernel's own disassembler (kernel/bpf/disasm.c).

Rules of this module:

* The text equals what the verifier's log and ``bpftool prog dump xlated`` print: ``(bf) r1 = r10``.
* 32-bit operations name registers w0 to w10, 64-bit ones r0 to r10.
* Every well-formed slot has a text; what the kernel has no name for shows as ``BUG_xx`` with its opcode.
* What a call or a constant refers to, only the caller knows: it may pass the words.
"""

from __future__ import annotations

import sys

from pybpf.asm.instruction import Instruction, decode
from pybpf.constants import HELPER_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.asm.slots import ByteOrder, Code

    Words = Callable[[int, Instruction], str | None]
    """Given the slot index and the instruction: the words for its target, or None for the usual ones."""

# Classes (low three bits of the opcode).
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)

_IMM, _ABS, _IND, _MEM, _MEMSX, _ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
_REGISTER_SOURCE = 0x08
_NEG, _END, _MOV = 0x80, 0xD0, 0xB0
_DIV, _MOD = 0x30, 0x90
_JA, _CALL, _EXIT, _JCOND = 0x00, 0x80, 0x90, 0xE0

_UNSIGNED_SIZE = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_SIGNED_SIZE = {0x00: "s32", 0x08: "s16", 0x10: "s8"}

_ALU_SIGN = {
    0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=", 0x70: ">>=",
    0x90: "%=", 0xA0: "^=", 0xB0: "=", 0xC0: "s>>=",
}  # fmt: skip
_SIGNED_ALU_SIGN = {_DIV: "s/=", _MOD: "s%="}
_SIGN_EXTENSION = {8: "(s8)", 16: "(s16)", 32: "(s32)"}
_JUMP_SIGN = {
    0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=",
    0xA0: "<", 0xB0: "<=", 0xC0: "s<", 0xD0: "s<=",
}  # fmt: skip

_ATOMIC_SIGN = {0x00: "+=", 0x40: "|=", 0x50: "&=", 0xA0: "^="}
_FETCH_NAME = {0x01: "add", 0x41: "or", 0x51: "and", 0xA1: "xor"}
_XCHG, _CMPXCHG, _LOAD_ACQUIRE, _STORE_RELEASE = 0xE1, 0xF1, 0x100, 0x110

_PSEUDO_CALL, _PSEUDO_KFUNC_CALL = 1, 2


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
        if insn.code == 0x85:
            words = calls and calls(index, insn)
        elif insn.code == 0x18:
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
    code, wide = insn.code, insn.code & 7 == _ALU64
    operation = code & 0xF0
    bank = "r" if wide else "w"
    dst = f"{bank}{insn.dst}"
    if operation == _END:
        name = "bswap" if wide else "be" if code & _REGISTER_SOURCE else "le"
        return f"r{insn.dst} = {name}{insn.imm} r{insn.dst}"
    if operation == _NEG:
        return f"{dst} = -{dst}"
    if code == 0xBF and insn.off == 1:
        return f"{dst} = addr_space_cast(r{insn.src}, {insn.imm >> 16 & 0xFFFF}, {insn.imm & 0xFFFF})"
    if code == 0xBF and insn.off == -1:
        return f"{dst} = &(void __percpu *)(r{insn.src})"
    signs = _SIGNED_ALU_SIGN if insn.off == 1 and operation in _SIGNED_ALU_SIGN else _ALU_SIGN
    sign = signs.get(operation)
    if sign is None:
        return _unknown(insn)
    if code & _REGISTER_SOURCE:
        extension = _SIGN_EXTENSION.get(insn.off, "") if operation == _MOV else ""
        return f"{dst} {sign} {extension}{bank}{insn.src}"
    return f"{dst} {sign} {insn.imm}"


def _load(insn: Instruction, _words: str) -> str:
    """LDX: from memory to a register."""
    mode, size = insn.code & 0xE0, insn.code & 0x18
    name = {_MEM: _UNSIGNED_SIZE, _MEMSX: _SIGNED_SIZE}.get(mode, {}).get(size)
    if name is None:
        return _unknown(insn, "ldx_")
    return f"r{insn.dst} = *({name} *)(r{insn.src} {insn.off:+d})"


def _store_immediate(insn: Instruction, _words: str) -> str:
    """ST: an immediate to memory, and the kernel's own speculation barrier."""
    mode = insn.code & 0xE0
    if mode == _MEM:
        return f"*({_UNSIGNED_SIZE[insn.code & 0x18]} *)(r{insn.dst} {insn.off:+d}) = {insn.imm}"
    if insn.code == 0xC2:
        return "nospec"
    return _unknown(insn, "st_")


def _store(insn: Instruction, _words: str) -> str:
    """STX: a register to memory, plain or atomic."""
    mode, size = insn.code & 0xE0, insn.code & 0x18
    if mode == _MEM:
        return f"*({_UNSIGNED_SIZE[size]} *)(r{insn.dst} {insn.off:+d}) = r{insn.src}"
    if mode != _ATOMIC:
        return _unknown(insn)
    operation, src = insn.imm, insn.src
    type_name = _UNSIGNED_SIZE[size]
    place = f"({type_name} *)(r{insn.dst} {insn.off:+d})"
    bits = "64" if size == 0x18 else ""
    if operation in _ATOMIC_SIGN:
        return f"lock *{place} {_ATOMIC_SIGN[operation]} r{src}"
    if operation in _FETCH_NAME:
        return f"r{src} = atomic{bits}_fetch_{_FETCH_NAME[operation]}({place}, r{src})"
    if operation == _CMPXCHG:
        return f"r0 = atomic{bits}_cmpxchg({place}, r0, r{src})"
    if operation == _XCHG:
        return f"r{src} = atomic{bits}_xchg({place}, r{src})"
    if operation == _LOAD_ACQUIRE:
        return f"r{insn.dst} = load_acquire(({type_name} *)(r{src} {insn.off:+d}))"
    if operation == _STORE_RELEASE:
        return f"store_release({place}, r{src})"
    return _unknown(insn)


def _load_special(insn: Instruction, words: str) -> str:
    """LD: 64-bit constants, and packet bytes."""
    mode, size = insn.code & 0xE0, insn.code & 0x18
    if mode == _ABS:
        return f"r0 = *({_UNSIGNED_SIZE[size]} *)skb[{insn.imm}]"
    if mode == _IND:
        return f"r0 = *({_UNSIGNED_SIZE[size]} *)skb[r{insn.src} + {insn.imm}]"
    if insn.code == 0x18:
        return f"r{insn.dst} = {words or hex(insn.imm64)}"
    return _unknown(insn, "ld_")


def _jump(insn: Instruction, words: str) -> str:
    """Jumps, calls and exit."""
    code, wide = insn.code, insn.code & 7 == _JMP
    operation = code & 0xF0
    if operation == _CALL:
        return f"call {words or _callee(insn)}"
    if code == 0x05:
        return f"goto pc{insn.off:+d}"
    if code == 0x0D:
        return f"gotox r{insn.dst}"
    if code == 0x06:
        return f"gotol pc{insn.imm:+d}"
    if code == _JCOND | _JMP:
        return f"may_goto pc{insn.off:+d}"
    if operation == _EXIT:
        return "exit"
    sign = _JUMP_SIGN.get(operation)
    if sign is None:
        return _unknown(insn)
    bank = "r" if wide else "w"
    operand = f"{bank}{insn.src}" if code & _REGISTER_SOURCE else hex(insn.imm & 0xFFFFFFFF)
    return f"if {bank}{insn.dst} {sign} {operand} goto pc{insn.off:+d}"


def _callee(insn: Instruction) -> str:
    """What a call calls, as far as the instruction tells."""
    if insn.code == 0x8D:
        return f"r{insn.dst}"
    if insn.src == _PSEUDO_CALL:
        return f"pc{insn.imm:+d}"
    if insn.src == _PSEUDO_KFUNC_CALL:
        return f"kernel-function#{insn.imm}"
    name = HELPER_NAMES[insn.imm] if 0 <= insn.imm < len(HELPER_NAMES) else None
    return f"bpf_{name}#{insn.imm}" if name else f"unknown#{insn.imm}"


def _unknown(insn: Instruction, prefix: str = "") -> str:
    return f"BUG_{prefix}{insn.code:02x}"


_BY_CLASS = (_load_special, _load, _store_immediate, _store, _alu, _jump, _jump, _alu)
