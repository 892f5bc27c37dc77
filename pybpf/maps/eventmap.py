"""Maps that carry events from programs: what ring buffers and perf event arrays share.

Rules of this module:

* The first use of `poll`, `consume`, ``for`` or ``async for`` opens one reader, which lives as long as the map object.
* `reader()` and `of()` make further ones, which are the caller's to close.
"""

from __future__ import annotations

from pybpf.forks import ForkLock
from pybpf.maps.base import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterator
    from typing import Any, Self

    from pybpf.btf.codec import Codec
    from pybpf.events.batch import Batch
    from pybpf.events.capture import Capture
    from pybpf.events.loan import Batches, Loan
    from pybpf.events.records import RecordSource
    from pybpf.maps.declared import Declared
    from pybpf.syscall import FD

_OPENING = ForkLock()
"""Held while a map's own reader is opened, so that threads which use a map at once share one."""


class EventMap(Map):
    """A map whose iteration reads events."""

    __slots__ = ("_events", "_records")

    _events: RecordSource
    _records: Codec | None
    """The type of the records, if whoever made the map object told it."""

    def __init__(self, fd: FD | None = None, *, value: Declared | None = None, **options: Any) -> None:
        """As of `Map`, but `value` is the type of the records: the kernel wants to hear of none.

        Values of a perf event array are descriptors. A type of as many bytes says nothing of its records.
        """
        records = None
        if value is not None and not isinstance(value, int):
            from pybpf.maps.declared import codec_of

            records = codec_of(value)
            if records.size == type(self).default_value_size:
                records = None
            else:
                value = None
        super().__init__(fd, value=value, **options)
        self._records = records

    def __copy__(self) -> Self:
        made = super().__copy__()
        made._records = self._records
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "_events":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with _OPENING:
                try:
                    return object.__getattribute__(self, "_events")  # another thread was quicker
                except AttributeError:
                    self._events = self.reader()
                    return self._events

    def reader(self, **options: Any) -> RecordSource:
        """A reader of this map, which the caller closes."""
        raise AssertionError("a subclass gives it")

    def _typed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a reader, with the type of the records if that is known and none is asked for."""
        self.fileno()
        if "decode" in options:
            return options
        if self._records is not None:
            return {"decode": self._records, "strict": True, **options}
        if self.btf is None:
            return options
        from pybpf.events.types import event_codec, value_type_of

        value_type = 0 if self.spec is None else value_type_of(self.btf, self.spec)
        decode, strict = event_codec(self.btf, self.name, value_type=value_type)
        return {"decode": decode, "strict": strict, **options}

    def of(self, type_name: str, **options: Any) -> RecordSource:
        """A reader whose events have the type of this name in the object's BTF. Raises BTFError.

        Args:
            options: as of `reader()`.
        """
        reader = self.reader(**{"decode": None, **options})
        try:
            return reader.of(type_name)
        except BaseException:
            reader.close()
            raise

    def __iter__(self) -> Iterator[Any]:
        return iter(self._events)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._events.__aiter__()

    def poll(self, timeout: float | None = None, limit: int | None = None) -> list[Any]:
        """Wait at most `timeout` seconds (None: for ever) for events, then give those that are there."""
        return self._events.poll(timeout, limit)

    def consume(self, limit: int | None = None) -> list[Any]:
        """The events that are there, without waiting."""
        return self._events.consume(limit)

    def read_batch(self, limit: int | None = None, timeout: float | None = 0) -> Batch:
        """The next events undecoded, as a batch of their bytes, rows, columns; see `pybpf.events.Batch`."""
        return self._events.read_batch(limit, timeout)

    def batches(self, timeout: float | None = None) -> Batches:
        """`read_batch()` again and again, for ``for`` and ``async for``; see `RecordSource.batches()`."""
        return self._events.batches(timeout)

    def borrow_batch(self, limit: int | None = None) -> Loan:
        """A context manager that gives a batch where it lies in the kernel's buffer, without a copy."""
        return self._events.borrow_batch(limit)

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Write what this map object reads from now on into a file as well, until the result is closed."""
        return self._events.record(path)

    def statistics(self) -> dict[str, int | None]:
        """Counts of what was read and lost, and how full the buffer is; see `pybpf.events.RingBuffer`."""
        return self._events.statistics()

    @property
    def lost(self) -> int | None:
        """How many events were lost, as far as the reader can know; see `pybpf.events`."""
        return self._events.lost

    def close(self) -> None:
        """Close the reader of this map object, and the map's descriptor. May be called twice."""
        try:
            events = object.__getattribute__(self, "_events")
        except AttributeError:
            events = None
        if events is not None:
            events.close()
        super().close()
