"""User ring buffers (BPF_MAP_TYPE_USER_RINGBUF, Linux 6.1): user space writes, a program reads.

Rules of this module:

* One writer at a time moves the producer position: a lock sees to it. Several samples may be reserved at once; the
  program sees them in the order of their reservation, and waits for the first one not submitted.
* A header word is stored whole, behind a barrier, after the payload: the kernel never sees half a sample.
* One store decides: of the producer position whether a sample is there, of its header whether it is submitted. An
  interrupt before it has done nothing; whatever stands behind it may be left out or done again.
* A position names one sample: it comes again after 2**64 bytes, on kernels of 32 bits after 2**32.
"""

from __future__ import annotations

from _thread import RLock
from mmap import PAGESIZE
from select import EPOLLOUT
from time import monotonic

from pybpf.constants import BPF_MAP_TYPE_USER_RINGBUF
from pybpf.errors import ClosedError
from pybpf.events.pages import Pages, position_format
from pybpf.events.ring import BUSY, DISCARD, own_view
from pybpf.events.waiting import Waitable
from pybpf.syscall import FD, duplicate, map_info
from pybpf.syscall.memory import barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    from pybpf.events.ring import Word
    from pybpf.syscall.fd import FdLike

    _Used = TypeVar("_Used")

_HEADER = 8
_PAUSE = 0.001
"""Seconds between two looks at a ring that has room, but too little."""


