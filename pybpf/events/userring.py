"""User ring buffers (BPF_MAP_TYPE_USER_RINGBUF, Linux 6.1): user space writes, a program reads.

Rules of this module:

* One writer at a time moves the producer position: a lock sees to it. Several samples may be reserved at once; the
  program sees them in the order of their reservation, and waits for the first one not submitted.
* A header word is stored whole, behind a barrier, after the payload: the kernel never sees half a sample.
"""

from __future__ import annotations

from _thread import RLock
from mmap import PAGESIZE
from select import EPOLLOUT
from time import monotonic

from pybpf.constants import BPF_MAP_TYPE_USER_RINGBUF
from pybpf.events.pages import Pages, position_format
from pybpf.events.ring import BUSY, DISCARD
from pybpf.events.waiting import Waitable
from pybpf.syscall import FD, duplicate, map_info
from pybpf.syscall.memory import barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from pybpf.events.ring import Word
    from pybpf.syscall.fd import FdLike

_HEADER = 8
_PAUSE = 0.001
"""Seconds between two looks at a ring that has room, but too little."""


class ProducerRing:
    """The producer's side of the pages: pure, memory in, memory out.

    Args:
        consumer: the consumer page.
        producer: the producer page, writable.
        data: the data area, writable, mapped twice in a row.
        word: the format of a position.
    """

    __slots__ = ("_consumer", "_data", "_headers", "_producer", "_wrap", "size")

    def __init__(self, consumer: memoryview, producer: memoryview, data: memoryview, *, word: Word = "Q") -> None:
        self.size = len(data) // 2
        self._consumer = consumer[:8].cast(word)
        self._producer = producer[:8].cast(word)
        self._data = data
        self._headers = data.cast("I")
        self._wrap = (1 << 8 * self._consumer.itemsize) - 1

    @property
    def free(self) -> int:
        """Bytes not in use."""
        return self.size - ((self._producer[0] - self._consumer[0]) & self._wrap)

    def extent(self, size: int) -> int:
        """What a sample of `size` bytes takes. Raises ValueError when no ring, or not this one, can hold it."""
        extent = (size + _HEADER + 7) & ~7
        if not 0 <= size < DISCARD or extent > self.size:
            raise ValueError(f"a sample of {size} bytes does not fit a user ring buffer of {self.size} bytes")
        return extent

    def prepare(self, size: int) -> tuple[int, memoryview] | None:
        """The header of the next sample, for `publish()`: where it is, and the payload. None: no room now."""
        if self.free < self.extent(size):
            return None
        offset = self._producer[0] & (self.size - 1)
        self._headers[(offset >> 2) + 1] = 0
        self._headers[offset >> 2] = size | BUSY
        return offset, self._data[offset + _HEADER : offset + _HEADER + size]

    def publish(self, size: int) -> None:
        """Reserve the prepared sample."""
        barrier()
        self._producer[0] = (self._producer[0] + self.extent(size)) & self._wrap

    def finish(self, offset: int, *, discard: bool) -> None:
        """Submit or discard the sample whose header is there."""
        word = self._headers[offset >> 2] & ~BUSY
        barrier()
        self._headers[offset >> 2] = word | DISCARD if discard else word

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self._headers, self._consumer, self._producer):
            view.release()


class Reservation:
    """Room for one sample. Fill `data`, then `submit()` or `discard()`.

    As a context manager it gives `data`, submits at the end, and discards when an exception leaves the block::

        with ring.reserve(16) as data:
            data[:] = sample

    After that `data` is released: any use raises ValueError.
    """

    __slots__ = ("_finished", "_offset", "_ring", "data")

    def __init__(self, ring: UserRingBuffer, offset: int, data: memoryview) -> None:
        self._ring = ring
        self._offset = offset
        self._finished = False
        self.data = data

    def submit(self) -> None:
        """Hand the sample to the program. Raises ValueError when it was submitted or discarded already."""
        self._finish(discard=False)

    def discard(self) -> None:
        """Give it up; the program will not see it. Raises ValueError when it was submitted or discarded already."""
        self._finish(discard=True)

    def _finish(self, *, discard: bool) -> None:
        if self._finished:
            raise ValueError("the sample was submitted or discarded already")
        self._ring._finish(self, self._offset, discard)

    def end(self) -> None:
        """Take `data` back from the user. `UserRingBuffer` calls it."""
        self._finished = True
        self.data.release()

    def __enter__(self) -> memoryview:
        return self.data

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._finished:
            self._finish(discard=kind is not None)


