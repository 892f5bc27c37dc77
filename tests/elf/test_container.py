"""The ELF reader, against pyelftools and llvm-readelf, and on files that are not what it reads."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from struct import pack_into
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_ST_INFO_BIND, ENUM_ST_INFO_TYPE, ENUM_ST_SHNDX, ENUM_ST_VISIBILITY
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from object_builder import SOURCES, ObjectBuilder

from pybpf.elf.container import SHT_NOBITS, STT_FUNC, STT_OBJECT, Container, Section, Symbol
from pybpf.errors import ObjectError


def section_fields(section: Any) -> tuple[Any, ...]:
    header = section.header
    names = ("sh_flags", "sh_addr", "sh_offset", "sh_size", "sh_link", "sh_info", "sh_addralign", "sh_entsize")
    return (section.name, *(header[name] for name in names))


def our_section_fields(one: Section) -> tuple[Any, ...]:
    return (one.name, one.flags, one.address, one.offset, one.size, one.link, one.info, one.alignment, one.entry_size)


def symbol_fields(elf: ELFFile, symbol: Any) -> tuple[Any, ...]:
    entry = symbol.entry
    section = ENUM_ST_SHNDX.get(entry.st_shndx, entry.st_shndx)
    name = symbol.name
    if entry.st_info.type == "STT_SECTION" and not entry.st_name:
        name = ""  # pyelftools gives such a symbol the name of its section
    return (
        name,
        ENUM_ST_INFO_BIND[entry.st_info.bind],
        ENUM_ST_INFO_TYPE[entry.st_info.type],
        ENUM_ST_VISIBILITY[entry.st_other.visibility],
        section,
        entry.st_value,
        entry.st_size,
    )


def our_symbol_fields(one: Symbol) -> tuple[Any, ...]:
    return (one.name, one.bind, one.type, one.visibility, one.section, one.value, one.size)


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("source", SOURCES)
def test_everything_is_what_pyelftools_reads(source: str, byte_order: str, build: ObjectBuilder) -> None:
    path = build(source, byte_order=byte_order)
    container = Container(path.read_bytes(), source)
    assert container.byte_order == byte_order
    compared = set()
    with path.open("rb") as file:
        elf = ELFFile(file)
        assert [our_section_fields(one) for one in container.sections] == [
            section_fields(one) for one in elf.iter_sections()
        ]
        for ours, theirs in zip(container.sections, elf.iter_sections(), strict=True):
            if ours.index and ours.type != SHT_NOBITS:
                assert bytes(container.content(ours)) == theirs.data()
                compared.add("content")
            if isinstance(theirs, SymbolTableSection):
                expected = [symbol_fields(elf, symbol) for symbol in theirs.iter_symbols()]
                assert expected == [
                    our_symbol_fields(container.symbol(index, "")) for index in range(container.symbol_count)
                ]
                compared.add("symbols")
            if isinstance(theirs, RelocationSection):
                places = [(one["r_offset"], one["r_info_sym"]) for one in theirs.iter_relocations()]
                assert container.relocations(ours) == places
                assert container.target(ours).index == theirs.header.sh_info
                compared.add("relocations")
    assert compared == {"content", "symbols", "relocations"}


def test_symbols_are_those_of_llvm_readelf(build: ObjectBuilder) -> None:
    readelf = next((name for name in ("llvm-readelf-19", "llvm-readelf", "readelf") if shutil.which(name)), None)
    if readelf is None:
        pytest.skip("no readelf to compare with")
    path = build("elf_calls.bpf.c")
    run = subprocess.run([readelf, "--symbols", "--wide", str(path)], capture_output=True, text=True, check=True)
    rows = [line.split() for line in run.stdout.splitlines()]
    expected = {row[7]: (int(row[1], 16), int(row[2], 0), row[4]) for row in rows if len(row) == 8 and row[3] == "FUNC"}
    container = Container(path.read_bytes(), "")
    binds = ("LOCAL", "GLOBAL", "WEAK")
    found = {one.name: (one.value, one.size, binds[one.bind]) for one in container.symbols(STT_FUNC)}
    assert found == expected
    assert len(found) == 11


def test_only_the_wanted_types_of_symbols_are_given(build: ObjectBuilder) -> None:
    container = Container(build("elf_calls.bpf.c").read_bytes(), "")
    wanted = list(container.symbols(STT_FUNC, STT_OBJECT))
    assert {one.type for one in wanted} == {STT_FUNC, STT_OBJECT}
    everything = list(container.symbols())
    assert [one.index for one in everything] == list(range(1, container.symbol_count))
    assert [one for one in everything if one.type in (STT_FUNC, STT_OBJECT)] == wanted


@pytest.fixture(scope="module")
def good(build: ObjectBuilder) -> bytes:
    return build("elf_calls.bpf.c").read_bytes()


def refused(data: bytes) -> str:
    """What the reader says about a file that it does not take."""
    with pytest.raises(ObjectError) as caught:
        Container(data, "x.bpf.o")
    text = str(caught.value)
    assert text.startswith("x.bpf.o: ")
    return text.removeprefix("x.bpf.o: ")


def with_header(good: bytes, offset: int, value: bytes) -> bytes:
    return good[:offset] + value + good[offset + len(value) :]


def test_files_of_other_formats_are_named() -> None:
    assert refused(b"") == "the file is empty"
    assert refused(b"int main(void)") == "this is not an ELF file"
    assert refused(b"#include <x.h>\n") == "this is text, not an ELF file"
    assert refused(b"\x9f\xeb\x01\x00") == "this is raw BTF, not an object file"
    assert refused(b"BC\xc0\xde123").startswith("this is LLVM bitcode")
    assert refused(gzip.compress(b"object")) == "this is compressed with gzip"
    assert refused(b"\x7fELF\x02\x01\x01") == "truncated: 7 bytes are less than an ELF header (64)"


def test_elf_files_for_other_machines_are_named(good: bytes) -> None:
    python = Path(sys.executable).resolve().read_bytes()
    text = refused(python)
    assert text.startswith("an ELF file for ") and text.endswith(", not for BPF")
    assert refused(with_header(good, 18, b"\x3e\0")) == "an ELF file for x86-64, not for BPF"
    assert refused(with_header(good, 18, b"\xb7\0")) == "an ELF file for AArch64, not for BPF"
    assert refused(with_header(good, 18, b"\x39\x30")) == "an ELF file for machine 12345, not for BPF"
    Container(with_header(good, 18, b"\0\0"), "")  # the first compilers for BPF did not have a number


def test_other_kinds_of_elf_files_are_named(good: bytes) -> None:
    assert refused(with_header(good, 4, b"\x01")) == "a 32-bit ELF file; BPF objects are 64-bit"
    assert refused(with_header(good, 5, b"\x03")) == "unknown byte order 3 in the ELF header"
    assert refused(with_header(good, 6, b"\x02")) == "unknown ELF version 2"
    assert refused(with_header(good, 16, b"\x02\0")) == "an executable, not a relocatable object file"
    assert refused(with_header(good, 16, b"\x03\0")) == "a shared object, not a relocatable object file"
    assert refused(with_header(good, 16, b"\x09\0")) == "ELF type 9, not a relocatable object file"


def test_a_stripped_object_is_named(build: ObjectBuilder, tmp_path: Path) -> None:
    objcopy = next((name for name in ("llvm-objcopy-19", "llvm-objcopy", "llvm-strip") if shutil.which(name)), None)
    if objcopy is None:
        pytest.skip("no llvm-objcopy to strip with")
    stripped = tmp_path / "stripped.o"
    command = [objcopy, "--strip-all-gnu", str(build("elf_calls.bpf.c", "-g0")), str(stripped)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"{objcopy}: {run.stderr}")
    assert refused(stripped.read_bytes()) == "no symbol table: the file is stripped"


def test_every_truncation_is_refused(good: bytes) -> None:
    table = int.from_bytes(good[40:48], "little")
    for length in [*range(64), *range(64, len(good), 97), table, table + 63, len(good) - 1]:
        refused(good[:length])


def header_of(good: bytes, name: str) -> tuple[int, Section]:
    """Where the header of a section is, and the section."""
    container = Container(good, "")
    section = next(one for one in container.sections if one.name == name)
    return int.from_bytes(good[40:48], "little") + section.index * 64, section


def changed(good: bytes, name: str, field: int, value: int, size: int = 8) -> bytes:
    """The file with another number in a section header; `field` is its offset there."""
    data = bytearray(good)
    place, _ = header_of(good, name)
    pack_into("<Q" if size == 8 else "<I", data, place + field, value)
    return bytes(data)


def test_section_headers_that_do_not_fit_are_refused(good: bytes) -> None:
    assert "no section headers" in refused(with_header(good, 40, bytes(8)))
    assert "section headers of 40 bytes" in refused(with_header(good, 58, b"\x28\0"))
    assert "truncated: section headers" in refused(with_header(good, 60, b"\xff\0"))
    assert "section 255 shall hold the names" in refused(with_header(good, 62, b"\xff\0"))
    assert "its name at offset" in refused(changed(good, ".text", 0, 0x7FFFFFFF, 4))
    assert "truncated: section '.symtab'" in refused(changed(good, ".symtab", 24, 1 << 60))
    assert "section '.symtab': symbols are not of 24 bytes" in refused(changed(good, ".symtab", 56, 16))
    assert "section '.symtab': section 99 shall hold its strings" in refused(changed(good, ".symtab", 40, 99, 4))
    assert "2 symbol tables" in refused(changed(good, ".BTF", 4, 2, 4))
    assert "is compressed" in refused(changed(good, ".symtab", 8, 0x800))


def test_a_section_count_that_needs_more_than_16_bits_is_in_the_first_header(good: bytes) -> None:
    data = bytearray(good)
    table = int.from_bytes(good[40:48], "little")
    count, names = int.from_bytes(good[60:62], "little"), int.from_bytes(good[62:64], "little")
    data[60:64] = b"\0\0\xff\xff"
    pack_into("<Q", data, table + 32, count)
    pack_into("<I", data, table + 40, names)
    expected = [our_section_fields(one) for one in Container(good, "").sections[1:]]
    assert [our_section_fields(one) for one in Container(bytes(data), "").sections[1:]] == expected


def test_bad_relocation_sections_are_refused(good: bytes) -> None:
    for field, value, size, message in (
        (56, 24, 8, "relocations are not of 16 bytes each"),
        (32, 15, 8, "relocations are not of 16 bytes each"),
        (44, 999, 4, "is about section 999, which does not exist"),
        (24, 1 << 40, 8, "truncated: section '.rel.text'"),
    ):
        container = Container(changed(good, ".rel.text", field, value, size), "x")
        section = next(one for one in container.sections if one.name == ".rel.text")
        with pytest.raises(ObjectError, match=message.replace("(", "\\(")):
            container.target(section)
            container.relocations(section)


def test_a_symbol_that_does_not_exist_is_refused(good: bytes) -> None:
    container = Container(good, "x")
    with pytest.raises(ObjectError, match=f"here: symbol {container.symbol_count} does not exist"):
        container.symbol(container.symbol_count, "here")


def test_names_that_are_not_utf8_can_be_read(good: bytes) -> None:
    container = Container(good.replace(b"replaceable\0", b"repla\xffeable\0"), "x")
    assert "repla\\xffeable" in [symbol.name for symbol in container.symbols(STT_FUNC)]
