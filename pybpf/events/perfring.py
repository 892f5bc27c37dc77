"""Reading the pages of one CPU's perf buffer: memory in, batches out.

Rules of this module:

* Pure, like `ring`: it works on memoryviews; waiting and mapping are `perfbuf`'s.
* The kernel publishes whole records only. A run of equal ones is recognised where it lies; everything else is copied
  first and parsed from the copy, which also joins a record that wraps around the end of the data area.
* `scan()` moves nothing, `commit()` does.

The layout is ``struct perf_event_mmap_page`` and ``struct perf_event_header`` of perf_event_open(2).
"""

from __future__ import annotations

from sys import byteorder

from pybpf.constants import PERF_RECORD_LOST, PERF_RECORD_SAMPLE
from pybpf.events.batch import Batch
from pybpf.events.ring import BATCH_BYTES, BATCH_RECORDS, SHORT_RUN, own_view
from pybpf.syscall.memory import barrier

_HEAD, _TAIL = 1024, 1032
"""Offsets of data_head and data_tail in the control page."""
_WRAP = (1 << 64) - 1
_LONGEST = 1 << 16
"""No record is longer: its size is a u16."""
_CHUNK = 1 << 18
"""How many bytes are copied at once: more than a record, and about what a batch uses."""
_SMALLEST = 16
"""A sample has a header, its u32 size, and padding to 8 bytes."""
_PAYLOAD = 12
"""A sample's payload stands behind the header and its u32 size."""


