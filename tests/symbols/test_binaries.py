"""Names of binaries, and the offsets of functions in them, beside what readelf-like reading of the same file gives."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.errors import BPFNotFoundError, BPFPermissionError, ObjectError
from pybpf.symbols import find_binary, function_offset, function_offsets, match_functions
from pybpf.symbols.binary import library_directories
from pybpf.symbols.elf import STT_OBJECT, Binary

SHT_SYMTAB, SHT_STRTAB, SHT_DYNSYM, SHT_VERDEF, SHT_VERSYM = 2, 3, 11, 0x6FFFFFFD, 0x6FFFFFFF
FUNC, OBJECT, GLOBAL, WEAK = 2, 1, 1, 2
TEXT_ADDRESS, TEXT_OFFSET = 0x401000, 0x1000


class Library:
    """Makes an ELF file with symbol tables and nothing else."""

    def __init__(self, *, bits: int = 64, order: str = "<", file_type: int = 3) -> None:
        self.bits, self.order, self.file_type = bits, order, file_type
        self.sections: list[tuple[int, int, int, bytes, int, int]] = []
        self.add(0, b"")
        self.text = self.add(1, b"", address=TEXT_ADDRESS, offset=TEXT_OFFSET)

    def add(self, kind: int, data: bytes, *, link: int = 0, address: int = 0, offset: int = 0, entry: int = 0) -> int:
        self.sections.append((kind, address, offset, data, link, entry))
        return len(self.sections) - 1

    def strings(self, *names: str) -> tuple[int, dict[str, int]]:
        data, places = b"\0", {}
        for name in names:
            places[name] = len(data)
            data += name.encode() + b"\0"
        return self.add(SHT_STRTAB, data), places

    def symbols(
        self, kind: int, entries: list[tuple[str, int, int, int, int]], versions: list[int] | None = None
    ) -> None:
        """Entries are name, value, type, binding and section."""
        link, places = self.strings(*{name for name, *_ in entries})
        data = bytes(24 if self.bits == 64 else 16)
        for name, value, symbol_type, binding, section in entries:
            info = binding << 4 | symbol_type
            if self.bits == 64:
                data += struct.pack(self.order + "IBBHQQ", places[name], info, 0, section, value, 8)
            else:
                data += struct.pack(self.order + "IIIBBH", places[name], value, 8, info, 0, section)
        table = self.add(kind, data, link=link, entry=24 if self.bits == 64 else 16)
        if versions is not None:
            numbers = [0, *versions]
            self.add(SHT_VERSYM, struct.pack(f"{self.order}{len(numbers)}H", *numbers), link=table, entry=2)

    def version_names(self, *names: str) -> None:
        """Definitions numbered from 2 on."""
        link, places = self.strings(*names)
        data = b""
        for number, name in enumerate(names):
            following = 28 if number + 1 < len(names) else 0
            data += struct.pack(self.order + "HHHHIII", 1, 0, number + 2, 1, 0, 20, following)
            data += struct.pack(self.order + "II", places[name], 0)
        self.add(SHT_VERDEF, data, link=link)

    def build(self) -> bytes:
        wide = self.bits == 64
        header_size, row = (64, "IIQQQQIIQQ") if wide else (52, "IIIIIIIIII")
        names = self.add(SHT_STRTAB, b"\0")
        body, rows = b"", b""
        for kind, address, offset, data, link, entry in self.sections:
            place = offset or header_size + len(body)
            rows += struct.pack(self.order + row, 0, kind, 0, address, place, len(data), link, 1, 1, entry)
            body += data
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if self.order == "<" else 2, 1]) + bytes(9)
        table = header_size + len(body)
        header = struct.pack(
            self.order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
            *(self.file_type, 62, 1, 0, 0, table, 0, header_size, 0, 0, struct.calcsize("<" + row)),
            *(len(self.sections), names),
        )
        return ident + header + body + rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lib.so"


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("file_type", [2, 3])
def test_offset_in_the_file(path: Path, bits: int, order: str, file_type: int) -> None:
    library = Library(bits=bits, order=order, file_type=file_type)
    library.symbols(SHT_SYMTAB, [("work", TEXT_ADDRESS + 0x40, FUNC, GLOBAL, library.text)])
    path.write_bytes(library.build())
    assert function_offset(str(path), "work") == TEXT_OFFSET + 0x40
    with pytest.raises(BPFNotFoundError, match="defines no function 'wor'"):
        function_offset(str(path), "wor")


def test_what_is_no_function(path: Path) -> None:
    library = Library()
    text = library.text
    library.symbols(
        SHT_SYMTAB,
        [
            ("data", TEXT_ADDRESS, OBJECT, GLOBAL, text),
            ("undefined", 0, FUNC, GLOBAL, 0),
            ("absolute", TEXT_ADDRESS, FUNC, GLOBAL, 0xFFF1),
            ("outside", TEXT_ADDRESS, FUNC, GLOBAL, 999),
        ],
    )
    path.write_bytes(library.build())
    for name in ("data", "undefined", "absolute", "outside"):
        with pytest.raises(BPFNotFoundError):
            function_offset(str(path), name)
    with Binary(str(path)) as binary:
        assert binary.offsets(["data"], kind=STT_OBJECT) == [TEXT_OFFSET]


def test_dynamic_table_comes_first(path: Path) -> None:
    library = Library()
    library.symbols(SHT_SYMTAB, [("f", TEXT_ADDRESS + 1, FUNC, GLOBAL, 1), ("g", TEXT_ADDRESS + 2, FUNC, GLOBAL, 1)])
    library.symbols(SHT_DYNSYM, [("f", TEXT_ADDRESS + 3, FUNC, GLOBAL, 1)])
    path.write_bytes(library.build())
    assert function_offset(str(path), "f") == TEXT_OFFSET + 3
    assert function_offset(str(path), "g") == TEXT_OFFSET + 2
    assert function_offsets(str(path), ["g", "f"]) == [TEXT_OFFSET + 2, TEXT_OFFSET + 3]
    assert match_functions(str(path), "?") == [("f", TEXT_OFFSET + 1), ("g", TEXT_OFFSET + 2)]


def test_strong_wins_over_weak_and_two_strong_are_ambiguous(path: Path) -> None:
    library = Library()
    library.symbols(
        SHT_SYMTAB,
        [
            ("f", TEXT_ADDRESS + 1, FUNC, WEAK, 1),
            ("f", TEXT_ADDRESS + 2, FUNC, GLOBAL, 1),
            ("f", TEXT_ADDRESS + 3, FUNC, WEAK, 1),
            ("same", TEXT_ADDRESS + 4, FUNC, GLOBAL, 1),
            ("same", TEXT_ADDRESS + 4, FUNC, GLOBAL, 1),
            ("two", TEXT_ADDRESS + 5, FUNC, GLOBAL, 1),
            ("two", TEXT_ADDRESS + 6, FUNC, GLOBAL, 1),
        ],
    )
    path.write_bytes(library.build())
    assert function_offset(str(path), "f") == TEXT_OFFSET + 2
    assert function_offset(str(path), "same") == TEXT_OFFSET + 4
    for look_up in (lambda: function_offset(str(path), "two"), lambda: function_offsets(str(path), ["two"])):
        with pytest.raises(ObjectError, match="'two' is ambiguous: 0x1005, 0x1006"):
            look_up()
    assert function_offsets(str(path), ["f"]) == [TEXT_OFFSET + 2]


def test_versions(path: Path) -> None:
    """The default version is taken when none is asked for; hidden ones by name."""
    library = Library()
    library.symbols(
        SHT_DYNSYM,
        [
            ("f", TEXT_ADDRESS + 1, FUNC, GLOBAL, 1),
            ("f", TEXT_ADDRESS + 2, FUNC, GLOBAL, 1),
            ("only_old", TEXT_ADDRESS + 3, FUNC, GLOBAL, 1),
        ],
        versions=[2 | 0x8000, 3, 2 | 0x8000],
    )
    library.version_names("OLD", "NEW")
    path.write_bytes(library.build())
    assert function_offset(str(path), "f") == TEXT_OFFSET + 2
    assert function_offset(str(path), "f@OLD") == TEXT_OFFSET + 1
    assert function_offset(str(path), "f@@NEW") == TEXT_OFFSET + 2
    assert function_offset(str(path), "only_old") == TEXT_OFFSET + 3
    with pytest.raises(BPFNotFoundError, match="'f@OTHER'"):
        function_offset(str(path), "f@OTHER")


def test_versions_in_names(path: Path) -> None:
    library = Library()
    library.symbols(
        SHT_SYMTAB,
        [
            ("f@OLD", TEXT_ADDRESS + 1, FUNC, GLOBAL, 1),
            ("f@@NEW", TEXT_ADDRESS + 2, FUNC, GLOBAL, 1),
        ],
    )
    path.write_bytes(library.build())
    assert function_offset(str(path), "f") == TEXT_OFFSET + 2
    assert function_offset(str(path), "f@OLD") == TEXT_OFFSET + 1
    assert function_offset(str(path), "f@@OLD") == TEXT_OFFSET + 1


def test_names_that_share_a_tail(path: Path) -> None:
    """A string table may give two symbols one place: `reread` and `read`."""
    library = Library()
    link, places = library.strings("reread")
    data = bytes(24)
    for name, value in ((places["reread"], 1), (places["reread"] + 2, 2)):
        data += struct.pack("<IBBHQQ", name, GLOBAL << 4 | FUNC, 0, 1, TEXT_ADDRESS + value, 8)
    library.add(SHT_SYMTAB, data, link=link, entry=24)
    path.write_bytes(library.build())
    assert function_offset(str(path), "read") == TEXT_OFFSET + 2
    assert function_offset(str(path), "reread") == TEXT_OFFSET + 1


def test_libc_as_pyelftools_reads_it() -> None:
    libc = find_binary("libc.so.6")
    with open(libc, "rb") as file:
        elf = ELFFile(file)
        expected: dict[str, set[int]] = {}
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
            if symbol["st_info"]["type"] == "STT_FUNC" and isinstance(symbol["st_shndx"], int):
                section = elf.get_section(symbol["st_shndx"])
                place = symbol["st_value"] - section["sh_addr"] + section["sh_offset"]
                expected.setdefault(symbol.name, set()).add(place)
    single = {name: places for name, places in expected.items() if len(places) == 1}
    assert len(single) > 1000
    names = sorted(single)[::25]
    with Binary(libc) as binary:
        assert {name: {binary.offset(name)} for name in names} == {name: single[name] for name in names}
        assert binary.offsets(names) == [next(iter(single[name])) for name in names]
        found = dict(binary.matches("getp*id"))
    assert {"getpid", "getppid", "getpgid"} <= set(found)


def test_find_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_binary("./x") == "./x"
    assert find_binary("sh").endswith("/sh")
    assert find_binary("libc.so.6").endswith("/libc.so.6")
    mine = tmp_path / "libmine.so"
    mine.write_bytes(b"")
    monkeypatch.setenv("LD_LIBRARY_PATH", f":/nowhere:{tmp_path}")
    assert find_binary("libmine.so") == str(mine)
    tool = tmp_path / "tool"
    tool.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BPFNotFoundError, match="program 'tool' is not found"):
        find_binary("tool")
    tool.chmod(0o755)
    assert find_binary("tool") == str(tool)
    with pytest.raises(BPFNotFoundError, match=r"library 'libno.so.9' is not found.*Looked in /nowhere"):
        find_binary("libno.so.9")
    with pytest.raises(BPFNotFoundError):
        find_binary("")


def test_library_directories() -> None:
    assert "/lib/x86_64-linux-gnu" in library_directories("x86_64")
    assert "/usr/lib/aarch64-linux-gnu" in library_directories("aarch64")
    assert "/lib/arm-linux-gnueabihf" in library_directories("armv7l")


def test_archives(tmp_path: Path) -> None:
    library = Library()
    library.symbols(SHT_SYMTAB, [("f", TEXT_ADDRESS + 1, FUNC, GLOBAL, 1)])
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("first", b"x" * 100)
        zipped.writestr("lib.so", library.build())
        zipped.writestr("packed.so", library.build(), compress_type=zipfile.ZIP_DEFLATED)
    with Binary(f"{archive}!/lib.so") as binary:
        assert binary.path == str(archive)
        assert archive.read_bytes()[binary.base :].startswith(b"\x7fELF")
        assert binary.offset("f") == binary.base + TEXT_OFFSET + 1
    with pytest.raises(ObjectError, match=r"'packed.so' is compressed"):
        Binary(f"{archive}!/packed.so")
    with pytest.raises(BPFNotFoundError, match="has no member 'x'"):
        Binary(f"{archive}!/x")
    with pytest.raises(BPFNotFoundError, match="open"):
        Binary(f"{tmp_path}/none.zip!/x")
    plain = tmp_path / "plain"
    plain.write_bytes(b"no archive")
    with pytest.raises(ObjectError, match="not a zip archive"):
        Binary(f"{plain}!/x")


def test_files_that_are_no_binaries(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(ObjectError, match="not an ELF file"):
        Binary(str(text))
    with pytest.raises(BPFNotFoundError):
        Binary(str(tmp_path / "nothing"))
    with pytest.raises((BPFPermissionError, OSError)):
        Binary(str(tmp_path))
    relocatable = tmp_path / "x.o"
    relocatable.write_bytes(Library(file_type=1).build())
    with pytest.raises(ObjectError, match="not an executable or shared library, but ET_REL"):
        Binary(str(relocatable))


def versioned() -> bytes:
    library = Library()
    library.symbols(SHT_DYNSYM, [("f", TEXT_ADDRESS + 1, FUNC, GLOBAL, 1)] * 3, versions=[2, 3, 2])
    library.version_names("OLD", "NEW")
    library.symbols(SHT_SYMTAB, [("g", TEXT_ADDRESS + 2, FUNC, WEAK, 1)])
    return library.build()


@settings(max_examples=few(100), deadline=None)
@example([(894, 1)], 1)  # a string table that begins where no file has a place
@given(
    st.lists(st.tuples(st.integers(0, len(versioned()) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(versioned())),
)
def test_damaged_files_raise_only_errors_of_ours(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(versioned())
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.mktemp("damaged") / "lib.so"
    path.write_bytes(data[:cut] if cut % 3 == 0 else data)
    for look_up in (
        lambda: function_offset(str(path), "f"),
        lambda: function_offset(str(path), "g@OLD"),
        lambda: function_offsets(str(path), ["f", "g"]),
        lambda: match_functions(str(path), "*"),
    ):
        try:
            assert look_up() is not None
        except (ObjectError, BPFNotFoundError):
            continue
