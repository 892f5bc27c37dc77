"""The file offset of a function in an executable or shared library, which is what a uprobe is placed on.

Rules:

* An offset is counted from the start of the file: symbol value - section address + section offset. It is neither a
  virtual address nor does it know where a process has mapped the file.
* Names may carry a version as in the dynamic symbol table: ``pthread_create@GLIBC_2.34`` (``@@`` means the same).
  Without one, the default version wins over hidden ones, as it does for the dynamic linker.
* The dynamic table is asked first, then the full one. The first table with a hit ends the search.
* ``archive.zip!/lib.so`` is a member of a zip archive, stored without compression.
* The tables are read with pyelftools, which is imported when the first file is opened.
"""

from __future__ import annotations

import errno
import struct

from pybpf.errors import BPFNotFoundError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, BinaryIO


STT_OBJECT, STT_FUNC = 1, 2
STB_WEAK = 2
PF_X = 1
SHN_UNDEF, SHN_LORESERVE = 0, 0xFF00
VERSYM_HIDDEN = 0x8000
ARCHIVE_SEPARATOR = "!/"


class Binary:
    """An ELF executable or library, opened to find what is in it. A context manager.

    Attributes:
        name: as it was opened.
        path: the file that the kernel has to be given: the archive, for a member of one.
        base: where the ELF file starts in that file, in bytes (0 unless it is in an archive).
        is_fixed: whether its addresses are those of every process (ET_EXEC), not relative to where it is mapped.
        machine: for which it is, as in ``"EM_X86_64"``.
        order: the byte order, as `struct` writes it.
        pointer_size: 8 or 4 bytes.
        segments: what is mapped of it (PT_LOAD), by ascending address.
    """

    __slots__ = (
        "_sections",
        "_size",
        "_stream",
        "base",
        "is_fixed",
        "machine",
        "name",
        "order",
        "path",
        "pointer_size",
        "segments",
    )

    def __init__(self, name: str) -> None:
        """Opens the file.

        Raises:
            BPFNotFoundError: there is no such file or archive member.
            ObjectError: it is not an ELF executable or shared library.
        """
        self.name = name
        self.path, self.base, self._stream = _open(name)
        try:
            self._read_headers()
        except BaseException:
            self._stream.close()
            raise

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Binary:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_headers(self) -> None:
        from elftools.elf.elffile import ELFFile

        try:
            elf = ELFFile(self._stream)
            file_type = elf.header["e_type"]
            self._size = self._stream.seek(0, 2)
            if max(elf.num_sections() * 40, elf.num_segments() * 32) > self._size:
                raise ValueError("more headers than the file can hold")
            self._sections = [Section(section.name, section.header) for section in elf.iter_sections()]
            loaded = [segment.header for segment in elf.iter_segments("PT_LOAD")]
        except Exception as error:  # pyelftools meets damage with exceptions of many kinds
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a place that no file can have
                raise
            raise ObjectError(f"{self.name}: not an ELF file that can be read: {error}") from error
        if file_type not in ("ET_EXEC", "ET_DYN"):
            raise ObjectError(f"{self.name}: not an executable or shared library, but {file_type}")
        self.is_fixed = file_type == "ET_EXEC"
        self.machine: str = str(elf.header["e_machine"])
        self.pointer_size = elf.elfclass // 8
        self.order = "<" if elf.little_endian else ">"
        self.segments = sorted((Segment(header) for header in loaded), key=lambda segment: segment.address)

    # Sections and segments

    def section(self, name: str) -> Section | None:
        """The first section of this name."""
        return next((section for section in self._sections if section.name == name), None)

    def data(self, section: Section) -> bytes:
        """What a section holds. Raises ObjectError when it reaches past the end of the file."""
        start, size = section.offset, section.size
        if start + size > self._size:
            raise ObjectError(f"{self.name}: a section reaches past the end of the file ({start:#x} + {size:#x})")
        self._stream.seek(start)
        return self._stream.read(size)

    def code(self, offset: int, size: int) -> bytes:
        """Bytes at an offset of the file that the kernel is given; fewer at its end."""
        self._stream.seek(offset - self.base)
        return self._stream.read(size)

    def segment_at(self, address: int) -> Segment | None:
        """What is mapped at an address of the file's own."""
        return next((one for one in self.segments if one.address <= address < one.address + one.size), None)

    # Symbols

    def offset(self, symbol: str) -> int:
        """The file offset of one function.

        Raises:
            BPFNotFoundError: no table defines it.
            ObjectError: two different functions have this name.
        """
        bare, _, version = symbol.partition("@")
        version = version.removeprefix("@")
        for kind in ("SHT_DYNSYM", "SHT_SYMTAB"):
            best: tuple[bool, bool] | None = None
            offsets: set[int] = set()
            for found in self._named(kind, bare):
                if version and found.version != version:
                    continue
                rank = (not found.hidden, not found.weak)
                if best is None or rank > best:
                    best, offsets = rank, set()
                if rank == best:
                    offsets.add(found.offset)
            if len(offsets) > 1:
                places = ", ".join(f"{offset:#x}" for offset in sorted(offsets))
                raise ObjectError(f"{self.name}: {symbol!r} is ambiguous: {places}")
            if offsets:
                return offsets.pop()
        raise BPFNotFoundError(errno.ENOENT, "open", f"{self.name} defines no function {symbol!r}")

    def variable(self, name: str) -> int:
        """The address of a variable, in the file's own addresses.

        Raises:
            ObjectError: no table has it, or several variables have this name.
        """
        for table in ("SHT_SYMTAB", "SHT_DYNSYM"):
            found = {symbol.address for symbol in self._named(table, name, STT_OBJECT)}
            if len(found) > 1:
                raise ObjectError(f"{self.name} has {len(found)} variables {name!r}")
            if found:
                return found.pop()
        raise ObjectError(f"{self.name} has no symbol of a variable {name!r}: it may have been stripped")

    def offsets(self, names: Iterable[str], *, kind: int = STT_FUNC) -> list[int]:
        """The file offset of each of many symbols (exact names), in the order of the names.

        Raises:
            BPFNotFoundError: a name is not defined.
            ObjectError: two different strong definitions have one name.
        """
        wanted = list(names)
        places: dict[str, tuple[bool, int]] = {}
        for table in ("SHT_DYNSYM", "SHT_SYMTAB"):
            missing = {name for name in wanted if name not in places}
            for found in self._symbols(table, kind) if missing else ():
                if found.name not in missing:
                    continue
                known = places.get(found.name)
                if known is None or (known[0] and not found.weak):
                    places[found.name] = (found.weak, found.offset)
                elif not found.weak and known[1] != found.offset:
                    raise ObjectError(f"{self.name}: {found.name!r} is ambiguous: {known[1]:#x}, {found.offset:#x}")
        for name in wanted:
            if name not in places:
                raise BPFNotFoundError(errno.ENOENT, "open", f"{self.name} defines no symbol {name!r}")
        return [places[name][1] for name in wanted]

    def matches(self, pattern: str) -> list[tuple[str, int]]:
        """Name and file offset of each function whose name fits a pattern (``*`` any run, ``?`` one character).

        Aliases at one offset are given once. The full symbol table is asked first, then the dynamic one.
        """
        from pybpf.symbols.glob import matcher

        fits = matcher(pattern)
        for table in ("SHT_SYMTAB", "SHT_DYNSYM"):
            by_offset: dict[int, str] = {}
            for found in self._symbols(table, STT_FUNC):
                if fits(found.name):
                    by_offset.setdefault(found.offset, found.name)
            if by_offset:
                return [(name, offset) for offset, name in sorted(by_offset.items())]
        return []

    def _named(self, kind: str, bare: str, symbol_type: int = STT_FUNC) -> Iterator[_Symbol]:
        """The symbols of one kind of table called `bare`, with or without a version."""
        for table in self._tables(kind):
            wanted = _string_offsets(table.strings, bare.encode())
            if wanted:
                yield from self._decode(table, symbol_type, wanted)

    def _symbols(self, kind: str, symbol_type: int) -> Iterator[_Symbol]:
        for table in self._tables(kind):
            yield from self._decode(table, symbol_type, None)

    def _tables(self, kind: str) -> Iterator[_Table]:
        for section in self._sections:
            if section.type != kind:
                continue
            numbers, versions = b"", {}
            if kind == "SHT_DYNSYM":
                numbers = b"".join(self.data(s) for s in self._sections if s.type == "SHT_GNU_versym")
                versions = self._version_definitions()
            yield _Table(self.data(section), self._strings(section), numbers, versions)

    def _version_definitions(self) -> dict[int, str]:
        """Version number -> name, from .gnu.version_d (the layout is the same in both ELF classes; LSB, part 10.7)."""
        names: dict[int, str] = {}
        for section in self._sections:
            if section.type != "SHT_GNU_verdef":
                continue
            data, strings = self.data(section), self._strings(section)
            at = 0
            while at + 20 <= len(data):
                _, _, number, _, _, first_name, following = struct.unpack_from(self.order + "HHHHIII", data, at)
                if at + first_name + 4 <= len(data):
                    name = struct.unpack_from(self.order + "I", data, at + first_name)[0]
                    names[number] = _string(strings, name)
                if not following:
                    break
                at += following
        return names

    def _strings(self, section: Section) -> bytes:
        """The string table that a section is linked to."""
        link = section.link
        if link >= len(self._sections) or self._sections[link].type != "SHT_STRTAB":
            raise ObjectError(f"{self.name}: a symbol table is linked to section {link}, which holds no strings")
        return self.data(self._sections[link])

    def _decode(self, table: _Table, symbol_type: int, wanted: set[int] | None) -> Iterator[_Symbol]:
        layout = struct.Struct(self.order + ("IBBHQQ" if self.pointer_size == 8 else "IIIBBH"))
        sections = self._sections
        whole = len(table.data) - len(table.data) % layout.size
        for index, fields in enumerate(layout.iter_unpack(table.data[:whole])):
            if self.pointer_size == 8:
                name, info, _, section, value, _ = fields
            else:
                name, value, _, info, _, section = fields
            if info & 15 != symbol_type or (wanted is not None and name not in wanted):
                continue
            if section == SHN_UNDEF or section >= SHN_LORESERVE or section >= len(sections):
                continue
            offset = value - sections[section].address + sections[section].offset + self.base
            if offset <= 0:
                continue
            bare, at, version = _string(table.strings, name).partition("@")
            hidden = bool(at) and not version.startswith("@")
            if index * 2 + 2 <= len(table.version_numbers):
                number = struct.unpack_from(self.order + "H", table.version_numbers, index * 2)[0]
                version = table.versions.get(number & ~VERSYM_HIDDEN, "")
                hidden = bool(number & VERSYM_HIDDEN)
            yield _Symbol(bare, version.removeprefix("@"), value, offset, info >> 4 == STB_WEAK, hidden)


