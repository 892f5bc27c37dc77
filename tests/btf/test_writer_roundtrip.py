"""What the builder writes, the reader reads back, for every kind and both byte orders."""

from __future__ import annotations

import pytest
from btf_samples import CALLS, ORDERS, build, calls, every_kind, orders
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf import kinds
from pybpf.btf.kinds import Member
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder, BTFEditor
from pybpf.errors import BTFError

ARGUMENTS = {
    kinds.Int: lambda t: (t.name, t.size, t.bits, t.encoding, t.bit_offset),
    kinds.Array: lambda t: (t.type_id, t.index_type_id, t.nelems),
    kinds.Fwd: lambda t: (t.name, t.is_union),
    kinds.Typedef: lambda t: (t.name, t.type_id),
    kinds.Func: lambda t: (t.name, t.type_id, t.linkage),
    kinds.FuncProto: lambda t: (t.type_id, [(p.name, p.type_id) for p in t.params]),
    kinds.Var: lambda t: (t.name, t.type_id, t.linkage),
    kinds.Datasec: lambda t: (t.name, t.size, [(e.type_id, e.offset, e.size) for e in t.entries]),
    kinds.Float: lambda t: (t.name, t.size),
    kinds.DeclTag: lambda t: (t.name, t.type_id, t.component_index, t.is_attribute),
    kinds.TypeTag: lambda t: (t.name, t.type_id, t.is_attribute),
    **{cls: lambda t: (t.type_id,) for cls in (kinds.Ptr, kinds.Volatile, kinds.Const, kinds.Restrict)},
    **{
        cls: lambda t: (t.name, t.size, [(m.name, m.type_id, m.bit_offset, m.bitfield_size) for m in t.members])
        for cls in (kinds.Struct, kinds.Union)
    },
    **{cls: lambda t: (t.name, t.size, t.is_signed, list(t.values)) for cls in (kinds.Enum, kinds.Enum64)},
}
"""What to give the builder to get the type again."""


def plain(value: object) -> object:
    """Arguments of a builder call as tuples and lists."""
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    if isinstance(value, kinds.Member):
        return (value.name, value.type_id, value.bit_offset, value.bitfield_size)
    if isinstance(value, kinds.Param):
        return (value.name, value.type_id)
    if isinstance(value, kinds.DatasecEntry):
        return (value.type_id, value.offset, value.size)
    return value


@settings(max_examples=few(150), deadline=None)
@given(orders, calls, st.booleans())
def test_round_trip(byte_order: str, made: list[tuple[str, tuple[object, ...]]], layout: bool) -> None:
    data = build(byte_order, made, layout)
    btf = BTF.from_bytes(data)
    found = [(f"add_{kinds.kind_name(t.kind)}", ARGUMENTS[type(t)](t)) for t in btf.types()]  # type: ignore[no-untyped-call]
    assert found == plain(made)
    assert build(byte_order, found, layout) == data
    assert BTFEditor(btf).to_bytes() == data


@pytest.mark.parametrize("method", sorted(CALLS))
@settings(max_examples=few(30), deadline=None)
@given(data=st.data())
def test_each_kind_alone(method: str, data: st.DataObject) -> None:
    made = [(method, data.draw(CALLS[method]))]
    for byte_order in ORDERS:
        (found,) = BTF.from_bytes(build(byte_order, made)).types()
        assert ARGUMENTS[type(found)](found) == plain(made[0][1])  # type: ignore[no-untyped-call]


def test_orders_differ_only_in_order() -> None:
    little, big = every_kind("little"), every_kind("big")
    assert little != big
    assert len(little) == len(big)
    sections = BTF.from_bytes(little), BTF.from_bytes(big)
    assert sections[0].words().tolist() == sections[1].words().tolist()


def test_strings_are_stored_once() -> None:
    builder = BTFBuilder()
    assert builder.add_string("") == 0
    assert builder.add_string("int") == builder.add_string("int") == 1
    builder.add_int("int", 4)
    builder.add_typedef("int", 1)
    assert builder.to_bytes().count(b"int") == 1


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("add_string", ("a\0b",)),
        ("add_int", ("a\0b", 4)),
        ("add_int", ("x", -1, 8)),
        ("add_int", ("x", 4, 256)),
        ("add_int", ("x", 4, 8, 16)),
        ("add_int", ("x", 32)),
        ("add_ptr", (-1,)),
        ("add_ptr", (1 << 32,)),
        ("add_array", (1, 1, 1 << 32)),
        ("add_struct", ("s", 4, [Member("m", 1, 1 << 32)])),
        ("add_struct", ("s", 4, [Member("m", 1, 1 << 24, 1)])),
        ("add_struct", ("s", 4, [Member("m", 1, 0, 256)])),
        ("add_struct", ("s", 4, [Member("m", -1, 0)])),
        ("add_enum", ("e", 4, False, [("A", -1)])),
        ("add_enum", ("e", 4, True, [("A", 1 << 31)])),
        ("add_enum", ("e", 4, False, [("A", 1 << 32)])),
        ("add_enum64", ("e", 8, True, [("A", 1 << 63)])),
        ("add_enum64", ("e", 8, False, [("A", 1 << 64)])),
        ("add_func", ("f", 1, 3)),
        ("add_var", ("v", 1, -1)),
        ("add_datasec", (".data", 4, [(1, 0, 1 << 32)])),
        ("add_decl_tag", ("t", 1, -2)),
        ("add_func_proto", (1, [("x", -1)])),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(method: str, arguments: tuple[object, ...]) -> None:
    builder = BTFBuilder()
    builder.add_int("int", 4)
    with pytest.raises(BTFError):
        getattr(builder, method)(*arguments)
    assert len(builder) == 2
    assert len(BTF.from_bytes(builder.to_bytes())) == 2


def test_wrong_byte_orders() -> None:
    with pytest.raises(BTFError, match="middle"):
        BTFBuilder("middle")
    with pytest.raises(BTFError, match="base"):
        BTFBuilder("big", BTF.from_bytes(every_kind("little")))
