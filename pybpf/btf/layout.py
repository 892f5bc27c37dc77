"""Where things lie in raw BTF: the header, the size of each kind, and the walk over the types.

Rules of this file:

* Everything in the type section is a 32-bit word, so positions are word indexes and a foreign byte order is undone by
  swapping the whole section once.
* The header is checked here, completely, before anything else is looked at.

Source: include/uapi/linux/btf.h, Documentation/bpf/btf.rst; the layout section is new in kernel 7.x.
"""

from __future__ import annotations

import struct
import sys

from pybpf.btf.kinds import (
    KIND_ARRAY,
    KIND_DATASEC,
    KIND_DECL_TAG,
    KIND_ENUM,
    KIND_ENUM64,
    KIND_FUNC_PROTO,
    KIND_INT,
    KIND_MAX,
    KIND_STRUCT,
    KIND_UNION,
    KIND_VAR,
)
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence
    from mmap import mmap

    Words = array[int] | memoryview
    Positions = array[int] | list[int] | tuple[int, ...]
    Buffer = bytes | bytearray | memoryview | mmap

MAGIC = 0xEB9F
VERSION = 1
HEADER_SIZE = 24
HEADER_SIZE_WITH_LAYOUT = 32
TYPE_WORDS = 3
"""Words of `struct btf_type`: name_off, info, size or type."""
MANY_WORDS = 1 << 18
"""From here on, positions are kept in an array. Below, a list will do: importing `array` costs 1.3 ms."""

INFO_WORDS = [0] * 128
"""Words that follow a type of each kind, whatever its vlen."""
ELEMENT_WORDS = [0] * 128
"""Words that follow a type of each kind for each of its vlen elements."""
for _kind, _words in ((KIND_INT, 1), (KIND_ARRAY, 3), (KIND_VAR, 1), (KIND_DECL_TAG, 1)):
    INFO_WORDS[_kind] = _words
for _kind, _words in (
    (KIND_STRUCT, 3),
    (KIND_UNION, 3),
    (KIND_ENUM, 2),
    (KIND_FUNC_PROTO, 2),
    (KIND_DATASEC, 3),
    (KIND_ENUM64, 3),
):
    ELEMENT_WORDS[_kind] = _words


def info_kind(info: int) -> int:
    return info >> 24 & 0x7F


def info_vlen(info: int) -> int:
    return info & 0xFFFFFF


def pack_info(kind: int, vlen: int = 0, kind_flag: bool = False) -> int:
    return kind_flag << 31 | kind << 24 | vlen


class Header:
    """The checked header of raw BTF. Positions are in bytes from the start of the data.

    Attributes:
        byte_order: ``"little"`` or ``"big"``.
        length: hdr_len. flags: 0 in all BTF known today.
        types, types_end, strings, strings_end, layout, layout_end: the sections; an absent layout is (0, 0).
        extended: the header has non-zero bytes that this reader does not know: readable, but not to be rewritten.
    """

    __slots__ = (
        "byte_order",
        "extended",
        "flags",
        "layout",
        "layout_end",
        "length",
        "strings",
        "strings_end",
        "types",
        "types_end",
    )

    def __init__(self, data: Buffer, split: bool) -> None:
        """Parse and check; `split` relaxes what is asked of the string section. Raises BTFError."""
        total = len(data)
        if total < HEADER_SIZE:
            raise BTFError(f"BTF header: {total} bytes are too few")
        magic = bytes(data[:2])
        if magic == b"\x9f\xeb":
            self.byte_order = "little"
        elif magic == b"\xeb\x9f":
            self.byte_order = "big"
        else:
            raise BTFError(f"BTF header: bad magic {magic.hex()}")
        order = "<" if self.byte_order == "little" else ">"
        version, flags, length, type_off, type_len, str_off, str_len = struct.unpack_from(f"{order}BBIIIII", data, 2)
        if version != VERSION:
            raise BTFError(f"BTF header: version {version} is not supported")
        if not HEADER_SIZE <= length <= total:
            raise BTFError(f"BTF header: bad hdr_len {length} of {total} bytes")
        layout_off = layout_len = 0
        if length >= HEADER_SIZE_WITH_LAYOUT:
            layout_off, layout_len = struct.unpack_from(f"{order}II", data, HEADER_SIZE)
            known = HEADER_SIZE_WITH_LAYOUT
        else:
            known = HEADER_SIZE
        rest = total - length
        if str_off + str_len > rest:
            raise BTFError(f"BTF header: string section {str_off}+{str_len} is beyond the data")
        if type_off % 4 or type_len % 4 or type_off + type_len > str_off:
            raise BTFError(f"BTF header: bad type section {type_off}+{type_len}")
        if layout_len and (
            layout_off % 4 or layout_len % 4 or layout_off < type_off + type_len or layout_off + layout_len > str_off
        ):
            raise BTFError(f"BTF header: bad layout section {layout_off}+{layout_len}")
        self.length = length
        self.flags = flags
        self.types = length + type_off
        self.types_end = self.types + type_len
        self.strings = length + str_off
        self.strings_end = self.strings + str_len
        self.layout = length + layout_off if layout_len else 0
        self.layout_end = self.layout + layout_len
        self.extended = any(bytes(data[known:length]))
        if (str_len and data[self.strings_end - 1]) or not (str_len or split):
            raise BTFError("BTF strings: the section does not end in NUL")
        if not split and data[self.strings]:
            raise BTFError("BTF strings: the section does not start with NUL")


