"""Recorded events: the file format ``.bpfcap``, and `Capture`, which writes it.

A recording says by itself what is in it: the records as the kernel gave them, and the type information that they are
decoded with. So any machine can read it, of either byte order and without privileges; `pybpf.events.replay` does.

The file is a header and blocks, every number of theirs little-endian:

| header | bytes |
|---|---|
| ``89 42 50 46 43 41 50 0a`` | 8 |
| version, now 1 | u16 |
| byte order of the records: 1 little, 2 big | u16 |
| 0 | u32 |

| block | bytes |
|---|---|
| kind | u32 |
| length of the content, at most 64 MiB | u32 |
| CRC-32 of the content | u32 |
| content | length |

| kind | | content |
|---|---|---|
| 1 | INFO | JSON: kernel, machine, when |
| 2 | BTF | u32 number, u32 number of its base or 0, the type information |
| 3 | SOURCE | JSON: number, name, kind, BTF number, type id |
| 4 | RECORDS | u32 source, u32 count, u32 flags, u32 size, u32 stride, u32 CPU, u64 ns of real time; see below |
| 5 | END | JSON: what was read and lost of each source while it was recorded |

RECORDS go on with ``u32 type id`` for each record if the flag 2 is set (a buffer of several types), then with ``u32
size`` for each record unless the flag 1 is set, and end with the payloads: one behind the other, or with the flag 1
all of the same `size` and `stride` bytes apart. The CPU that sent them counts from 1; 0 is none. A BTF and a SOURCE
come before what refers to them. A buffer whose records get another type goes on as another source of the same name.
Blocks of other kinds are to be skipped. A file without END was not closed: it is good up to its last whole block.
"""

from __future__ import annotations

import os
from binascii import crc32
from contextlib import contextmanager, suppress
from stat import S_ISREG
from struct import Struct
from sys import byteorder
from time import time_ns

from pybpf.errors import ClosedError
from pybpf.forks import ForkLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Batch
    from pybpf.events.records import RecordSource

MAGIC = b"\x89BPFCAP\n"
VERSION = 1
ORDERS = {1: "little", 2: "big"}
FILE_HEADER = Struct("<8sHHI")
BLOCK_HEADER = Struct("<III")
RECORDS_HEADER = Struct("<IIIIIIQ")
BTF_HEADER = Struct("<II")
MAX_BLOCK = 1 << 26
INFO, BTF_BLOCK, SOURCE, RECORDS, END = range(1, 6)
UNIFORM, TYPED = 1, 2


