"""`.BTF.ext`: records by section, hostile input, compiled objects of both byte orders."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from btf_samples import ORDERS

from pybpf.btf.ext import BTFExt, Records
from pybpf.btf.reader import BTF, elf_section
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

CLANG = next(filter(None, map(shutil.which, ("clang-19", "clang-16", "clang-14", "clang"))), None)
READELF = next(filter(None, map(shutil.which, ("llvm-readelf-19", "llvm-readelf-16", "llvm-readelf"))), None)

Section = tuple[int, list[tuple[int, ...]]]


def strings(byte_order: str = "little") -> tuple[BTF, int, int]:
    """BTF that holds the names of two sections, and their offsets."""
    builder = BTFBuilder(byte_order)
    first, second = builder.add_string("tp/first"), builder.add_string(".text")
    return BTF.from_bytes(builder.to_bytes()), first, second


def area(byte_order: str, size: int, sections: list[Section]) -> bytes:
    order = "<" if byte_order == "little" else ">"
    data = struct.pack(f"{order}I", size)
    for name, records in sections:
        data += struct.pack(f"{order}II", name, len(records))
        for record in records:
            data += struct.pack(f"{order}{len(record)}I", *record)
    return data


def section(byte_order: str, func: bytes, line: bytes, core: bytes | None) -> bytes:
    order = "<" if byte_order == "little" else ">"
    fields = [0, len(func), len(func), len(line)]
    if core is not None:
        fields += [len(func) + len(line), len(core)]
    header = struct.pack(f"{order}HBBI{len(fields)}I", 0xEB9F, 1, 0, 8 + 4 * len(fields), *fields)
    return header + func + line + (core or b"")


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("byte_order", ORDERS)
def test_records_by_section(byte_order: str, core: bool) -> None:
    btf, first, text = strings(byte_order)
    func = area(byte_order, 8, [(first, [(0, 5), (64, 6)]), (text, [(0, 7)])])
    line = area(byte_order, 16, [(first, [(0, 1, 2, 3 << 10 | 4), (8, 1, 2, 9 << 10)])])
    relocations = area(byte_order, 16, [(text, [(16, 1, 2, 0)])]) if core else None
    ext = BTFExt.from_bytes(section(byte_order, func, line, relocations), btf)
    assert list(ext.func_info) == ["tp/first", ".text"]
    assert list(ext.func_info["tp/first"].rows()) == [(0, 5), (64, 6)]
    assert list(ext.line_info["tp/first"].rows()) == [(0, 1, 2, 3076), (8, 1, 2, 9216)]
    assert {name: list(records.rows()) for name, records in ext.core.items()} == (
        {".text": [(16, 1, 2, 0)]} if core else {}
    )
    assert repr(ext) == f"<BTFExt 3 func_info, 2 line_info, {int(core)} core>"


def test_slices_are_of_whole_records_in_file_order() -> None:
    rows = [(0, 1), (8, 2), (8, 3), (40, 4)]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        data = b"".join(struct.pack("=II", *rows[index]) for index in order)
        records = Records(8, memoryview(data))
        assert records.offsets == tuple(rows[index][0] for index in order)

        def picked(start: int, end: int, records: Records = records) -> list[int]:
            return [row[1] for row in struct.iter_unpack("=II", records.slice(start, end))]

        assert picked(0, 100) == [rows[index][1] for index in order]
        assert sorted(picked(8, 40)) == [2, 3]
        assert picked(9, 40) == []
        assert picked(40, 41) == [4]
        assert picked(40, 8) == []


def test_longer_records_are_kept_whole() -> None:
    btf, first, _ = strings(sys.byteorder)
    func = area(sys.byteorder, 12, [(first, [(0, 5, 77), (8, 6, 78)])])
    ext = BTFExt.from_bytes(section(sys.byteorder, func, b"", b""), btf)
    records = ext.func_info["tp/first"]
    assert (records.record_size, len(records), records.offsets) == (12, 2, (0, 8))
    assert records.slice(8, 16) == struct.pack("=3I", 8, 6, 78)
    other = "big" if sys.byteorder == "little" else "little"
    foreign, first, _ = strings(other)
    func = area(other, 12, [(first, [(0, 5, 77)])])
    with pytest.raises(BTFError, match="foreign"):
        BTFExt.from_bytes(section(other, func, b"", b""), foreign)


def test_a_section_that_comes_twice() -> None:
    btf, first, text = strings()
    func = area("little", 8, [(first, [(0, 5)]), (text, [(0, 6)]), (first, [(8, 7), (16, 8)])])
    ext = BTFExt.from_bytes(section("little", func, b"", None), btf)
    assert list(ext.func_info["tp/first"].rows()) == [(0, 5), (8, 7), (16, 8)]


@pytest.mark.parametrize(
    ("func", "message"),
    [
        (struct.pack("<I", 8), "no records"),
        (struct.pack("<I", 4) + bytes(12), "record size 4"),
        (struct.pack("<I", 10) + bytes(12), "record size 10"),
        (struct.pack("<II", 8, 1), "cut off"),
        (struct.pack("<III", 8, 1, 0), "bad count 0"),
        (struct.pack("<IIIII", 8, 1, 2, 0, 0), "bad count 2"),
        (struct.pack("<IIIII", 8, 1, 0xFFFFFFFF, 0, 0), "bad count"),
        (struct.pack("<IIIII", 8, 999, 1, 0, 0), "string offset 999"),
        (struct.pack("<IIIIIB", 8, 1, 1, 0, 0, 0), "bad area"),
    ],
)
def test_malformed_areas(func: bytes, message: str) -> None:
    btf, _, _ = strings()
    with pytest.raises(BTFError, match=message):
        BTFExt.from_bytes(section("little", func, b"", None), btf)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 20, 0, 0, 0, 0), "hdr_len"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 26, 0, 0, 0, 0) + bytes(8), "hdr_len"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 400, 0, 0, 0, 0), "hdr_len"),
        (struct.pack("<HBBI4I", 0xEB9F, 2, 0, 24, 0, 0, 0, 0), "version 2"),
        (struct.pack(">HBBI4I", 0xEB9F, 1, 0, 24, 0, 0, 0, 0), "magic"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 2, 4, 0, 0) + bytes(8), "bad area"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, 4, 0, 0), "bad area"),
        (struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0xFFFFFFFC, 8, 0, 0), "bad area"),
    ],
)
def test_malformed_headers(data: bytes, message: str) -> None:
    btf, _, _ = strings()
    with pytest.raises(BTFError, match=message):
        BTFExt.from_bytes(data, btf)


def test_an_empty_section_is_no_error() -> None:
    btf, _, _ = strings()
    ext = BTFExt.from_bytes(struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, 0, 0, 0, 0), btf)
    assert (ext.func_info, ext.line_info, ext.core) == ({}, {}, {})


SOURCE = r"""
struct task { int pid, tgid; } __attribute__((preserve_access_index));
__attribute__((noinline)) int helper(struct task *t)
{
    return t->tgid;
}
__attribute__((section("tp/one"))) int one(struct task *t)
{
    return helper(t) + t->pid;
}
__attribute__((section("tp/one"))) int two(struct task *t)
{
    return t->pid;
}
__attribute__((section("tp/other"))) int three(struct task *t)
{
    return t->tgid;
}
"""


@pytest.mark.skipif(CLANG is None or READELF is None, reason="clang and llvm-readelf are needed")
@pytest.mark.parametrize(("target", "byte_order"), [("bpfel", "little"), ("bpfeb", "big")])
def test_compiled_objects(target: str, byte_order: str, tmp_path: Path) -> None:
    source, built = tmp_path / "object.c", tmp_path / "object.o"
    source.write_text(SOURCE)
    assert CLANG is not None
    assert READELF is not None
    subprocess.run([CLANG, "-target", target, "-g", "-O2", "-c", str(source), "-o", str(built)], check=True)
    btf = BTF.from_file(str(built))
    ext = BTFExt.from_bytes(elf_section(str(built), ".BTF.ext"), btf)
    assert btf.byte_order == byte_order

    result = subprocess.run([READELF, "-s", str(built)], capture_output=True, text=True, check=True)
    rows = [line.split() for line in result.stdout.splitlines() if " FUNC " in line]
    starts = {row[-1]: int(row[1], 16) for row in rows}
    found = {
        btf.name_of(type_id): (name, offset)
        for name, records in ext.func_info.items()
        for offset, type_id in records.rows()
    }
    sections = {"helper": ".text", "one": "tp/one", "two": "tp/one", "three": "tp/other"}
    assert found == {name: (sections[name], starts[name]) for name in sections}

    lines = SOURCE.splitlines()
    for records in ext.line_info.values():
        for _, file_name, text, where in records.rows():
            assert btf.string(file_name) == str(source)
            assert btf.string(text) == lines[(where >> 10) - 1]

    accesses = {
        name: [(btf.name_of(row[1]), btf.string(row[2]), row[3]) for row in records.rows()]
        for name, records in ext.core.items()
    }
    pid, tgid = ("task", "0:0", 0), ("task", "0:1", 0)
    assert accesses == {".text": [tgid], "tp/one": [pid, pid], "tp/other": [tgid]}
    second = starts["two"]
    assert struct.unpack("=IIII", ext.core["tp/one"].slice(second, 1 << 20))[0] >= second
