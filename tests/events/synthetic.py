"""Rings in ordinary memory, written as kernel/bpf/ringbuf.c and kernel/events/ring_buffer.c write them."""

from __future__ import annotations

import struct

from pybpf.constants import PERF_RECORD_LOST, PERF_RECORD_SAMPLE
from pybpf.events.perfring import PerfRing
from pybpf.events.ring import BUSY, DISCARD, OverwriteRing, Ring


class BpfRing:
    """A BPF ring buffer: the pages, the producer, and the reader under test."""

    def __init__(self, size: int = 4096, *, word: str = "Q", start: int = 0, overwrite: bool = False) -> None:
        self.size = size
        self.word = word
        self.wrap = (1 << 8 * struct.calcsize(word)) - 1
        self.consumer = bytearray(4096)
        self.producer = bytearray(4096)
        self.data = bytearray(2 * size)
        self.positions = memoryview(self.producer).cast(word)
        self.positions[0] = self.positions[2] = start
        memoryview(self.consumer).cast(word)[0] = start
        self.overwrite = overwrite
        reader = OverwriteRing if overwrite else Ring
        self.ring = reader(memoryview(self.consumer), memoryview(self.producer), memoryview(self.data), word=word)

    @property
    def consumed(self) -> int:
        return memoryview(self.consumer).cast(self.word)[0]

    def _write(self, offset: int, data: bytes) -> None:
        """Into both halves, as if they were one mapping twice."""
        until_end = self.size - offset
        for start, part in ((offset, data[:until_end]), (0, data[until_end:])):
            self.data[start : start + len(part)] = part
            self.data[self.size + start : self.size + start + len(part)] = part

    def header(self, position: int) -> int:
        return struct.unpack_from("I", self.data, position % self.size)[0]

    def reserve(self, payload: bytes) -> int | None:
        """The record's position, or None when it does not fit."""
        extent = (len(payload) + 15) & ~7
        position = self.positions[0]
        after = (position + extent) & self.wrap
        if extent > self.size:
            return None
        if self.overwrite:
            while (after - self.positions[2]) & self.wrap > self.size - 1:
                oldest = self.positions[2]
                self.positions[2] = (oldest + (((self.header(oldest) & (DISCARD - 1)) + 15) & ~7)) & self.wrap
        elif (after - self.consumed) & self.wrap > self.size - 1:
            return None
        self._write(position % self.size, struct.pack("II", len(payload) | BUSY, 0) + payload)
        self.positions[0] = after
        return position

    def submit(self, position: int, flags: int = 0) -> None:
        self._write(position % self.size, struct.pack("I", (self.header(position) & ~BUSY) | flags))

    def put(self, payload: bytes) -> bool:
        position = self.reserve(payload)
        if position is not None:
            self.submit(position)
        return position is not None

    def discard(self, payload: bytes) -> None:
        position = self.reserve(payload)
        assert position is not None
        self.submit(position, DISCARD)

    def read(self, limit: int = 1 << 30) -> list[bytes]:
        """Scan, commit and collect until nothing is left."""
        records: list[bytes] = []
        while len(records) < limit and (batch := self.ring.scan(limit - len(records))) is not None:
            batch.commit()
            records += batch
        return records


class PerfPages:
    """One CPU's perf buffer."""

    def __init__(self, size: int = 4096, *, start: int = 0) -> None:
        self.size = size
        self.control = bytearray(4096)
        self.data = bytearray(size)
        self.words = memoryview(self.control)[1024:1040].cast("Q")
        self.words[0] = self.words[1] = start
        self.dropped = 0
        self.ring = PerfRing(memoryview(self.control), memoryview(self.data), 3)

    def _put(self, record: bytes) -> bool:
        head = self.words[0]
        if (head + len(record)) - self.words[1] > self.size:
            return False
        offset = head % self.size
        until_end = self.size - offset
        self.data[offset : offset + len(record[:until_end])] = record[:until_end]
        self.data[: len(record[until_end:])] = record[until_end:]
        self.words[0] = head + len(record)
        return True

    def record(self, kind: int, body: bytes) -> bool:
        assert len(body) % 8 == 0
        return self._put(struct.pack("IHH", kind, 0, 8 + len(body)) + body)

    def put(self, payload: bytes) -> bool:
        """A sample; the kernel pads so that 4 + raw_size is a multiple of 8, and reports drops with the next one."""
        padded = payload + b"\xee" * (-(len(payload) + 4) % 8)
        extent = 12 + len(padded)
        room = self.size - (self.words[0] - self.words[1])
        if room < extent + (24 if self.dropped else 0):
            self.dropped += 1
            return False
        if self.dropped:
            self.record(PERF_RECORD_LOST, struct.pack("QQ", 1, self.dropped))
            self.dropped = 0
        return self.record(PERF_RECORD_SAMPLE, struct.pack("I", len(padded)) + padded)

    def read(self, limit: int = 1 << 30) -> list[bytes]:
        records: list[bytes] = []
        while len(records) < limit and (batch := self.ring.scan(limit - len(records))) is not None:
            batch.commit()
            records += batch
        return records
