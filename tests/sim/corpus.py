"""Random programs that the verifier accepts: arithmetic, jumps, stack and atomics, their result folded into 32 bits."""

from __future__ import annotations

from random import Random

from pybpf.asm import Instruction
from pybpf.asm.slots import LDIMM64

STACK_SLOTS = 8
"""Of 8 bytes, just below r10."""

_ALU = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xC0)
_JUMPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
_ATOMICS = (0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1)
_SIZES = {0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}
_NUMBERS = (0, 1, 2, 7, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, -1, -2, -128, -0x80000000)


def program(seed: int, length: int = 60) -> list[Instruction]:
    """One program. The same seed gives the same one."""
    random = Random(seed)
    code: list[Instruction] = []
    for register in range(10):
        code.append(_constant(random, register))
    for slot in range(STACK_SLOTS):
        code.append(Instruction(0x7B, dst=10, src=slot, off=-8 * (slot + 1)))
    body = [step for _ in range(length) for step in _step(random)]
    for index, insn in enumerate(body):
        if insn.code & 7 in (5, 6) and insn.off == -1:  # a jump forward to anywhere up to the end
            rest = _slots(body[index + 1 :])
            insn.off = random.randrange(min(rest, 12) + 1) if rest else 0
            while not _is_start(body[index + 1 :], insn.off):
                insn.off += 1
    return [*code, *body, *_fold()]


def _constant(random: Random, register: int) -> Instruction:
    made = Instruction(LDIMM64, dst=register)
    made.imm64 = random.choice((random.getrandbits(64), random.getrandbits(32), random.choice(_NUMBERS)))
    return made


def _number(random: Random) -> int:
    return random.choice((random.choice(_NUMBERS), random.randrange(-(1 << 31), 1 << 31)))


def _step(random: Random) -> list[Instruction]:
    kind = random.randrange(10)
    if kind < 5:
        return [_alu(random)]
    if kind == 5:
        return [_jump(random)]
    if kind == 6:
        return [_swap(random)]
    if kind == 7:
        return [_atomic(random)]
    return [_memory(random)]


def _alu(random: Random) -> Instruction:
    bits64 = random.random() < 0.5
    operation = random.choice(_ALU)
    dst, src = random.randrange(10), random.randrange(10)
    code = operation | (7 if bits64 else 4)
    if operation == 0x80:
        return Instruction(code, dst=dst)
    off = 0
    if operation in (0x30, 0x90) and random.random() < 0.5:
        off = 1  # signed
    if random.random() < 0.5:
        if operation == 0xB0 and random.random() < 0.5:
            off = random.choice((8, 16, 32) if bits64 else (8, 16))
        return Instruction(code | 8, dst=dst, src=src, off=off)
    imm = _number(random)
    if operation in (0x60, 0x70, 0xC0):
        imm = random.randrange(64 if bits64 else 32)  # the verifier refuses wider shifts
    if operation in (0x30, 0x90) and not imm:
        imm = 3  # and division by a constant 0
    return Instruction(code, dst=dst, off=off, imm=imm)


def _jump(random: Random) -> Instruction:
    code = random.choice(_JUMPS) | random.choice((5, 6))
    if random.random() < 0.5:
        return Instruction(code | 8, dst=random.randrange(10), src=random.randrange(10), off=-1)
    return Instruction(code, dst=random.randrange(10), imm=_number(random), off=-1)


def _swap(random: Random) -> Instruction:
    code = random.choice((0xD4, 0xDC, 0xD7))  # le, be, bswap
    return Instruction(code, dst=random.randrange(10), imm=random.choice((16, 32, 64)))


def _place(random: Random, size: int) -> int:
    return -8 * STACK_SLOTS + size * random.randrange(8 * STACK_SLOTS // size)


def _atomic(random: Random) -> Instruction:
    size = random.choice((0x00, 0x18))
    return Instruction(
        0xC3 | size, dst=10, src=random.randrange(10), off=_place(random, _SIZES[size]), imm=random.choice(_ATOMICS)
    )


def _memory(random: Random) -> Instruction:
    size = random.choice(tuple(_SIZES))
    off = _place(random, _SIZES[size])
    kind = random.randrange(4)
    if kind == 0:
        return Instruction(0x61 | size, dst=random.randrange(10), src=10, off=off)
    if kind == 1 and size != 0x18:
        return Instruction(0x81 | size, dst=random.randrange(10), src=10, off=off)
    if kind == 2:
        return Instruction(0x62 | size, dst=10, off=off, imm=_number(random))
    return Instruction(0x63 | size, dst=10, src=random.randrange(10), off=off)


def _slots(code: list[Instruction]) -> int:
    return sum(insn.slots for insn in code)


def _is_start(code: list[Instruction], offset: int) -> bool:
    place = 0
    for insn in code:
        if place >= offset:
            break
        place += insn.slots
    return place == offset


def _fold() -> list[Instruction]:
    """All registers and the stack into r0, by operations that lose nothing of them."""
    code = []
    for register in range(1, 10):
        code += [Instruction(0x27, dst=0, imm=31), Instruction(0xAF, dst=0, src=register)]
    for slot in range(STACK_SLOTS):
        code += [
            Instruction(0x79, dst=1, src=10, off=-8 * (slot + 1)),
            Instruction(0x27, dst=0, imm=31),
            Instruction(0xAF, dst=0, src=1),
        ]
    return [
        *code,
        Instruction(0xBF, dst=1, src=0),
        Instruction(0x77, dst=1, imm=32),
        Instruction(0xAF, dst=0, src=1),
        Instruction(0x95),
    ]
