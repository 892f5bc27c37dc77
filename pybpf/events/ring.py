"""Reading the pages of a BPF ring buffer: memory in, batches out.

Rules of this module:

* Pure: it works on memoryviews, wherever they come from. Waiting and mapping are `ringbuf`'s.
* Two passes: first the headers, then one copy of the payload. Between them, and before the space is given
  back, stands `barrier()`. On x86 (TSO) loads stay in order by themselves and it does nothing; on aarch64 and
  other weakly ordered machines it is what keeps a payload load from passing the load of its header, and the
  store of the consumer position from passing the copy.
* A position is one aligned word, loaded and stored whole. It is never assembled from parts.
* `scan()` moves nothing, `commit()` does. Between the two the caller makes the batch its own, so an
  interrupt at any point neither loses nor repeats a record.

The layout and the rules of the record header are in the kernel's ``kernel/bpf/ringbuf.c``; overwrite mode
came with Linux 6.19.
"""

from __future__ import annotations

from pybpf.constants import BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
from pybpf.events.batch import Batch
from pybpf.syscall.memory import barrier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Word = Literal["Q", "I"]

BUSY = BPF_RINGBUF_BUSY_BIT
"""Header bit: reserved, not yet submitted."""
DISCARD = BPF_RINGBUF_DISCARD_BIT
"""Header bit: given back unused."""
LENGTH = DISCARD - 1
"""Mask of the payload length."""

BATCH_RECORDS = 2048
BATCH_BYTES = 112 << 10
"""Less than the 128 KiB from which malloc() gets memory from the kernel, and gives it back: each page of a copy is then
touched for the first time, which costs a record of 64 bytes 7 of 59 ns."""
SHORT_RUN = 8
"""Runs of equal records shorter than this are cheaper to walk."""


def leading(words: memoryview, word: int) -> int:
    """How many of the words, from the first on, are `word`."""
    width = 8 * SHORT_RUN
    while True:
        some = words[:width].tolist()
        if some.count(word) != len(some):
            return next(index for index, one in enumerate(some) if one != word)
        if width >= len(words):
            return len(some)
        width *= 8