class Section:
    """What is needed of a section header."""

    __slots__ = ("address", "link", "name", "offset", "size", "type")

    def __init__(self, name: str, header: Mapping[str, Any]) -> None:
        self.name = name
        self.type: str = header["sh_type"]
        self.address: int = header["sh_addr"]
        self.offset: int = header["sh_offset"]
        self.size: int = header["sh_size"]
        self.link: int = header["sh_link"]


class Segment:
    """A stretch of the file that is mapped.

    Attributes:
        address: where, in the addresses of the file's own.
        size: in memory, in bytes.
        offset: where it starts in the ELF file.
        is_code: whether it is executable.
    """

    __slots__ = ("address", "is_code", "offset", "size")

    def __init__(self, header: Mapping[str, Any]) -> None:
        self.address: int = header["p_vaddr"]
        self.size: int = header["p_memsz"]
        self.offset: int = header["p_offset"]
        self.is_code = bool(header["p_flags"] & PF_X)


class _Table:
    """The raw parts of one symbol table."""

    __slots__ = ("data", "strings", "version_numbers", "versions")

    def __init__(self, data: bytes, strings: bytes, version_numbers: bytes, versions: dict[int, str]) -> None:
        self.data = data
        self.strings = strings
        self.version_numbers = version_numbers
        self.versions = versions


