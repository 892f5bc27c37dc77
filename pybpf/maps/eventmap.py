"""Maps that carry events from programs: what ring buffers and perf event arrays share.

Rules of this module:

* The first use of `poll`, `consume`, ``for`` or ``async for`` opens one reader, which lives as long as the map object.
* `reader()` and `of()` make further ones, which are the caller's to close.
"""

from __future__ import annotations

from pybpf.maps.base import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Any

    from pybpf.events.source import RecordSource


class EventMap(Map):
    """A map whose iteration reads events."""

    __slots__ = ("_events",)

    _events: RecordSource

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name != "_events":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._events = self.reader()
            return self._events

    def reader(self, **options: Any) -> RecordSource:
        """A reader of this map, which the caller closes."""
        raise AssertionError("a subclass gives it")

    def _typed(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a reader, with the type of the records if that is known and none is asked for."""
        self.fileno()
        if "decode" in options or self.btf is None:
            return options
        from pybpf.events.types import event_codec

        decode, strict = event_codec(self.btf, self.name)
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