class PerfRing:
    """The reader's side of one CPU's perf buffer.

    Args:
        control: the control page, writable.
        data: the data area, a power of two of at least 64 KiB or a page, mapped once.
        cpu: the CPU whose records it holds.

    Attributes:
        size: the size of the data area in bytes.
    """

    __slots__ = (
        "_alike",
        "_counts",
        "_data",
        "_head",
        "_longs",
        "_shorts",
        "_tail",
        "_uniform",
        "_words",
        "cpu",
        "size",
    )

    def __init__(self, control: memoryview, data: memoryview, cpu: int) -> None:
        size = len(data)
        if size < 8 or size & (size - 1):
            raise ValueError(f"the data area of a perf buffer cannot have {size} bytes")
        self.size = size
        self.cpu = cpu
        self._data = data.toreadonly()
        self._longs = self._data.cast("Q")
        self._words = self._data.cast("I")
        self._shorts = self._data.cast("H")
        self._head = control[_HEAD : _HEAD + 8].cast("Q")
        self._tail = control[_TAIL : _TAIL + 8].cast("Q")
        self._uniform = True
        self._counts = (self._tail[0], 0, 0, 0)

    @property
    def records(self) -> int:
        """Samples delivered."""
        return self._counts[1]

    @property
    def payload(self) -> int:
        """Bytes of their payload, the kernel's padding included."""
        return self._counts[2]

    @property
    def lost(self) -> int:
        """Samples that the kernel's records say were dropped because the buffer was full."""
        return self._counts[3]

    @property
    def available(self) -> int:
        """Bytes written and not yet read."""
        return (self._head[0] - self._tail[0]) & _WRAP

    def scan(self, limit: int = BATCH_RECORDS, *, copy: bool = True) -> Batch | None:
        """The next records, at most `limit`. None: there are none.

        Without `copy` a run of equal samples that does not wrap lies in the buffer, and is to be read before it is
        committed; everything else is a copy here too.
        """
        tail = self._tail[0]
        available = (self._head[0] - tail) & _WRAP
        if not available:
            return None
        if available > self.size:
            raise self._nonsense(tail)
        barrier()
        batch = self._run(tail, available, limit, copy) if self._uniform else None
        if batch is None:
            # Of a run, walk only what lies around the end of the buffer: behind it the run goes on.
            stop = self.size - (tail & (self.size - 1)) if self._uniform else _CHUNK
            data = self._copy(tail, min(available, _CHUNK, stop + _LONGEST, limit * _LONGEST))
            with memoryview(data) as view, view.cast("I") as kinds, view.cast("H") as lengths:
                batch = self._walk(data, kinds, lengths, limit, stop)
        if batch is None:
            raise self._nonsense(tail)
        batch.end = (tail + batch.extent) & _WRAP
        batch.ring = self
        batch.cpu = self.cpu
        return batch

    def look_back(self, seen: int) -> Batch:
        """The samples of a buffer that is written backwards, while its output is paused: the oldest first.

        Its head falls from 0 as records are put before one another; the oldest are overwritten, the last of them in
        part.

        Args:
            seen: how many bytes had been written when it was looked at before; older samples are left out. The
                batch's `end` is that number now.
        """
        data, head = b"", -1
        while head != self._head[0]:  # a record that was begun before the pause may come to its end after it
            head = self._head[0]
            barrier()
            written = -head & _WRAP
            fresh = written - seen
            data = self._copy(head, min(fresh, self.size))
            barrier()
        starts: list[int] = []
        sizes: list[int] = []
        offset = 0
        with memoryview(data) as view, view.cast("I") as kinds, view.cast("H") as lengths:
            while offset < len(data):
                extent = lengths[(offset >> 1) + 3]
                if extent < _SMALLEST or extent & 7 or offset + extent > len(data):
                    break
                if kinds[offset >> 2] == PERF_RECORD_SAMPLE:
                    starts.append(offset + _PAYLOAD)
                    sizes.append(extent - _PAYLOAD)
                offset += extent
        batch = Batch(data, starts[::-1], sizes[::-1], end=written, extent=offset, overwritten=fresh - offset)
        batch.cpu = self.cpu
        return batch

    def commit(self, batch: Batch) -> None:
        """Give the batch's space back to the kernel. Doing it again does nothing."""
        end, records, payload, lost = self._counts
        if batch.end == end:
            return
        barrier()
        self._tail[0] = batch.end
        # One store, last: an interrupt before it has the whole done again with the same result.
        self._counts = (batch.end, records + len(batch), payload + batch.nbytes, lost + batch.lost)

    def release(self) -> None:
        """Let go of the memory."""
        for view in (self._longs, self._words, self._shorts, self._data, self._head, self._tail):
            view.release()

    def _copy(self, tail: int, length: int) -> bytes:
        offset = tail & (self.size - 1)
        head = self._data[offset : offset + length].tobytes()
        return head if len(head) == length else head + self._data[: length - len(head)].tobytes()

    def _run(self, tail: int, available: int, limit: int, copy: bool) -> Batch | None:
        """Samples of one size in a row, found by strided looks at their headers."""
        # struct perf_event_header { u32 type; u16 misc; u16 size; }
        offset = tail & (self.size - 1)
        extent = self._shorts[(offset >> 1) + 3]
        if self._words[offset >> 2] != PERF_RECORD_SAMPLE or extent < _SMALLEST or extent & 7:
            return None
        # A row of the table ends 12 bytes behind its record, which must be inside of the buffer too.
        room = self.size - offset - _PAYLOAD
        count = min(min(available, room, BATCH_BYTES) // extent, limit, BATCH_RECORDS)
        if count < SHORT_RUN:
            return None
        end = offset + count * extent
        if not self._are_alike(offset, end, extent, count):
            self._uniform = False
            return None
        first, last = offset + _PAYLOAD, end + _PAYLOAD
        table = self._data[first:last].tobytes() if copy else own_view(self._data, first, last).toreadonly()
        return _table(table, count, extent)

    def _are_alike(self, offset: int, end: int, extent: int, count: int) -> bool:
        """Whether `count` headers, `extent` bytes apart, are those of samples of that size."""
        headers = self._longs[offset >> 3 : end >> 3 : extent >> 3]
        if headers[1:] == headers[:-1]:
            return True
        # The middle of a header tells in which mode the CPU was, and may be another in each.
        lengths = self._shorts[(offset >> 1) + 3 : end >> 1 : extent >> 1].tolist()
        kinds = self._words[offset >> 2 : end >> 2 : extent >> 2].tolist()
        return lengths.count(extent) == kinds.count(PERF_RECORD_SAMPLE) == count

    def _walk(self, data: bytes, kinds: memoryview, lengths: memoryview, limit: int, stop: int) -> Batch | None:
        """Records of any kind and size that begin before `stop`, header by header. None when they make no sense."""
        starts: list[int] = []
        sizes: list[int] = []
        size = len(data)
        stop = min(stop, size)
        offset = lost = extent = 0
        while offset < stop and limit:
            extent = lengths[(offset >> 1) + 3]
            if extent & 7 or extent < 8 or offset + extent > size:
                break
            kind = kinds[offset >> 2]
            if kind == PERF_RECORD_SAMPLE:
                starts.append(offset + _PAYLOAD)
                sizes.append(extent - _PAYLOAD)
                limit -= 1
            elif kind == PERF_RECORD_LOST:
                lost += int.from_bytes(data[offset + 16 : offset + 24], byteorder)
            offset += extent
        if not offset or (sizes and min(sizes) < _SMALLEST - _PAYLOAD):
            return None
        if sizes and sizes.count(sizes[0]) * (sizes[0] + _PAYLOAD) == offset:
            self._uniform = True
            # The last row of the table reaches 12 bytes behind its record: they may have to be added.
            return _table(data[_PAYLOAD : _PAYLOAD + offset].ljust(offset, b"\0"), len(sizes), sizes[0] + _PAYLOAD)
        return Batch(data, starts, sizes, extent=offset, lost=lost)

    def _nonsense(self, tail: int) -> RuntimeError:
        return RuntimeError(
            f"the positions of CPU {self.cpu}'s perf buffer do not fit its records (tail {tail}, "
            f"head {self._head[0]}, size {self.size}): does something else read it as well?"
        )


def _table(data: bytes | memoryview, count: int, extent: int) -> Batch:
    """`count` samples in a row, `data` begins with the payload of the first."""
    return Batch.uniform(data, count, extent - _PAYLOAD, extent, extent=count * extent)
