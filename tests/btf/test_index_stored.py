"""The stored index: right answers when whole, no answer when damaged, never a wrong one."""

from __future__ import annotations

import struct
from binascii import crc32

import pytest
from btf_samples import build, calls, every_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf import index, kinds
from pybpf.btf.index import NameIndex
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder

FINGERPRINT = bytes(range(64))
ALL_KINDS = frozenset(range(20))


def opened(data: bytes, image: bytes, fingerprint: bytes = FINGERPRINT) -> NameIndex | None:
    return NameIndex.open(image, fingerprint, data, BTF.from_bytes(data).header)


def many(count: int = 700) -> BTF:
    """Names that share buckets, flavors, duplicates, and anonymous types between them."""
    builder = BTFBuilder()
    for number in range(count):
        match number % 7:
            case 0:
                builder.add_struct(f"name{number // 7 % 40}", number, [])
            case 1:
                builder.add_typedef(f"name{number // 7 % 40}", number)
            case 2:
                builder.add_struct(f"name{number // 7 % 40}___v{number}", number, [])
            case 3:
                builder.add_struct("", number, [])
            case 4:
                builder.add_enum(f"name{number // 7}___a___b", 4, False, [("A", 1)] * (number % 5))
            case 5:
                builder.add_func_proto(0, [("x", 1)] * (number % 6))
            case _:
                builder.add_ptr(number)
    return BTF.from_bytes(builder.to_bytes())


def questions(btf: BTF) -> set[str]:
    names = {found.name for found in btf.types()}
    names |= {name[:cut] for name in names if (cut := name.rfind("___")) > 0}
    return names | {"absent", "name", "name1___", "___", "", "a\0b", "\udcff"}


def check_same(plain: BTF, indexed: BTF) -> None:
    assert indexed.is_indexed
    for name in questions(plain):
        assert indexed.own_ids(name) == plain.own_ids(name)
        for kind in (kinds.KIND_STRUCT, kinds.KIND_TYPEDEF, kinds.KIND_ENUM):
            assert indexed.own_ids(name, kind) == plain.own_ids(name, kind)
            assert indexed.candidates(name, frozenset({kind})) == plain.candidates(name, frozenset({kind}))
        assert indexed.candidates(name, ALL_KINDS) == plain.candidates(name, ALL_KINDS)
    assert len(indexed) == len(plain)
    assert not indexed.is_walked
    for found in plain.types():
        assert repr(indexed.type(found.id)) == repr(found)
        assert indexed.kind_of(found.id) == found.kind
    assert indexed.is_indexed
    assert not indexed.is_walked


def indexed_btf(plain: BTF) -> BTF:
    data = bytes(plain.data)
    found = opened(data, index.build(plain, FINGERPRINT))
    assert found is not None
    return BTF(data, index=found, deduplicated=True)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 700])
def test_the_same_answers_as_without(count: int) -> None:
    plain = many(count)
    check_same(plain, indexed_btf(plain))


def test_scanning_gives_the_same_answers() -> None:
    plain = many()
    scan = BTF(bytes(plain.data), deduplicated=True)
    for name in questions(plain):
        assert scan.own_ids(name) == plain.own_ids(name)
        assert scan.own_ids(name, kinds.KIND_STRUCT) == plain.own_ids(name, kinds.KIND_STRUCT)
        assert scan.candidates(name, ALL_KINDS) == plain.candidates(name, ALL_KINDS)


@settings(max_examples=few(80), deadline=None)
@given(calls)
def test_any_btf(made: list[tuple[str, tuple[object, ...]]]) -> None:
    plain = BTF.from_bytes(build("little", made))
    check_same(plain, indexed_btf(plain))


def test_names_in_the_middle_of_strings() -> None:
    words = (3, 1 << 24, 4, 32, 1, 1 << 24, 4, 32)
    strings = b"\0xxint\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 32, 32, len(strings))
    plain = BTF.from_bytes(header + struct.pack("<8I", *words) + strings)
    check_same(plain, indexed_btf(plain))


def test_an_index_of_something_else_is_not_opened() -> None:
    plain = many()
    data = bytes(plain.data)
    image = index.build(plain, FINGERPRINT)
    assert opened(data, image) is not None
    assert opened(data, image, bytes(64)) is None
    for wrong in (b"", image[:50], image[:127], image[:-1], image + b"\0", bytes(len(image)), image[::-1]):
        assert opened(data, wrong) is None


def resealed(image: bytes, offset: int, value: int) -> bytes:
    """The image with a changed field in its header, whose checksum is right again."""
    head = bytearray(image[: index._HEADER.size])
    struct.pack_into("=Q" if offset == 16 else "=I", head, offset, value)  # the file's size has eight bytes
    return bytes(head) + struct.pack("=I", crc32(head)) + image[index._HEADER.size + 4 :]


@pytest.mark.parametrize("offset", [8, 12, 16, 88, 92, 96, 100])
@pytest.mark.parametrize("value", [0, 3, 0x10000, 0xFFFFFFFF])
def test_wrong_headers_with_right_checksums(offset: int, value: int) -> None:
    plain = many()
    image = index.build(plain, FINGERPRINT)
    assert opened(bytes(plain.data), resealed(image, offset, value)) is None


@settings(max_examples=few(300), deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=8),
    st.integers(0, 39),
)
def test_damage_never_gives_a_wrong_answer(flips: list[tuple[int, int]], which: int) -> None:
    plain = PLAIN
    image = bytearray(IMAGE)
    for position, flip in flips:
        image[position % len(image)] ^= flip
    found = opened(bytes(plain.data), bytes(image))
    if found is None:
        return
    btf = BTF(bytes(plain.data), index=found, deduplicated=True)
    for name in (f"name{which}", f"name{which}___a", "absent"):
        assert btf.own_ids(name) == plain.own_ids(name)
        assert btf.candidates(name, ALL_KINDS) == plain.candidates(name, ALL_KINDS)
    assert repr(btf.type(which + 1)) == repr(plain.type(which + 1))


PLAIN = many()
IMAGE = index.build(PLAIN, FINGERPRINT)


def test_a_damaged_bucket_is_dropped_when_it_is_met() -> None:
    image = bytearray(IMAGE)
    for position in range(len(image) - 800, len(image)):
        image[position] ^= 0x55
    found = opened(bytes(PLAIN.data), bytes(image))
    assert found is not None
    btf = BTF(bytes(PLAIN.data), index=found, deduplicated=True)
    for name in questions(PLAIN):
        assert btf.own_ids(name) == PLAIN.own_ids(name)
    assert not btf.is_indexed
    assert btf.is_walked


def test_an_index_of_other_types_that_passes_every_check_is_survived() -> None:
    """The fingerprint is the same although the types differ: places may be wrong, but reading does not fail badly."""
    other = BTF.from_bytes(every_kind() + b"")
    found = NameIndex.open(IMAGE, FINGERPRINT, other.data, other.header)
    assert found is not None
    btf = BTF(bytes(other.data), index=found, deduplicated=True)
    assert btf.own_ids("name1") == []
    assert repr(btf.type(5)) == repr(other.type(5))
    assert repr(btf.type(24)) == repr(other.type(24))
    assert not btf.is_indexed
