"""Reach: which instructions of a function can be reached, as far as constants decide.

After CO-RE relocation the questions "does this field exist?" are constants, and the branches on them lead one way. The
verifier then never looks at the other way; neither does this.

Rules of this module:

* Only constants in registers are followed: moves, arithmetic, branches. Whatever comes from memory, a call or the
  context is unknown, and a branch on it goes both ways. So nothing that can be reached is called unreachable.
* Code that is malformed, or has indirect jumps, is reachable as a whole.

Source: Linux, Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import sys

from pybpf import constants as c
from pybpf.asm.slots import LDIMM64, count, fields, get_imm64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.asm.slots import ByteOrder, Code

    State = tuple[int | None, ...]
    """What each register holds: an unsigned 64-bit number, or None when it is not known."""

_MASK = {4: (1 << 32) - 1, 8: (1 << 64) - 1}
_REGISTERS = 11
_CLASS, _OPERATION, _FROM_REGISTER = 0x07, 0xF0, 0x08
_LD, _LDX, _STX, _ALU, _JMP, _JMP32, _ALU64 = 0, 1, 3, 4, 5, 6, 7
_MODE = 0xE0
_CALL, _EXIT, _JA, _JCOND = 0x80, 0x90, 0x00, 0xE0
_JUMP_X = 0x0D
"""An indirect jump (gotox, Linux 7.0)."""


def _signed(value: int, size: int) -> int:
    return value - (1 << 8 * size) if value >> (8 * size - 1) else value


# Each takes the destination, the source, and how many bytes wide the operation is; both are unsigned and of that width.
_ARITHMETIC: dict[int, Callable[[int, int, int], int]] = {
    0x00: lambda a, b, size: a + b,
    0x10: lambda a, b, size: a - b,
    0x20: lambda a, b, size: a * b,
    0x40: lambda a, b, size: a | b,
    0x50: lambda a, b, size: a & b,
    0x60: lambda a, b, size: a << (b & (8 * size - 1)),
    0x70: lambda a, b, size: a >> (b & (8 * size - 1)),
    0x80: lambda a, b, size: -a,
    0xA0: lambda a, b, size: a ^ b,
    0xB0: lambda a, b, size: b,
    0xC0: lambda a, b, size: _signed(a, size) >> (b & (8 * size - 1)),
}
_MOVE = 0xB0

_TESTS: dict[int, Callable[[int, int, int], bool]] = {
    c.BPF_JEQ: lambda a, b, size: a == b,
    c.BPF_JNE: lambda a, b, size: a != b,
    c.BPF_JGT: lambda a, b, size: a > b,
    c.BPF_JGE: lambda a, b, size: a >= b,
    c.BPF_JLT: lambda a, b, size: a < b,
    c.BPF_JLE: lambda a, b, size: a <= b,
    c.BPF_JSET: lambda a, b, size: bool(a & b),
    c.BPF_JSGT: lambda a, b, size: _signed(a, size) > _signed(b, size),
    c.BPF_JSGE: lambda a, b, size: _signed(a, size) >= _signed(b, size),
    c.BPF_JSLT: lambda a, b, size: _signed(a, size) < _signed(b, size),
    c.BPF_JSLE: lambda a, b, size: _signed(a, size) <= _signed(b, size),
}


def reachable(code: Code, byte_order: ByteOrder = sys.byteorder) -> set[int]:
    """The slots of a function's instructions that can be reached from its first one."""
    end = count(code)
    states: dict[int, State] = {}
    pending: list[tuple[int, State]] = [(0, (None,) * _REGISTERS)] if end else []
    while pending:
        index, state = pending.pop()
        known = states.get(index)
        if known is not None:
            merged = tuple(a if a == b else None for a, b in zip(known, state, strict=True))
            if merged == known:
                continue
            state = merged
        states[index] = state
        steps = _steps(code, index, state, byte_order)
        if any(not 0 <= following < end for following, _ in steps):
            return set(range(end))
        pending += steps
    return set(states)


def _steps(code: Code, index: int, state: State, byte_order: ByteOrder) -> list[tuple[int, State]]:
    """Where control can go from an instruction, and what the registers hold then; -1 for somewhere unknown."""
    opcode, dst, src, off, imm = fields(code, index, byte_order)
    if dst >= _REGISTERS or src >= _REGISTERS:
        return [(-1, state)]
    kind = opcode & _CLASS
    if opcode == LDIMM64:
        if index + 1 >= count(code):
            return [(-1, state)]
        constant = None if src else get_imm64(code, index, byte_order)
        return [(index + 2, _with(state, dst, constant))]
    if kind in (_JMP, _JMP32):
        return _jump(index, state, (opcode, dst, src, off, imm))
    if kind in (_ALU, _ALU64):
        size = 8 if kind == _ALU64 else 4
        return [(index + 1, _with(state, dst, _compute(state, opcode, dst, src, off, imm, size)))]
    if kind == _LDX:
        return [(index + 1, _with(state, dst, None))]
    if kind == _STX and opcode & _MODE == c.BPF_ATOMIC:  # may give back what was there, in the source or in register 0
        return [(index + 1, _with(_with(state, src, None), 0, None))]
    if kind == _LD:  # of a packet: the result is in register 0, and 1 to 5 are lost
        return [(index + 1, _after_call(state))]
    return [(index + 1, state)]


def _compute(state: State, opcode: int, dst: int, src: int, off: int, imm: int, size: int) -> int | None:
    """The result of an arithmetic instruction of this many bytes, None when it is not known."""
    operation = opcode & _OPERATION
    function = _ARITHMETIC.get(operation)
    left = 0 if operation == _MOVE else state[dst]
    right = state[src] if opcode & _FROM_REGISTER else imm
    if function is None or off or left is None or right is None:  # an offset makes a move sign-extend
        return None
    mask = _MASK[size]
    return function(left & mask, right & mask, size) & mask


def _jump(index: int, state: State, instruction: tuple[int, int, int, int, int]) -> list[tuple[int, State]]:
    opcode, dst, src, off, imm = instruction
    kind, operation = opcode & _CLASS, opcode & _OPERATION
    if opcode == _JUMP_X:
        return [(-1, state)]
    if operation == _EXIT:
        return []
    if operation == _CALL:
        return [(index + 1, _after_call(state))]
    if operation == _JA:
        return [(index + 1 + (off if kind == _JMP else imm), state)]
    next_one, target = (index + 1, state), (index + 1 + off, state)
    test = _TESTS.get(operation)
    left, right = state[dst], state[src] if opcode & _FROM_REGISTER else imm
    if test is None or left is None or right is None:
        return [next_one, target]
    size = 8 if kind == _JMP else 4
    mask = _MASK[size]
    return [target if test(left & mask, right & mask, size) else next_one]


def _with(state: State, register: int, value: int | None) -> State:
    return (*state[:register], value, *state[register + 1 :])


def _after_call(state: State) -> State:
    return (None,) * 6 + state[6:]
