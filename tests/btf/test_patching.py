"""Relocated instructions: every class, every refusal, both byte orders."""

from __future__ import annotations

import pytest
from core_types import ORDERS, Types, bitfield

from pybpf.asm import Instruction, decode, encode
from pybpf.btf.relocation import POISON, CoreRelocation, Relocator
from pybpf.constants import (
    BPF_CORE_ENUMVAL_VALUE,
    BPF_CORE_FIELD_BYTE_OFFSET,
    BPF_CORE_FIELD_BYTE_SIZE,
    BPF_CORE_FIELD_EXISTS,
    BPF_CORE_TYPE_ID_LOCAL,
    BPF_CORE_TYPE_ID_TARGET,
)
from pybpf.errors import ObjectError, RelocationError

OFFSET = BPF_CORE_FIELD_BYTE_OFFSET
EXIT = Instruction(0x95)
CALL_POISON = Instruction(0x85, imm=POISON)


class Kernel:
    """One local struct, ``struct s``, and what became of it."""

    def __init__(self, order: str) -> None:
        self.order = order
        local, target = Types(order), Types(order)
        number, signed = local.u64, local.s64
        self.s = local.struct(
            "s", ("flags", number, 8), ("count", signed, 16), ("gone", number, 24), ("far", number, 32),
            bitfield("bits", local.u32, 320, 3), ("text", local.array(local.u8, 16), 48), ("odd", local.u32, 0),
        )  # fmt: skip
        self.fields = {"flags": 0, "count": 1, "gone": 2, "far": 3, "bits": 4, "text": 5, "odd": 6}
        self.e = local.add_enum64("e", 8, False, [("BIG", 5), ("GONE", 1 << 40 | 6)])
        self.small = local.add_enum("small", 4, True, [("MINUS", -3)])
        target.struct(
            "s", ("flags", target.u16, 6), ("count", target.s32, 12), ("far", target.u64, 40000),
            bitfield("bits", target.u32, 101, 3), ("text", target.array(target.u8, 20), 28),
            ("odd", target.add_int("u24", 3), 4),
        )  # fmt: skip
        target.add_enum64("e", 8, False, [("BIG", 0x1122334455667788)])
        target.add_enum("small", 4, True, [("MINUS", -9)])
        self.relocator = Relocator(local.btf(), target.btf("vmlinux"))

    def field(self, name: str, kind: int = OFFSET, index: int = 0) -> CoreRelocation:
        return CoreRelocation(index, self.s, f"0:{self.fields[name]}", kind)

    def apply(self, instructions: list[Instruction], *relocations: CoreRelocation) -> list[Instruction]:
        code = bytearray(encode(instructions, self.order))
        self.relocator.apply(code, relocations, "on_exec")
        return decode(code, self.order)


