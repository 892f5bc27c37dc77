"""Container: a small reader of relocatable ELF64 files for BPF, in both byte orders.

Rules of this module:

* It reads what a BPF object needs: section headers, section contents, the symbol table, REL relocations. Every other
  kind of ELF file is read with pyelftools, which costs more to import than loading a whole object takes.
* Nothing in the file is trusted. Every offset is checked where it is used, and what is wrong is an `ObjectError` that
  names the file, the section, the symbol or the offset.
* Contents are views into the given data; nothing is copied.

Source: System V ABI, chapters 4 and 5; elf(5); Linux, Documentation/bpf/llvm_reloc.rst.
"""

from __future__ import annotations

from struct import Struct

from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

EM_NONE = 0
EM_BPF = 247

SHT_NULL = 0
SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_STRTAB = 3
SHT_NOBITS = 8
SHT_RELA = 4
SHT_REL = 9
SHT_LLVM_ADDRSIG = 0x6FFF4C03

SHF_EXECINSTR = 4
SHF_COMPRESSED = 0x800

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00

STB_LOCAL = 0
STB_GLOBAL = 1
STB_WEAK = 2

STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3

STV_INTERNAL = 1
STV_HIDDEN = 2

_HEADER_SIZE = 64
_SECTION_SIZE = 64
_SYMBOL_SIZE = 24
_RELOCATION_SIZE = 16

_HEADER = {"little": Struct("<16xHHIQQQIHHHHHH"), "big": Struct(">16xHHIQQQIHHHHHH")}
_SECTION = {"little": Struct("<IIQQQQIIQQ"), "big": Struct(">IIQQQQIIQQ")}
_SYMBOL = {"little": Struct("<IBBHQQ"), "big": Struct(">IBBHQQ")}
_RELOCATION = {"little": Struct("<QQ"), "big": Struct(">QQ")}

_MACHINES = {
    2: "SPARC",
    3: "i386",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "S/390",
    40: "Arm",
    43: "64-bit SPARC",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}

_TYPES = {0: "no file type", 2: "an executable", 3: "a shared object", 4: "a core dump"}

_OTHER_FORMATS = (
    (b"BC\xc0\xde", "LLVM bitcode, which has to be compiled further (clang -target bpf -c)"),
    (b"\x9f\xeb", "raw BTF, not an object file"),
    (b"\xeb\x9f", "raw BTF, not an object file"),
    (b"!<arch>\n", "an archive of object files"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"#", "text, not an ELF file"),
    (b"/", "text, not an ELF file"),
)


class Section:
    """One section header; the fields are those of Elf64_Shdr."""

    __slots__ = (
        "address",
        "alignment",
        "entry_size",
        "flags",
        "index",
        "info",
        "link",
        "name",
        "offset",
        "size",
        "type",
    )

    def __init__(self, index: int, name: str, fields: tuple[int, ...]) -> None:
        self.index = index
        self.name = name
        (
            _,
            self.type,
            self.flags,
            self.address,
            self.offset,
            self.size,
            self.link,
            self.info,
            self.alignment,
            self.entry_size,
        ) = fields

    def __repr__(self) -> str:
        return f"<Section {self.index} {self.name!r} type={self.type:#x} flags={self.flags:#x} size={self.size}>"


class Symbol:
    """One symbol; the fields are those of Elf64_Sym."""

    __slots__ = ("bind", "index", "name", "section", "size", "type", "value", "visibility")

    def __init__(
        self, index: int, name: str, bind: int, type: int, visibility: int, section: int, value: int, size: int
    ) -> None:
        self.index = index
        self.name = name
        self.bind = bind
        self.type = type
        self.visibility = visibility
        self.section = section
        self.value = value
        self.size = size

    @property
    def is_extern(self) -> bool:
        """Whether it is an undefined symbol that something outside has to provide."""
        return self.section == SHN_UNDEF and self.bind != STB_LOCAL and self.type == STT_NOTYPE and self.name != ""

    @property
    def is_hidden(self) -> bool:
        """Whether only objects that are linked with this one may see it."""
        return self.visibility in (STV_INTERNAL, STV_HIDDEN)

    def __repr__(self) -> str:
        return (
            f"<Symbol {self.index} {self.name!r} bind={self.bind} type={self.type} section={self.section} "
            f"value={self.value} size={self.size}>"
        )


