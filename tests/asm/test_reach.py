"""Which instructions can be reached: small cases by hand, and random programs that are run to see where they get."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.asm.instruction import Instruction, encode
from pybpf.asm.reach import reachable

EXIT = Instruction(0x95)
CALL = Instruction(0x85, imm=7)
M64 = (1 << 64) - 1


def move(dst: int, imm: int) -> Instruction:
    return Instruction(0xB7, dst=dst, imm=imm)


def jump(code: int, dst: int, imm: int, off: int) -> Instruction:
    return Instruction(code, dst=dst, imm=imm, off=off)


def reached(*code: Instruction) -> set[int]:
    return reachable(encode(code))


def test_a_branch_on_a_constant_goes_one_way() -> None:
    assert reached(move(1, 0), jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 1, 3}
    assert reached(move(1, 1), jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 1, 2, 3}
    assert reached(move(1, 1), jump(0x15, 1, 0, 2), CALL, EXIT, EXIT) == {0, 1, 2, 3}


def test_a_branch_on_what_is_unknown_goes_both_ways() -> None:
    assert reached(jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 1, 2}
    load = Instruction(0x61, dst=1, src=10, off=-4)
    assert reached(move(1, 0), load, jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 1, 2, 3, 4}
    assert reached(move(1, 0), CALL, jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 1, 2, 3, 4}
    assert reached(move(6, 0), CALL, jump(0x15, 6, 0, 1), CALL, EXIT) == {0, 1, 2, 4}


def test_what_two_ways_leave_differently_is_unknown() -> None:
    code = (jump(0x15, 1, 0, 2), move(2, 1), jump(0x05, 0, 0, 1), move(2, 0), jump(0x15, 2, 0, 1), CALL, EXIT)
    assert reached(*code) == set(range(7))
    same = (jump(0x15, 1, 0, 2), move(2, 1), jump(0x05, 0, 0, 1), move(2, 1), jump(0x15, 2, 0, 1), CALL, EXIT)
    assert reached(*same) == set(range(7))
    other = (*same[:4], jump(0x55, 2, 0, 1), CALL, EXIT)
    assert reached(*other) == set(range(7)) - {5}


def test_a_loop_ends() -> None:
    code = (move(1, 0), Instruction(0x07, dst=1, imm=1), jump(0xA5, 1, 10, -2), EXIT)
    assert reached(*code) == {0, 1, 2, 3}


def test_constants_of_two_slots() -> None:
    wide = Instruction(0x18, dst=1, imm=0, high=1)
    assert reached(wide, jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 2, 3, 4}
    assert reached(wide, jump(0x16, 1, 0, 1), CALL, EXIT) == {0, 2, 4}
    map_reference = Instruction(0x18, dst=1, src=1, imm=0)
    assert reached(map_reference, jump(0x15, 1, 0, 1), CALL, EXIT) == {0, 2, 3, 4}


@pytest.mark.parametrize(
    "code",
    [
        (jump(0x05, 0, 0, 5), EXIT, EXIT),
        (jump(0x05, 0, 0, -5), EXIT, EXIT),
        (Instruction(0x0D, dst=1), EXIT, EXIT),
        (Instruction(0xBF, dst=1, src=12), EXIT, EXIT),
    ],
    ids=["over the end", "before the start", "indirect", "no such register"],
)
def test_what_is_not_understood_is_reached(code: tuple[Instruction, ...]) -> None:
    assert reached(*code) == {0, 1, 2}


def test_no_code() -> None:
    assert reachable(b"") == set()


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_either_byte_order(byte_order: str) -> None:
    code = encode([move(1, 0), jump(0x15, 1, 0, 1), CALL, EXIT], byte_order)
    assert reachable(code, byte_order) == {0, 1, 3}


OPERATIONS = {
    0x00: lambda a, b, bits: a + b,
    0x10: lambda a, b, bits: a - b,
    0x40: lambda a, b, bits: a | b,
    0x50: lambda a, b, bits: a & b,
    0x60: lambda a, b, bits: a << (b % bits),
    0x70: lambda a, b, bits: a >> (b % bits),
    0x80: lambda a, b, bits: -a,
    0xA0: lambda a, b, bits: a ^ b,
    0xB0: lambda a, b, bits: b,
    0xC0: lambda a, b, bits: signed(a, bits) >> (b % bits),
}
TESTS = {
    0x10: lambda a, b, bits: a == b,
    0x20: lambda a, b, bits: a > b,
    0x40: lambda a, b, bits: a & b != 0,
    0x60: lambda a, b, bits: signed(a, bits) > signed(b, bits),
    0xD0: lambda a, b, bits: signed(a, bits) <= signed(b, bits),
}


def signed(value: int, bits: int) -> int:
    return (value ^ 1 << bits - 1) - (1 << bits - 1)


def run(code: list[Instruction], registers: list[int]) -> set[int]:
    """Where a program gets with these registers, in a hundred steps at most."""
    seen: set[int] = set()
    at = 0
    for _ in range(100):
        if at >= len(code):
            break
        seen.add(at)
        one = code[at]
        bits = 64 if one.code & 7 in (5, 7) else 32
        right = (registers[one.src] if one.code & 8 else one.imm) & ((1 << bits) - 1)
        left = registers[one.dst] & ((1 << bits) - 1)
        at += 1
        if one.code & 7 in (4, 7):
            registers[one.dst] = OPERATIONS[one.code & 0xF0](left, right, bits) & ((1 << bits) - 1)
        elif one.code == 0x85:
            registers[:6] = [M64 - value for value in registers[:6]]
        elif TESTS[one.code & 0xF0](left, right, bits):
            at += one.off
    return seen


numbers = st.sampled_from([0, 1, 2, -1, 7, 0x7FFFFFFF, -0x80000000])
registers = st.integers(0, 9)
arithmetic = st.builds(
    lambda operation, width, source, dst, src, imm: Instruction(operation | width | source, dst, src, 0, imm),
    st.sampled_from(sorted(OPERATIONS)), st.sampled_from([4, 7]), st.sampled_from([0, 8]), registers, registers,
    numbers,
)  # fmt: skip
branches = st.builds(
    lambda test, width, source, dst, src, off, imm: Instruction(test | width | source, dst, src, off, imm),
    st.sampled_from(sorted(TESTS)), st.sampled_from([5, 6]), st.sampled_from([0, 8]), registers, registers,
    st.integers(0, 3), numbers,
)  # fmt: skip


@settings(max_examples=few(300), deadline=None)
@given(
    st.lists(st.one_of(arithmetic, branches, st.just(CALL)), min_size=1, max_size=25),
    st.lists(st.integers(0, M64), min_size=10, max_size=10),
)
def test_where_programs_get_is_reachable(code: list[Instruction], values: list[int]) -> None:
    padded = [*code, *[EXIT] * 4]
    assert run(code, values) <= reachable(encode(padded, sys.byteorder))
