"""A struct of the kernel's interface in a buffer, its fields by name.

It is used for union bpf_attr (one layout per command), for the info structs, and for struct perf_event_attr. The
places of the fields are generated (`attrs.py`). Everything starts as zero, as the kernel wants it.
"""

from __future__ import annotations

import struct
import sys
from _operator import index  # the built-in part of `operator`, which takes 0.2 ms to import

from pybpf.syscall.attrs import BITS, LAYOUTS, OCTETS, SIGNED, SIZES, TEXT
from pybpf.syscall.door import pointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pybpf.syscall.door import Buffer

_NONE: tuple[str, ...] = ()
_PACK_INTO = {size: struct.Struct(f"={code}").pack_into for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}


class Record:
    """One struct.

    Attributes:
        title: its name in `attrs.LAYOUTS`: a command ("BPF_MAP_CREATE") or a struct ("bpf_map_info").
        data: its bytes.
        buffers: field name -> the buffer that the field points to.
    """

    __slots__ = ("_alive", "_layout", "buffers", "data", "title")

    def __init__(self, title: str, size: int = 0) -> None:
        self.title = title
        self.data = bytearray(size or SIZES[title])
        self.buffers: dict[str, Buffer] = {}
        self._layout = LAYOUTS[title]
        self._alive: list[object] = []

    def put(self, **fields: int) -> None:
        """Set fields by name. A field whose name has a dot is set with `record["a.b"] = value`.

        Raises:
            ValueError: the number does not fit the field.
            TypeError: it is no integer.
        """
        layout, data = self._layout, self.data
        has_bits = self.title in BITS
        value: Any
        for name, value in fields.items():
            if value:
                if value.__class__ is not int:
                    value = self._integer(name, value)
                if has_bits or value < 0:
                    self[name] = value
                    continue
                offset, size = layout[name]
                try:
                    _PACK_INTO[size](data, offset, value)
                except struct.error:
                    raise ValueError(f"{self.title}: {name} = {value} does not fit into {size} bytes") from None
            elif value is None:
                self._integer(name, value)

    def _integer(self, name: str, value: Any) -> int:
        try:
            return index(value)
        except TypeError:
            raise TypeError(f"{self.title}: {name} takes an integer, not {value!r}") from None

    def __setitem__(self, name: str, value: int) -> None:
        offset, size = self._layout[name]
        bits = BITS.get(self.title, {}).get(name)
        if bits is not None:
            self._put_bits(name, value, offset, size, *bits)
            return
        # -1 is what "no descriptor" and "no process" look like, also where the header says __u32.
        signed = value < 0 and (name.endswith(("fd", "pid")) or name in SIGNED.get(self.title, _NONE))
        try:
            self.data[offset : offset + size] = value.to_bytes(size, sys.byteorder, signed=signed)
        except OverflowError:
            raise ValueError(f"{self.title}: {name} = {value} does not fit into {size} bytes") from None

    def _put_bits(self, name: str, value: int, offset: int, size: int, first: int, width: int) -> None:
        if not 0 <= value < 1 << width:
            raise ValueError(f"{self.title}: {name} = {value} does not fit into {width} bits")
        shift = _shift(size, first, width)
        unit = int.from_bytes(self.data[offset : offset + size], sys.byteorder)
        unit = unit & ~(((1 << width) - 1) << shift) | value << shift
        self.data[offset : offset + size] = unit.to_bytes(size, sys.byteorder)

    def __getitem__(self, name: str) -> int:
        offset, size = self._layout[name]
        signed = name in SIGNED.get(self.title, _NONE)
        return int.from_bytes(self.data[offset : offset + size], sys.byteorder, signed=signed)

    def point(self, name: str, buffer: Buffer | None) -> None:
        """Let a field point to a buffer, which is kept alive; None and empty buffers are a null pointer."""
        if buffer is None or not len(buffer):
            return
        address, alive = pointer(buffer)
        _PACK_INTO[8](self.data, self._layout[name][0], address)
        self.keep(alive)
        self.buffers[name] = buffer

    def keep(self, alive: object) -> None:
        """Hold an object as long as this record lives."""
        self._alive.append(alive)

    def release(self) -> None:
        """Let go of all buffers: a bytearray cannot be resized before, and a traceback may hold this record."""
        self._alive.clear()

    def text(self, name: str, value: str) -> None:
        """Set a name.

        Raises:
            ValueError: it is too long for the field, or has characters outside ASCII or a NUL.
            TypeError: it is no str.
        """
        offset, size = self._layout[name]
        if not isinstance(value, str):
            raise TypeError(f"{self.title}: {name} takes a str, not {value!r}")
        try:
            data = value.encode("ascii")
        except UnicodeEncodeError:
            raise ValueError(f"{self.title}: {name} {value!r} is not ASCII") from None
        if len(data) >= size or b"\0" in data:
            raise ValueError(f"{self.title}: {name} {value!r} has more than {size - 1} characters, or a NUL")
        self.data[offset : offset + len(data)] = data


def pack(code: str, values: Sequence[int]) -> bytes:
    """Numbers as an array in memory; the codes are those of `struct`: i, I, Q, and L for unsigned long.

    Raises:
        ValueError: a number does not fit.
    """
    try:
        return struct.pack(f"@{len(values)}{code}", *values)
    except struct.error as error:
        raise ValueError(f"numbers that do not fit: {error}") from None


def unpack(code: str, data: Buffer) -> list[int]:
    """The numbers of an array in memory."""
    view: Any = memoryview(data).cast("B")  # the types of memoryview.cast know literal codes only
    return list(view.cast(code))


def _shift(size: int, first: int, width: int) -> int:
    """How far a bit-field is shifted within its unit: C counts from the other end on big-endian machines."""
    return first if sys.byteorder == "little" else 8 * size - first - width


def decode(title: str, data: bytes | bytearray) -> dict[str, int | str | bytes]:
    """The fields of a struct by name: numbers, names as str, arrays as bytes.

    Fields past the end of `data` are left out.
    """
    fields: dict[str, int | str | bytes] = {}
    text, octets, signed = TEXT.get(title, _NONE), OCTETS.get(title, _NONE), SIGNED.get(title, _NONE)
    bits = BITS.get(title, {})
    for name, (offset, size) in LAYOUTS[title].items():
        raw = data[offset : offset + size]
        if len(raw) < size:
            continue
        if name in text:
            fields[name] = bytes(raw).partition(b"\0")[0].decode("utf-8", "replace")
        elif name in octets:
            fields[name] = bytes(raw)
        else:
            value = int.from_bytes(raw, sys.byteorder, signed=name in signed)
            if name in bits:
                first, width = bits[name]
                value = value >> _shift(size, first, width) & (1 << width) - 1
            fields[name] = value
    return fields
