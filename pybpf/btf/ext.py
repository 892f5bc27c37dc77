"""`.BTF.ext`: what belongs to instructions: functions' types, source lines, CO-RE relocations.

Rules of this file:

* Records are given as they lie in the file, in host byte order; their first word is an instruction offset in **bytes**
  from the start of the ELF section. Records may be longer than the fields known here.
* Whatever is wrong raises `BTFError`; a loader may then go on without the section, as libbpf does.

Source: Documentation/bpf/btf.rst (".BTF.ext section"), libbpf's btf_ext_parse().
"""

from __future__ import annotations

import struct
import sys
from _bisect import bisect_left  # the built-in part of `bisect`

from pybpf.btf.layout import MAGIC, VERSION
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.btf.layout import Buffer
    from pybpf.btf.reader import BTF

HEADER_SIZE = 24
HEADER_SIZE_WITH_CORE = 32
FUNC_INFO_SIZE = 8
"""Bytes of `struct bpf_func_info`: insn_off, type_id."""
LINE_INFO_SIZE = 16
"""Bytes of `struct bpf_line_info`: insn_off, file_name_off, line_off, line_col (line << 10 | column)."""
CORE_RELO_SIZE = 16
"""Bytes of `struct bpf_core_relo`: insn_off, type_id, access_str_off, kind."""


class Records:
    """The records of one ELF section.

    Attributes:
        record_size: in bytes, a multiple of 4.
        data: all records, in host byte order. Threads share them, see `pybpf.btf.layout.numbers`.
        count: how many there are.
    """

    __slots__ = ("_offsets", "_sorted", "count", "data", "record_size")

    def __init__(self, record_size: int, data: bytes) -> None:
        self.record_size = record_size
        self.data = data
        self.count = len(data) // record_size
        self._offsets: tuple[int, ...] | None = None
        self._sorted = False

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"<Records {self.count} of {self.record_size} bytes>"

    @property
    def offsets(self) -> tuple[int, ...]:
        """The instruction offset in bytes of each record, in file order."""
        if self._offsets is None:
            self._offsets = tuple(self.column(0))
            self._sorted = self._offsets == tuple(sorted(self._offsets))
        return self._offsets

    def column(self, number: int) -> list[int]:
        """One 32-bit field of every record."""
        found: list[int] = memoryview(self.data).cast("I")[number :: self.record_size // 4].tolist()
        return found

    def part(self, start_byte: int, end_byte: int) -> Records:
        """The records whose instruction offset is in [start_byte, end_byte), in file order."""
        offsets, size = self.offsets, self.record_size
        if self._sorted:
            first = bisect_left(offsets, start_byte)
            last = bisect_left(offsets, end_byte, first)
            return Records(size, self.data[first * size : last * size])
        chosen = [
            self.data[index * size : (index + 1) * size]
            for index, offset in enumerate(offsets)
            if start_byte <= offset < end_byte
        ]
        return Records(size, b"".join(chosen))

    def slice(self, start_byte: int, end_byte: int) -> bytes:
        """The bytes of `part()`."""
        return self.part(start_byte, end_byte).data

    def in_order(self) -> Records:
        """The records sorted by instruction offset; those of one instruction stay in file order."""
        if self.offsets and not self._sorted:
            rows = sorted(self.rows(), key=_offset_of)
            return Records(self.record_size, struct.pack(f"={len(self.data) // 4}I", *sum(rows, ())))
        return self

    def rows(self) -> Iterator[tuple[int, ...]]:
        """Each record as a tuple of its 32-bit fields."""
        return struct.iter_unpack(f"={self.record_size // 4}I", self.data)


def _offset_of(row: tuple[int, ...]) -> int:
    return row[0]


class BTFExt:
    """A parsed `.BTF.ext` section.

    Attributes:
        data: the raw section.
        func_info, line_info, core: ELF section name -> its records.
    """

    __slots__ = ("core", "data", "func_info", "line_info")

    def __init__(self, data: bytes, btf: BTF) -> None:
        total = len(data)
        if total < HEADER_SIZE:
            raise BTFError(f".BTF.ext header: {total} bytes are too few")
        order = "<" if btf.byte_order == "little" else ">"
        magic, version, _flags, length = struct.unpack_from(f"{order}HBBI", data)
        if magic != MAGIC:
            raise BTFError(f".BTF.ext header: bad magic {data[:2].hex()} for {btf.byte_order}-endian BTF")
        if version != VERSION:
            raise BTFError(f".BTF.ext header: version {version} is not supported")
        if not HEADER_SIZE <= length <= total or length % 4:
            raise BTFError(f".BTF.ext header: bad hdr_len {length} of {total} bytes")
        fields = struct.unpack_from(f"{order}{6 if length >= HEADER_SIZE_WITH_CORE else 4}I", data, 8)
        self.data = data
        self.func_info = _area("func_info", data, btf, length, fields[0], fields[1], FUNC_INFO_SIZE)
        self.line_info = _area("line_info", data, btf, length, fields[2], fields[3], LINE_INFO_SIZE)
        self.core: dict[str, Records] = {}
        if len(fields) == 6:
            self.core = _area("core_relo", data, btf, length, fields[4], fields[5], CORE_RELO_SIZE)

    @classmethod
    def from_bytes(cls, data: Buffer, btf: BTF) -> BTFExt:
        """Parse the section; `btf` is the object's `.BTF`, which holds the strings. Raises BTFError."""
        return cls(bytes(data), btf)

    def __repr__(self) -> str:
        parts = ((self.func_info, "func_info"), (self.line_info, "line_info"), (self.core, "core"))
        counts = (f"{sum(map(len, area.values()))} {name}" for area, name in parts)
        return f"<BTFExt {', '.join(counts)}>"


def _area(what: str, data: bytes, btf: BTF, header: int, offset: int, length: int, minimum: int) -> dict[str, Records]:
    """One of the three areas: a record size, then for each ELF section its name, a count and the records."""
    if length == 0:
        return {}
    start = header + offset
    if offset % 4 or length % 4 or start + length > len(data):
        raise BTFError(f".BTF.ext {what}: bad area {offset}+{length}")
    view = memoryview(data)[start : start + length]
    if btf.byte_order != sys.byteorder:
        from array import array

        words = array("I", view.tobytes())
        words.byteswap()
        view = memoryview(words.tobytes())
    numbers = view.cast("I")
    size = numbers[0]
    if size < minimum or size % 4:
        raise BTFError(f".BTF.ext {what}: bad record size {size}")
    if btf.byte_order != sys.byteorder and size != minimum:
        raise BTFError(f".BTF.ext {what}: record size {size} in a foreign byte order")
    found: dict[str, list[memoryview]] = {}
    at = 4
    while at < length:
        if at + 8 > length:
            raise BTFError(f".BTF.ext {what}: a section header is cut off at {at}")
        name = btf.string(numbers[at // 4])
        count = numbers[at // 4 + 1]
        end = at + 8 + count * size
        if count == 0 or end > length:
            raise BTFError(f".BTF.ext {what}: section {name!r} at {at} has a bad count {count}")
        found.setdefault(name, []).append(view[at + 8 : end])
        at = end
    if not found:
        raise BTFError(f".BTF.ext {what}: no records")
    return {name: Records(size, b"".join(parts)) for name, parts in found.items()}
