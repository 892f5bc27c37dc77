"""Instructions to and from bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybpf.asm import Instruction, decode, encode, swap
from pybpf.errors import ObjectError

ORDERS = ("little", "big")

s16 = st.integers(-0x8000, 0x7FFF)
s32 = st.integers(-0x80000000, 0x7FFFFFFF)
register = st.integers(0, 15)
narrow = st.builds(Instruction, st.integers(0, 255).filter(lambda code: code != 0x18), register, register, s16, s32)
wide = st.builds(Instruction, st.just(0x18), register, register, s16, s32, s32)
programs = st.lists(st.one_of(narrow, wide), max_size=20)


def test_bytes_little_endian() -> None:
    # r1 = *(u64 *)(r2 - 8)
    assert encode([Instruction(0x79, dst=1, src=2, off=-8)], "little") == bytes.fromhex("7921f8ff00000000")


def test_bytes_big_endian() -> None:
    assert encode([Instruction(0x79, dst=1, src=2, off=-8)], "big") == bytes.fromhex("7912fff800000000")


def test_ldimm64_is_one_instruction_of_two_slots() -> None:
    data = struct.pack("<BBhiBBhi", 0x18, 0x13, 0, 0x55667788, 0, 0, 0, 0x11223344)
    (insn,) = decode(data, "little")
    assert (insn.code, insn.dst, insn.src, insn.slots) == (0x18, 3, 1, 2)
    assert insn.imm64 == 0x1122334455667788
    assert encode([insn], "little") == data


@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF_00000000, 0xFFFFFFFF_FFFFFFFF, 1 << 63])
def test_imm64_halves(value: int) -> None:
    insn = Instruction(0x18)
    insn.imm64 = value
    assert insn.imm64 == value
    assert -(1 << 31) <= insn.imm < 1 << 31
    assert -(1 << 31) <= insn.high < 1 << 31


def test_immediates_may_be_unsigned() -> None:
    assert encode([Instruction(0xB7, imm=0xFFFFFFFF)]) == encode([Instruction(0xB7, imm=-1)])


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(program=programs)
def test_round_trip_of_instructions(order: str, program: list[Instruction]) -> None:
    assert decode(encode(program, order), order) == program


@pytest.mark.parametrize("order", ORDERS)
@settings(deadline=None)
@given(data=st.binary(max_size=64))
def test_bytes_decode_and_come_back_or_are_refused(order: str, data: bytes) -> None:
    try:
        program = decode(data, order)
    except ObjectError:
        return
    assert encode(program, order) == data


@settings(deadline=None)
@given(program=programs)
def test_swap_changes_the_byte_order(program: list[Instruction]) -> None:
    assert swap(encode(program, "little")) == encode(program, "big")
    assert swap(encode(program, "big")) == encode(program, "little")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind: type) -> None:
    data = kind(bytes.fromhex("b700000001000000 9500000000000000"))
    assert [insn.code for insn in decode(data, "little")] == [0xB7, 0x95]
    assert swap(data)[:8] == bytes.fromhex("b700000000000001")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x95", "1 bytes are not a multiple of 8"),
        (bytes(7), "7 bytes are not a multiple of 8"),
        (b"\x18" + bytes(7), "instruction 0: ldimm64 without its second slot"),
        (b"\x95" + bytes(7) + b"\x18" + bytes(7), "instruction 1: ldimm64 without"),
        (b"\x18" + bytes(7) + b"\x95" + bytes(7), "instruction 0: the second slot"),
        (b"\x18" + bytes(7) + b"\0\x10" + bytes(6), "instruction 0: the second slot"),
        (b"\x18" + bytes(7) + b"\0\0\1\0" + bytes(4), "instruction 0: the second slot"),
    ],
)
def test_malformed_bytes(data: bytes, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        decode(data, "little")


def test_swap_refuses_half_a_slot() -> None:
    with pytest.raises(ObjectError, match="12 bytes"):
        swap(bytes(12))


@pytest.mark.parametrize(
    ("insn", "message"),
    [
        (Instruction(0x100), "code 256"),
        (Instruction(0xB7, dst=16), "dst 16"),
        (Instruction(0xB7, src=-1), "src -1"),
        (Instruction(0xB7, off=0x8000), "off 32768"),
        (Instruction(0xB7, imm=1 << 32), "imm 4294967296"),
        (Instruction(0xB7, imm=-(1 << 31) - 1), "imm -2147483649"),
        (Instruction(0x18, high=1 << 32), "high 4294967296"),
        (Instruction(0xB7, high=1), "opcode 0xb7 has no upper half"),
    ],
)
def test_fields_that_do_not_fit(insn: Instruction, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        encode([Instruction(0x95), insn])


def test_the_error_counts_instructions() -> None:
    with pytest.raises(ObjectError, match="instruction 1: dst"):
        encode([Instruction(0x95), Instruction(0xB7, dst=16)])


def test_equality_and_text() -> None:
    insn = Instruction(0xB7, dst=2, imm=7)
    assert insn == Instruction(0xB7, 2, 0, 0, 7)
    assert insn != Instruction(0xB7, 2, 0, 0, 8)
    assert insn != "r2 = 7"
    assert repr(insn) == "Instruction(0xb7, dst=2, src=0, off=0, imm=7)"
    assert repr(Instruction(0x18, high=1)) == "Instruction(0x18, dst=0, src=0, off=0, imm=0, high=1)"
    assert str(insn) == "(b7) r2 = 7"
    with pytest.raises(TypeError):
        hash(insn)
