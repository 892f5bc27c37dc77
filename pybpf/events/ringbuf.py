"""BPF ring buffers (BPF_MAP_TYPE_RINGBUF, Linux 5.8): `RingBuffer`.

Rules of this module:

* It maps the pages and waits. What the pages mean is `ring`'s, what the bytes mean is the codec's.
* A ring has one consumer position, in the kernel. Two readers of one ring share its records between them, and only
  one of them may read at a time.
* The map's descriptor is duplicated: the reader lives as long as it is open, whatever becomes of the map object.
"""

from __future__ import annotations

from mmap import PAGESIZE

from pybpf.constants import BPF_F_RB_OVERWRITE, BPF_MAP_TYPE_RINGBUF
from pybpf.events.pages import Pages, position_format
from pybpf.events.records import RecordSource
from pybpf.events.ring import OverwriteRing, Ring
from pybpf.maps.base import Map
from pybpf.syscall import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Batch, Decode
    from pybpf.syscall.fd import FdLike


class RingBuffer(RecordSource):
    """Reads the records that programs put into a BPF ring buffer.

    Args:
        map: the ring buffer: a map object or a descriptor. The reader keeps a duplicate.
        decode: what records become. None: `bytes`. A codec (`pybpf.btf.codec.codec`): its values. A callable: what it
            returns for a `memoryview` of the record.
        strict: whether a record that is shorter than the codec's type is an error; otherwise it comes as `bytes`.
        btf: where `of()` finds types by name; by default that of the map.
        drops: gives the program's own count of records that found no room; see `lost`.

    A ring made with BPF_F_RB_OVERWRITE (Linux 6.19) drops its oldest records when it is full; see `overwritten`.
    Otherwise the newest do not fit, and only the program knows, because its bpf_ringbuf_reserve() or
    bpf_ringbuf_output() failed.

    Raises:
        ValueError: the map is of another type.
        BPFError: the kernel refuses the descriptor or the mapping.
    """

    __slots__ = ("_drops", "_pages", "_ring", "name")

    def __init__(
        self,
        map: FdLike,
        *,
        decode: Decode = None,
        strict: bool = True,
        btf: BTF | None = None,
        drops: Callable[[], int | None] | None = None,
    ) -> None:
        self._drops = drops
        self._pages = pages = Pages(FD(duplicate(map)))
        try:
            name, type_number, size, flags = _shape(map, pages.fd)
            if type_number != BPF_MAP_TYPE_RINGBUF:
                raise ValueError(f"map {name!r} is not a ring buffer (its type is {type_number})")
            self.name = name
            consumer = pages.map(PAGESIZE, writable=True)
            producer = pages.map(PAGESIZE + 2 * size, PAGESIZE, writable=False)
            ring_class = OverwriteRing if flags & BPF_F_RB_OVERWRITE else Ring
            data = pages.part(producer, PAGESIZE)
            self._ring = ring_class(consumer, producer, data, word=position_format())
        except BaseException:
            pages.close()
            raise
        try:
            super().__init__(decode, strict, btf or getattr(map, "btf", None), (pages.fd.fileno(),))
        except BaseException:
            self._release(False)
            raise

    def _release(self, inherited: bool) -> None:
        self._ring.release()
        self._pages.close()

    def _available(self) -> int:
        return self._ring.available

    def _scan(self, limit: int, *, copy: bool = True) -> Batch | None:
        return self._ring.scan(limit, copy=copy)

    def __repr__(self) -> str:
        state = "closed" if self._closing else f"{self._ring.size} bytes"
        return f"<RingBuffer {self.name!r}: {state}>"

    def fileno(self) -> int:
        """The map's descriptor, readable while records are there. Raises ClosedError after `close()`."""
        return self._pages.fd.fileno()

    @property
    def size(self) -> int:
        """The ring's size in bytes."""
        return self._ring.size

    @property
    def records(self) -> int:
        """How many records were read."""
        return self._ring.records

    @property
    def bytes(self) -> int:
        """How many bytes of payload were read."""
        return self._ring.payload

    @property
    def discarded(self) -> int:
        """How many records were skipped because the program discarded them."""
        return self._ring.discarded

    @property
    def lost(self) -> int | None:
        """How many records found no room, by the program's own count; None when it keeps none.

        The convention for that count is in `pybpf.events.drops`. Readers of maps of a loaded object know it.
        """
        return None if self._drops is None else self._drops()

    def statistics(self) -> dict[str, int | None]:
        """As of every reader, and ``discarded`` and ``overwritten``."""
        return {**super().statistics(), "discarded": self.discarded, "overwritten": self.overwritten}

    @property
    def overwritten(self) -> int:
        """Bytes of the ring that newer records pushed out before they were read (overwrite mode only)."""
        return self._ring.overwritten

    @property
    def consumer_pos(self) -> int:
        """The position up to which records were read: bytes since the map was made. Raises ClosedError."""
        self._check()
        return self._ring.consumer_pos

    @property
    def producer_pos(self) -> int:
        """The position up to which programs reserved records. Raises ClosedError."""
        self._check()
        return self._ring.producer_pos


def _shape(map: FdLike, fd: FD) -> tuple[str, int, int, int]:
    """Name, type, size and flags: as a map object has them, else as the kernel tells."""
    if isinstance(map, Map):
        return map.name, map.type_number, map.max_entries, map.flags
    from pybpf.syscall import map_info

    info = map_info(fd)
    return info.name, info.type, info.max_entries, info.map_flags
