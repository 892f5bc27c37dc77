"""CO-RE on types written by hand: every kind, every rule, both byte orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from core_types import BOOL, ORDERS, SIGNED, Types, bitfield, resolve
from hypothesis import given, settings
from hypothesis import strategies as st

from pybpf.btf.kinds import Member
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import CoreRelocation, Relocator, describe
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import (
    BPF_CORE_ENUMVAL_EXISTS,
    BPF_CORE_ENUMVAL_VALUE,
    BPF_CORE_FIELD_BYTE_OFFSET,
    BPF_CORE_FIELD_BYTE_SIZE,
    BPF_CORE_FIELD_EXISTS,
    BPF_CORE_FIELD_LSHIFT_U64,
    BPF_CORE_FIELD_RSHIFT_U64,
    BPF_CORE_FIELD_SIGNED,
    BPF_CORE_TYPE_EXISTS,
    BPF_CORE_TYPE_ID_LOCAL,
    BPF_CORE_TYPE_ID_TARGET,
    BPF_CORE_TYPE_MATCHES,
    BPF_CORE_TYPE_SIZE,
)
from pybpf.errors import BTFError, RelocationError

OFFSET, SIZE, EXISTS = BPF_CORE_FIELD_BYTE_OFFSET, BPF_CORE_FIELD_BYTE_SIZE, BPF_CORE_FIELD_EXISTS
SIGN, LSHIFT, RSHIFT = BPF_CORE_FIELD_SIGNED, BPF_CORE_FIELD_LSHIFT_U64, BPF_CORE_FIELD_RSHIFT_U64


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- fields ----


def test_a_moved_field(order: str) -> None:
    local, target = Types(order), Types(order)
    conn = local.struct("conn", ("id", local.s32, 0), ("total", local.s64, 8), size=16)
    target.struct(
        "conn", ("pad", target.array(target.s64, 2), 0), ("id", target.s32, 16), ("x", target.s32, 20),
        ("total", target.s64, 24), size=32,
    )  # fmt: skip
    moved = resolve(local, target, conn, "0:1", OFFSET)
    assert (moved.original, moved.value) == (8, 24)
    assert (moved.original_size, moved.new_size, moved.bad_size, moved.poison, moved.validate) == (
        8,
        8,
        False,
        False,
        True,
    )
    assert moved.matched
    assert moved.target_btf is not None
    assert moved.target_btf.name == "vmlinux"
    assert resolve(local, target, conn, "2:1", OFFSET).value == 2 * 32 + 24
    assert resolve(local, target, conn, "0:0", OFFSET).value == 16


@pytest.mark.parametrize(
    ("kind", "original", "value"), [(OFFSET, 8, 12), (EXISTS, 1, 1), (SIZE, 4, 4)], ids=["offset", "exists", "size"]
)
def test_an_element_of_an_array_in_anonymous_members(order: str, kind: int, original: int, value: int) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", ("b", local.array(local.u32, 8), 0), size=32)
    inner = target.struct("", ("a", target.u8, 0), ("b", target.array(target.u32, 4), 4), size=20)
    union = target.union("", ("", inner, 0), ("raw", target.u64, 0), size=24)
    target.struct("s", ("", union, 0), size=24)
    inside = resolve(local, target, s, "0:0:2", kind)
    assert (inside.original, inside.value) == (original, value)
    assert inside.target is not None
    assert inside.target.raw == (0, 0, 0, 1, 2)
    outside = resolve(local, target, s, "0:0:5", kind)
    assert (outside.value, outside.poison) == (0, kind != EXISTS)
    assert not outside.matched


@pytest.mark.parametrize(
    ("local_type", "target_type", "original", "new", "bad"),
    [
        ("u64", "u16", 8, 2, False),
        ("u16", "u64", 2, 8, False),
        ("s64", "s32", 8, 4, True),
        ("u64", "s32", 8, 4, True),
        ("s32", "u64", 4, 8, True),
        ("s32", "u32", 4, 4, False),
        ("bool", "u32", 1, 4, False),
        ("pointer", "pointer", 8, 8, False),
        ("array", "array_u16", 4, 2, False),
        ("struct", "larger", 64, 128, True),
    ],
)
def test_loads_of_another_size(
    order: str, local_type: str, target_type: str, original: int, new: int, bad: bool
) -> None:
    """A load is adjusted between unsigned integers, and poisoned otherwise."""
    sides = []
    for name in (local_type, target_type):
        types = Types(order)
        types.add_int("_Bool", 1, encoding=BOOL)
        ids = {
            "bool": len(types) - 1,
            "pointer": types.add_ptr(types.u8),
            "array": types.array(types.array(types.u32, 3), 2),
            "array_u16": types.array(types.array(types.u16, 7), 5),
            "struct": types.struct("inner", ("a", types.u8, 0)),
            "larger": types.struct("inner2", ("a", types.u8, 0), size=128),
        }
        field = ids.get(name) or getattr(types, name)
        sides.append((types, types.struct("s", ("flags", field, 6))))
    (local, s), (target, _) = sides
    resolution = resolve(local, target, s, "0:0", OFFSET)
    assert (resolution.original_size, resolution.new_size, resolution.bad_size) == (original, new, bad)


def test_a_pointer_of_a_32_bit_kernel(order: str) -> None:
    local, target = Types(order), BTFBuilder(order)
    s = local.struct("s", ("p", local.add_ptr(local.u8), 8))
    target.add_int("long unsigned int", 4)
    target.add_struct("s", 8, [("p", target.add_ptr(0), 32)])
    kernel = BTF.from_bytes(target.to_bytes())
    assert kernel.pointer_size == 4
    resolution = Relocator(local.btf(), kernel).resolve(CoreRelocation(0, s, "0:0", OFFSET))
    assert (resolution.value, resolution.original_size, resolution.new_size) == (4, 8, 4)
    assert not resolution.bad_size


def test_a_flexible_array(order: str) -> None:
    local, target = Types(order), Types(order)
    last = local.struct("s", ("n", local.u32, 0), ("v", local.array(local.u32, 0), 4), size=4)
    first = local.struct("t", ("v", local.array(local.u32, 0), 0), ("n", local.u32, 0), size=4)
    fixed = local.struct("u", ("v", local.array(local.u32, 9), 0), size=36)
    target.struct("s", ("m", target.u64, 0), ("n", target.u32, 8), ("v", target.array(target.u32, 0), 12), size=16)
    target.struct("u", ("v", target.array(target.u32, 0), 0), size=0)
    assert resolve(local, target, last, "0:1:7", OFFSET).value == 12 + 28
    assert resolve(local, target, fixed, "0:0:8", OFFSET).value == 32
    with pytest.raises(RelocationError, match="element 7 is outside an array of 0"):
        resolve(local, target, first, "0:0:7", OFFSET)


def test_members_of_members_and_elements_of_elements(order: str) -> None:
    local, target = Types(order), Types(order)
    point = local.struct("point", ("x", local.u32, 0), ("y", local.u32, 4), size=8)
    shape = local.struct("shape", ("grid", local.array(local.array(point, 3), 2), 0), size=48)
    other = target.struct("dot", ("y", target.u32, 0), ("z", target.u32, 4), ("x", target.u32, 8), size=12)
    grid = target.array(target.array(target.add_const(target.add_typedef("dot_t", other)), 5), 4)
    target.struct("shape", ("flags", target.u64, 0), ("grid", target.add_volatile(grid), 8), size=248)
    resolution = resolve(local, target, shape, "0:0:1:2:1", OFFSET)
    assert resolution.original == 1 * 24 + 2 * 8 + 4
    assert resolution.value == 8 + 1 * 60 + 2 * 12 + 0
    assert resolve(local, target, shape, "0:0:1", SIZE).value == 60
    assert resolve(local, target, shape, "0:0", SIZE).value == 240
    matrix = resolve(local, target, shape, "0:0:1", OFFSET)
    assert (matrix.value, matrix.original_size, matrix.new_size) == (68, 8, 12)


def test_a_struct_may_have_become_a_union(order: str) -> None:
    local, target = Types(order), Types(order)
    inner = local.struct("inner", ("a", local.u32, 4), size=8)
    s = local.struct("s", ("in", inner, 0), size=8)
    target.struct("s", ("in", target.union("other", ("a", target.u32, 0), size=4), 8), size=16)
    assert resolve(local, target, s, "0:0:0", OFFSET).value == 8


def test_the_first_member_of_a_name_decides(order: str) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", ("a", local.u32, 0))
    pointer = target.add_ptr(0)
    target.struct("s", ("a", pointer, 0), ("a", target.u32, 8))
    assert not resolve(local, target, s, "0:0", EXISTS).matched
    hidden = Types(order)
    inner = hidden.struct("", ("a", hidden.add_ptr(0), 0))
    hidden.struct("s", ("", inner, 0), ("a", hidden.u32, 8))
    assert resolve(local, hidden, s, "0:0", OFFSET).value == 8


def test_members_have_no_flavors(order: str) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", ("a___x", local.u32, 0), ("b", local.u32, 4))
    target.struct("s", ("a", target.u32, 0), ("b___y", target.u32, 4))
    assert not resolve(local, target, s, "0:0", EXISTS).matched
    assert not resolve(local, target, s, "0:1", EXISTS).matched


MISSING = [
    (OFFSET, "0:0", 0, True), (SIZE, "0:0", 0, True), (EXISTS, "0:0", 0, False), (SIGN, "0:0", 0, True),
    (LSHIFT, "0:0", 0, True), (RSHIFT, "0:0", 0, True),
    (BPF_CORE_TYPE_ID_TARGET, "0", 0, False), (BPF_CORE_TYPE_EXISTS, "0", 0, False),
    (BPF_CORE_TYPE_SIZE, "0", 0, False), (BPF_CORE_TYPE_MATCHES, "0", 0, False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "access", "value", "poison"), MISSING)
def test_a_type_that_is_missing(order: str, kind: int, access: str, value: int, poison: bool) -> None:
    local = Types(order)
    s = local.struct("s", ("a", local.u32, 0))
    resolution = resolve(local, Types(order), s, access, kind)
    assert (resolution.value, resolution.poison, resolution.matched) == (value, poison, False)
    assert resolution.target_btf is None


@pytest.mark.parametrize(("kind", "poison"), [(BPF_CORE_ENUMVAL_EXISTS, False), (BPF_CORE_ENUMVAL_VALUE, True)])
def test_an_enumerator_that_is_missing(order: str, kind: int, poison: bool) -> None:
    local, target = Types(order), Types(order)
    enum = local.add_enum("e", 4, False, [("A", 7)])
    target.add_enum("e", 4, False, [("B", 7)])
    resolution = resolve(local, target, enum, "0", kind)
    assert (resolution.value, resolution.poison) == (0, poison)
    assert resolution.original == (7 if kind == BPF_CORE_ENUMVAL_VALUE else 1)


@pytest.mark.parametrize(
    ("type_name", "signed"),
    [("u32", 0), ("s32", 1), ("signed_enum", 1), ("unsigned_enum", 0), ("signed_enum64", 1), ("pointer", 0)],
)
def test_signedness(order: str, type_name: str, signed: int) -> None:
    types = Types(order)
    ids = {
        "signed_enum": types.add_enum("e", 4, True, [("A", -1)]),
        "unsigned_enum": types.add_enum("f", 4, False, [("B", 1)]),
        "signed_enum64": types.add_enum64("g", 8, True, [("C", -1)]),
        "pointer": types.add_ptr(0),
    }
    field = ids.get(type_name) or getattr(types, type_name)
    s = types.struct("s", ("a", types.add_typedef("t", types.add_const(field)), 0))
    resolution = resolve(types, types, s, "0:0", SIGN)
    assert (resolution.original, resolution.value, resolution.validate) == (signed, signed, True)


@pytest.mark.parametrize(("name", "shift"), [("u8", 56), ("u16", 48), ("u32", 32), ("u64", 0)])
def test_shifts_of_an_ordinary_field(order: str, name: str, shift: int) -> None:
    types = Types(order)
    s = types.struct("s", ("a", getattr(types, name), 8))
    for kind in (LSHIFT, RSHIFT):
        resolution = resolve(types, types, s, "0:0", kind)
        assert (resolution.original, resolution.value, resolution.validate) == (shift, shift, True)


@pytest.mark.parametrize("kind", [SIGN, LSHIFT, RSHIFT])
def test_elements_have_no_sign_or_shift(kind: int) -> None:
    types = Types()
    s = types.struct("s", ("a", types.array(types.u8, 4), 0))
    with pytest.raises(RelocationError, match="has no meaning for an array element"):
        resolve(types, types, s, "0:0:1", kind)


# ---- bit fields ----


@pytest.mark.parametrize(
    ("bit_offset", "bits", "offset", "size", "lshift_little", "lshift_big", "rshift"),
    [
        (35, 5, 4, 4, 56, 35, 59),  # fits the declared type
        (30, 5, 0, 8, 29, 30, 59),  # crosses it: a wider load
        (0, 32, 0, 4, 32, 32, 32),
        (63, 1, 4, 4, 32, 63, 63),
    ],
)
def test_bit_fields(
    order: str, bit_offset: int, bits: int, offset: int, size: int, lshift_little: int, lshift_big: int, rshift: int
) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", bitfield("f", local.u32, 3, 4))
    target.struct("s", bitfield("f", target.u32, bit_offset, bits))
    lshift = lshift_little if order == "little" else lshift_big
    for kind, value, validate in [
        (OFFSET, offset, False), (SIZE, size, False), (EXISTS, 1, True), (SIGN, 0, True), (LSHIFT, lshift, False),
        (RSHIFT, rshift, True),
    ]:  # fmt: skip
        resolution = resolve(local, target, s, "0:0", kind)
        assert (resolution.value, resolution.validate, resolution.poison) == (value, validate, False), kind
        assert (resolution.original_size, resolution.new_size, resolution.bad_size) == (0, 0, False)


@settings(deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    legacy=st.booleans(),
    size=st.sampled_from([1, 2, 4, 8]),
    signed=st.booleans(),
    memory=st.binary(min_size=32, max_size=32),
    data=st.data(),
)
def test_a_bit_field_is_read_right(
    order: str, legacy: bool, size: int, signed: bool, memory: bytes, data: st.DataObject
) -> None:
    """Load << lshift >> rshift is the number in those bits."""
    bits = data.draw(st.integers(1, 8 * size - (1 if legacy else 0)))
    unit = data.draw(st.integers(0, 32 // size - 1))
    bit_offset = unit * 8 * size + data.draw(st.integers(0, 8 * size - bits))
    types = Types(order)
    if legacy:
        storage = types.add_int("old", size, bits, encoding=SIGNED if signed else 0)
        member = Member("f", storage, bit_offset)
    else:
        member = bitfield("f", types.add_int("new", size, encoding=SIGNED if signed else 0), bit_offset, bits)
    s = types.struct("s", member, size=32)
    btf = types.btf()
    relocator = Relocator(btf, btf)
    offset, load, sign, lshift, rshift = (
        relocator.resolve(CoreRelocation(0, s, "0:0", kind)).value for kind in (OFFSET, SIZE, SIGN, LSHIFT, RSHIFT)
    )
    register = int.from_bytes(memory[offset : offset + load], order) << lshift & (1 << 64) - 1
    if sign and register >> 63:
        register -= 1 << 64
    whole = int.from_bytes(memory, order)
    expected = whole >> (bit_offset if order == "little" else 256 - bit_offset - bits) & (1 << bits) - 1
    if signed and expected >> bits - 1:
        expected -= 1 << bits
    assert register >> rshift == expected
    assert sign == signed


def test_legacy_bit_fields_with_an_offset_are_no_match(order: str) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", ("f", local.u32, 0))
    target.struct("s", ("f", target.add_int("odd", 4, 5, bit_offset=3), 0))
    assert not resolve(local, target, s, "0:0", EXISTS).matched


@pytest.mark.parametrize("bit_offset", [60, 33])
def test_a_bit_field_that_no_load_can_read(bit_offset: int) -> None:
    types = Types()
    s = types.struct("s", bitfield("f", types.u64, bit_offset, 50))
    with pytest.raises(RelocationError, match="cannot be read with one load"):
        resolve(types, types, s, "0:0", OFFSET)


def test_a_bit_field_of_a_struct_is_refused() -> None:
    types = Types()
    inner = types.struct("inner", ("a", types.u32, 0))
    s = types.struct("s", bitfield("f", inner, 0, 5))
    with pytest.raises(RelocationError, match="the type of a bit field is a struct"):
        resolve(types, types, s, "0:0", SIZE)


def test_a_bit_field_against_an_ordinary_field_poisons_loads_only(order: str) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", bitfield("f", local.u32, 3, 4))
    target.struct("s", ("f", target.u32, 8))
    resolution = resolve(local, target, s, "0:0", OFFSET)
    assert (resolution.value, resolution.bad_size, resolution.poison) == (8, True, False)


# ---- types ----


def test_type_relocations(order: str) -> None:
    local, target = Types(order), Types(order)
    s = local.struct("s", ("a", local.u32, 0), size=4)
    target.add_ptr(0)
    there = target.struct("s", ("a", target.u32, 8), size=16)
    table = {
        BPF_CORE_TYPE_ID_LOCAL: (s, s, False),
        BPF_CORE_TYPE_ID_TARGET: (s, there, False),
        BPF_CORE_TYPE_EXISTS: (1, 1, True),
        BPF_CORE_TYPE_SIZE: (4, 16, True),
        BPF_CORE_TYPE_MATCHES: (1, 1, True),
    }
    for kind, expected in table.items():
        resolution = resolve(local, target, s, "0", kind)
        assert (resolution.original, resolution.value, resolution.validate) == expected, kind


def test_a_local_id_needs_no_kernel(order: str) -> None:
    local = Types(order)
    anonymous = local.add_ptr(local.u32)
    for type_id in (local.u32, anonymous):
        resolution = resolve(local, None, type_id, "0", BPF_CORE_TYPE_ID_LOCAL)
        assert (resolution.value, resolution.poison, resolution.matched) == (type_id, False, True)


def test_everything_else_needs_a_kernel() -> None:
    local = Types()
    with pytest.raises(RelocationError, match="there is no kernel BTF"):
        resolve(local, None, local.u32, "0", BPF_CORE_TYPE_EXISTS)


def test_a_typedef_is_looked_for_among_typedefs(order: str) -> None:
    local, target = Types(order), Types(order)
    mine = local.add_typedef("my_t", local.struct("", ("a", local.u32, 0)))
    target.struct("my_t", ("a", target.u32, 0))
    assert not resolve(local, target, mine, "0", BPF_CORE_TYPE_EXISTS).matched
    there = target.add_typedef(
        "my_t___v2", target.add_typedef("inner", target.struct("", ("b", target.u64, 0), size=8))
    )
    assert resolve(local, target, mine, "0", BPF_CORE_TYPE_ID_TARGET).value == there
    assert resolve(local, target, mine, "0", BPF_CORE_TYPE_SIZE).value == 8


def test_types_without_a_name_cannot_be_found() -> None:
    local = Types()
    nameless = local.struct("", ("a", local.u32, 0))
    for type_id, access, kind in [(nameless, "0:0", EXISTS), (0, "0", BPF_CORE_TYPE_EXISTS)]:
        with pytest.raises(RelocationError, match="a type without a name"):
            resolve(local, Types(), type_id, access, kind)


# ---- enumerators ----


def test_an_enumerator_is_found_by_its_name(order: str) -> None:
    local, target = Types(order), Types(order)
    foo = local.add_enum("foo", 4, False, [("FOO_A", 0), ("FOO_B___x", 1)])
    target.add_enum("foo", 4, False, [("FOO_Z", 0), ("FOO_A", 1), ("FOO_B", 7), ("FOO_B___later", 9)])
    found = resolve(local, target, foo, "1", BPF_CORE_ENUMVAL_VALUE)
    assert (found.original, found.value) == (1, 7)
    assert resolve(local, target, foo, "1", BPF_CORE_ENUMVAL_EXISTS).value == 1


@pytest.mark.parametrize(
    ("wide", "signed", "number", "value"),
    [
        (False, False, 0x80000000, 0xFFFFFFFF80000000),
        (False, False, 0x7FFFFFFF, 0x7FFFFFFF),
        (False, True, -2, 0xFFFFFFFFFFFFFFFE),
        (True, False, 0x80000000, 0x80000000),
        (True, False, 0xFFFFFFFF00000001, 0xFFFFFFFF00000001),
        (True, True, -2, 0xFFFFFFFFFFFFFFFE),
    ],
)
@pytest.mark.parametrize("local_wide", [False, True])
def test_enumerator_values(order: str, local_wide: bool, wide: bool, signed: bool, number: int, value: int) -> None:
    """ENUM and ENUM64 stand for each other; 32-bit values are sign-extended."""
    local, target = Types(order), Types(order)
    mine = (local.add_enum64 if local_wide else local.add_enum)("e", 8 if local_wide else 4, False, [("A", 5)])
    (target.add_enum64 if wide else target.add_enum)("e", 8 if wide else 4, signed, [("B", 1), ("A", number)])
    assert resolve(local, target, mine, "0", BPF_CORE_ENUMVAL_VALUE).value == value


def test_an_enumerator_of_a_typedef_of_an_enum(order: str) -> None:
    local, target = Types(order), Types(order)
    mine = local.add_typedef("e_t", local.add_enum("", 4, False, [("A", 5)]))
    target.add_typedef("e_t", target.add_const(target.add_enum("", 4, False, [("A", 6)])))
    assert resolve(local, target, mine, "0", BPF_CORE_ENUMVAL_VALUE).value == 6


# ---- candidates ----


def test_flavors(order: str) -> None:
    target = Types(order)
    target.struct("task", ("__state", target.u32, 24))
    target.struct("task___internal", ("other", target.u32, 0))
    local = Types(order)
    old = local.struct("task___old", ("state", local.s32, 0))
    new = local.struct("task___new", ("__state", local.s32, 0))
    assert resolve(local, target, old, "0:0", OFFSET).poison
    assert resolve(local, target, old, "0:0", EXISTS).value == 0
    assert resolve(local, target, new, "0:0", EXISTS).value == 1
    assert resolve(local, target, new, "0:0", OFFSET).value == 24


def test_only_one_kind_of_type_is_a_candidate() -> None:
    local, target = Types(), Types()
    s = local.struct("s", ("a", local.u32, 0))
    target.union("s", ("a", target.u32, 0))
    target.add_fwd("s")
    target.add_typedef("s", target.u32)
    assert not resolve(local, target, s, "0:0", EXISTS).matched


def two_candidates(order: str, first: int, second: int) -> tuple[Types, int, Types]:
    local, target = Types(order), Types(order)
    opts = local.struct("opts", ("len", local.u32, 0))
    target.struct("opts", ("len", target.u32, first))
    target.struct("opts", ("len", target.u32, second), ("more", target.u32, 40))
    return local, opts, target


def test_candidates_that_agree(order: str) -> None:
    local, opts, target = two_candidates(order, 4, 4)
    assert resolve(local, target, opts, "0:0", OFFSET).value == 4


@pytest.mark.parametrize("kind", [OFFSET, EXISTS, SIZE])
def test_candidates_that_disagree(order: str, kind: int) -> None:
    local, opts, target = two_candidates(order, 4, 8)
    with pytest.raises(RelocationError, match=r"ambiguous.*struct opts.len \(0:0 @ offset 4\) in vmlinux.*offset 8"):
        resolve(local, target, opts, "0:0", kind)


def test_type_ids_that_disagree(order: str) -> None:
    local, opts, target = two_candidates(order, 4, 4)
    with pytest.raises(RelocationError, match="ambiguous"):
        resolve(local, target, opts, "0", BPF_CORE_TYPE_ID_TARGET)
    assert resolve(local, target, opts, "0", BPF_CORE_TYPE_SIZE).value == 64


def test_a_candidate_without_the_field_leaves_the_others(order: str) -> None:
    """Once a field has told the candidates apart, the losers are out for the root type."""
    local, target = Types(order), Types(order)
    opts = local.struct("opts", ("len", local.u32, 0), ("more", local.u32, 4))
    target.struct("opts", ("len", target.u32, 4))
    winner = target.struct("opts", ("len", target.u32, 8), ("more", target.u32, 40))
    kernel = target.btf()
    relocator = Relocator(local.btf(), kernel)
    with pytest.raises(RelocationError):
        relocator.resolve(CoreRelocation(0, opts, "0:0", OFFSET))
    assert relocator.resolve(CoreRelocation(0, opts, "0:1", OFFSET)).value == 40
    assert relocator.candidates(opts) == [(kernel, winner)]
    assert relocator.resolve(CoreRelocation(0, opts, "0:0", OFFSET)).value == 8


def test_candidates_stay_when_none_matches(order: str) -> None:
    local, target = Types(order), Types(order)
    opts = local.struct("opts", ("gone", local.u32, 0), ("len", local.u32, 4))
    target.struct("opts", ("len", target.u32, 8))
    relocator = Relocator(local.btf(), target.btf())
    assert relocator.resolve(CoreRelocation(0, opts, "0:0", OFFSET)).poison
    assert relocator.resolve(CoreRelocation(0, opts, "0:1", OFFSET)).value == 8


class Modules:
    """Loaded modules, and how often they were asked for."""

    def __init__(self, *modules: BTF) -> None:
        self.modules = modules
        self.asked = 0

    def __call__(self) -> Iterator[BTF]:
        self.asked += 1
        return iter(self.modules)


def kernel_with_module(order: str) -> tuple[BTF, BTF, int]:
    vmlinux = Types(order)
    vmlinux.struct("here", ("a", vmlinux.u32, 4))
    kernel = vmlinux.btf("vmlinux")
    types = Types(order, base=kernel)
    there = types.struct("there", ("a", types.u32, 8))
    types.struct("here", ("a", types.u32, 16))
    return kernel, types.btf("nf_tables"), there


def test_modules_are_searched_when_the_kernel_has_none(order: str) -> None:
    kernel, module, there = kernel_with_module(order)
    local = Types(order)
    mine, other, third = (local.struct(name, ("a", local.u32, 0)) for name in ("there", "here", "nowhere"))
    modules = Modules(module)
    relocator = Relocator(local.btf(), kernel, modules=modules)
    assert relocator.resolve(CoreRelocation(0, other, "0:0", OFFSET)).value == 4
    assert modules.asked == 0
    found = relocator.resolve(CoreRelocation(0, mine, "0:0", OFFSET))
    assert found.value == 8
    assert found.target_btf is module
    assert relocator.resolve(CoreRelocation(0, mine, "0", BPF_CORE_TYPE_ID_TARGET)).value == there
    assert relocator.resolve(CoreRelocation(0, third, "0:0", EXISTS)).value == 0
    assert modules.asked == 1


def test_custom_types_have_no_modules(order: str) -> None:
    kernel, module, _ = kernel_with_module(order)
    local = Types(order)
    mine = local.struct("there", ("a", local.u32, 0))
    modules = Modules(module)
    relocator = Relocator(local.btf(), kernel, modules=modules, custom=True)
    assert relocator.resolve(CoreRelocation(0, mine, "0:0", EXISTS)).value == 0
    assert modules.asked == 0


def test_split_custom_types_bring_their_base(order: str) -> None:
    kernel, module, _ = kernel_with_module(order)
    local = Types(order)
    mine = local.struct("there", ("a", local.u32, 0))
    base = local.struct("only_base", ("a", local.u32, 0))
    relocator = Relocator(local.btf(), module, custom=True)
    assert relocator.resolve(CoreRelocation(0, mine, "0:0", OFFSET)).value == 8
    assert relocator.resolve(CoreRelocation(0, base, "0:0", EXISTS)).value == 0
    assert relocator.candidates(local.u32) == [(kernel, 3), (module, len(kernel) + 2)]


# ---- hostile access strings ----


def hostile_types() -> tuple[Types, dict[str, int]]:
    types = Types()
    ids = {"enum": types.add_enum("e", 4, False, [("A", 1), ("B", 2)])}
    ids["inner"] = types.struct("inner", ("v", types.array(types.u32, 4), 0), ("p", types.add_ptr(types.u32), 16))
    ids["s"] = types.struct("s", ("a", types.u32, 0), ("in", ids["inner"], 8), size=96)
    ids["fwd"] = types.add_fwd("fwd")
    ids["func"] = types.add_func("f", types.function(0))
    return types, ids


@pytest.mark.parametrize(
    "access",
    [
        "", ":", "0:", ":0", "0::1", "-1", "+1", "0:-1", " 0", "0 ", "0x1", "1e3", "a", "0:a", "1_0", "٣", "²", "0:1:",
        "99999999999999999999", "2147483648", "0:2147483648", "0" * 11, "1" * 5000, ":".join(["0"] * 65), "0\0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [OFFSET, BPF_CORE_ENUMVAL_VALUE, BPF_CORE_TYPE_EXISTS])
def test_malformed_access_strings(access: str, kind: int) -> None:
    types, ids = hostile_types()
    root = ids["enum"] if kind == BPF_CORE_ENUMVAL_VALUE else ids["s"]
    with pytest.raises(RelocationError, match="access string"):
        resolve(types, types, root, access, kind)


@pytest.mark.parametrize(
    ("root", "access", "kind", "message"),
    [
        ("s", "0:2", OFFSET, "struct s has 2 members, no member 2"),
        ("s", "0:0:0", OFFSET, "goes into a int"),
        ("s", "0:1:1:0", OFFSET, "goes into a ptr"),
        ("s", "0:1:0:4", OFFSET, "element 4 is outside an array of 4"),
        ("s", "2147483647:0", OFFSET, "does not fit 32 bits"),
        ("s", "0:1", BPF_CORE_TYPE_SIZE, "about a type is not '0'"),
        ("s", "1", BPF_CORE_TYPE_SIZE, "about a type is not '0'"),
        ("s", "0", BPF_CORE_ENUMVAL_VALUE, "struct s is not an enum"),
        ("enum", "2", BPF_CORE_ENUMVAL_VALUE, "enum e has no enumerator 2"),
        ("enum", "0:0", BPF_CORE_ENUMVAL_VALUE, "enum e has no enumerator 0:0"),
        ("s", "0", 13, "relocation kind 13 is unknown"),
        ("s", "0", 0xFFFFFFFF, "relocation kind 4294967295 is unknown"),
    ],
)
def test_access_strings_that_do_not_fit(root: str, access: str, kind: int, message: str) -> None:
    types, ids = hostile_types()
    with pytest.raises(RelocationError, match=message):
        resolve(types, types, ids[root], access, kind)


@settings(deadline=None)
@given(
    access=st.one_of(st.text(max_size=20), st.lists(st.integers(0, 5).map(str), max_size=70).map(":".join)),
    kind=st.integers(0, 14),
    root=st.integers(0, 20),
)
def test_any_relocation_resolves_or_is_refused(access: str, kind: int, root: int) -> None:
    types, _ = hostile_types()
    btf = types.btf()
    relocation = CoreRelocation(0, root, access, kind)
    try:
        resolution = Relocator(btf, btf).resolve(relocation)
    except (RelocationError, BTFError):
        return
    assert describe(btf, relocation) == resolution.description
    assert resolution.poison or resolution.value == resolution.original * resolution.matched


def endless(types: Types) -> Iterator[tuple[str, int]]:
    """Types that contain themselves."""
    own = len(types)
    yield "typedef", types.add_typedef("t", own)
    own = len(types)
    yield "anonymous", types.add_struct("a", 8, [("", own, 0), ("x", types.u32, 0)])
    own = len(types)
    yield "array", types.add_array(own, types.u32, 4)
    array = own
    yield "in struct", types.add_struct("b", 8, [("v", array, 0), ("x", types.u32, 0)])
    own = len(types)
    yield "pointer", types.add_typedef("p", types.add_ptr(own + 1))
    own = len(types)
    yield "function", types.add_typedef("f", types.add_func_proto(own + 1, [("a", own + 1)]))


@pytest.mark.parametrize("access", ["0", "0:0", "0:1", "0:0:0:0", ":".join(["0"] * 64)])
@pytest.mark.parametrize("kind", range(13))
def test_types_that_contain_themselves_end(kind: int, access: str) -> None:
    types = Types()
    roots = dict(endless(types))
    btf = types.btf()
    for root in roots.values():
        for relocator in (Relocator(btf, btf), Relocator(btf, Types().btf())):
            try:
                relocator.resolve(CoreRelocation(0, root, access, kind))
            except (RelocationError, BTFError) as error:
                assert str(error)


def test_a_member_below_too_many_anonymous_ones() -> None:
    local, target = Types(), Types()
    s = local.struct("s", ("deep", local.u32, 0))
    inner = target.struct("", ("deep", target.u32, 0))
    for _ in range(70):
        inner = target.struct("", ("", inner, 0))
    target.struct("s", ("", inner, 0))
    with pytest.raises(RelocationError, match="deeper than 64"):
        resolve(local, target, s, "0:0", EXISTS)


# ---- messages ----


@pytest.mark.parametrize(
    ("make", "access", "kind", "text"),
    [
        (lambda t: t.struct("task_struct", ("pid", t.u32, 1256)), "0:0", OFFSET,
         "<byte_off> [7] struct task_struct.pid (0:0 @ offset 1256)"),
        (lambda t: t.struct("s", bitfield("f", t.u32, 35, 5)), "0:0", SIZE,
         "<byte_sz> [7] struct s.f (0:0 @ offset 4.3)"),
        (lambda t: t.struct("s", ("a", t.u32, 0), size=8), "3:0", EXISTS,
         "<field_exists> [7] struct s[3].a (3:0 @ offset 24)"),
        (lambda t: t.add_typedef("foo", t.u32), "0", BPF_CORE_TYPE_EXISTS, "<type_exists> [7] typedef foo"),
        (lambda t: t.add_enum("e", 4, True, [("A", 1), ("B", -3)]), "1", BPF_CORE_ENUMVAL_VALUE,
         "<enumval_value> [7] enum e::B = -3"),
        (lambda t: t.add_enum64("e", 8, False, [("A", 1 << 40)]), "0", BPF_CORE_ENUMVAL_EXISTS,
         "<enumval_exists> [7] enum64 e::A = 1099511627776"),
        (lambda t: t.add_ptr(0), "0", BPF_CORE_TYPE_ID_LOCAL, "<local_type_id> [7] ptr <anon>"),
    ],
)  # fmt: skip
def test_description(make: Callable[[Types], int], access: str, kind: int, text: str) -> None:
    types = Types()
    type_id = make(types)
    assert describe(types.btf(), CoreRelocation(0, type_id, access, kind)) == text


def test_description_of_elements_in_anonymous_members() -> None:
    types = Types()
    inner = types.struct("", ("a", types.u32, 0), ("v", types.array(types.u32, 4), 4))
    s = types.struct("s", ("x", types.u64, 0), ("", inner, 8))
    assert describe(types.btf(), CoreRelocation(0, s, "0:1:1:2", OFFSET)) == (
        "<byte_off> [9] struct s.v[2] (0:1:1:2 @ offset 20)"
    )


def test_representations() -> None:
    types = Types()
    s = types.struct("s", ("a", types.u32, 4))
    relocation = CoreRelocation(12, s, "0:0", OFFSET)
    assert repr(relocation) == "CoreRelocation(index=12, type_id=7, access='0:0', kind=byte_off)"
    assert repr(resolve(types, types, s, "0:0", OFFSET)) == (
        "<Resolution <byte_off> [7] struct s.a (0:0 @ offset 4): 4 -> 4>"
    )
    assert "poison" in repr(resolve(types, Types(), s, "0:0", OFFSET))