class UserRingBuffer(Waitable):
    """Writes samples that a program takes with bpf_user_ringbuf_drain().

    Closing discards what is reserved and not submitted.

    Args:
        map: the user ring buffer: a map object or a descriptor. A duplicate is kept.

    Raises:
        ValueError: the map is of another type.
        BPFError: the kernel refuses the descriptor or the mapping.
    """

    __slots__ = ("_lock", "_open", "_pages", "_reserving", "_ring", "name")

    def __init__(self, map: FdLike) -> None:
        self._lock = RLock()
        self._reserving = False
        self._open: dict[Reservation, int] = {}
        self._pages = pages = Pages(FD(duplicate(map)))
        try:
            info = map_info(pages.fd)
            if info.type != BPF_MAP_TYPE_USER_RINGBUF:
                raise ValueError(f"map {info.name!r} is not a user ring buffer (its type is {info.type})")
            self.name: str = info.name
            consumer = pages.map(PAGESIZE, writable=False)
            producer = pages.map(PAGESIZE + 2 * info.max_entries, PAGESIZE, writable=True)
            self._ring = ProducerRing(consumer, producer, pages.part(producer, PAGESIZE), word=position_format())
        except BaseException:
            pages.close()
            raise
        try:
            super().__init__((pages.fd.fileno(),), EPOLLOUT)
        except BaseException:
            self._release(False)
            raise

    def _release(self, inherited: bool) -> None:
        while self._open:
            reservation, offset = self._open.popitem()
            if not inherited:
                self._ring.finish(offset, discard=True)
            reservation.end()
        self._ring.release()
        self._pages.close()

    def __repr__(self) -> str:
        return f"<UserRingBuffer {self.name!r}: {'closed' if self._closing else f'{self._ring.size} bytes'}>"

    def fileno(self) -> int:
        """The map's descriptor, writable while the ring is not full. Raises ClosedError after `close()`."""
        return self._pages.fd.fileno()

    @property
    def size(self) -> int:
        """The ring's size in bytes."""
        return self._ring.size

    @property
    def free(self) -> int:
        """Bytes not in use; a sample takes 8 more than its size, rounded up to 8. Raises ClosedError."""
        self._check()
        return self._ring.free

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = 0) -> None:
        """Reserve, fill and submit one sample. Arguments and errors as in `reserve()`."""
        with memoryview(data) as source, source.cast("B") as flat, self.reserve(len(flat), timeout) as room:
            room[:] = flat

    def reserve(self, size: int, timeout: float | None = 0) -> Reservation:
        """Reserve room for one sample.

        Args:
            size: its size in bytes.
            timeout: seconds to wait for room: 0 tries once, None waits for ever. The kernel says when a program has
                taken something.

        Raises:
            TimeoutError: there was no room in that time.
            ValueError: the ring is too small for it.
            ClosedError: the ring is closed, or was closed by another thread meanwhile.
            RuntimeError: the ring was inherited by fork().
        """
        deadline = None if timeout is None else monotonic() + timeout
        try:
            self._inside.append(None)
            self._check()
            waited = False
            while True:
                reservation = self._try_to_reserve(size)
                if reservation is not None:
                    return reservation
                remaining = None if deadline is None else max(deadline - monotonic(), 0.0)
                if remaining == 0:
                    raise TimeoutError(f"{self!r} has no room for {size} bytes")
                if waited:
                    self._pause(_PAUSE if remaining is None else min(remaining, _PAUSE))
                waited = not waited and self._wait(remaining)
        finally:
            self._inside.pop()
            self._settle()

    def _try_to_reserve(self, size: int) -> Reservation | None:
        with self._lock:
            if self._reserving:
                raise RuntimeError(f"{self!r} is being written by this thread already, further up the stack")
            try:
                self._reserving = True
                place = self._ring.prepare(size)
                if place is None:
                    return None
                # Known before the kernel sees it: close() discards what an interrupt keeps from the caller.
                reservation = Reservation(self, *place)
                self._open[reservation] = place[0]
                self._ring.publish(size)
                return reservation
            finally:
                self._reserving = False

    def _finish(self, reservation: Reservation, offset: int, discard: bool) -> None:
        """Submit or discard the sample whose header is at `offset`."""
        try:
            self._inside.append(None)
            self._check()
            self._ring.finish(offset, discard=discard)
            del self._open[reservation]
            reservation.end()
        finally:
            self._inside.pop()
            self._settle()
