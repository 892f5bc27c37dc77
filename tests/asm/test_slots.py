"""In-place access agrees with decode() in both byte orders."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybpf.asm import Instruction, decode, encode, slots

ORDERS = ("little", "big")

u32 = st.integers(0, 0xFFFFFFFF)
register = st.integers(0, 15)


def program(order: str) -> bytearray:
    return bytearray(
        encode(
            [
                Instruction(0xB7, dst=3, imm=-1),
                Instruction(0x18, dst=1, src=2, imm=5, high=-2),
                Instruction(0x7B, dst=10, src=6, off=-16),
            ],
            order,
        )
    )


@pytest.mark.parametrize("order", ORDERS)
def test_reading(order: str) -> None:
    code = program(order)
    assert slots.count(code) == 4
    assert slots.opcodes(code) == b"\xb7\x18\x00\x7b"
    assert slots.opcode(code, 3) == 0x7B
    assert slots.dst_src(code, 3, order) == (10, 6)
    assert slots.get_src(code, 1, order) == 2
    assert slots.get_off(code, 3, order) == -16
    assert slots.get_imm(code, 0, order) == -1
    assert slots.get_imm64(code, 1, order) == 0xFFFFFFFE_00000005
    assert slots.fields(code, 3, order) == (0x7B, 10, 6, -16, 0)


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(code=st.integers(0, 255), dst=register, src=register, off=st.integers(-0x8000, 0x7FFF), imm=u32)
def test_writing_each_field_leaves_the_others(order: str, code: int, dst: int, src: int, off: int, imm: int) -> None:
    data = program(order)
    before = bytes(data)
    slots.set_opcode(data, 3, code)
    slots.set_dst_src(data, 3, dst, src ^ 15, order)
    slots.set_src(data, 3, src, order)
    slots.set_off(data, 3, off, order)
    slots.set_imm(data, 3, imm, order)
    assert data[:24] == before[:24]
    assert len(data) == len(before)
    signed = imm - (1 << 32) if imm >> 31 else imm
    assert slots.fields(data, 3, order) == (code, dst, src, off, signed)


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(low=u32, high=u32)
def test_writing_both_halves(order: str, low: int, high: int) -> None:
    data = program(order)
    slots.set_imm64(data, 1, low, high, order)
    _, insn, _ = decode(data, order)
    assert insn.imm64 == high << 32 | low
    assert (insn.dst, insn.src) == (1, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_a_call_clears_the_slot(order: str) -> None:
    data = program(order)
    slots.set_call(data, 3, 195896080, byte_order=order)
    assert decode(data, order)[-1] == Instruction(0x85, imm=195896080)
    slots.set_call(data, 3, -7, 1, order)
    assert decode(data, order)[-1] == Instruction(0x85, src=1, imm=-7)
