"""A batch of event records, and how they become values.

Rules of this module:

* Pure: bytes in, values out. Nothing here waits, maps memory or knows of a map.
* A batch owns its bytes, a copy: the kernel may reuse the space as soon as the batch is there. One that is borrowed
  lies in the kernel's buffer; its views are released when it is given back.
* Values are decoded lazily and from any record on: when one cannot be decoded, decoding goes on behind it.
"""

from __future__ import annotations

from _operator import add, length_hint  # the built-in part of `operator`, which takes 0.2 ms to import
from itertools import chain, repeat
from struct import iter_unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Protocol

    class RecordCodec(Protocol):
        """What decoding needs of a `pybpf.btf.codec.Codec`."""

        @property
        def size(self) -> int: ...
        @property
        def decode(self) -> Callable[..., Any]: ...
        def decode_run(self, buffer: Any, offset: int, stride: int, count: int) -> Any: ...
        def tuple_run(self, buffer: Any, offset: int, stride: int, count: int) -> Any: ...
        def decode_at(self, buffer: Any, starts: Any, *, as_tuples: bool = False) -> Any: ...

    class Committer(Protocol):
        """A ring that a batch came from."""

        def commit(self, batch: Batch) -> None: ...

    Decode = RecordCodec | Callable[[memoryview], Any] | None
    Values = Callable[["Batch", int], Iterator[Any]]
    Chosen = RecordCodec | Exception | None


