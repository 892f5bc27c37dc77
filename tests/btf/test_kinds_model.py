"""The model: names of kinds, legacy bit fields, essential names."""

from __future__ import annotations

import pytest

from pybpf.btf import kinds
from pybpf.btf.kinds import Member, member_bits
from pybpf.btf.reader import BTF, essential_name
from pybpf.btf.writer import BTFBuilder


def test_kinds_are_numbered_as_in_the_header() -> None:
    classes = [kinds.Void, kinds.Int, kinds.Ptr, kinds.Array, kinds.Struct, kinds.Union, kinds.Enum, kinds.Fwd]
    classes += [kinds.Typedef, kinds.Volatile, kinds.Const, kinds.Restrict, kinds.Func, kinds.FuncProto, kinds.Var]
    classes += [kinds.Datasec, kinds.Float, kinds.DeclTag, kinds.TypeTag, kinds.Enum64]
    assert [cls.kind for cls in classes] == list(range(20))
    assert [kinds.kind_name(cls.kind) for cls in classes] == list(kinds.KIND_NAMES)
    assert kinds.kind_name(20) == "kind 20"


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("task", "task"),
        ("task___v6", "task"),
        ("a____b", "a____b"),
        ("___x", "___x"),
        ("x___", "x___"),
        ("a___b___c", "a___b"),
        ("a___b____c", "a"),
        ("a____b___c", "a____b"),
        ("a___b_", "a"),
        ("_a___b", "_a"),
        ("__", "__"),
        ("", ""),
    ],
)
def test_essential_name(name: str, essential: str) -> None:
    assert essential_name(name) == essential


def test_legacy_bit_fields_are_folded_in() -> None:
    builder = BTFBuilder()
    plain = builder.add_int("int", 4, 32, kinds.INT_SIGNED)
    odd = builder.add_typedef("odd_t", builder.add_int("odd", 4, 5, 0, 3))
    btf = BTF.from_bytes(builder.to_bytes())
    assert member_bits(btf, Member("a", plain, 64)) == (64, 0)
    assert member_bits(btf, Member("b", odd, 64)) == (67, 5)
    assert member_bits(btf, Member("c", plain, 7, 3)) == (7, 3)


def test_repr_tells_what_it_is() -> None:
    builder = BTFBuilder()
    number = builder.add_int("int", 4)
    builder.add_struct("event", 8, [Member("pid", number, 0), Member("flag", number, 32, 1)])
    btf = BTF.from_bytes(builder.to_bytes())
    struct = btf.find("event")
    assert repr(struct) == "<Struct event id=2 size=8 members=2>"
    assert isinstance(struct, kinds.Struct)
    assert repr(struct.members[1]) == "Member(flag:1 type_id=1 bit_offset=32)"