class _Symbol:
    """A defined symbol."""

    __slots__ = ("address", "hidden", "name", "offset", "version", "weak")

    def __init__(self, name: str, version: str, address: int, offset: int, weak: bool, hidden: bool) -> None:
        self.name = name
        self.version = version
        self.address = address
        self.offset = offset
        self.weak = weak
        self.hidden = hidden


def function_offset(path: str, symbol: str) -> int:
    """The file offset of a function, as `Binary.offset` finds it."""
    with Binary(path) as binary:
        return binary.offset(symbol)


def function_offsets(path: str, names: Iterable[str]) -> list[int]:
    """The file offsets of many functions, as `Binary.offsets` finds them."""
    with Binary(path) as binary:
        return binary.offsets(names)


def match_functions(path: str, pattern: str) -> list[tuple[str, int]]:
    """Name and file offset of the functions that fit a pattern, as `Binary.matches` finds them."""
    with Binary(path) as binary:
        return binary.matches(pattern)


def _string_offsets(strings: bytes, name: bytes) -> set[int]:
    """Where a name may stand in a string table: whole, or continued by a version. Strings share their tails."""
    found: set[int] = set()
    at = strings.find(name)
    while at >= 0:
        if strings[at + len(name) : at + len(name) + 1] in (b"\0", b"@", b""):
            found.add(at)
        at = strings.find(name, at + 1)
    return found


def _open(name: str) -> tuple[str, int, BinaryIO]:
    """The file for the kernel, the offset of the ELF file in it, and a stream of the ELF file."""
    archive, separator, member = name.partition(ARCHIVE_SEPARATOR)
    if separator:
        base, data = _archive_member(archive, member)
        import io

        return archive, base, io.BytesIO(data)
    try:
        return name, 0, open(name, "rb")
    except OSError as error:
        from pybpf.errors import kernel_error

        raise kernel_error(error.errno or errno.ENOENT, "open", name) from error


def _archive_member(archive: str, member: str) -> tuple[int, bytes]:
    """Where the bytes of a stored member of a zip archive start, and the bytes (APPNOTE.TXT, local file header)."""
    import zipfile

    try:
        with zipfile.ZipFile(archive) as zipped, open(archive, "rb") as raw:
            info = zipped.getinfo(member)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ObjectError(f"{archive}: member {member!r} is compressed or encrypted: the kernel cannot map it")
            raw.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", raw.read(4))
            return info.header_offset + 30 + name_length + extra_length, zipped.read(info)
    except OSError as error:
        from pybpf.errors import kernel_error

        raise kernel_error(error.errno or errno.ENOENT, "open", archive) from error
    except KeyError:
        raise BPFNotFoundError(errno.ENOENT, "open", f"{archive} has no member {member!r}") from None
    except (zipfile.BadZipFile, struct.error, NotImplementedError, RuntimeError) as error:
        raise ObjectError(f"{archive}: not a zip archive that can be read: {error}") from error


def _string(strings: bytes, at: int) -> str:
    end = strings.find(b"\0", at)
    return strings[at : end if end >= 0 else None].decode("utf-8", "replace")
