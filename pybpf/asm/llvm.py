"""Instructions as text, in the words of LLVM: what llvm-objdump prints and llvm-mc reads.

Rules of this module:

* The text equals that of ``llvm-objdump -d --mcpu=v4``. Of the instructions that version 19 does not know yet
  (load-acquire, store-release, gotox), it is what later versions print.
* Numbers are hexadecimal. Loads and stores of 32 bits and less name w registers.
* What LLVM has no text for shows as ``<unknown>``.

Source: llvm/lib/Target/BPF (BPFInstrInfo.td, BPFInstPrinter.cpp), by what it prints.
"""

from __future__ import annotations

import sys

from pybpf import constants as c
from pybpf.asm import opcodes as op
from pybpf.asm.instruction import Instruction, decode
from pybpf.asm.slots import LDIMM64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.slots import ByteOrder, Code

UNKNOWN = "<unknown>"


def disassemble(data: Code, *, byte_order: ByteOrder = sys.byteorder, name: str = "") -> list[str]:
    """A program as one line for each instruction: slot index, text.

    Args:
        data: the program's bytes.
        byte_order: theirs.
        name: the function's; jumps then tell where they go, as ``<name+0x18>``.

    Raises:
        ObjectError: the bytes are no program (see `decode`).
    """
    lines: list[str] = []
    index = 0
    for insn in decode(data, byte_order):
        lines.append(f"{index:8d}:\t{text(insn, index, name)}")
        index += insn.slots
    return lines


def text(insn: Instruction, index: int = 0, name: str = "") -> str:
    """One instruction, for example ``r1 = *(u64 *)(r10 - 0x8)``."""
    line = _BY_CLASS[insn.code & 7](insn)
    if not name or ("goto " not in line and "gotol " not in line):
        return line
    distance = insn.imm if insn.code == op.JUMP_LONG else insn.off
    place = (index + 1 + distance) * 8
    return f"{line} <{name}{f'+{place:#x}' if place else ''}>"


def _alu(insn: Instruction) -> str:
    code, wide = insn.code, insn.code & 7 == c.BPF_ALU64
    operation = code & 0xF0
    bank = "r" if wide else "w"
    dst, src = f"{bank}{insn.dst}", f"{bank}{insn.src}"
    if operation == c.BPF_END:
        kind = {op.TO_LITTLE: "le", op.TO_BIG: "be", op.SWAP: "bswap"}.get(code)
        return f"r{insn.dst} = {kind}{insn.imm} r{insn.dst}" if kind and insn.imm in (16, 32, 64) else UNKNOWN
    if operation == c.BPF_NEG:
        return UNKNOWN if code & op.REGISTER_SOURCE else f"{dst} = -{dst}"
    if operation == c.BPF_MOV and code & op.REGISTER_SOURCE and insn.off:
        if wide and insn.off == op.ADDR_SPACE_CAST:
            return f"{dst} = addr_space_cast({src}, {insn.imm >> 16 & 0xFFFF:#x}, {insn.imm & 0xFFFF:#x})"
        extension = op.SIGN_EXTENSION.get(insn.off)
        return f"{dst} = {extension}{src}" if extension and (wide or insn.off < 32) else UNKNOWN
    signs = op.ALU_SIGN
    if insn.off:
        signs = op.SIGNED_ALU_SIGN if insn.off == 1 else {}
    sign = signs.get(operation)
    if sign is None:
        return UNKNOWN
    return f"{dst} {sign} {src if code & op.REGISTER_SOURCE else f'{insn.imm:#x}'}"


def _load(insn: Instruction) -> str:
    mode, size = insn.code & 0xE0, insn.code & 0x18
    name = {c.BPF_MEM: op.UNSIGNED_SIZE, c.BPF_MEMSX: op.SIGNED_SIZE}.get(mode, {}).get(size)
    if name is None:
        return UNKNOWN
    return f"{_bank(insn, mode)}{insn.dst} = *({name} *)({_address(insn.src, insn.off)})"