class Container:
    """A relocatable ELF file for BPF.

    Attributes:
        name: what errors call it.
        byte_order: ``"little"`` or ``"big"``.
        sections: all sections, in order; section 0 is the empty one.
        symbol_count: how many symbols the symbol table has.
    """

    __slots__ = (
        "_symbol_data",
        "_symbol_strings",
        "_symbols",
        "_view",
        "byte_order",
        "name",
        "sections",
        "symbol_count",
    )

    def __init__(self, data: Any, name: str) -> None:
        """Check the header and read the section headers and where the symbols are.

        Raises:
            ObjectError: it is not a relocatable ELF64 file for BPF, or it is malformed.
        """
        self.name = name
        self._view = memoryview(data).cast("B")
        self.byte_order: Literal["little", "big"] = self._check_identification()
        self.sections: list[Section] = []
        self._read_sections()
        self._symbols: dict[int, Symbol] = {}
        self._symbol_data = b""
        self._symbol_strings = b""
        self.symbol_count = 0
        self._find_symbols()

    def error(self, text: str) -> ObjectError:
        """An ObjectError about this file."""
        return ObjectError(f"{self.name}: {text}")

    def _check_identification(self) -> Literal["little", "big"]:
        head = bytes(self._view[:_HEADER_SIZE])
        if not head:
            raise self.error("the file is empty")
        if head[:4] != b"\x7fELF":
            for magic, what in _OTHER_FORMATS:
                if head.startswith(magic):
                    raise self.error(f"this is {what}")
            raise self.error("this is not an ELF file")
        if len(head) < _HEADER_SIZE:
            raise self.error(f"truncated: {len(head)} bytes are less than an ELF header ({_HEADER_SIZE})")
        if head[5] not in (1, 2):
            raise self.error(f"unknown byte order {head[5]} in the ELF header")
        order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
        kind = int.from_bytes(head[16:18], order)
        machine = int.from_bytes(head[18:20], order)
        if machine not in (EM_NONE, EM_BPF):
            raise self.error(f"an ELF file for {_MACHINES.get(machine, f'machine {machine}')}, not for BPF")
        if head[4] != 2:
            raise self.error("a 32-bit ELF file; BPF objects are 64-bit")
        if head[6] != 1:
            raise self.error(f"unknown ELF version {head[6]}")
        if kind != 1:
            raise self.error(f"{_TYPES.get(kind, f'ELF type {kind}')}, not a relocatable object file")
        return order

    def _read_sections(self) -> None:
        view = self._view
        fields = _HEADER[self.byte_order].unpack_from(view)
        offset, entry_size, count, names_index = fields[5], fields[10], fields[11], fields[12]
        if offset == 0:
            raise self.error("no section headers")
        if entry_size != _SECTION_SIZE:
            raise self.error(f"section headers of {entry_size} bytes instead of {_SECTION_SIZE}")
        unpacker = _SECTION[self.byte_order]
        if offset + _SECTION_SIZE > len(view):
            raise self._truncated("section headers", offset, max(count, 1) * _SECTION_SIZE)
        if count == 0 or names_index == 0xFFFF:
            first = unpacker.unpack_from(view, offset)  # too many to be counted in 16 bits: elf(5), e_shnum
            count = count or first[5]
            names_index = first[6] if names_index == 0xFFFF else names_index
        if count == 0 or offset + count * _SECTION_SIZE > len(view):
            raise self._truncated("section headers", offset, count * _SECTION_SIZE)
        headers = list(unpacker.iter_unpack(view[offset : offset + count * _SECTION_SIZE]))
        if names_index >= count:
            raise self.error(f"section {names_index} shall hold the names of sections, but there are only {count}")
        names = Section(names_index, "names of sections", headers[names_index])
        strings = bytes(self.content(names))
        sections = self.sections
        for index, header in enumerate(headers):
            sections.append(Section(index, self._string(strings, header[0], f"section {index}"), header))

    def _find_symbols(self) -> None:
        tables = [section for section in self.sections if section.type == SHT_SYMTAB]
        if not tables:
            raise self.error("no symbol table: the file is stripped")
        if len(tables) > 1:
            raise self.error(f"{len(tables)} symbol tables instead of one")
        table = tables[0]
        if table.entry_size != _SYMBOL_SIZE or table.size % _SYMBOL_SIZE:
            raise self.error(f"section {table.name!r}: symbols are not of {_SYMBOL_SIZE} bytes each")
        if not 0 < table.link < len(self.sections):
            raise self.error(f"section {table.name!r}: section {table.link} shall hold its strings, but does not exist")
        self._symbol_data = bytes(self.content(table))
        self._symbol_strings = bytes(self.content(self.sections[table.link]))
        self.symbol_count = table.size // _SYMBOL_SIZE

    def _truncated(self, what: str, offset: int, size: int) -> ObjectError:
        return self.error(f"truncated: {what} at offset {offset} with {size} bytes, the file has {len(self._view)}")

    def _string(self, strings: bytes, offset: int, what: str) -> str:
        end = strings.find(0, offset) if offset < len(strings) else -1
        if end < 0:
            if offset == 0 and not strings:
                return ""
            raise self.error(f"{what}: its name at offset {offset} is outside the string table ({len(strings)} bytes)")
        return strings[offset:end].decode("utf-8", "backslashreplace")

    def content(self, section: Section) -> memoryview:
        """The bytes of a section; none for one that takes no place in the file.

        Raises:
            ObjectError: it reaches over the end of the file, or is compressed.
        """
        if section.type in (SHT_NOBITS, SHT_NULL):
            return self._view[:0]
        if section.flags & SHF_COMPRESSED:
            raise self.error(f"section {section.name!r} is compressed")
        end = section.offset + section.size
        if end > len(self._view):
            raise self._truncated(f"section {section.name!r}", section.offset, section.size)
        return self._view[section.offset : end]

    def text(self, section: Section) -> str:
        """The content of a section as text up to the first NUL."""
        return bytes(self.content(section)).partition(b"\0")[0].decode("utf-8", "backslashreplace")

    def section_name(self, index: int) -> str:
        """What errors call the section of a symbol."""
        if index < len(self.sections):
            return repr(self.sections[index].name)
        return f"number {index:#x}"

    def symbol(self, index: int, what: str) -> Symbol:
        """A symbol by its index. `what` says where the index comes from.

        Raises:
            ObjectError: there is no such symbol.
        """
        symbol = self._symbols.get(index)
        if symbol is not None:
            return symbol
        if index >= self.symbol_count:
            raise self.error(f"{what}: symbol {index} does not exist, there are {self.symbol_count}")
        name, info, other, section, value, size = _SYMBOL[self.byte_order].unpack_from(
            self._symbol_data, index * _SYMBOL_SIZE
        )
        text = self._string(self._symbol_strings, name, f"symbol {index}")
        symbol = Symbol(index, text, info >> 4, info & 15, other & 3, section, value, size)
        self._symbols[index] = symbol
        return symbol

    def symbols(self, *types: int) -> Iterator[Symbol]:
        """All symbols of the given types (STT_...) in order; of any type if none is given. Symbol 0 is left out."""
        kinds = self._symbol_data[4::_SYMBOL_SIZE]
        for index in range(1, self.symbol_count):
            if not types or kinds[index] & 15 in types:
                yield self.symbol(index, "symbol table")

    def relocations(self, section: Section) -> list[tuple[int, int]]:
        """The relocations of a REL section as (offset, index of the symbol), as they stand in the file.

        Raises:
            ObjectError: the section is malformed.
        """
        if section.entry_size != _RELOCATION_SIZE or section.size % _RELOCATION_SIZE:
            raise self.error(f"section {section.name!r}: relocations are not of {_RELOCATION_SIZE} bytes each")
        entries = _RELOCATION[self.byte_order].iter_unpack(self.content(section))
        return [(offset, info >> 32) for offset, info in entries]

    def target(self, section: Section) -> Section:
        """The section that a relocation section is about.

        Raises:
            ObjectError: there is no such section.
        """
        if not 0 < section.info < len(self.sections):
            raise self.error(f"section {section.name!r}: is about section {section.info}, which does not exist")
        return self.sections[section.info]
