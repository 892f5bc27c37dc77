"""The editor: changes in place, ids and string offsets stay."""

from __future__ import annotations

import struct

import pytest
from btf_samples import ORDERS, every_kind, fill_with_every_kind

from pybpf.btf import kinds
from pybpf.btf.kinds import DatasecEntry, Member
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder, BTFEditor
from pybpf.errors import BTFError


def sample(byte_order: str = "little") -> tuple[BTF, dict[str, int]]:
    builder = BTFBuilder(byte_order)
    ids = fill_with_every_kind(builder)
    return BTF.from_bytes(builder.to_bytes()), ids


def text(btf: BTF) -> dict[int, str]:
    return {found.id: repr(found) for found in btf.types()}


@pytest.mark.parametrize("byte_order", ORDERS)
def test_each_setter_changes_its_type_alone(byte_order: str) -> None:
    btf, ids = sample(byte_order)
    editor = BTFEditor(btf)
    editor.set_size(ids["struct"], 64)
    editor.set_type(ids["typedef"], ids["char"])
    editor.set_type(ids["array"], ids["int"])
    editor.set_name(ids["float"], "real")
    editor.set_linkage(ids["func"], kinds.LINKAGE_GLOBAL)
    editor.set_linkage(ids["var"], kinds.LINKAGE_STATIC)
    editor.set_param_name(ids["func_proto"], 0, "renamed")
    after = BTF.from_bytes(editor.to_bytes())
    assert after.byte_order == byte_order
    expected = text(btf)
    for name, old, new in (
        ("struct", "size=32", "size=64"),
        ("typedef", f"type_id={ids['int']}", f"type_id={ids['char']}"),
        ("array", f"type_id={ids['char']}", f"type_id={ids['int']}"),
        ("float", "double", "real"),
        ("func", "linkage=0", "linkage=1"),
        ("var", "linkage=1", "linkage=0"),
    ):
        assert old in expected[ids[name]]
        expected[ids[name]] = expected[ids[name]].replace(old, new)
    assert text(after) == expected
    proto = after.type(ids["func_proto"])
    assert isinstance(proto, kinds.FuncProto)
    assert [param.name for param in proto.params] == ["renamed"]
    assert repr(btf.type(ids["struct"])).count("size=32") == 1


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("byte_order", ORDERS)
def test_a_data_section_may_grow_and_shrink(byte_order: str, count: int) -> None:
    btf, ids = sample(byte_order)
    editor = BTFEditor(btf)
    entries = [DatasecEntry(ids["var"], 4 * index, 4) for index in range(count)]
    editor.set_datasec(ids["datasec"], 4 * count, entries)
    editor.set_size(ids["float"], 4)
    appended = editor.add_ptr(ids["float"])
    after = BTF.from_bytes(editor.to_bytes())
    datasec = after.type(ids["datasec"])
    assert isinstance(datasec, kinds.Datasec)
    assert datasec.size == 4 * count
    assert [(e.type_id, e.offset, e.size) for e in datasec.entries] == [(ids["var"], 4 * i, 4) for i in range(count)]
    unchanged, now = text(btf), text(after)
    for id in (ids["datasec"], ids["float"], appended):
        unchanged.pop(id, None)
        now.pop(id)
    assert now == unchanged
    assert after.size_of(ids["float"]) == 4
    assert appended == len(btf)


def test_strings_are_reused_and_keep_their_offsets() -> None:
    btf, ids = sample()
    editor = BTFEditor(btf)
    size = len(editor.to_bytes())
    editor.set_name(ids["float"], "event")
    editor.add_typedef("counter", ids["int"])
    assert len(editor.to_bytes()) == size + 12
    editor.set_name(ids["float"], "new name")
    after = BTF.from_bytes(editor.to_bytes())
    for offset in range(btf.end_of_strings):
        assert after.string(offset) == btf.string(offset)
    assert after.end_of_strings == btf.end_of_strings + len(b"new name\0")


def test_split_btf_can_be_edited() -> None:
    base, ids = sample()
    more = BTFBuilder(base.byte_order, base=base)
    own = more.add_struct("own", 4, [Member("a", ids["int"], 0)])
    split = BTF.from_bytes(more.to_bytes(), base=base)
    editor = BTFEditor(split)
    editor.set_size(own, 8)
    editor.set_name(own, "other")
    assert editor.add_ptr(own) == own + 1
    after = BTF.from_bytes(editor.to_bytes(), base=base)
    assert repr(after.type(own)) == f"<Struct other id={own} size=8 members=1>"
    with pytest.raises(BTFError, match="cannot be changed"):
        editor.set_size(ids["int"], 8)


def test_a_layout_section_is_kept() -> None:
    data = every_kind("little", layout=True)
    editor = BTFEditor(BTF.from_bytes(data))
    editor.add_ptr(1)
    after = BTF.from_bytes(editor.to_bytes())
    assert after.header.length == 32
    assert after.header.layout_end - after.header.layout == 80


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("set_size", (0, 4), "cannot be changed"),
        ("set_size", (1000, 4), "cannot be changed"),
        ("set_size", ("ptr", 4), "is a ptr"),
        ("set_size", ("int", 1 << 32), "32 bits"),
        ("set_type", ("int", 4), "is a int"),
        ("set_type", ("ptr", -1), "32 bits"),
        ("set_linkage", ("int", 1), "is a int"),
        ("set_linkage", ("func", 7), "linkage 7"),
        ("set_datasec", ("struct", 4, []), "is a struct"),
        ("set_datasec", ("datasec", 4, [(1, 2, 1 << 40)]), "32 bits"),
        ("set_datasec", ("datasec", -1, []), "32 bits"),
        ("set_param_name", ("func_proto", 1, "x"), "no parameter 1"),
        ("set_name", ("int", "a\0b"), "NUL"),
    ],
)
def test_refusals_change_nothing(method: str, arguments: tuple[object, ...], message: str) -> None:
    btf, ids = sample()
    editor = BTFEditor(btf)
    with pytest.raises(BTFError, match=message):
        getattr(editor, method)(*(ids.get(a, a) if isinstance(a, str) else a for a in arguments))
    assert editor.to_bytes() == btf.data


def test_a_header_from_the_future_is_readable_but_not_changed() -> None:
    plain = every_kind()
    header = plain[:4] + struct.pack("<I", 40) + plain[8:24] + bytes(8) + b"\1" + bytes(7)
    btf = BTF.from_bytes(header + plain[24:])
    assert btf.find("event").kind == kinds.KIND_STRUCT
    with pytest.raises(BTFError, match="not known here"):
        BTFEditor(btf)
    assert BTFEditor(BTF.from_bytes(header.replace(b"\1" + bytes(7), bytes(8)) + plain[24:])).to_bytes() == plain
