"""Source lines of instructions: which line of C, its file, column and text. The text comes along: no file is read.

Source: struct bpf_line_info of linux/bpf.h; Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from _bisect import bisect_right  # the built-in part of `bisect`

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybpf.btf.layout import Buffer
    from pybpf.btf.reader import BTF

COLUMN_BITS = 10
"""A record's last word is ``line << 10 | column`` (BPF_LINE_INFO_LINE_COL)."""


class Line:
    """A line of source.

    Attributes:
        file: its name as the compiler was given it.
        number, column: from 1; 0 is unknown.
        text: the line as it stands there, with its indentation; may be empty.
    """

    __slots__ = ("column", "file", "number", "text")

    def __init__(self, file: str, number: int, column: int, text: str) -> None:
        self.file = file
        self.number = number
        self.column = column
        self.text = text

    @property
    def location(self) -> str:
        """``file:line:column``."""
        return f"{self.file}:{self.number}:{self.column}"

    def __repr__(self) -> str:
        return f"<Line {self.location}: {self.text.strip()}>"


class Lines:
    """The line information of one program or section.

    Args:
        btf: holds the strings.
        records: records of `struct bpf_line_info` in host byte order.
        record_size: bytes of one, at least 16.
        unit: what the records' first word counts: 1 for instructions, as BPF_PROG_LOAD and struct bpf_prog_info have
            it; 8 for bytes, as .BTF.ext has it.
    """

    __slots__ = ("_btf", "_indices", "_rows")

    def __init__(self, btf: BTF, records: Buffer, record_size: int, *, unit: int = 1) -> None:
        self._btf = btf
        rows = struct.iter_unpack(f"={record_size // 4}I", records) if records else ()
        self._rows = sorted((row[0] // unit, number, row) for number, row in enumerate(rows))
        self._indices = [index for index, _, _ in self._rows]

    def at(self, index: int, first: int = 0) -> Line | None:
        """The line that an instruction comes from; None when that is not known.

        Args:
            index: the instruction.
            first: lines of instructions before this one do not count: where the function begins.

        Raises:
            BTFError: the record names a string that is not there.
        """
        place = bisect_right(self._indices, index) - 1
        return self._line(place) if place >= 0 and self._indices[place] >= first else None

    def __iter__(self) -> Iterator[tuple[int, Line]]:
        """Each record: (index of the first instruction that the line is of, the line), in order."""
        for place, index in enumerate(self._indices):
            yield index, self._line(place)

    def __len__(self) -> int:
        return len(self._rows)

    def _line(self, place: int) -> Line:
        return line_of(self._btf, self._rows[place][2])


def line_of(btf: BTF, record: Sequence[int]) -> Line:
    """The line of one record, whose first word is the place that it is about.

    Raises:
        BTFError: it names a string that is not there.
    """
    file, text, position = record[1:4]
    number, column = position >> COLUMN_BITS, position & (1 << COLUMN_BITS) - 1
    return Line(btf.string(file), number, column, btf.string(text))
