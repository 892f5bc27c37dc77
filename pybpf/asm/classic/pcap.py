"""Capture files as tcpdump writes them (pcap), read and written.

Source: draft-ietf-opsawg-pcap; libpcap's pcap-savefile(5).
"""

from __future__ import annotations

import sys
from struct import Struct, error

from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
ETHERNET = 1
"""LINKTYPE_ETHERNET."""
SNAPSHOT_LENGTH = 262144
"""tcpdump's own, and the most that a packet of a file may have."""
_PCAPNG = b"\x0a\x0d\x0d\x0a"


class Captured:
    """A packet of a capture. Attributes: time, in seconds since 1970; length, on the wire; data."""

    __slots__ = ("data", "length", "time")

    def __init__(self, time: float, length: int, data: bytes) -> None:
        self.time = time
        self.length = length
        self.data = data

    def __repr__(self) -> str:
        return f"<Captured {self.length} bytes at {self.time:.6f}>"


class Reader:
    """The packets of a capture file, in order, when iterated over. Attributes: link_type, 1 for Ethernet."""

    def __init__(self, file: BinaryIO) -> None:
        """Reads the header.

        Raises:
            ObjectError: it is no capture file.
        """
        self._file = file
        head = file.read(24)
        for order in "<>":
            magic, *_, link_type = Struct(f"{order}IHHiIII").unpack(head.ljust(24, b"\0"))
            if magic in (MICROSECONDS, NANOSECONDS) and len(head) == 24:
                self.link_type: int = link_type & 0xFFFF
                self._fraction = 1e-6 if magic == MICROSECONDS else 1e-9
                self._record = Struct(f"{order}IIII")
                return
        what = "a pcapng file, which is not read here" if head[:4] == _PCAPNG else "no capture file"
        raise ObjectError(f"capture: this is {what} (it begins with {head[:4].hex() or 'nothing'})")

    def __iter__(self) -> Iterator[Captured]:
        number = 0
        while head := self._file.read(self._record.size):
            try:
                seconds, fraction, held, length = self._record.unpack(head)
            except error:
                raise ObjectError(f"capture: packet {number} is cut off in its header") from None
            if held > SNAPSHOT_LENGTH:
                raise ObjectError(f"capture: packet {number} has {held} bytes, more than {SNAPSHOT_LENGTH}")
            data = self._file.read(held)
            if len(data) != held:
                raise ObjectError(f"capture: packet {number} is cut off: {len(data)} of {held} bytes")
            yield Captured(seconds + fraction * self._fraction, length, data)
            number += 1


class Writer:
    """Writes a capture file, whose header is written at once."""

    def __init__(self, file: BinaryIO, link_type: int = ETHERNET) -> None:
        self._file = file
        order = "<" if sys.byteorder == "little" else ">"
        self._record = Struct(f"{order}IIII")
        file.write(Struct(f"{order}IHHiIII").pack(MICROSECONDS, 2, 4, 0, 0, SNAPSHOT_LENGTH, link_type))

    def write(self, packet: Captured) -> None:
        """Append a packet. Raises ObjectError when the format has no room for its time or length."""
        if len(packet.data) > SNAPSHOT_LENGTH:
            raise ObjectError(f"capture: a packet of {len(packet.data)} bytes, more than {SNAPSHOT_LENGTH}")
        try:
            times = divmod(round(packet.time * 1_000_000), 1_000_000)
            head = self._record.pack(*times, len(packet.data), packet.length)
        except (error, ValueError, OverflowError):
            raise ObjectError(f"capture: {packet!r} does not fit: times are 32 bits of seconds from 1970") from None
        self._file.write(head + packet.data)