class Batch:
    """Consecutive records of one buffer.

    It can be read record by record (as `bytes`: iteration, index; typed: `values()`, `rows()`), and as a table
    (`column()`, `columns()`, `array()`).

    Attributes:
        data: the records' bytes: one copy, or a `memoryview` of the kernel's buffer when the batch is borrowed.
        starts: where each record's payload begins in `data`.
        stride: the distance between two payloads when all records have one size, otherwise 0.
        end: the buffer position behind the last record.
        extent: how many bytes of the buffer the batch covers, headers and skipped records included.
        discarded: records that the program reserved and then discarded.
        lost: records that the kernel reports as dropped for lack of room (perf buffers only).
        overwritten: bytes that newer records pushed out before they were read (overwrite mode only).
        codec: what its records are, None when that is not known.
        chosen: what each record is when a recording has asked the function of `of_several()`; otherwise None.
        ring: where the batch came from, if its space has to be given back.
        committed: whether its space was given back.
        cpu: the CPU on which its records were sent (perf buffers only), otherwise None.
        cursor: walks over `starts` as `rest` decodes record by record; None while it decodes runs.
        delivered: how many of its values were delivered, and `rest` the others: where reading it stands.
    """

    __slots__ = (
        "_lent",
        "_size",
        "_sizes",
        "chosen",
        "codec",
        "committed",
        "cpu",
        "cursor",
        "data",
        "delivered",
        "discarded",
        "end",
        "extent",
        "lost",
        "overwritten",
        "rest",
        "ring",
        "starts",
        "stride",
    )

    cursor: Iterator[int] | None
    rest: Iterator[Any]

    def __init__(
        self,
        data: bytes | memoryview,
        starts: Sequence[int],
        sizes: Sequence[int] | None,
        *,
        size: int = 0,
        stride: int = 0,
        end: int = 0,
        extent: int = 0,
        discarded: int = 0,
        lost: int = 0,
        overwritten: int = 0,
        ring: Committer | None = None,
    ) -> None:
        self.data: Any = data
        self.starts = starts
        self._sizes = sizes
        self._size = size
        self.stride = stride
        self.end = end
        self.extent = extent
        self.discarded = discarded
        self.lost = lost
        self.overwritten = overwritten
        self.ring = ring
        self.codec: RecordCodec | None = None
        self.chosen: list[Chosen] | None = None
        self.committed = False
        self.cpu: int | None = None
        self._lent: list[memoryview] = []
        self.cursor = None
        self.delivered = 0
        self.rest = iter(())

    @classmethod
    def uniform(cls, data: bytes | memoryview, count: int, size: int, stride: int, **facts: Any) -> Batch:
        """`count` records of `size` bytes, `stride` bytes apart, the first at the start of `data`; at least one."""
        return cls(data, range(0, count * stride, stride), None, size=size, stride=stride, **facts)

    @property
    def sizes(self) -> Sequence[int]:
        """The payload length of each record, in bytes."""
        if self._sizes is None:
            self._sizes = [self._size] * len(self.starts)
        return self._sizes

    @property
    def shortest(self) -> int | None:
        """The least of `sizes`; None when there are no records."""
        return self._size if self.stride else min(self.sizes, default=None)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int | slice) -> Any:
        """A record as `bytes`, or of a slice a list of them. Raises IndexError."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        start = self.starts[index]
        return bytes(self.data[start : start + self.sizes[index]])

    def __iter__(self) -> Iterator[bytes]:
        return self.payloads()

    def __repr__(self) -> str:
        shape = f"of {self._size} bytes" if self.stride else "of mixed sizes"
        return f"<Batch: {len(self)} records {shape}>" if len(self) else "<Batch: no records>"

    def commit(self) -> None:
        """Give the space back to the kernel. Doing it again does nothing."""
        if self.ring is not None and not self.committed:
            self.ring.commit(self)
            self.committed = True

    @property
    def nbytes(self) -> int:
        """The sum of the payload lengths."""
        return self._size * len(self.starts) if self.stride else sum(self.sizes)

    def payloads(self, first: int = 0) -> Iterator[bytes]:
        """The records from number `first` on as `bytes`."""
        if self.stride:
            size = self._size
            rows = memoryview(self.data)[first * self.stride :]
            return chain.from_iterable(iter_unpack(f"{size}s{self.stride - size}x", rows))
        slices = map(self.data.__getitem__, self._slices(first))
        return slices if isinstance(self.data, bytes) else map(bytes, slices)

    def views(self, first: int = 0) -> Iterator[memoryview]:
        """The records from number `first` on as `memoryview` of `data`, without a copy."""
        return map(memoryview(self.data).__getitem__, self._slices(first))

    def _slices(self, first: int) -> Iterator[slice]:
        return map(slice, self.walk(first), map(add, self.starts[first:], self.sizes[first:]))

    def walk(self, first: int) -> Iterator[int]:
        """A new `cursor`, from record number `first` on."""
        cursor = self.cursor = iter(self.starts[first:])
        return cursor  # not another thread's

    def resume_at(self, delivered: int, error: Exception | None) -> int:
        """Where to go on after an error: behind the record whose decoding failed; None: at one that was interrupted."""
        begun = 0 if self.cursor is None else len(self) - length_hint(self.cursor)
        return delivered + 1 if error is not None and begun > delivered else delivered

    # As what they mean.

    def values(self) -> Iterator[Any]:
        """The records decoded one by one, as their type says; `bytes` without one.

        Raises ValueError, while iterating, at a record that is too short for its type.
        """
        return decoder(self.codec)(self, 0)

    def rows(self, *names: str) -> Iterator[Any]:
        """The records as plain tuples of their members' values: the quickest way to have all of them.

        Args:
            names: only these members, in this order, as `column()` names them; the fewer, the quicker.

        Raises TypeError when their type is not known; ValueError, while iterating, at a record too short for it. With
        names it raises at once: what `column()` raises.
        """
        from pybpf.events.table import rows

        return rows(self, names)

    def column(self, name: str) -> Sequence[Any]:
        """One member of every record; a dot leads into a struct: ``"flow.port"``.

        A `memoryview` of `data`, without a copy, for integers, floats and truth values in batches of one record size
        (``sum(column)``, ``column.tolist()``, ``numpy.asarray(column)``); otherwise a list of decoded values.

        Raises TypeError when the records' type is not known, KeyError when it has no such member, ValueError when a
        record is too short.
        """
        from pybpf.events.table import column

        return column(self, name)

    def columns(self) -> dict[str, Sequence[Any]]:
        """`column()` of every member, by name."""
        from pybpf.events.table import columns

        return columns(self)

    def array(self, dtype: Any = None) -> Any:
        """The records as a numpy array, without a copy when they have one size (`pybpf.btf.columns`: the dtype).

        Args:
            dtype: another dtype, or None for that of the records' type.

        Raises ImportError without numpy, TypeError when the records' type is not known and no dtype is given,
        ValueError when a record is too short.
        """
        from pybpf.events.table import array

        return array(self, dtype)

    def lend(self, view: memoryview) -> memoryview:
        """Remember a view of `data`, to be released with it."""
        if not isinstance(self.data, bytes):
            self._lent.append(view)
        return view

    def end_loan(self) -> None:
        """Take a borrowed batch back: who uses it or its columns from now on gets ValueError.

        `data` itself is not released, so that whoever holds it, with or without Python's knowledge, keeps the memory
        mapped. What numpy made of it, and slices, stay: they see whatever the kernel writes there next.
        """
        if isinstance(self.data, bytes):
            return
        self.data = _GIVEN_BACK
        for view in self._lent:
            try:
                view.release()
            except BufferError:  # something else uses it, and keeps it
                pass


_GIVEN_BACK = memoryview(b"")
_GIVEN_BACK.release()


def decoder(decode: Decode, *, strict: bool = True) -> Values:
    """The function that gives a batch's values, from a record number on.

    `decode` is None (values are `bytes`), a codec, or a callable that takes each record as a `memoryview`.
    Bytes behind the codec's size are ignored, unless its type ends in a flexible array: that holds them. A record
    that is shorter raises ValueError; when `strict` is false, it is delivered as `bytes`.
    """
    if decode is None:
        return Batch.payloads
    if not callable(decode):
        if not hasattr(decode, "decode_run"):
            raise TypeError(f"decode must be None, a codec or a callable, not {type(decode).__name__}")
        return _codec_decoder(decode, strict)
    return lambda batch, first: map(decode, batch.views(first))


def _codec_decoder(codec: RecordCodec, strict: bool) -> Values:
    size = codec.size
    flexible = getattr(codec, "is_flexible", False)

    def checked(data: bytes, start: int, length: int) -> Any:
        if length >= size:
            return codec.decode(data, start, length) if flexible else codec.decode(data, start)
        if strict:
            name = getattr(codec, "c_name", "its type")
            raise ValueError(f"an event record has {length} bytes, but {name} has {size}")
        return data[start : start + length]

    def values(batch: Batch, first: int) -> Iterator[Any]:
        shortest = batch.shortest
        if flexible or (shortest is not None and shortest < size):
            return map(checked, repeat(batch.data), batch.walk(first), batch.sizes[first:])
        if batch.stride:
            return iter(codec.decode_run(batch.data, first * batch.stride, batch.stride, len(batch) - first))
        return iter(codec.decode_at(batch.data, batch.walk(first)))

    return values
