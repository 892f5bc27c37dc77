"""The memory of the simulated kernel: regions at made-up addresses, every access checked.

Rules of this module:

* A pointer is a number, as on a real machine. Regions lie far apart, so a pointer that runs out of one hits nothing.
* What the verifier would forbid is a `SimulationError`: an access outside a region, a write to one that is read-only,
  an access to memory that was given back.
* Numbers are unsigned, in the byte order of the simulated machine.
"""

from __future__ import annotations

from bisect import bisect_right

from pybpf.errors import SimulationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    ByteOrder = Literal["little", "big"]

FIRST_ADDRESS = 0xFFFF_8880_0000_0000
"""Where the first region begins. Addresses look like those of a 64-bit kernel, so that no small number is one."""
_PAGE = 4096


class Region:
    """A piece of memory.

    Attributes:
        title: what it is, for messages: ``"stack"``, ``"value of map 'counts'"``.
        data: its bytes.
        base: the address of the first, set when it is mapped.
        writable: whether programs may write to it.
        stride: when it is not 0, the region is a table: no access may cross a multiple of it ...
        element: ... or go beyond so many bytes behind one.
    """

    __slots__ = ("base", "data", "element", "stride", "title", "writable")

    def __init__(
        self, title: str, data: bytearray, *, writable: bool = True, stride: int = 0, element: int = 0
    ) -> None:
        self.title = title
        self.data = data
        self.base = 0
        self.writable = writable
        self.stride = stride
        self.element = element

    def __len__(self) -> int:
        return len(self.data)

    @property
    def origin(self) -> int:
        """Where people count from when they name a place in it."""
        return len(self.data) if self.title.startswith("stack") else 0

    def __repr__(self) -> str:
        return f"<Region {self.title}: {len(self.data)} bytes at {self.base:#x}>"

    def check(self, offset: int, size: int) -> None:
        """Raises SimulationError when the bytes are not all there."""
        within, limit = (offset % self.stride, self.element) if self.stride else (offset, len(self.data))
        if offset < 0 or within + size > limit or offset + size > len(self.data):
            raise SimulationError(f"{size} bytes at {self.title} {_signed(within)}, which has {limit} bytes")

    def load(self, offset: int, size: int, byte_order: ByteOrder) -> int:
        self.check(offset, size)
        return int.from_bytes(self.data[offset : offset + size], byte_order)

    def store(self, offset: int, size: int, value: int, byte_order: ByteOrder) -> None:
        if not self.writable:
            raise SimulationError(f"a write to {self.title} {_signed(offset)}, which is read-only")
        self.check(offset, size)
        self.data[offset : offset + size] = value.to_bytes(size, byte_order)


class Handle(Region):
    """Something that programs hold a pointer to and must not look into: a map, a socket."""

    __slots__ = ("thing",)

    def __init__(self, title: str, thing: object) -> None:
        super().__init__(title, bytearray(), writable=False)
        self.thing = thing

    def check(self, offset: int, size: int) -> None:
        raise SimulationError(f"an access to {self.title} itself")


class Memory:
    """All regions of one simulated kernel."""

    def __init__(self, byte_order: ByteOrder) -> None:
        self.byte_order: ByteOrder = byte_order
        self._bases: list[int] = []
        self._regions: list[Region] = []
        self._next = FIRST_ADDRESS

    def map(self, region: Region, room: int = 0) -> Region:
        """Give a region an address. `room` is for one that may grow: so many bytes stay free behind it."""
        region.base = self._next
        self._bases.append(region.base)
        self._regions.append(region)
        self._next += -(-max(len(region), room, 1) // _PAGE) * _PAGE + _PAGE
        return region

    def unmap(self, region: Region) -> None:
        """Take a region away: whoever uses a pointer to it from now on gets an error."""
        index = bisect_right(self._bases, region.base) - 1
        if index >= 0 and self._regions[index] is region:
            del self._bases[index], self._regions[index]

    def find(self, address: int) -> tuple[Region, int] | None:
        """The region that an address is in or just behind, and how far from its beginning."""
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        region = self._regions[index]
        offset = address - region.base
        return (region, offset) if offset <= len(region) else None

    def at(self, address: int) -> tuple[Region, int]:
        """Like `find`. Raises SimulationError when nothing is there."""
        found = self.find(address)
        if found is None:
            raise SimulationError(f"an access to {address:#x}, where nothing is")
        return found

    def load(self, address: int, size: int) -> int:
        region, offset = self.at(address)
        return region.load(offset, size, self.byte_order)

    def store(self, address: int, size: int, value: int) -> None:
        region, offset = self.at(address)
        region.store(offset, size, value, self.byte_order)

    def read(self, address: int, size: int) -> bytes:
        """Bytes for a helper. Raises SimulationError."""
        if size == 0:
            return b""
        region, offset = self.at(address)
        region.check(offset, size)
        return bytes(region.data[offset : offset + size])

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Bytes from a helper. Raises SimulationError."""
        if not data:
            return
        region, offset = self.at(address)
        if not region.writable:
            raise SimulationError(f"a write to {region.title} {_signed(offset)}, which is read-only")
        region.check(offset, len(data))
        region.data[offset : offset + len(data)] = data

    def clear(self, address: int, size: int) -> None:
        """Zeros from a helper. Raises SimulationError, however many there would be."""
        self.read(address, size)
        self.write(address, bytes(size))

    def read_text(self, address: int, limit: int) -> bytes:
        """The bytes up to a NUL, which is not among them, or up to the end of the region or the limit."""
        region, offset = self.at(address)
        if isinstance(region, Handle):
            region.check(offset, 1)
        return bytes(region.data[offset : offset + limit]).partition(b"\0")[0]

    def thing(self, address: int) -> object:
        """What the handle at an address stands for. Raises SimulationError when there is none."""
        found = self.find(address)
        if found is None or not isinstance(found[0], Handle) or found[1]:
            raise SimulationError(f"{address:#x} is no pointer to a map or another object")
        return found[0].thing

    def describe(self, value: int) -> str:
        """What a number may be a pointer to, in words; empty when it is just a number."""
        found = self.find(value)
        if found is None:
            return ""
        region, offset = found
        return region.title if isinstance(region, Handle) else f"{region.title} {_signed(offset - region.origin)}"


def _signed(offset: int) -> str:
    return f"{offset:+d}"
