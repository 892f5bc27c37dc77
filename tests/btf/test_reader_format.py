"""The reader against BTF whose every word is known."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from btf_samples import ORDERS, every_kind, fill_with_every_kind, raw_btf

from pybpf.btf import kinds
from pybpf.btf.kinds import Member
from pybpf.btf.layout import pack_info
from pybpf.btf.reader import BTF, BTFNameError
from pybpf.btf.writer import BTFBuilder, layout_section
from pybpf.errors import BTFError

INT_INFO = pack_info(kinds.KIND_INT)


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("byte_order", ORDERS)
def test_every_kind(byte_order: str, layout: bool) -> None:
    btf = BTF.from_bytes(every_kind(byte_order, layout))
    assert btf.byte_order == byte_order
    assert {found.kind for found in btf.types()} == set(range(1, 20))
    event = btf.find("event", kinds.KIND_STRUCT)
    assert isinstance(event, kinds.Struct)
    assert [(m.name, m.bit_offset, m.bitfield_size) for m in event.members] == [
        ("pid", 0, 0),
        ("comm", 32, 0),
        ("next", 192, 0),
    ]
    state = btf.find("state")
    assert isinstance(state, kinds.Enum)
    assert state.values == (("OFF", 0), ("BROKEN", -1))
    wide = btf.find("wide")
    assert isinstance(wide, kinds.Enum64)
    assert wide.values == (("SMALL", 1), ("LARGE", 1 << 63))


def header(**changes: int) -> bytes:
    """Sixteen bytes of one INT, one byte of strings, behind a header with changed fields."""
    fields = {"magic": 0xEB9F, "version": 1, "flags": 0, "hdr_len": 24}
    fields |= {"type_off": 0, "type_len": 16, "str_off": 16, "str_len": 1}
    return struct.pack("<HBBIIIII", *(fields | changes).values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": 0x1234}, "magic"),
        ({"version": 2}, "version 2"),
        ({"hdr_len": 23}, "hdr_len"),
        ({"hdr_len": 4000}, "hdr_len"),
        ({"str_len": 2}, "string section"),
        ({"str_len": 0xFFFFFFFF}, "string section"),
        ({"str_off": 12}, "type section"),
        ({"type_off": 1}, "type section"),
        ({"type_off": 0xFFFFFFFC}, "type section"),
        ({"type_len": 14}, "type section"),
        ({"str_len": 0}, "NUL"),
    ],
)
def test_bad_headers(changes: dict[str, int], message: str) -> None:
    with pytest.raises(BTFError, match=message):
        BTF.from_bytes(raw_btf([0, INT_INFO, 4, 32], header=header(**changes)))


def test_the_sections_need_not_follow_each_other() -> None:
    data = header(type_off=8, str_off=24) + bytes(8) + struct.pack("<4I", 0, INT_INFO, 4, 32) + b"\0"
    assert isinstance(BTF.from_bytes(data).type(1), kinds.Int)


@pytest.mark.parametrize("strings", [b"x\0", b"\0x"])
def test_strings_start_and_end_with_nul(strings: bytes) -> None:
    with pytest.raises(BTFError, match="NUL"):
        BTF.from_bytes(raw_btf([], strings))


@pytest.mark.parametrize("length", range(24))
def test_too_short(length: int) -> None:
    with pytest.raises(BTFError):
        BTF.from_bytes(every_kind()[:length])


@pytest.mark.parametrize(
    "words",
    [
        [0],
        [0, INT_INFO],
        [0, INT_INFO, 4],
        [0, pack_info(kinds.KIND_STRUCT, 0xFFFFFF), 4],
        [0, pack_info(kinds.KIND_STRUCT, 2), 4, 0, 0, 0],
        [0, pack_info(0), 4],
        [0, pack_info(20), 4],
        [0, pack_info(127), 4],
    ],
)
def test_types_that_do_not_tile_the_section(words: list[int]) -> None:
    btf = BTF.from_bytes(raw_btf(words))
    for question in (len, lambda btf: btf.type(1), lambda btf: btf.get("x"), BTF.check):
        with pytest.raises(BTFError, match="types"):
            question(btf)


def test_no_types_at_all() -> None:
    btf = BTF.from_bytes(raw_btf([]))
    assert len(btf) == 1
    assert list(btf.types()) == []
    assert btf.type(0).kind == kinds.KIND_VOID
    assert btf.get("x") is None
    assert btf


@pytest.mark.parametrize("id", [-1, 2, 1 << 40])
def test_bad_ids(id: int) -> None:
    btf = BTF.from_bytes(raw_btf([0, INT_INFO, 4, 32]))
    for question in (btf.type, btf.kind_of, btf.name_of, btf.size_of, btf.resolve):
        with pytest.raises(BTFError, match="out of range"):
            question(id)


def test_bad_string_offsets() -> None:
    btf = BTF.from_bytes(raw_btf([100, INT_INFO, 4, 32], b"\0int\0"))
    assert btf.string(0) == ""
    assert btf.string(2) == "nt"
    for offset in (-1, 5, 1 << 32):
        with pytest.raises(BTFError, match="out of range"):
            btf.string(offset)
    with pytest.raises(BTFError, match="out of range"):
        btf.type(1)
    with pytest.raises(BTFError, match="out of range"):
        btf.get("int")


def test_a_bad_member_name() -> None:
    words = [0, pack_info(kinds.KIND_STRUCT, 1), 4, 77, 1, 0]
    found = BTF.from_bytes(raw_btf(words)).type(1)
    assert isinstance(found, kinds.Struct)
    with pytest.raises(BTFError, match="77 is out of range"):
        found.member(0)
    with pytest.raises(BTFError, match="77 is out of range"):
        len(found.members)


def test_one_member_alone_is_that_of_all() -> None:
    words = [0, pack_info(kinds.KIND_STRUCT, 2) | 1 << 31, 4, 1, 0, 3 << 24, 0, 0, 5 << 24 | 3]
    found = BTF.from_bytes(raw_btf(words, b"\0a\0")).type(1)
    assert isinstance(found, kinds.Struct)
    alone = [found.member(index) for index in range(found.member_count)]
    assert [repr(one) for one in alone] == [repr(one) for one in found.members]
    assert [(one.name, one.bit_offset, one.bitfield_size) for one in alone] == [("a", 0, 3), ("", 3, 5)]
    assert found.name_offsets == (1, 0)
    assert found.member(1) is found.member(1)


def test_where_a_string_is_among_others() -> None:
    base = BTF.from_bytes(raw_btf([1, INT_INFO, 4, 32], b"\0ab\0abc\0"))
    assert base.index_of_string(b"ab", [4, 0, 1, 1]) == 2
    assert base.index_of_string(b"b", [0, 1, 4]) == -1
    assert base.index_of_string(b"ab", []) == -1
    with pytest.raises(BTFError, match="99 is out of range"):
        base.index_of_string(b"ab", [99])
    split = BTF.from_bytes(raw_btf([1, INT_INFO, 4, 32], b"\0x\0"), base=base)
    assert split.index_of_string(b"abc", [1, 4]) == 1


def test_names_that_are_not_utf8_can_be_printed() -> None:
    btf = BTF.from_bytes(raw_btf([1, INT_INFO, 4, 32], b"\0a\xff\xc3\xa9\0"))
    assert btf.type(1).name == "a\\xffé"
    assert btf.get("a\\xffé") is btf.type(1)


def test_names_inside_other_strings_and_strings_stored_twice() -> None:
    words = [2, INT_INFO, 4, 32, 5, INT_INFO, 4, 32]
    btf = BTF.from_bytes(raw_btf(words, b"\0aint\0int\0"))
    assert btf.own_ids("int") == [1]
    assert btf.own_ids("nt") == []
    words = [1, INT_INFO, 4, 32, 5, INT_INFO, 4, 32]
    assert BTF.from_bytes(raw_btf(words, b"\0int\0int\0")).own_ids("int") == [1, 2]


def test_unknown_kinds_are_skipped_by_the_layout_section() -> None:
    builder = BTFBuilder("little")
    builder.add_int("int", 4)
    body = builder.to_bytes()[24 : 24 + 16] + struct.pack("<8I", 1, pack_info(21, 2), 7, 10, 11, 12, 13, 14)
    body += struct.pack("<4I", 1, INT_INFO, 8, 64)
    layout = layout_section("little") + struct.pack("<BBHBBH", 0, 0, 0, 4, 8, 0)
    strings = b"\0int\0"
    sizes = (0, len(body), len(body) + len(layout), len(strings), len(body), len(layout))
    data = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, *sizes) + body + layout + strings
    btf = BTF.from_bytes(data)
    assert len(btf) == 4
    unknown = btf.type(2)
    assert isinstance(unknown, kinds.Unknown)
    assert (unknown.kind, unknown.name, unknown.words[2:]) == (21, "int", (7, 10, 11, 12, 13, 14))
    assert btf.size_of(3) == 8
    with pytest.raises(BTFError, match="kind 21"):
        btf.size_of(2)


def test_an_unknown_kind_whose_layout_is_not_in_words() -> None:
    body = struct.pack("<3I", 0, pack_info(20, 1), 7)
    layout = layout_section("little") + struct.pack("<BBH", 0, 3, 0)
    sizes = (0, len(body), len(body) + len(layout), 1, len(body), len(layout))
    btf = BTF.from_bytes(struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, *sizes) + body + layout + b"\0")
    with pytest.raises(BTFError, match="multiples of 4"):
        len(btf)


@pytest.mark.parametrize("layout", [(2, 4), (0, 4), (16, 3), (16, 400)])
def test_bad_layout_sections(layout: tuple[int, int]) -> None:
    body = struct.pack("<4I", 0, INT_INFO, 4, 32)
    data = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 16, 24, 1, *layout) + body + bytes(9)
    with pytest.raises(BTFError, match="layout section"):
        BTF.from_bytes(data)


def test_the_info_word_of_newer_kernels() -> None:
    count = 0x10001
    words = [0, pack_info(kinds.KIND_ENUM, count), 4] + [0, 1] * count
    found = BTF.from_bytes(raw_btf(words)).type(1)
    assert isinstance(found, kinds.Enum)
    assert len(found.values) == count


@pytest.mark.parametrize("kind", sorted(kinds.TRANSPARENT_KINDS))
def test_chains_that_do_not_end(kind: int) -> None:
    btf = BTF.from_bytes(raw_btf([0, pack_info(kind), 2, 0, pack_info(kind), 1]))
    for question in (btf.resolve, btf.size_of, btf.align_of):
        with pytest.raises(BTFError, match="chain"):
            question(1)
    if kind != kinds.KIND_TYPEDEF:
        with pytest.raises(BTFError, match="chain"):
            btf.skip_modifiers(1)


def test_a_struct_that_contains_itself() -> None:
    btf = BTF.from_bytes(raw_btf([0, pack_info(kinds.KIND_STRUCT, 1), 4, 0, 1, 0]))
    assert btf.size_of(1) == 4
    with pytest.raises(BTFError, match="nested"):
        btf.align_of(1)


@pytest.mark.parametrize("byte_order", ORDERS)
def test_sizes_and_alignments(byte_order: str) -> None:
    builder = BTFBuilder(byte_order)
    ids = fill_with_every_kind(builder)
    packed = builder.add_struct("packed", 5, [Member("a", ids["char"], 0), Member("b", ids["int"], 8)])
    odd_size = builder.add_struct("odd_size", 5, [Member("a", ids["int"], 0), Member("b", ids["char"], 32)])
    matrix = builder.add_array(ids["array"], ids["int"], 3)
    flexible = builder.add_array(ids["int"], ids["int"], 0)
    btf = BTF.from_bytes(builder.to_bytes())
    sizes = {"int": 4, "char": 1, "ptr": 8, "array": 16, "typedef": 4, "const": 4, "struct": 32, "bits": 4, "union": 8}
    sizes |= {"enum": 4, "enum64": 8, "var": 4, "datasec": 4, "float": 8, "type_tag": 4, "decl_tag": 32, "restrict": 8}
    assert {name: btf.size_of(ids[name]) for name in sizes} == sizes
    assert (btf.size_of(matrix), btf.size_of(flexible)) == (48, 0)
    aligns = {"int": 4, "char": 1, "ptr": 8, "array": 1, "const": 4, "struct": 8, "union": 8, "enum64": 8, "var": 4}
    assert {name: btf.align_of(ids[name]) for name in aligns} == aligns
    assert (btf.align_of(packed), btf.align_of(odd_size)) == (1, 1)
    for name in ("func", "func_proto", "fwd"):
        with pytest.raises(BTFError, match="has no size"):
            btf.size_of(ids[name])
        with pytest.raises(BTFError, match="has no alignment"):
            btf.align_of(ids[name])
    with pytest.raises(BTFError, match="has no size"):
        btf.size_of(0)


def test_an_array_larger_than_memory() -> None:
    builder = BTFBuilder()
    number = builder.add_int("int", 4)
    inner = builder.add_array(number, number, 0xFFFF_FFFF)
    btf = BTF.from_bytes(builder.to_bytes())
    with pytest.raises(BTFError, match="4 GiB"):
        btf.size_of(inner)


@pytest.mark.parametrize(("size", "pointer"), [(4, 4), (8, 8)])
def test_the_size_of_pointers_is_that_of_long(size: int, pointer: int) -> None:
    builder = BTFBuilder()
    builder.add_int("long int", size)
    target = builder.add_ptr(0)
    btf = BTF.from_bytes(builder.to_bytes())
    assert btf.pointer_size == pointer
    assert btf.size_of(target) == pointer
    btf.pointer_size = 8
    assert btf.size_of(target) == 8


def test_resolve_and_skip() -> None:
    builder = BTFBuilder()
    ids = fill_with_every_kind(builder)
    last = builder.add_const(builder.add_typedef("number2", ids["const"]))
    btf = BTF.from_bytes(builder.to_bytes())
    assert btf.resolve(last) is btf.type(ids["int"])
    assert btf.name_of(btf.skip_modifiers(last)) == "number2"
    assert btf.skip_modifiers(ids["type_tag"]) == ids["int"]
    assert btf.resolve(0).kind == kinds.KIND_VOID


def test_names() -> None:
    builder = BTFBuilder()
    number = builder.add_int("same", 4)
    builder.add_struct("same", 4, [])
    builder.add_union("same___old", 4, [])
    builder.add_struct("same___v2", 4, [])
    builder.add_struct("", 4, [])
    builder.add_struct("same___v2___x", 4, [])
    btf = BTF.from_bytes(builder.to_bytes(), name="test")
    assert btf.own_ids("same") == [1, 2]
    assert btf.own_ids("same", kinds.KIND_STRUCT) == [2]
    assert btf.get("same") is btf.type(number)
    assert btf.get("") is None
    assert btf.get("same\0same") is None
    assert btf.get("\udcff") is None
    assert btf.get("void") is btf.type(0)
    assert btf.get("void", kinds.KIND_INT) is None
    assert btf.candidates("same", frozenset({kinds.KIND_STRUCT})) == [2, 4]
    assert btf.candidates("same", frozenset({kinds.KIND_STRUCT, kinds.KIND_UNION})) == [2, 3, 4]
    assert btf.candidates("same___v2", frozenset({kinds.KIND_STRUCT})) == [6]
    assert btf.candidates("other", frozenset({kinds.KIND_STRUCT})) == []
    with pytest.raises(BTFNameError, match="test: no struct is named 'other'"):
        btf.find("other", kinds.KIND_STRUCT)
    with pytest.raises(KeyError):
        btf.find("other")


@pytest.mark.parametrize("byte_order", ORDERS)
def test_split(byte_order: str) -> None:
    builder = BTFBuilder(byte_order)
    ids = fill_with_every_kind(builder)
    base = BTF.from_bytes(builder.to_bytes())
    more = BTFBuilder(byte_order, base)
    own = more.add_struct("own", 4, [Member("a", ids["int"], 0)])
    more.add_struct("event", 4, [])
    tag = more.add_decl_tag("late", ids["struct"])
    data = more.to_bytes()
    split = BTF.from_bytes(data, base=base)
    assert split.first_id == own == len(base)
    assert len(split) == own + 3
    assert split.find("event") is base.find("event")
    assert split.own_ids("event") == [own + 1]
    assert split.candidates("event", frozenset({kinds.KIND_STRUCT})) == [own + 1]
    found = split.type(own)
    assert isinstance(found, kinds.Struct)
    assert (found.name, found.members[0].name) == ("own", "a")
    assert split.type(found.members[0].type_id) is base.type(ids["int"])
    assert split.type(0) is base.type(0)
    assert split.kind_of(ids["float"]) == kinds.KIND_FLOAT
    assert split.name_of(ids["float"]) == "double"
    assert split.size_of(ids["array"]) == 16
    assert [found.id for found in split.decl_tags(ids["struct"])] == [ids["decl_tag"], tag]
    assert split.string(base.end_of_strings) == "a"
    assert split.end_of_strings == base.end_of_strings + len(b"own\0a\0event\0late\0")
    assert split.pointer_size == base.pointer_size
    other = BTF.from_bytes(every_kind("big" if byte_order == "little" else "little"))
    with pytest.raises(BTFError, match="byte order"):
        BTF.from_bytes(data, base=other)


def test_split_without_strings_of_its_own() -> None:
    base = BTF.from_bytes(every_kind())
    split = BTF.from_bytes(raw_btf([1, INT_INFO, 4, 32], b""), base=base)
    assert split.type(split.first_id).name == base.type(1).name == "int"


def test_decl_tags() -> None:
    builder = BTFBuilder()
    ids = fill_with_every_kind(builder)
    second = builder.add_decl_tag("second", ids["struct"], is_attribute=True)
    btf = BTF.from_bytes(builder.to_bytes())
    found = btf.decl_tags(ids["struct"])
    assert [(tag.id, tag.name, tag.component_index, tag.is_attribute) for tag in found] == [
        (ids["decl_tag"], "tag", 1, False),
        (second, "second", -1, True),
    ]
    assert btf.decl_tags(ids["int"]) == []


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "raw.btf"
    path.write_bytes(every_kind())
    assert BTF.from_file(str(path)).find("event").kind == kinds.KIND_STRUCT
    path.write_bytes(b"\x7fELF not really")
    with pytest.raises(BTFError, match="not a readable ELF file"):
        BTF.from_file(str(path))
    path.write_bytes(b"")
    with pytest.raises(BTFError, match="too few"):
        BTF.from_file(str(path))
    with pytest.raises(FileNotFoundError):
        BTF.from_file(str(tmp_path / "missing"))


def test_the_data_is_copied_when_it_may_change() -> None:
    data = bytearray(every_kind())
    btf = BTF.from_bytes(data)
    data[:] = bytes(len(data))
    assert btf.find("event").kind == kinds.KIND_STRUCT
    assert BTF.from_bytes(memoryview(every_kind())).find("event").kind == kinds.KIND_STRUCT