def host_words(data: Buffer, start: int, end: int, byte_order: str) -> Words:
    """The 32-bit words of data[start:end] in host order: a view of the data unless they have to be swapped."""
    if byte_order == sys.byteorder:
        return memoryview(data)[start:end].cast("I")
    from array import array

    words = array("I", bytes(data[start:end]))
    words.byteswap()
    return words


def numbers(words: Words, start: int, stop: int) -> tuple[int, ...]:
    """Some of the words, as ``words[start:stop]`` would give them.

    Threads share the words of a kernel. In free-threaded Python a memoryview that two of them slice at once may be
    released for all: the views of a buffer are not counted atomically (mbuf_add_view() in Objects/memoryobject.c, 3.13
    to 3.15). `struct` looks at the memory without a view.
    """
    found: tuple[int, ...] = struct.unpack_from(f"={stop - start}I", words, 4 * start)
    return found


class Steps(dict[int, int]):
    """info word -> words that the type takes. Filled as info words are met: a whole kernel has some 300 of them."""

    __slots__ = ("_layout",)

    def __init__(self, layout: bytes = b"") -> None:
        super().__init__()
        self._layout = layout

    def __missing__(self, info: int) -> int:
        kind = info_kind(info)
        if 0 < kind <= KIND_MAX:
            words = TYPE_WORDS + INFO_WORDS[kind] + ELEMENT_WORDS[kind] * info_vlen(info)
        else:
            words = self._unknown(kind, info_vlen(info))
        self[info] = words
        return words

    def _unknown(self, kind: int, vlen: int) -> int:
        entry = self._layout[kind * 4 : kind * 4 + 2]
        if kind == 0 or len(entry) < 2:
            raise BTFError(f"BTF types: unknown kind {kind}")
        if entry[0] % 4 or entry[1] % 4:
            raise BTFError(f"BTF layout: kind {kind} has sizes {entry[0]} and {entry[1]}, not multiples of 4")
        return TYPE_WORDS + entry[0] // 4 + entry[1] // 4 * vlen


def walk(infos: Sequence[int], steps: Steps, positions: Positions = (0,)) -> Positions:
    """The word indexes of types, continued from the last of `positions` to the end of `infos`. Raises BTFError.

    `infos` is the type section without its first word, so that ``infos[position]`` is the info word of the type at
    `position`. The loop is written out because it is the price of opening a kernel's BTF without an index.
    """
    position = positions[-1]
    walked = _growing(positions, len(infos))
    append = walked.append
    try:
        while True:
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
            position += steps[infos[position]]
            append(position)
    except IndexError:
        pass
    except BTFError as error:
        raise BTFError(f"{error} (type id {len(walked)} of its section, word {position})") from None
    return walked


def _growing(positions: Positions, words: int) -> list[int] | array[int]:
    if words < MANY_WORDS:
        return list(positions)
    from array import array

    return array("I", positions)