class Capture:
    """Writes what readers read into a file, from when it is made until it is closed. `record()` of a reader makes one.

    Reading goes on as before; each batch is written when it is taken from the kernel. So what a loop took before and
    did not get to yet is not in the file, and what it leaves at the end is. When writing fails, the call that was
    reading raises that error once, nothing more is written, and no event is lost to the reader.

    Attributes:
        path: the file.
        records: how many records were written.
        failed: the error that ended the recording, or None.
    """

    def __init__(self, path: str | os.PathLike[str], sources: dict[str, RecordSource]) -> None:
        self.path = os.fspath(path)
        self.records = 0
        self.failed: BaseException | None = None
        self._lock = ForkLock()
        self._pid = os.getpid()
        self._count = 0
        self._length = 0
        self._numbers: dict[int, int] = {}
        self._btfs: list[BTF] = []
        self._sources = dict(sources)
        for name, source in sources.items():
            if source.capture is not None:
                raise ValueError(f"{name}: {source!r} is being recorded already")
        self._before = {id(source): _counts(source) for source in sources.values()}
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            order = 1 if byteorder == "little" else 2
            self._write(FILE_HEADER.pack(MAGIC, VERSION, order, 0))
            self._json(INFO, _about())
            for name, source in sources.items():
                self._declare(name, source)
        except BaseException:
            if S_ISREG(os.fstat(self._fd).st_mode):
                os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1
            raise
        for source in sources.values():
            source.capture = self

    # What it writes

    def _declare(self, name: str, source: RecordSource) -> None:
        self._count += 1
        self._numbers[id(source)] = self._count
        btf, type_id = source.recorded_type()
        fields = {"number": self._count, "name": name, "kind": type(source).__name__}
        if btf is not None:
            fields |= {"btf": self._add_btf(btf), "type": type_id}
        self._json(SOURCE, fields)

    def declare_again(self, source: RecordSource) -> None:
        """The source has another type from now on: it goes on under a new number."""
        with self._lock:
            for name, known in self._sources.items():
                if known is source and self._is_writing:
                    with self._failing():
                        self._declare(name, source)

    def _add_btf(self, btf: BTF) -> int:
        """The number of a BTF, which is written when it is new. 1 is the first."""
        for number, known in enumerate(self._btfs, 1):
            if known is btf:
                return number
        base = 0 if btf.base is None else self._add_btf(btf.base)
        self._btfs.append(btf)
        self._block(BTF_BLOCK, BTF_HEADER.pack(len(self._btfs), base), bytes(btf.data))
        return len(self._btfs)

    def add(self, source: RecordSource, batch: Batch) -> None:
        """Write a batch. Called by the source, for each that it takes."""
        with self._lock:
            if not len(batch) or not self._is_writing:
                return
            with self._failing():
                self._add_records(self._numbers[id(source)], batch, source.types_of(batch))
            self.records += len(batch)

    @property
    def _is_writing(self) -> bool:
        return self._fd >= 0 and self.failed is None and os.getpid() == self._pid

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """The first error ends the recording."""
        try:
            yield
        except BaseException as error:
            self.failed = error
            raise

    def _add_records(self, number: int, batch: Batch, types: Iterable[int] | None) -> None:
        flags = (UNIFORM if batch.stride else 0) | (0 if types is None else TYPED)
        size = batch.shortest if batch.stride else 0
        cpu = 0 if batch.cpu is None else batch.cpu + 1
        head = RECORDS_HEADER.pack(number, len(batch), flags, size or 0, batch.stride, cpu, time_ns())
        parts = [head]
        if types is not None:
            parts.append(_u32s(types))
        if not batch.stride:
            parts.append(_u32s(batch.sizes))
        parts.append(bytes(batch.data) if batch.stride else b"".join(batch))
        self._block(RECORDS, *parts)

    def _json(self, kind: int, value: object) -> None:
        from json import dumps

        self._block(kind, dumps(value).encode())

    def _block(self, kind: int, *parts: bytes) -> None:
        content = b"".join(parts)
        if len(content) > MAX_BLOCK:
            raise ValueError(f"{self.path}: a block of {len(content)} bytes is too large for a recording")
        self._write(BLOCK_HEADER.pack(kind, len(content), crc32(content)) + content)

    def _write(self, data: bytes) -> None:
        """All of it, or nothing: what an error or an interrupt leaves half written is cut off again."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except BaseException:
            with suppress(OSError):  # what is not a regular file takes nothing back
                os.ftruncate(self._fd, self._length)
            raise
        self._length += len(data)

    # The end

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Write the end, with what each source lost, and close the file. May be called twice.

        In a child process it closes the descriptor and writes nothing.
        """
        with self._lock:
            if self._fd < 0:
                return
            for source in self._sources.values():
                if source.capture is self:
                    source.capture = None
            fd = self._fd
            try:
                if self._is_writing:
                    self._json(END, {"sources": {str(n): s for n, s in self._totals()}, "records": self.records})
            finally:
                self._fd = -1
                os.close(fd)

    def _totals(self) -> Iterable[tuple[int, dict[str, int | None]]]:
        """What was counted of each source since the recording began."""
        for source in self._sources.values():
            before = self._before[id(source)]
            now = _counts(source)
            yield self._numbers[id(source)], {name: _since(before.get(name), now[name]) for name in now}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            from warnings import warn

            warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else "failed" if self.failed is not None else "open"
        return f"<Capture {self.path!r}: {state}, {self.records} records>"


def _counts(source: RecordSource) -> dict[str, int | None]:
    """The numbers of a source that only grow."""
    try:
        counts = source.statistics()
    except ClosedError:
        return {"lost": source.lost}
    return {name: count for name, count in counts.items() if name not in ("available", "size")}


def _since(before: int | None, now: int | None) -> int | None:
    return now if now is None or before is None else max(now - before, 0)


def _about() -> dict[str, str]:
    system = os.uname()
    return {
        "kernel": system.release,
        "machine": system.machine,
        "started_ns": str(time_ns()),
    }


def _u32s(numbers: Iterable[int]) -> bytes:
    values = list(numbers)
    return Struct(f"<{len(values)}I").pack(*values)
