"""Program BTF for kernels that lack a feature: what becomes of each kind, and that nothing else changes."""

from __future__ import annotations

import pytest
from btf_samples import ORDERS, every_kind, fill_with_every_kind

from pybpf.btf import kinds
from pybpf.btf.reader import BTF
from pybpf.btf.writer import FEATURES, BTFBuilder, sanitise


def sample(byte_order: str) -> tuple[BTF, dict[str, int]]:
    builder = BTFBuilder(byte_order)
    ids = fill_with_every_kind(builder)
    ids["global_func"] = builder.add_func("entry", ids["func_proto"], kinds.LINKAGE_GLOBAL)
    ids["question"] = builder.add_datasec("?.struct_ops.link?", 4, [(ids["var"], 0, 4)])
    ids["two"] = builder.add_datasec(".data.a", 8, [(ids["var"], 0, 4), (ids["var"], 4, 4)])
    return BTF.from_bytes(builder.to_bytes()), ids


EXPECTED = {
    "datasec": {
        "var": "<Int counter size=1 bits=8 encoding=0>",
        "datasec": "<Struct _data size=4 members=1>",
        "question": "<Struct __struct_ops_link_ size=4 members=1>",
        "two": "<Struct _data_a size=8 members=2>",
    },
    "datasec_question": {"question": "<Datasec _.struct_ops.link? size=4 entries=1>"},
    "decl_tag": {"decl_tag": "<Int tag size=1 bits=8 encoding=0>"},
    "func": {
        "func": "<Typedef handler type_id=20>",
        "global_func": "<Typedef entry type_id=20>",
        "func_proto": "<Enum (anon) size=4 values=1>",
    },
    "func_global": {"global_func": "<Func entry type_id=20 linkage=0>"},
    "float": {"float": "<Struct (anon) size=8 members=0>"},
    "type_tag": {"type_tag": "<Const (anon) type_id=1>"},
    "enum64": {"enum64": "<Union wide size=8 members=2>"},
    "layout": {},
}


def text(btf: BTF, id: int) -> str:
    return repr(btf.type(id)).replace(f" id={id}", "")


@pytest.mark.parametrize("byte_order", ORDERS)
@pytest.mark.parametrize("feature", sorted(EXPECTED))
def test_each_feature(feature: str, byte_order: str) -> None:
    btf, ids = sample(byte_order)
    assert ids["func_proto"] == 20
    after = BTF.from_bytes(sanitise(bytes(btf.data), frozenset({feature})))
    changed = {name: text(after, id) for name, id in ids.items() if text(after, id) != text(btf, id)}
    assert changed == EXPECTED[feature]


def test_the_table_is_of_all_features() -> None:
    assert set(EXPECTED) == FEATURES


@pytest.mark.parametrize("byte_order", ORDERS)
def test_data_sections_become_structs_of_their_variables(byte_order: str) -> None:
    btf, ids = sample(byte_order)
    after = BTF.from_bytes(sanitise(bytes(btf.data), frozenset({"datasec"})))
    found = after.type(ids["two"])
    assert isinstance(found, kinds.Struct)
    members = [(m.name, m.type_id, m.bit_offset, m.bitfield_size) for m in found.members]
    assert members == [("counter", ids["var"], 0, 0), ("counter", ids["var"], 32, 0)]


@pytest.mark.parametrize("byte_order", ORDERS)
def test_wide_enums_become_unions_and_enums_lose_their_sign(byte_order: str) -> None:
    btf, ids = sample(byte_order)
    after = BTF.from_bytes(sanitise(bytes(btf.data), frozenset({"enum64"})))
    assert len(after) == len(btf) + 1
    assert text(after, len(btf)) == "<Int enum64_placeholder size=1 bits=8 encoding=0>"
    found = after.type(ids["enum64"])
    assert isinstance(found, kinds.Union)
    assert [(m.name, m.type_id, m.bit_offset) for m in found.members] == [
        ("SMALL", len(btf), 0),
        ("LARGE", len(btf), 0),
    ]
    state = after.type(ids["enum"])
    assert isinstance(state, kinds.Enum)
    assert (state.is_signed, state.values) == (False, (("OFF", 0), ("BROKEN", 0xFFFFFFFF)))


@pytest.mark.parametrize("byte_order", ORDERS)
def test_everything_missing_leaves_the_oldest_kinds(byte_order: str) -> None:
    btf, _ = sample(byte_order)
    after = BTF.from_bytes(sanitise(bytes(btf.data), FEATURES))
    assert {found.kind for found in after.types()} <= set(range(1, 12))
    before_size = btf.header.types_end - btf.header.types
    assert after.header.types_end - after.header.types == before_size + 16


def test_the_layout_section_is_dropped() -> None:
    data = every_kind("little", layout=True)
    assert sanitise(data, frozenset({"layout"})) == every_kind("little")


def test_nothing_missing_changes_nothing() -> None:
    data = every_kind()
    assert sanitise(data, frozenset()) is data
    assert sanitise(data, frozenset({"no such feature"})) is data
