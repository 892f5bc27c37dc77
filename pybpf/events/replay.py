"""Reading recorded events: `Replay`. The format is in `pybpf.events.capture`.

Rules of this module:

* Pure: a file in, values out. No kernel, no privileges, either byte order.
* The file is not trusted. Every number in it is checked before it is used, nothing larger than a block is read at
  once, and what makes no sense is a `RecordingError` that says where.
* A file that ends too early is good up to its last whole block: `is_complete` is false then.
"""

from __future__ import annotations

import os
from array import array
from binascii import crc32
from itertools import accumulate
from struct import unpack_from
from sys import byteorder

from pybpf.btf.codec import codec
from pybpf.btf.composites import ArrayCodec, CompositeCodec, FlexibleCodec
from pybpf.btf.reader import BTF
from pybpf.errors import BTFError, ClosedError, RecordingError
from pybpf.events.batch import Batch, decoder
from pybpf.events.capture import (
    BLOCK_HEADER,
    BTF_BLOCK,
    BTF_HEADER,
    END,
    FILE_HEADER,
    INFO,
    MAGIC,
    MAX_BLOCK,
    ORDERS,
    RECORDS,
    RECORDS_HEADER,
    SOURCE,
    TYPED,
    UNIFORM,
    VERSION,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from typing import Any, Self

    from pybpf.btf.codec import Codec

MAX_JSON = 1 << 20
MAX_TABLES = 4096
"""Sources, and BTFs, of one file."""
MAX_NAME = 255
MAX_GAP = 16
"""Bytes between two records of a run: the header of the next one and padding."""
MAX_VALUES = 1 << 12
MAX_VALUES_PER_BYTE = 16
"""Values in a record that share a byte, beyond `MAX_VALUES`. Types of real programs seldom have 10."""


class RecordedSource:
    """A buffer that was recorded.

    Attributes:
        name: as the reader had it. kind: ``"RingBuffer"`` or ``"PerfBuffer"``.
        codec: what its records are; None: `bytes`. A record that is too short for it comes as `bytes`.
    """

    __slots__ = ("_codecs", "btf", "codec", "kind", "name")

    def __init__(self, name: str, kind: str, btf: BTF | None, type_id: int) -> None:
        self.name = name
        self.kind = kind
        self.btf = btf
        self._codecs: dict[int, Codec] = {}
        self.codec: Codec | None = self.codec_of(type_id) if btf is not None and type_id else None

    def codec_of(self, type_id: int) -> Codec:
        """The codec of one of several types. Raises BTFError."""
        known = self._codecs.get(type_id)
        if known is None:
            if self.btf is None:
                raise BTFError("its records have types, and there is no type information")
            known = codec(self.btf, type_id)
            count = _values_in(known, {})
            if count > MAX_VALUES + MAX_VALUES_PER_BYTE * known.size:
                raise BTFError(f"{known.c_name} holds {count} values in {known.size} bytes")
            self._codecs[type_id] = known
        return known

    def __repr__(self) -> str:
        return f"<RecordedSource {self.name!r}: {'bytes' if self.codec is None else self.codec.c_name}>"


def _values_in(codec: Codec, known: dict[Codec, int]) -> int:
    """How many values one holds. Those of a union count, though they are decoded when they are asked for only."""
    if codec not in known:
        count = 1
        if isinstance(codec, ArrayCodec):
            count += codec.count * _values_in(codec.element, known)
        elif isinstance(codec, FlexibleCodec):
            count += _values_in(codec.element, known)
        elif isinstance(codec, CompositeCodec):
            count += sum(_values_in(field.codec, known) for field in codec.fields)
        known[codec] = count
    return known[codec]


class Replay:
    """The events of a recording, in the order in which they were read, as pairs ``(name, value)``::

        with Replay("x.bpfcap") as replay:
            for name, event in replay:
                print(name, event.pid)

    It is read from the beginning to the end once. The values are those that the readers gave.

    Attributes:
        info: what is known of where it was recorded: ``kernel``, ``machine``, ``started_ns``.
        byte_order: of the records, ``"little"`` or ``"big"``.
        sources: `RecordedSource` by number, as far as the file has been read.
        totals: what each source read and lost while it was recorded, by name, once the end has been read.
        time_ns: when the event, or the batch, that was given last was taken from the kernel: nanoseconds of real time
            since 1970. Events that were taken together have one time; 0 before the first.
        cpu: on which CPU it was sent; None when it came through a ring buffer.

    Raises:
        OSError: the file cannot be opened or read.
        RecordingError: it is no recording, one of a later version, or damaged; here, or while it is iterated.
        ClosedError: it is iterated and was closed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.info: dict[str, Any] = {}
        self.sources: dict[int, RecordedSource] = {}
        self.totals: dict[str, dict[str, Any]] = {}
        self.time_ns = 0
        self.cpu: int | None = None
        self._is_complete = False
        self._btfs: dict[int, BTF] = {}
        self._offset = 0
        self._file: BufferedReader = open(self.path, "rb")  # noqa: SIM115 - closed by close()
        try:
            self.byte_order = self._read_header()
        except BaseException:
            self._file.close()
            raise

    @property
    def is_complete(self) -> bool:
        """Whether the end of the recording has been reached. False after the last event: it was cut off."""
        return self._is_complete

    @property
    def lost(self) -> dict[str, int | None]:
        """How many events each source lost, once the end has been read; None where nobody counted."""
        return {name: totals.get("lost") for name, totals in self.totals.items()}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for source, batch, types in self._read():
            if types is None:
                values = decoder(source.codec, strict=False)(batch, 0)
            else:
                values = self._each_by_type(source, batch, types)
            for value in values:
                yield source.name, value

    def batches(self) -> Iterator[tuple[str, Batch]]:
        """The events as batches of rows and columns, with the name of their source."""
        for source, batch, _ in self._read():
            batch.codec = source.codec
            batch.cpu = self.cpu
            yield source.name, batch

    def _each_by_type(self, source: RecordedSource, batch: Batch, types: array[int]) -> Iterator[Any]:
        for record, type_id in zip(batch, types, strict=True):
            try:
                made = source.codec_of(type_id) if type_id else None
                is_whole = made is not None and len(record) >= made.size
                yield made.decode(record, 0, len(record)) if made is not None and is_whole else record
            except BTFError as error:
                raise self._error(f"source {source.name!r}: {error}") from None

    # Blocks

    def _error(self, what: str) -> RecordingError:
        return RecordingError(f"{self.path}: at byte {self._offset}: {what}")

    def _read_header(self) -> str:
        data = self._file.read(FILE_HEADER.size)
        if len(data) < FILE_HEADER.size or not data.startswith(MAGIC):
            raise self._error("this is no recording of events (.bpfcap)")
        _, version, order, reserved = FILE_HEADER.unpack(data)
        if version != VERSION:
            raise self._error(f"version {version} of the format; this pybpf reads version {VERSION}")
        if order not in ORDERS or reserved:
            raise self._error(f"byte order {order} is neither 1 (little) nor 2 (big)")
        self._offset = len(data)
        return ORDERS[order]

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Kind and content of each block, until the file ends."""
        while True:
            if self._file.closed:
                raise ClosedError(f"{self!r} is closed")
            head = self._file.read(BLOCK_HEADER.size)
            if len(head) < BLOCK_HEADER.size:
                return
            kind, length, checksum = BLOCK_HEADER.unpack(head)
            if length > MAX_BLOCK:
                raise self._error(f"a block of {length} bytes, more than {MAX_BLOCK}")
            content = self._file.read(length)
            if len(content) < length:
                return
            if crc32(content) != checksum:
                raise self._error("the block is damaged (its checksum is another)")
            yield kind, content
            self._offset += len(head) + length

    def _read(self) -> Iterator[tuple[RecordedSource, Batch, array[int] | None]]:
        for kind, content in self._blocks():
            if self._is_complete:
                raise self._error("there is something behind the end")
            if kind == RECORDS:
                yield self._records(content)
            elif kind == BTF_BLOCK:
                self._read_btf(content)
            elif kind == SOURCE:
                self._read_source(content)
            elif kind == INFO:
                self.info = self._json(content)
            elif kind == END:
                self._read_end(content)

    def _json(self, content: bytes) -> dict[str, Any]:
        from json import loads

        if len(content) > MAX_JSON:
            raise self._error(f"{len(content)} bytes of JSON, more than {MAX_JSON}")
        try:
            value = loads(content)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._error("a block should hold a JSON object")
        return value

    def _number(self, fields: dict[str, Any], name: str, limit: int = 1 << 32) -> int:
        value = fields.get(name, 0)
        if type(value) is not int or not 0 <= value < limit:
            raise self._error(f"{name} is no number")
        return value

    def _read_btf(self, content: bytes) -> None:
        if len(content) < BTF_HEADER.size:
            raise self._error("a block of type information is too short")
        number, base = BTF_HEADER.unpack_from(content)
        if not number or number in self._btfs or len(self._btfs) >= MAX_TABLES or (base and base not in self._btfs):
            raise self._error(f"type information number {number} over {base} does not follow from what came before")
        try:
            self._btfs[number] = BTF.from_bytes(
                content[BTF_HEADER.size :], base=self._btfs.get(base), name=f"the recording's types {number}"
            )
        except BTFError as error:
            raise self._error(str(error)) from None
        if self._btfs[number].byte_order != self.byte_order:
            raise self._error("type information in another byte order than the records")

    def _read_source(self, content: bytes) -> None:
        fields = self._json(content)
        number, type_id, btf_number = (self._number(fields, name) for name in ("number", "type", "btf"))
        name, kind = fields.get("name"), fields.get("kind")
        if not number or number in self.sources or len(self.sources) >= MAX_TABLES:
            raise self._error(f"source number {number} does not follow from what came before")
        for text in (name, kind):
            if not isinstance(text, str) or not text or len(text) > MAX_NAME or not text.isprintable():
                raise self._error(f"source {number} has no proper name and kind")
        if btf_number and btf_number not in self._btfs:
            raise self._error(f"source {name!r}: there is no type information number {btf_number}")
        try:
            self.sources[number] = RecordedSource(str(name), str(kind), self._btfs.get(btf_number), type_id)
        except BTFError as error:
            raise self._error(f"source {name!r}: {error}") from None

    def _read_end(self, content: bytes) -> None:
        fields = self._json(content).get("sources")
        if not isinstance(fields, dict):
            raise self._error("the end does not tell about the sources")
        by_number = {str(number): source.name for number, source in self.sources.items()}
        for number, totals in fields.items():
            if number not in by_number or not isinstance(totals, dict):
                raise self._error("the end does not tell about the sources")
            for name, value in totals.items():
                if value is not None:
                    self._number(totals, name, 1 << 64)
            self.totals[by_number[number]] = totals
        self._is_complete = True

    def _records(self, content: bytes) -> tuple[RecordedSource, Batch, array[int] | None]:
        if len(content) < RECORDS_HEADER.size:
            raise self._error("a block of records is too short")
        number, count, flags, size, stride, cpu, self.time_ns = RECORDS_HEADER.unpack_from(content)
        source = self.sources.get(number)
        if source is None:
            raise self._error(f"records of source {number}, which is not there")
        if not count or count > len(content) or flags & ~(UNIFORM | TYPED):
            raise self._error(f"a block of {count} records with flags {flags:#x}")
        self.cpu = cpu - 1 if cpu else None
        offset = RECORDS_HEADER.size
        types = None
        if flags & TYPED:
            types, offset = self._u32s(content, offset, count)
        if flags & UNIFORM:
            if not size < stride <= size + MAX_GAP or len(content) - offset < (count - 1) * stride + size:
                raise self._error(f"{count} records of {size} bytes every {stride} need more than the block has")
            data = content[offset : offset + count * stride].ljust(count * stride, b"\0")
            return source, Batch.uniform(data, count, size, stride), types
        sizes, offset = self._u32s(content, offset, count)
        if sum(sizes) != len(content) - offset:
            raise self._error(f"{sum(sizes)} bytes of records in {len(content) - offset}")
        starts = array("I", accumulate(sizes, initial=offset))
        starts.pop()  # the end
        return source, Batch(content, starts, sizes), types

    def _u32s(self, content: bytes, offset: int, count: int) -> tuple[array[int], int]:
        """`count` numbers, and where they end."""
        end = offset + 4 * count
        if end > len(content):
            raise self._error(f"{count} records need more than the block has")
        if byteorder == "little" and array("I").itemsize == 4:
            return array("I", content[offset:end]), end
        return array("Q", unpack_from(f"<{count}I", content, offset)), end

    # The end

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Replay {self.path!r}: {len(self.sources)} sources so far>"