class Ring:
    """The consumer's side of one BPF ring buffer.

    Args:
        consumer: the consumer page, writable; the position is its first word.
        producer: the producer page; producer, pending and overwrite position are its first three words.
        data: the data area, mapped twice in a row; the end of the memory that this is a view of.
        word: the format of a position: ``"Q"`` with a 64-bit kernel, ``"I"`` with a 32-bit one.

    Attributes:
        size: the size of the data area in bytes.
    """

    __slots__ = (
        "_consumer",
        "_counts",
        "_data",
        "_headers",
        "_producer",
        "_uniform",
        "_views",
        "_wrap",
        "size",
    )

    def __init__(self, consumer: memoryview, producer: memoryview, data: memoryview, *, word: Word = "Q") -> None:
        size = len(data) // 2
        if size < 8 or size & (size - 1) or len(data) != 2 * size:
            raise ValueError(f"the data area of a ring buffer cannot have {len(data)} bytes")
        self.size = size
        self._consumer = consumer[:8].cast(word)
        self._producer = producer[:24].cast(word)
        self._data = data.toreadonly()
        slots = data.cast("I")
        self._headers = slots[::2]
        self._views = (slots, self._headers, self._data, self._consumer, self._producer)
        self._wrap = (1 << 8 * self._consumer.itemsize) - 1
        self._uniform = True
        self._counts = (self._consumer[0], 0, 0, 0, 0)

    @property
    def records(self) -> int:
        """Records delivered."""
        return self._counts[1]

    @property
    def payload(self) -> int:
        """Bytes of their payload."""
        return self._counts[2]

    @property
    def discarded(self) -> int:
        """Records the program discarded."""
        return self._counts[3]

    @property
    def overwritten(self) -> int:
        """Bytes that were overwritten before they were read (overwrite mode only)."""
        return self._counts[4]

    @property
    def consumer_pos(self) -> int:
        """How far reading has come: a free-running byte position."""
        return self._consumer[0]

    @property
    def producer_pos(self) -> int:
        """How far the programs have come."""
        return self._producer[0]

    @property
    def available(self) -> int:
        """Bytes between the two positions, headers and unsubmitted records included."""
        return (self._producer[0] - self._consumer[0]) & self._wrap

    def scan(self, limit: int = BATCH_RECORDS, *, copy: bool = True) -> Batch | None:
        """The next records, at most `limit`. None: there are none, or the first is not submitted yet.

        Without `copy` the batch lies in the ring, and is to be read before it is committed.
        """
        start = self._consumer[0]
        available = (self._producer[0] - start) & self._wrap
        if not available:
            return None
        if available > self.size:
            raise self._nonsense(start)
        barrier()
        first = (start & (self.size - 1)) >> 3
        last = first + (available >> 3)
        batch = self._run(start, first, last, limit, copy) if self._uniform else None
        return batch or self._walk(start, first, last, min(limit, BATCH_RECORDS), copy)

    def commit(self, batch: Batch) -> None:
        """Give the batch's space back to the kernel. Doing it again right away does nothing."""
        end, records, payload, discarded, overwritten = self._counts
        if batch.end == end:
            return
        barrier()
        self._consumer[0] = batch.end
        # One store, last: an interrupt before it has the whole done again with the same result.
        self._counts = (
            batch.end,
            records + len(batch),
            payload + batch.nbytes,
            discarded + batch.discarded,
            overwritten + batch.overwritten,
        )

    def release(self) -> None:
        """Let go of the memory."""
        for view in self._views:
            view.release()

    def _run(self, start: int, first: int, last: int, limit: int, copy: bool) -> Batch | None:
        """Records of one size in a row, found by one strided look at their headers."""
        size = self._headers[first]
        if size >= DISCARD:
            return None
        step = (size + 15) >> 3
        count = min((last - first) // step, limit)
        if copy:
            count = min(count, BATCH_RECORDS, BATCH_BYTES // (8 * step))
        if count < SHORT_RUN:
            return None
        count = self._equal(first, count, size, step)
        if count < SHORT_RUN:
            self._uniform = False
            return None
        return self._uniform_batch(start, first, count, size, step, copy)

    def _equal(self, first: int, count: int, size: int, step: int) -> int:
        """How many of `count` headers in a row are `size`."""
        with self._headers[first : first + count * step : step] as headers:
            if headers[1:] == headers[:-1]:
                return count
            # Behind the first other size the stride no longer meets headers: the run ends there.
            return leading(headers, size)

    def _uniform_batch(self, start: int, first: int, count: int, size: int, step: int, copy: bool) -> Batch:
        extent = 8 * count * step
        data = self._bytes(first, extent, copy)
        return Batch.uniform(data, count, size, 8 * step, end=(start + extent) & self._wrap, extent=extent, ring=self)

    def _walk(self, start: int, first: int, last: int, limit: int, copy: bool) -> Batch | None:
        """Records of any size, header by header."""
        reach = min(last - first, BATCH_BYTES >> 3)
        starts: list[int] = []
        sizes: list[int] = []
        slot = discarded = 0
        with self._headers[first:last] as headers:
            while slot < reach and limit:
                word = headers[slot]
                if word >= DISCARD:
                    if word >= BUSY:
                        break
                    discarded += 1
                    slot += ((word & LENGTH) + 15) >> 3
                    continue
                starts.append(slot << 3)
                sizes.append(word)
                slot += (word + 15) >> 3
                limit -= 1
        if slot > last - first:
            raise self._nonsense(start)
        if not slot:
            return None
        count = len(sizes)
        if count and not discarded and sizes.count(sizes[0]) == count:
            self._uniform = True
            return self._uniform_batch(start, first, count, sizes[0], (sizes[0] + 15) >> 3, copy)
        end = (start + 8 * slot) & self._wrap
        data = self._bytes(first, 8 * slot, copy) if count else b""
        return Batch(data, starts, sizes, end=end, extent=8 * slot, discarded=discarded, ring=self)

    def _bytes(self, first: int, extent: int, copy: bool) -> bytes | memoryview:
        """The bytes from the first record's payload on; the double mapping has 8 bytes more than any extent."""
        barrier()
        start, end = 8 * first + 8, 8 * first + 8 + extent
        return self._data[start:end].tobytes() if copy else own_view(self._data, start, end).toreadonly()

    def _nonsense(self, start: int) -> RuntimeError:
        return RuntimeError(
            f"the ring buffer's positions do not fit its records (consumer {start}, producer {self._producer[0]}, "
            f"size {self.size}): does something else read or write it as well?"
        )


def own_view(data: memoryview, start: int, end: int) -> memoryview:
    """``data[start:end]`` for others, where `data` is the end of the memory that it is a view of.

    It is a view of its own of that memory, so that what other threads do with it does not touch `data`: see
    `pybpf.btf.layout.numbers`.
    """
    whole = memoryview(data.obj)
    before = len(whole) - len(data)
    return whole[before + start : before + end]


class OverwriteRing(Ring):
    """A ring buffer made with BPF_F_RB_OVERWRITE: the newest records push out the oldest.

    The kernel moves the overwrite position over old records before it reuses their space. So records are
    copied first, and what the position has passed by then is thrown away. Two copies are made: the first
    tells which records are submitted, only then is the payload taken. What was pushed out unread is counted
    in `overwritten`, in bytes, because the records themselves are gone.
    """

    __slots__ = ()

    def scan(self, limit: int = BATCH_RECORDS, *, copy: bool = True) -> Batch | None:
        """As of `Ring`. It is always a copy: the kernel waits for nobody here."""
        consumed = self._consumer[0]
        start = self._oldest(consumed)
        barrier()
        available = min((self._producer[0] - start) & self._wrap, self.size)
        if not available:
            return None
        snapshot = self._region(start, available)
        oldest = self._oldest(start)
        snapshot = snapshot[(oldest - start) & self._wrap :]
        ends = self._submitted(snapshot, min(limit, BATCH_RECORDS))
        data = self._region(oldest, ends[-1])
        return self._collect(consumed, oldest, data, ends)

    @property
    def available(self) -> int:
        """Bytes that can still be read, headers and unsubmitted records included."""
        start = self._oldest(self._consumer[0])
        barrier()
        return min((self._producer[0] - start) & self._wrap, self.size)

    def _oldest(self, position: int) -> int:
        """The later of `position` and the overwrite position."""
        overwrite = self._producer[2]
        ahead = (overwrite - position) & self._wrap
        return overwrite if ahead <= self._wrap >> 1 else position

    def _region(self, start: int, length: int) -> bytes:
        """A copy of part of the ring, done before anything is read after it."""
        barrier()
        offset = start & (self.size - 1)
        copy = self._data[offset : offset + length].tobytes()
        barrier()
        return copy

    @staticmethod
    def _submitted(snapshot: bytes, limit: int) -> list[int]:
        """Where the submitted records at the front of the snapshot end; starts with 0."""
        headers = memoryview(snapshot).cast("I")
        ends = [0]
        while ends[-1] < len(snapshot) and len(ends) <= limit:
            word = headers[ends[-1] >> 2]
            end = ends[-1] + (((word & LENGTH) + 15) & ~7)
            if word >= BUSY or end > len(snapshot):
                break
            ends.append(end)
        return ends

    def _collect(self, consumed: int, start: int, data: bytes, ends: list[int]) -> Batch | None:
        """The records that were not overwritten while `data` was copied."""
        headers = memoryview(data).cast("I")
        safe = (self._oldest(start) - start) & self._wrap
        skipped = (start - consumed) & self._wrap
        starts: list[int] = []
        sizes: list[int] = []
        discarded = 0
        for begin in ends[:-1]:
            if begin < safe:
                continue
            word = headers[begin >> 2]
            if word >= DISCARD:
                discarded += 1
            else:
                starts.append(begin + 8)
                sizes.append(word)
        end = max(ends[-1], safe)
        if not skipped + end:
            return None
        return Batch(
            data,
            starts,
            sizes,
            end=(start + end) & self._wrap,
            extent=skipped + end,
            discarded=discarded,
            overwritten=skipped + safe,
            ring=self,
        )