@pytest.fixture(params=ORDERS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(str(request.param))


@pytest.mark.parametrize(
    ("code", "relocated"), [(0x79, 0x69), (0x7B, 0x6B), (0x7A, 0x6A), (0xDB, 0xCB)], ids=["ldx", "stx", "st", "atomic"]
)
def test_loads_and_stores_become_as_wide_as_the_field(kernel: Kernel, code: int, relocated: int) -> None:
    before = Instruction(code, 3, 7, 8, imm=5 if code == 0x7A else 0)
    after = Instruction(relocated, 3, 7, 6, imm=before.imm)
    assert kernel.apply([before, EXIT], kernel.field("flags")) == [after, EXIT]


@pytest.mark.parametrize("code", [0xB7, 0x07, 0xB4, 0x04, 0x17])
def test_arithmetic_takes_the_immediate(kernel: Kernel, code: int) -> None:
    assert kernel.apply([EXIT, Instruction(code, 3, imm=8)], kernel.field("flags", index=1)) == [
        EXIT,
        Instruction(code, 3, imm=6),
    ]


def test_arithmetic_does_not_mind_the_size(kernel: Kernel) -> None:
    assert kernel.apply([Instruction(0x07, 3, imm=16)], kernel.field("count")) == [Instruction(0x07, 3, imm=12)]
    assert kernel.apply([Instruction(0x07, 3, imm=32)], kernel.field("far")) == [Instruction(0x07, 3, imm=40000)]
    assert kernel.apply([Instruction(0x07, 3, imm=48)], kernel.field("text")) == [Instruction(0x07, 3, imm=28)]


def test_constants_of_64_bits(kernel: Kernel) -> None:
    value = CoreRelocation(0, kernel.e, "0", BPF_CORE_ENUMVAL_VALUE)
    assert kernel.apply([Instruction(0x18, 1, imm=5)], value) == [Instruction(0x18, 1, imm=0x55667788, high=0x11223344)]
    negative = CoreRelocation(0, kernel.small, "0", BPF_CORE_ENUMVAL_VALUE)
    assert kernel.apply([Instruction(0x18, 1, imm=-3, high=-1)], negative) == [Instruction(0x18, 1, imm=-9, high=-1)]
    assert kernel.apply([Instruction(0xB7, 1, imm=-3)], negative) == [Instruction(0xB7, 1, imm=-9)]


def test_type_ids_replace_whatever_is_there(kernel: Kernel) -> None:
    local = CoreRelocation(0, kernel.s, "0", BPF_CORE_TYPE_ID_LOCAL)
    assert kernel.apply([Instruction(0xB7, 1, imm=12345)], local) == [Instruction(0xB7, 1, imm=kernel.s)]
    target = CoreRelocation(0, kernel.s, "0", BPF_CORE_TYPE_ID_TARGET)
    (found,) = kernel.apply([Instruction(0x18, 1, imm=12345)], target)
    assert found.imm64 == kernel.relocator.candidates(kernel.s)[0][1]


@pytest.mark.parametrize("code", [0x79, 0x7B, 0xB7, 0x85, 0x05, 0x0F])
def test_what_is_missing_poisons_any_instruction(kernel: Kernel, code: int) -> None:
    insn = Instruction(code, 1, 2, 24 if code & 7 != 7 else 0, 24)
    assert kernel.apply([EXIT, insn, EXIT], kernel.field("gone", index=1)) == [EXIT, CALL_POISON, EXIT]


def test_poison_fills_both_slots(kernel: Kernel) -> None:
    gone = CoreRelocation(1, kernel.e, "1", BPF_CORE_ENUMVAL_VALUE)
    insn = Instruction(0x18, 1, imm=6, high=1 << 8)
    assert kernel.apply([EXIT, insn, EXIT], gone) == [EXIT, CALL_POISON, CALL_POISON, EXIT]


@pytest.mark.parametrize("code", [0x79, 0x7B, 0x7A])
def test_a_load_of_a_signed_field_of_another_size_is_poisoned(kernel: Kernel, code: int) -> None:
    assert kernel.apply([Instruction(code, 3, 7, 16)], kernel.field("count")) == [CALL_POISON]


def test_what_exists_is_a_number(kernel: Kernel) -> None:
    insns = [Instruction(0xB7, 1, imm=1), Instruction(0xB7, 2, imm=1)]
    exists = BPF_CORE_FIELD_EXISTS
    assert kernel.apply(insns, kernel.field("flags", exists), kernel.field("gone", exists, 1)) == [
        Instruction(0xB7, 1, imm=1),
        Instruction(0xB7, 2, imm=0),
    ]


def test_offsets_of_bit_fields_are_not_checked(kernel: Kernel) -> None:
    """Compilers differ in which bytes they would load."""
    for compiled in (40, 41, 44):
        assert kernel.apply([Instruction(0xB7, 1, imm=compiled)], kernel.field("bits")) == [
            Instruction(0xB7, 1, imm=12)
        ]


REFUSALS = [
    ([Instruction(0x79, 1, 2, 9)], "flags", OFFSET, "the instruction holds 9, not 8"),
    ([Instruction(0xB7, 1, imm=9)], "flags", OFFSET, "the instruction holds 9, not 8"),
    ([Instruction(0xB7, 1, imm=-8)], "flags", OFFSET, "the instruction holds -8, not 8"),
    ([Instruction(0x18, 1, imm=8, high=1)], "flags", OFFSET, "the instruction holds 4294967304, not 8"),
    ([Instruction(0x18, 1, 1, imm=8)], "flags", OFFSET, "does not hold a plain number"),
    ([Instruction(0x18, 1, off=1, imm=8)], "flags", OFFSET, "does not hold a plain number"),
    ([Instruction(0xB7, 1, imm=4)], "flags", BPF_CORE_FIELD_BYTE_SIZE, "the instruction holds 4, not 8"),
    ([Instruction(0x0F, 1, 2)], "flags", OFFSET, "a register where the number belongs"),
    ([Instruction(0x85, imm=8)], "flags", OFFSET, "opcode 0x85 cannot be relocated"),
    ([Instruction(0x05, off=8)], "flags", OFFSET, "opcode 0x05 cannot be relocated"),
    ([Instruction(0x16, off=8)], "flags", OFFSET, "opcode 0x16 cannot be relocated"),
    ([Instruction(0x30, imm=8)], "flags", OFFSET, "opcode 0x30 cannot be relocated"),
    ([Instruction(0x79, 1, 2, 32)], "far", OFFSET, "offset 40000 does not fit"),
    ([Instruction(0x61, 1, 2, 8)], "flags", OFFSET, "takes 4 bytes, the field has 8"),
    ([Instruction(0x61, 1, 2, 0)], "odd", OFFSET, "has 3 bytes, which no load takes"),
]


@pytest.mark.parametrize(("instructions", "field", "kind", "message"), REFUSALS)
def test_refusals(kernel: Kernel, instructions: list[Instruction], field: str, kind: int, message: str) -> None:
    with pytest.raises(RelocationError, match=message):
        kernel.apply(instructions, kernel.field(field, kind))


@pytest.mark.parametrize("index", [1, -1, 1 << 28])
def test_instructions_that_are_not_there(kernel: Kernel, index: int) -> None:
    with pytest.raises(RelocationError, match="has only 1 instructions"):
        kernel.apply([EXIT], kernel.field("flags", index=index))


@pytest.mark.parametrize("name", ["flags", "gone"])
def test_half_an_ldimm64_at_the_end(kernel: Kernel, name: str) -> None:
    with pytest.raises(RelocationError, match="without its second slot"):
        kernel.relocator.apply(bytearray(b"\x18" + bytes(7)), [kernel.field(name)], "p")


def test_half_an_ldimm64_with_something_else_behind(kernel: Kernel) -> None:
    with pytest.raises(RelocationError, match="does not hold a plain number"):
        kernel.relocator.apply(bytearray(b"\x18" + bytes(7) + b"\x95" + bytes(7)), [kernel.field("flags")], "p")


def test_errors_name_everything(kernel: Kernel) -> None:
    program = [EXIT] * 12 + [Instruction(0x79, 1, 2, 9)]
    with pytest.raises(ObjectError) as caught:
        kernel.apply(program, kernel.field("flags", index=12))
    assert str(caught.value) == (
        "program 'on_exec', instruction 12: <byte_off> [8] struct s.flags (0:0 @ offset 8): "
        "the instruction holds 9, not 8"
    )


@pytest.mark.parametrize(
    ("relocation", "message"),
    [
        (CoreRelocation(3, 1 << 30, "0:1", OFFSET), r"instruction 3: <byte_off> \[1073741824\] \(0:1\): "),
        (
            CoreRelocation(3, 3, "0:1", OFFSET),
            r"instruction 3: <byte_off> \[3\] int unsigned int \(0:1\): access string",
        ),
        (CoreRelocation(3, 3, "x" * 500, 99), r"instruction 3: <kind 99> \[3\] int unsigned int \(x{80}\): "),
    ],
)
def test_errors_about_malformed_relocations(kernel: Kernel, relocation: CoreRelocation, message: str) -> None:
    with pytest.raises(RelocationError, match=message):
        kernel.apply([EXIT] * 4, relocation)


def test_resolutions_come_back_in_order(kernel: Kernel) -> None:
    code = bytearray(encode([Instruction(0x79, 1, 2, 8), Instruction(0xB7, 1, imm=1)], kernel.order))
    relocations = [kernel.field("flags"), kernel.field("gone", BPF_CORE_FIELD_EXISTS, 1)]
    resolutions = kernel.relocator.apply(code, relocations, "p")
    assert [(resolution.kind, resolution.matched) for resolution in resolutions] == [
        (OFFSET, True),
        (BPF_CORE_FIELD_EXISTS, False),
    ]
