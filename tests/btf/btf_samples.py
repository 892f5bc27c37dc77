"""BTF that several tests read: one type of every kind, and random ones."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from pybpf.btf import kinds
from pybpf.btf.kinds import DatasecEntry, Member, Param
from pybpf.btf.writer import BTFBuilder

ORDERS = ("little", "big")


def fill_with_every_kind(builder: BTFBuilder) -> dict[str, int]:
    """One type of each kind, as a kernel accepts them; the ids by a short name."""
    ids = {
        "int": builder.add_int("int", 4, 32, kinds.INT_SIGNED),
        "char": builder.add_int("char", 1, 8, kinds.INT_CHAR),
        "bool": builder.add_int("_Bool", 1, 8, kinds.INT_BOOL),
        "long": builder.add_int("long unsigned int", 8),
    }
    ids["ptr"] = builder.add_ptr(ids["int"])
    ids["array"] = builder.add_array(ids["char"], ids["int"], 16)
    ids["fwd"] = builder.add_fwd("later")
    ids["fwd_union"] = builder.add_fwd("later_union", True)
    ids["typedef"] = builder.add_typedef("number", ids["int"])
    ids["volatile"] = builder.add_volatile(ids["int"])
    ids["const"] = builder.add_const(ids["volatile"])
    ids["restrict"] = builder.add_restrict(ids["ptr"])
    ids["struct"] = builder.add_struct(
        "event", 32, [Member("pid", ids["int"], 0), Member("comm", ids["array"], 32), Member("next", ids["ptr"], 192)]
    )
    ids["bits"] = builder.add_struct("bits", 4, [Member("low", ids["int"], 0, 3), Member("high", ids["int"], 3, 5)])
    ids["union"] = builder.add_union("either", 8, [Member("a", ids["int"], 0), Member("b", ids["long"], 0)])
    ids["enum"] = builder.add_enum("state", 4, True, [("OFF", 0), ("BROKEN", -1)])
    ids["enum64"] = builder.add_enum64("wide", 8, False, [("SMALL", 1), ("LARGE", 1 << 63)])
    ids["var"] = builder.add_var("counter", ids["int"], kinds.LINKAGE_GLOBAL)
    ids["datasec"] = builder.add_datasec(".data", 4, [DatasecEntry(ids["var"], 0, 4)])
    ids["func_proto"] = builder.add_func_proto(ids["int"], [Param("ctx", ids["ptr"])])
    ids["func"] = builder.add_func("handler", ids["func_proto"], kinds.LINKAGE_STATIC)
    ids["float"] = builder.add_float("double", 8)
    ids["decl_tag"] = builder.add_decl_tag("tag", ids["struct"], 1)
    ids["type_tag"] = builder.add_type_tag("user", ids["int"])
    ids["tagged_ptr"] = builder.add_ptr(ids["type_tag"])
    return ids


def every_kind(byte_order: str = "little", layout: bool = False) -> bytes:
    builder = BTFBuilder(byte_order)
    fill_with_every_kind(builder)
    return builder.to_bytes(layout=layout)


def raw_btf(
    types: list[int], strings: bytes = b"\0", *, byte_order: str = "little", header: bytes | None = None
) -> bytes:
    """BTF from the words of its types, with nothing checked."""
    order = "<" if byte_order == "little" else ">"
    body = struct.pack(f"{order}{len(types)}I", *types)
    if header is None:
        header = struct.pack(f"{order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(strings))
    return header + body + strings


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
word = st.integers(0, 0xFFFFFFFF)
byte = st.integers(0, 0xFF)
orders = st.sampled_from(ORDERS)
linkages = st.integers(0, 2)
plain_members = st.builds(Member, names, word, word)
bitfield_members = st.builds(Member, names, word, st.integers(0, 0xFFFFFF), st.integers(1, 0xFF))
members = st.lists(plain_members, max_size=5) | st.lists(bitfield_members, max_size=5)
params = st.lists(st.builds(Param, names, word), max_size=5)
entries = st.lists(st.builds(DatasecEntry, word, word, word), max_size=5)


def values(width: int, signed: bool) -> st.SearchStrategy[list[tuple[str, int]]]:
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    return st.lists(st.tuples(names, st.integers(low, high)), max_size=5)


def enumeration(width: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.booleans().flatmap(lambda signed: st.tuples(names, word, st.just(signed), values(width, signed)))


CALLS: dict[str, st.SearchStrategy[tuple[object, ...]]] = {
    "add_int": st.tuples(names, word, byte, st.integers(0, 15), byte),
    "add_ptr": st.tuples(word),
    "add_array": st.tuples(word, word, word),
    "add_struct": st.tuples(names, word, members),
    "add_union": st.tuples(names, word, members),
    "add_enum": enumeration(32),
    "add_fwd": st.tuples(names, st.booleans()),
    "add_typedef": st.tuples(names, word),
    "add_volatile": st.tuples(word),
    "add_const": st.tuples(word),
    "add_restrict": st.tuples(word),
    "add_func": st.tuples(names, word, linkages),
    "add_func_proto": st.tuples(word, params),
    "add_var": st.tuples(names, word, linkages),
    "add_datasec": st.tuples(names, word, entries),
    "add_float": st.tuples(names, word),
    "add_decl_tag": st.tuples(names, word, st.integers(-1, 0x7FFFFFFF), st.booleans()),
    "add_type_tag": st.tuples(names, word, st.booleans()),
    "add_enum64": enumeration(64),
}
"""Builder methods in order of kind (1..19), and what to call them with."""

calls = st.lists(
    st.sampled_from(sorted(CALLS)).flatmap(lambda method: st.tuples(st.just(method), CALLS[method])), max_size=12
)


def build(byte_order: str, made: list[tuple[str, tuple[object, ...]]], layout: bool = False) -> bytes:
    builder = BTFBuilder(byte_order)
    for method, arguments in made:
        getattr(builder, method)(*arguments)
    return builder.to_bytes(layout=layout)