class ProducerRing:
    """The producer's side of the pages: pure, memory in, memory out.

    Args:
        consumer: the consumer page.
        producer: the producer page, writable.
        data: the data area, writable, mapped twice in a row; the end of the memory that this is a view of.
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
        """Where the next sample goes, for `publish()`, and its payload. None: no room now."""
        if self.free < self.extent(size):
            return None
        position = self._producer[0]
        start = (position & (self.size - 1)) + _HEADER
        return position, own_view(self._data, start, start + size)

    def publish(self, position: int, size: int, flag: int = 0) -> None:
        """Let the kernel see the prepared sample: submitted, or reserved with the flag BUSY."""
        index = (position & (self.size - 1)) >> 2
        self._headers[index + 1] = 0
        self._headers[index] = size | flag
        barrier()
        self._producer[0] = (position + self.extent(size)) & self._wrap

    def finish(self, position: int, *, discard: bool) -> None:
        """Submit or discard the sample that was reserved there. Does nothing when it is not reserved any more."""
        consumed = self._consumer[0]
        if (position - consumed) & self._wrap >= (self._producer[0] - consumed) & self._wrap:
            return
        index = (position & (self.size - 1)) >> 2
        word = self._headers[index]
        if word & BUSY:
            word &= ~BUSY
            barrier()
            self._headers[index] = word | DISCARD if discard else word

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self._headers, self._consumer, self._producer):
            view.release()


class Reservation:
    """Room for one sample. Fill `data`, then `submit()` or `discard()`.

    As a context manager it gives `data`, submits at the end, and discards when an exception leaves the block::

        with ring.reserve(16) as data:
            data[:] = sample

    After that `data` is released: any use raises ValueError. A reservation that nobody holds any more is discarded.
    """

    __slots__ = ("_position", "_ring", "data")

    def __init__(self, ring: UserRingBuffer, position: int, data: memoryview) -> None:
        self._ring = ring
        self._position = position
        self.data = data

    def submit(self) -> None:
        """Hand the sample to the program. Raises ValueError when it was submitted or discarded already."""
        self._ring._finish(self._position, self.data, discard=False)

    def discard(self) -> None:
        """Give it up; the program will not see it. Raises ValueError when it was submitted or discarded already."""
        self._ring._finish(self._position, self.data, discard=True)

    def __enter__(self) -> memoryview:
        return self.data

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ring._is_open(self._position, self.data):
            self._ring._finish(self._position, self.data, discard=kind is not None)

    def __del__(self) -> None:
        # An interrupt can keep it from its caller, and a sample that stays reserved blocks all behind it.
        try:
            if self._ring._is_open(self._position, self.data):
                self.discard()
        except (AttributeError, ClosedError, RuntimeError, ValueError):
            pass  # it was never reserved, it was finished elsewhere meanwhile, or it is the parent's


class UserRingBuffer(Waitable):
    """Writes samples that a program takes with bpf_user_ringbuf_drain().

    Closing discards what is reserved and not submitted.

    Args:
        map: the user ring buffer: a map object or a descriptor. A duplicate is kept.

    Raises:
        ValueError: the map is of another type.
        BPFError: the kernel refuses the descriptor or the mapping.
    """

    __slots__ = ("_lock", "_open", "_pages", "_ring", "_writing", "name")

    def __init__(self, map: FdLike) -> None:
        self._lock = RLock()
        self._writing = False
        self._open: dict[int, memoryview] = {}
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
            position, data = self._open.popitem()
            if not inherited:
                self._ring.finish(position, discard=True)
            _take_back(data)
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
        """Write one sample, which the program sees at once. Arguments and errors as in `reserve()`.

        An interrupt (Ctrl-C) leaves all of it in the ring, or nothing.
        """
        with memoryview(data) as source, source.cast("B") as flat:
            self._when_room(lambda position, room: self._put(position, room, flat), len(flat), timeout)

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
        return self._when_room(self._hold, size, timeout)

    def _when_room(self, use: Callable[[int, memoryview], _Used], size: int, timeout: float | None) -> _Used:
        """What `use` gives, as soon as there is room."""
        deadline = None if timeout is None else monotonic() + timeout
        try:
            self._inside.append(None)
            self._check()
            waited = False
            while True:
                used = self._try(use, size)
                if used is not None:
                    return used
                remaining = None if deadline is None else max(deadline - monotonic(), 0.0)
                if remaining == 0:
                    raise TimeoutError(f"{self!r} has no room for {size} bytes")
                if waited:
                    self._pause(_PAUSE if remaining is None else min(remaining, _PAUSE))
                waited = not waited and self._wait(remaining)
        finally:
            self._inside.pop()
            self._settle()

    def _try(self, use: Callable[[int, memoryview], _Used], size: int) -> _Used | None:
        """What `use` gives, or None when there is no room now. It comes to its end before anybody else writes."""
        try:
            self._lock.acquire()
            if self._writing:
                raise RuntimeError(f"{self!r} is being written by this thread already, further up the stack")
            try:
                self._writing = True
                place = self._ring.prepare(size)
                return None if place is None else use(*place)
            finally:
                self._writing = False
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # a signal handler raised while we waited for it
                pass

    def _put(self, position: int, room: memoryview, payload: memoryview) -> bool:
        with room:
            room[:] = payload
        self._ring.publish(position, len(payload))
        return True

    def _hold(self, position: int, room: memoryview) -> Reservation:
        reservation = Reservation(self, position, room)
        self._open[position] = room
        self._ring.publish(position, len(room), BUSY)
        return reservation

    def _is_open(self, position: int, data: memoryview) -> bool:
        """Whether the sample that was reserved there was neither submitted nor discarded."""
        return self._open.get(position) is data

    def _finish(self, position: int, data: memoryview, *, discard: bool) -> None:
        """Submit or discard the sample that was reserved there."""
        if not self._is_open(position, data):
            raise ValueError("the sample was submitted or discarded already")
        try:
            self._inside.append(None)
            self._check()
            try:
                self._lock.acquire()
                self._ring.finish(position, discard=discard)
                self._open.pop(position, None)
                _take_back(data)
            finally:
                try:
                    self._lock.release()
                except RuntimeError:  # a signal handler raised while we waited for it
                    pass
        finally:
            self._inside.pop()
            self._settle()


def _take_back(data: memoryview) -> None:
    """Release the memory of a sample that is finished."""
    try:
        data.release()
    except BufferError:  # a numpy array, for example, uses it, and keeps it
        pass
