"""Assembler: one function written instruction by instruction, in Python.

    from pybpf.asm import Assembler, r0, r1, r2, r10, u32, u64

    code = Assembler("count", section="xdp")
    code.store(u32[r10 - 4], 0)                 # key = 0
    code.load_map(r1, "counts")
    code.mov(r2, r10)
    code.add(r2, -4)
    code.call("map_lookup_elem")
    code.jeq(r0, 0, "out")
    code.mov(r1, 1)
    code.atomic_add(u64[r0], r1)
    code.label("out")
    code.mov(r0, 2)                             # XDP_PASS
    code.exit()

Rules of this module:

* One method for each instruction; each appends it. The first operand is where the result goes.
* The width of an operation is its destination's: ``r1`` 64 bits, ``w1`` 32.
* Jumps take a label, which may come later, or a distance in slots. Maps, functions and kernel functions go by name.
* What an instruction cannot hold is an `ObjectError` at once; an unknown label or name, when it is put together.

Source: Linux, Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.asm import opcodes as op
from pybpf.asm.instruction import Instruction
from pybpf.asm.operands import Memory, Register, Width
from pybpf.asm.slots import LDIMM64
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    ReferenceKind = Literal["label", "map", "value", "function", "call", "symbol"]
    Target = str | int

HELPERS: dict[str, int] = {name: number for number, name in enumerate(c.HELPER_NAMES) if name}
"""Name of a helper without ``bpf_`` -> its number."""


class Reference:
    """What an instruction waits for.

    Attributes:
        kind: ``"label"`` (of a jump), ``"map"`` (its descriptor), ``"value"`` (an address in a map's only value),
            ``"function"`` (the address of a subprogram), ``"call"`` (of a subprogram or kernel function),
            ``"symbol"`` (the address of a kernel symbol).
        name: of what.
        offset: value: bytes.
    """

    __slots__ = ("kind", "name", "offset")

    def __init__(self, kind: ReferenceKind, name: str, offset: int = 0) -> None:
        self.kind: ReferenceKind = kind
        self.name = name
        self.offset = offset

    def __repr__(self) -> str:
        return f"Reference({self.kind!r}, {self.name!r}{f', {self.offset}' if self.offset else ''})"


class Assembler:
    """One function.

    Attributes:
        name: the function's.
        section: as in ``SEC("xdp")``: what kind of program it is and where it is attached. Empty: a subprogram.
        instructions: what has been appended so far; jumps to labels have no distance yet.
        references: position in `instructions` -> what the instruction waits for.
        labels: name -> position in `instructions` of what follows it.
        lines: position in `instructions` -> (line, column, text) of where it came from, if it came from text.
    """

    def __init__(self, name: str = "program", section: str = "") -> None:
        self.name = name
        self.section = section
        self.instructions: list[Instruction] = []
        self.references: dict[int, Reference] = {}
        self.labels: dict[str, int] = {}
        self.lines: dict[int, tuple[int, int, str]] = {}

    def __len__(self) -> int:
        """How many instructions there are."""
        return len(self.instructions)

    def __repr__(self) -> str:
        return f"<Assembler {self.name!r} {self.section or 'subprogram'} {len(self)} instructions>"

    # Anything

    def append(self, instruction: Instruction, reference: Reference | None = None) -> None:
        """Append any instruction, also one that has no method here.

        Raises:
            ObjectError: a field does not fit.
        """
        instruction.check(f"{self.name}: instruction {len(self.instructions)}")
        if reference is not None:
            self.references[len(self.instructions)] = reference
        self.instructions.append(instruction)

    def label(self, name: str) -> None:
        """Let jumps to `name` lead to the next instruction."""
        if name in self.labels:
            raise ObjectError(f"{self.name}: the label {name!r} is there twice")
        self.labels[name] = len(self.instructions)

    # Arithmetic

    def mov(self, dst: Register, src: Register | int) -> None:
        """``dst = src``. A number is sign-extended to 64 bits, or zero-extended when `dst` is half a register."""
        self.alu(c.BPF_MOV, dst, src)

    def add(self, dst: Register, src: Register | int) -> None:
        """``dst += src``"""
        self.alu(c.BPF_ADD, dst, src)

    def sub(self, dst: Register, src: Register | int) -> None:
        """``dst -= src``"""
        self.alu(c.BPF_SUB, dst, src)

    def mul(self, dst: Register, src: Register | int) -> None:
        """``dst *= src``"""
        self.alu(c.BPF_MUL, dst, src)

    def div(self, dst: Register, src: Register | int) -> None:
        """``dst /= src``, unsigned; by 0 it gives 0."""
        self.alu(c.BPF_DIV, dst, src)

    def mod(self, dst: Register, src: Register | int) -> None:
        """``dst %= src``, unsigned; by 0 it leaves `dst`."""
        self.alu(c.BPF_MOD, dst, src)

    def sdiv(self, dst: Register, src: Register | int) -> None:
        """``dst s/= src``: signed, towards zero (ISA v4, Linux 6.6)."""
        self.alu(c.BPF_DIV, dst, src, 1)

    def smod(self, dst: Register, src: Register | int) -> None:
        """``dst s%= src``: signed, the sign is the dividend's (ISA v4, Linux 6.6)."""
        self.alu(c.BPF_MOD, dst, src, 1)

    def or_(self, dst: Register, src: Register | int) -> None:
        """``dst |= src``"""
        self.alu(c.BPF_OR, dst, src)

    def and_(self, dst: Register, src: Register | int) -> None:
        """``dst &= src``"""
        self.alu(c.BPF_AND, dst, src)

    def xor(self, dst: Register, src: Register | int) -> None:
        """``dst ^= src``"""
        self.alu(c.BPF_XOR, dst, src)

    def lsh(self, dst: Register, src: Register | int) -> None:
        """``dst <<= src``"""
        self.alu(c.BPF_LSH, dst, src)

    def rsh(self, dst: Register, src: Register | int) -> None:
        """``dst >>= src``, zeros come in."""
        self.alu(c.BPF_RSH, dst, src)

    def arsh(self, dst: Register, src: Register | int) -> None:
        """``dst s>>= src``, the sign comes in."""
        self.alu(c.BPF_ARSH, dst, src)

    def neg(self, dst: Register) -> None:
        """``dst = -dst``"""
        self.append(Instruction(_alu_class(dst) | c.BPF_NEG, dst.number))

    def movsx(self, dst: Register, src: Register, bits: int) -> None:
        """``dst = (s8)src``: the lowest 8, 16 or 32 bits, sign-extended (ISA v4, Linux 6.6)."""
        if bits not in op.SIGN_EXTENSION or bits >= dst.bits:
            raise ObjectError(f"{self.name}: {bits} bits cannot be sign-extended into {dst}")
        self.alu(c.BPF_MOV, dst, src, bits)

    def to_le(self, dst: Register, bits: int) -> None:
        """``dst = le16 dst``: from the machine's byte order to little-endian, or back; 16, 32 or 64 bits."""
        self._swap(op.TO_LITTLE, dst, bits)

    def to_be(self, dst: Register, bits: int) -> None:
        """``dst = be16 dst``: from the machine's byte order to big-endian, or back; 16, 32 or 64 bits."""
        self._swap(op.TO_BIG, dst, bits)

    def bswap(self, dst: Register, bits: int) -> None:
        """``dst = bswap16 dst``: the other byte order; 16, 32 or 64 bits (ISA v4, Linux 6.6)."""
        self._swap(op.SWAP, dst, bits)

    def addr_space_cast(self, dst: Register, src: Register, to: int, source: int) -> None:
        """Turn a pointer of address space `source` (1: an arena) into one of address space `to` (0: the kernel).

        Linux 6.9.
        """
        self.append(Instruction(op.MOVE, dst.number, src.number, op.ADDR_SPACE_CAST, to << 16 | source))

    def alu(self, operation: int, dst: Register, src: Register | int, off: int = 0) -> None:
        """Any arithmetic with two operands; `operation` is BPF_ADD and so on."""
        code = _alu_class(dst) | operation
        if isinstance(src, Register):
            self._same_width(dst, src)
            self.append(Instruction(code | c.BPF_X, dst.number, src.number, off))
        else:
            self.append(Instruction(code, dst.number, 0, off, self._immediate(dst, src)))

    def _swap(self, code: int, dst: Register, bits: int) -> None:
        if bits not in (16, 32, 64):
            raise ObjectError(f"{self.name}: bytes of {bits} bits cannot be swapped, only of 16, 32 or 64")
        self.append(Instruction(code, dst.number, imm=bits))

    def _same_width(self, dst: Register, src: Register) -> None:
        if dst.bits != src.bits:
            raise ObjectError(f"{self.name}: {dst} and {src} are not of the same width")

    def _immediate(self, dst: Register, value: int) -> int:
        """A number as the instruction holds it. With 64 bits it is sign-extended, so 0x80000000 and more do not fit."""
        high = 0x7FFFFFFF if dst.bits == 64 else 0xFFFFFFFF
        if not -0x80000000 <= value <= high:
            raise ObjectError(f"{self.name}: {value:#x} does not fit into an operation on {dst}; use load_imm64")
        return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000

    # 64-bit constants

    def load_imm64(self, dst: Register, value: int) -> None:
        """``dst = value ll``: any number of 64 bits. It takes two slots."""
        self._load_constant(dst, value)

    def load_map(self, dst: Register, source: str | int) -> None:
        """The address of a map: by name, or by the number of its descriptor."""
        if isinstance(source, str):
            self._load_constant(dst, 0, c.BPF_PSEUDO_MAP_FD, Reference("map", source))
        else:
            self._load_constant(dst, source, c.BPF_PSEUDO_MAP_FD)

    def load_map_value(self, dst: Register, source: str | int, offset: int = 0) -> None:
        """The address of a byte in the only value of an array map (Linux 5.2): a global variable."""
        if isinstance(source, str):
            self._load_constant(dst, 0, c.BPF_PSEUDO_MAP_VALUE, Reference("value", source, offset))
        else:
            self._load_constant(dst, offset << 32 | source, c.BPF_PSEUDO_MAP_VALUE)

    def load_function(self, dst: Register, name: str) -> None:
        """The address of a subprogram, for helpers that call back (Linux 5.13)."""
        self._load_constant(dst, 0, c.BPF_PSEUDO_FUNC, Reference("function", name))

    def load_symbol(self, dst: Register, name: str) -> None:
        """The address of a kernel symbol, as /proc/kallsyms has it."""
        self._load_constant(dst, 0, 0, Reference("symbol", name))

    def _load_constant(self, dst: Register, value: int, kind: int = 0, reference: Reference | None = None) -> None:
        if not -(1 << 63) <= value < 1 << 64:
            raise ObjectError(f"{self.name}: {value:#x} does not fit into 64 bits")
        instruction = Instruction(LDIMM64, dst.number, kind)
        instruction.imm64 = value
        self.append(instruction, reference)

    # Memory

    def load(self, dst: Register, source: Memory) -> None:
        """``dst = *(u32 *)(r1 + 4)``; with ``s8`` to ``s32`` sign-extended (ISA v4, Linux 6.6)."""
        mode = c.BPF_MEMSX if source.width.signed else c.BPF_MEM
        self._check_half(dst, source)
        self.append(Instruction(c.BPF_LDX | mode | source.width.size, dst.number, source.base, source.off))

    def store(self, dst: Memory, value: Register | int) -> None:
        """``*(u32 *)(r1 + 4) = value``, from a register or a number (which is sign-extended to 64 bits)."""
        self._check_unsigned(dst)
        if isinstance(value, Register):
            self._check_half(value, dst)
            self.append(Instruction(c.BPF_STX | c.BPF_MEM | dst.width.size, dst.base, value.number, dst.off))
        else:
            bits = 64 if dst.width.size == c.BPF_DW else 32
            imm = self._immediate(Register(dst.base, bits), value)
            self.append(Instruction(c.BPF_ST | c.BPF_MEM | dst.width.size, dst.base, 0, dst.off, imm))

    def load_packet(self, width: Width, offset: int, index: Register | None = None) -> None:
        """``r0 = *(u16 *)skb[12]``, or ``skb[r1 + 12]``: from the packet in network byte order; r6 is the context.

        For programs on an skb. It ends the program, with 0, beyond the packet's end, and clobbers r1 to r5.

        Raises:
            ObjectError: not of the width u8, u16 or u32: others the verifier refuses (check_ld_abs()).
        """
        if width.size == c.BPF_DW or width.signed:
            raise ObjectError(f"{self.name}: packets are loaded from as u8, u16 or u32, not as {width}")
        mode = c.BPF_ABS if index is None else c.BPF_IND
        register = 0 if index is None else index.number
        self.append(Instruction(c.BPF_LD | mode | width.size, 0, register, 0, offset))

    def _check_unsigned(self, place: Memory) -> None:
        if place.width.signed:
            raise ObjectError(f"{self.name}: {place} can only be loaded from")

    def _check_half(self, register: Register, place: Memory) -> None:
        if register.bits == 32 and (place.width.size == c.BPF_DW or place.width.signed):
            raise ObjectError(f"{self.name}: {place} goes with whole registers, not with {register}")

    # Atomic operations

    def atomic_add(self, dst: Memory, src: Register, *, fetch: bool = False) -> None:
        """``lock *(u64 *)(r1 + 0) += src``; with `fetch`, src is what was there before (Linux 5.12)."""
        self.atomic(c.BPF_ADD | (c.BPF_FETCH if fetch else 0), dst, src)

    def atomic_or(self, dst: Memory, src: Register, *, fetch: bool = False) -> None:
        """``lock *(u64 *)(r1 + 0) |= src`` (Linux 5.12)"""
        self.atomic(c.BPF_OR | (c.BPF_FETCH if fetch else 0), dst, src)

    def atomic_and(self, dst: Memory, src: Register, *, fetch: bool = False) -> None:
        """``lock *(u64 *)(r1 + 0) &= src`` (Linux 5.12)"""
        self.atomic(c.BPF_AND | (c.BPF_FETCH if fetch else 0), dst, src)

    def atomic_xor(self, dst: Memory, src: Register, *, fetch: bool = False) -> None:
        """``lock *(u64 *)(r1 + 0) ^= src`` (Linux 5.12)"""
        self.atomic(c.BPF_XOR | (c.BPF_FETCH if fetch else 0), dst, src)

    def xchg(self, dst: Memory, src: Register) -> None:
        """Put src there, and what was there into src (Linux 5.12)."""
        self.atomic(c.BPF_XCHG, dst, src)

    def cmpxchg(self, dst: Memory, src: Register) -> None:
        """Put src there if r0 is there; r0 is what was there (Linux 5.12)."""
        self.atomic(c.BPF_CMPXCHG, dst, src)

    def load_acquire(self, dst: Register, source: Memory) -> None:
        """Load; nothing of what follows is done before it (Linux 6.15)."""
        self._check_unsigned(source)
        self._check_half(dst, source)
        code = c.BPF_STX | c.BPF_ATOMIC | source.width.size
        self.append(Instruction(code, dst.number, source.base, source.off, c.BPF_LOAD_ACQ))

    def store_release(self, dst: Memory, src: Register) -> None:
        """Store; all that came before is done before it (Linux 6.15)."""
        self._check_unsigned(dst)
        self._check_half(src, dst)
        code = c.BPF_STX | c.BPF_ATOMIC | dst.width.size
        self.append(Instruction(code, dst.base, src.number, dst.off, c.BPF_STORE_REL))

    def atomic(self, operation: int, dst: Memory, src: Register) -> None:
        """Any atomic change of memory; `operation` is BPF_ADD, BPF_ADD | BPF_FETCH, BPF_XCHG and so on."""
        if dst.width.signed or dst.width.size not in (c.BPF_W, c.BPF_DW):
            raise ObjectError(f"{self.name}: atomic operations are for u32 and u64, not for {dst}")
        self._check_half(src, dst)
        self.append(Instruction(c.BPF_STX | c.BPF_ATOMIC | dst.width.size, dst.base, src.number, dst.off, operation))

    # Jumps

    def goto(self, target: Target) -> None:
        """``goto target``"""
        self._jump(Instruction(op.JUMP), target)

    def gotol(self, target: Target) -> None:
        """``gotol target``: as far as 2 billion instructions (ISA v4, Linux 6.6)."""
        self._jump(Instruction(op.JUMP_LONG), target)

    def gotox(self, register: Register) -> None:
        """``gotox r1``: to the address in a register, from a jump table (Linux 6.19)."""
        self.append(Instruction(op.JUMP_INDIRECT, register.number))

    def may_goto(self, target: Target) -> None:
        """``may_goto target``: jumps when the loop has run long enough (Linux 6.9)."""
        self._jump(Instruction(op.MAY_GOTO), target)

    def jump(self, operation: int, dst: Register, operand: Register | int, target: Target) -> None:
        """A conditional jump; `operation` is BPF_JEQ and so on."""
        code = operation | (c.BPF_JMP if dst.bits == 64 else c.BPF_JMP32)
        if isinstance(operand, Register):
            self._same_width(dst, operand)
            self._jump(Instruction(code | c.BPF_X, dst.number, operand.number), target)
        else:
            self._jump(Instruction(code, dst.number, imm=self._immediate(dst, operand)), target)

    def jeq(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst == operand goto target``"""
        self.jump(c.BPF_JEQ, dst, operand, target)

    def jne(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst != operand goto target``"""
        self.jump(c.BPF_JNE, dst, operand, target)

    def jgt(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst > operand goto target``, unsigned"""
        self.jump(c.BPF_JGT, dst, operand, target)

    def jge(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst >= operand goto target``, unsigned"""
        self.jump(c.BPF_JGE, dst, operand, target)

    def jlt(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst < operand goto target``, unsigned"""
        self.jump(c.BPF_JLT, dst, operand, target)

    def jle(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst <= operand goto target``, unsigned"""
        self.jump(c.BPF_JLE, dst, operand, target)

    def jsgt(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst s> operand goto target``, signed"""
        self.jump(c.BPF_JSGT, dst, operand, target)

    def jsge(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst s>= operand goto target``, signed"""
        self.jump(c.BPF_JSGE, dst, operand, target)

    def jslt(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst s< operand goto target``, signed"""
        self.jump(c.BPF_JSLT, dst, operand, target)

    def jsle(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst s<= operand goto target``, signed"""
        self.jump(c.BPF_JSLE, dst, operand, target)

    def jset(self, dst: Register, operand: Register | int, target: Target) -> None:
        """``if dst & operand goto target``"""
        self.jump(c.BPF_JSET, dst, operand, target)

    def _jump(self, instruction: Instruction, target: Target) -> None:
        reference = None
        if isinstance(target, str):
            reference = Reference("label", target)
        elif instruction.code == op.JUMP_LONG:
            instruction.imm = target
        else:
            instruction.off = target
        self.append(instruction, reference)

    # Calls

    def call(self, target: str | int) -> None:
        """Call a helper by name (with or without ``bpf_``) or number, or a subprogram or kernel function by name."""
        if isinstance(target, int):
            self.append(Instruction(op.CALL, imm=target))
        elif target.removeprefix("bpf_") in HELPERS:
            self.append(Instruction(op.CALL, imm=HELPERS[target.removeprefix("bpf_")]))
        else:
            self.append(Instruction(op.CALL, 0, c.BPF_PSEUDO_CALL, 0, -1), Reference("call", target))

    def callx(self, register: Register) -> None:
        """``callx r1``: call an address. Linux takes no program with it; other machines of BPF do."""
        self.append(Instruction(op.CALL_REGISTER, register.number))

    def exit(self) -> None:
        """``exit``: return r0."""
        self.append(Instruction(op.EXIT))

    # Together

    def assembled(self) -> list[Instruction]:
        """Copies of the instructions with the distances of jumps in them; other references are left as they are.

        Raises:
            ObjectError: a label is missing, or too far away.
        """
        starts = self.slots()
        result = [instruction.copy() for instruction in self.instructions]
        for position, reference in self.references.items():
            if reference.kind == "label":
                target = self.labels.get(reference.name)
                if target is None:
                    raise ObjectError(f"{self._place(position)}: there is no label {reference.name!r}")
                instruction = result[position]
                distance = starts[target] - starts[position] - 1
                if instruction.code == op.JUMP_LONG:
                    instruction.imm = distance
                elif -0x8000 <= distance <= 0x7FFF:
                    instruction.off = distance
                else:
                    raise ObjectError(f"{self._place(position)}: {reference.name!r} is too far away: {distance}")
        return result

    def slots(self) -> list[int]:
        """The first slot of each instruction, and the number of slots at the end."""
        starts = [0]
        for instruction in self.instructions:
            starts.append(starts[-1] + instruction.slots)
        return starts

    def _place(self, position: int) -> str:
        line = self.lines.get(position)
        return f"{self.name}: {f'line {line[0]}' if line else f'instruction {position}'}"


def _alu_class(register: Register) -> int:
    return c.BPF_ALU64 if register.bits == 64 else c.BPF_ALU
