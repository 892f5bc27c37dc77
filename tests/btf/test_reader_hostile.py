"""Whatever is done to BTF and .BTF.ext, reading them gives a value or a BTFError."""

from __future__ import annotations

import contextlib

from btf_samples import ORDERS, every_kind, fill_with_every_kind, orders, raw_btf
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf import kinds
from pybpf.btf.ext import BTFExt
from pybpf.btf.kinds import member_bits
from pybpf.btf.reader import BTF
from pybpf.btf.writer import FEATURES, BTFBuilder, BTFEditor, sanitise
from pybpf.errors import BTFError

SAMPLES = [every_kind(order, layout) for order in ORDERS for layout in (False, True)]
BASES = {}
SPLITS = []
for _order in ORDERS:
    BASES[_order] = BTF.from_bytes(every_kind(_order))
    _builder = BTFBuilder(_order, BASES[_order])
    fill_with_every_kind(_builder)
    SPLITS.append(_builder.to_bytes())

mutations = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 4, 0x7F, 0x80, 0xFF]))),
    max_size=12,
)


def mutate(data: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(changed)] = value
    return bytes(changed[: len(changed) - cut % 40])


def read_everything(btf: BTF) -> None:
    """Ask every question about every type; only BTFError may come."""
    for id in (*range(len(btf) + 2), 1 << 31):
        for question in (
            btf.type,
            btf.kind_of,
            btf.name_of,
            btf.resolve,
            btf.skip_modifiers,
            btf.size_of,
            btf.align_of,
            btf.decl_tags,
            btf.string,
        ):
            with contextlib.suppress(BTFError):
                question(id)
        with contextlib.suppress(BTFError):
            found = btf.type(id)
            assert repr(found)
            for member in found.members if isinstance(found, kinds.Composite) else ():
                with contextlib.suppress(BTFError):
                    member_bits(btf, member)


def survive(data: bytes, base: BTF | None = None) -> None:
    try:
        btf = BTF.from_bytes(data, base=base)
        len(btf)
    except BTFError:
        return
    read_everything(btf)
    with contextlib.suppress(BTFError):
        btf.check()
    with contextlib.suppress(BTFError):
        btf.get("event")
    with contextlib.suppress(BTFError):
        btf.candidates("event", frozenset(range(128)))
    with contextlib.suppress(BTFError):
        BTFEditor(btf).to_bytes()


@settings(max_examples=few(400), deadline=None)
@given(st.sampled_from(SAMPLES), mutations, st.integers(0, 39) | st.just(0))
def test_mutated_btf(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    survive(mutate(data, changes, cut))


@settings(max_examples=few(150), deadline=None)
@given(st.sampled_from(range(len(ORDERS))), mutations, st.just(0) | st.integers(0, 39))
def test_mutated_split_btf(which: int, changes: list[tuple[int, int]], cut: int) -> None:
    survive(mutate(SPLITS[which], changes, cut), BASES[ORDERS[which]])


@settings(max_examples=few(200), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 8),
            st.tuples(st.integers(0, 22), st.integers(0, 3), st.booleans()),
            st.integers(0, 12),
            st.lists(st.integers(0, 12), max_size=9),
        ),
        max_size=10,
    ),
    orders,
)
def test_types_that_refer_to_anything(
    types: list[tuple[int, tuple[int, int, bool], int, list[int]]], byte_order: str
) -> None:
    words: list[int] = []
    for name, (kind, vlen, flag), word, rest in types:
        words += (name, flag << 31 | kind << 24 | vlen, word, *rest)
    survive(raw_btf(words, b"\0a\0b___c\0", byte_order=byte_order))


@settings(max_examples=few(200), deadline=None)
@given(st.binary(max_size=80))
def test_anything(data: bytes) -> None:
    survive(b"\x9f\xeb\x01\x00" + data)


@settings(max_examples=few(200), deadline=None)
@given(st.sampled_from(SAMPLES), mutations, st.frozensets(st.sampled_from(sorted(FEATURES))))
def test_sanitising_mutated_btf(data: bytes, changes: list[tuple[int, int]], missing: frozenset[str]) -> None:
    with contextlib.suppress(BTFError):
        sanitise(mutate(data, changes, 0), missing)


@settings(max_examples=few(200), deadline=None)
@given(orders, st.binary(max_size=24), st.lists(st.integers(0, 40), max_size=40))
def test_any_ext(byte_order: str, head: bytes, words: list[int]) -> None:
    body = b"".join(word.to_bytes(4, byte_order) for word in words)  # type: ignore[arg-type]
    data = (b"\x9f\xeb" if byte_order == "little" else b"\xeb\x9f") + b"\1\0"
    data += (24 + len(head) % 12).to_bytes(4, byte_order) + body + head  # type: ignore[arg-type]
    try:
        ext = BTFExt.from_bytes(data, BASES[byte_order])
    except BTFError:
        return
    for area in (ext.func_info, ext.line_info, ext.core):
        for records in area.values():
            assert len(records) == len(records.offsets) == len(list(records.rows()))
            assert len(records.slice(0, 1 << 32)) == len(records.data)