def _store_immediate(insn: Instruction) -> str:
    if insn.code & 0xE0 != c.BPF_MEM:
        return UNKNOWN
    return f"*({op.UNSIGNED_SIZE[insn.code & 0x18]} *)({_address(insn.dst, insn.off)}) = {insn.imm:#x}"


def _store(insn: Instruction) -> str:
    mode, size = insn.code & 0xE0, insn.code & 0x18
    type_name, address = op.UNSIGNED_SIZE[size], _address(insn.dst, insn.off)
    src = f"{_bank(insn)}{insn.src}"
    if mode == c.BPF_MEM:
        return f"*({type_name} *)({address}) = {src}"
    if mode != c.BPF_ATOMIC:
        return UNKNOWN
    operation = insn.imm
    if operation == c.BPF_LOAD_ACQ:
        return f"{_bank(insn)}{insn.dst} = load_acquire(({type_name} *)({_address(insn.src, insn.off)}))"
    if operation == c.BPF_STORE_REL:
        return f"store_release(({type_name} *)({address}), {src})"
    if size not in (c.BPF_W, c.BPF_DW):
        return UNKNOWN
    if operation in op.ATOMIC_SIGN:
        return f"lock *({type_name} *)({address}) {op.ATOMIC_SIGN[operation]} {src}"
    if operation in op.FETCH_NAME:
        return f"{src} = atomic_fetch_{op.FETCH_NAME[operation]}(({type_name} *)({address}), {src})"
    bits = "_64" if size == c.BPF_DW else "32_32"
    if operation == c.BPF_XCHG:
        return f"{src} = xchg{bits}({address}, {src})"
    if operation == c.BPF_CMPXCHG:
        return f"{_bank(insn)}0 = cmpxchg{bits}({address}, {_bank(insn)}0, {src})"
    return UNKNOWN


def _load_special(insn: Instruction) -> str:
    mode, size = insn.code & 0xE0, insn.code & 0x18
    if insn.code == LDIMM64:
        if insn.src:
            return f"ld_pseudo\tr{insn.dst}, {insn.src:#x}, {insn.imm & 0xFFFFFFFF:#x}"
        return f"r{insn.dst} = {insn.high << 32 | insn.imm & 0xFFFFFFFF:#x} ll"
    if size == c.BPF_DW:
        return UNKNOWN
    if mode == c.BPF_ABS:
        return f"r0 = *({op.UNSIGNED_SIZE[size]} *)skb[{insn.imm:#x}]"
    if mode == c.BPF_IND:
        return f"r0 = *({op.UNSIGNED_SIZE[size]} *)skb[r{insn.src}]"
    return UNKNOWN


def _jump(insn: Instruction) -> str:
    code, wide = insn.code, insn.code & 7 == c.BPF_JMP
    if code == op.CALL:
        return f"call {insn.imm:#x}"
    if code == op.CALL_REGISTER:
        return f"callx r{insn.dst}"
    if code == op.EXIT:
        return "exit"
    if code == op.JUMP_LONG:
        return f"gotol {_signed(insn.imm)}"
    if code == op.JUMP_INDIRECT:
        return f"gotox r{insn.dst}"
    if code in (op.JUMP, op.MAY_GOTO):
        return f"{'goto' if code == op.JUMP else 'may_goto'} {_signed(insn.off)}"
    sign = op.JUMP_SIGN.get(code & 0xF0)
    if sign is None:
        return UNKNOWN
    bank = "r" if wide else "w"
    operand = f"{bank}{insn.src}" if code & op.REGISTER_SOURCE else f"{insn.imm:#x}"
    return f"if {bank}{insn.dst} {sign} {operand} goto {_signed(insn.off)}"


def _address(register: int, distance: int) -> str:
    return f"r{register} {'-' if distance < 0 else '+'} {abs(distance):#x}"


def _signed(number: int) -> str:
    return f"{number:+#x}"


def _bank(insn: Instruction, mode: int = c.BPF_MEM) -> str:
    """Whether the register of a load or store is whole."""
    return "r" if mode == c.BPF_MEMSX or insn.code & 0x18 == c.BPF_DW else "w"


_BY_CLASS = (_load_special, _load, _store_immediate, _store, _alu, _jump, _jump, _alu)
