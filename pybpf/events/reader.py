"""Many sources of events behind one wait: `EventReader`."""

from __future__ import annotations

from itertools import repeat
from select import EPOLLIN

from pybpf.errors import ClosedError
from pybpf.events.records import RecordSource
from pybpf.events.source import EventSource, wanted_of
from pybpf.maps.eventmap import EventMap
from pybpf.syscall.fd import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Any

    from pybpf.events.batch import Batch
    from pybpf.events.capture import Capture


class EventReader(EventSource):
    """Reads several ring buffers and perf buffers; its values are pairs ``(name, value)``.

    Args:
        sources: readers by name. They belong to the event reader, which closes them. Of a map it opens a reader.

    A source that is closed by itself is left out from then on; when none is left, the event reader closes. Between
    sources there is no order.

    Raises TypeError for other sources, ClosedError for one that is closed. Those that were given stay open then.
    """

    __slots__ = ("_turn", "_watched", "sources")

    def __init__(self, sources: Mapping[str, RecordSource | EventMap]) -> None:
        if not hasattr(sources, "items"):
            raise TypeError(f"an event reader takes a dict of sources by name, not {type(sources).__name__}")
        if not sources:
            raise ValueError("an event reader needs at least one source")
        self.sources: dict[str, RecordSource] = {}
        self._turn = 0
        # Duplicates, so that a source that closes can still be taken out of the epoll set.
        self._watched: dict[str, FD] = {}
        super().__init__(())
        try:
            for name, source in sources.items():
                self.add(name, source)
        except BaseException:
            # What the caller has made stays his.
            self.sources = {name: source for name, source in self.sources.items() if source is not sources[name]}
            self.close()
            raise

    def add(self, name: str, source: RecordSource | EventMap) -> None:
        """Read this one as well from now on. A recording that has begun does not have it.

        Raises ClosedError when this or the source is closed; ValueError when there is one of that name; TypeError.
        """
        if isinstance(source, EventMap):
            reader = source.reader()
            try:
                self._add(name, reader)
            except BaseException:
                reader.close()
                raise
        elif isinstance(source, RecordSource):
            self._add(name, source)
        else:
            raise TypeError(f"{name!r}: an event reader takes ring and perf buffers, not {type(source).__name__}")

    def _add(self, name: str, source: RecordSource) -> None:
        self._check()
        with self._lock:
            if name in self._watched:
                raise ValueError(f"there is a source {name!r} already")
            before = self.sources
            self._watched[name] = FD(duplicate(source))
            self.sources = {**before, name: source}
            try:
                self._epoll.register(self._watched[name].fileno(), EPOLLIN)
            except BaseException:
                self._leave_out(name)
                self.sources = before
                raise

    def _release(self, inherited: bool) -> None:
        for watched in self._watched.values():
            watched.close()
        for source in self.sources.values():
            source.close()

    def read_batch(self, limit: int | None = None, timeout: float | None = 0) -> tuple[str, Batch] | None:
        """The next records of one source, undecoded, with its name. None: there were none in that time.

        Args:
            limit: the largest number of records.
            timeout: seconds to wait until there is one; None waits for ever, 0 not at all.

        Raises what `read_batch()` of a source raises.
        """
        wanted = wanted_of(limit)
        taken: list[tuple[str, Batch]] = []
        try:
            self._when_there(lambda: self._alone(self._next_batch, taken, wanted), taken, timeout)
        except BaseException:
            for name, batch in taken:
                self.sources[name].put_back_batches([batch])
            raise
        return taken[0] if taken else None

    def _next_batch(self, taken: list[tuple[str, Batch]], limit: int) -> bool:
        def take(source: RecordSource, some: list[Batch], _: int) -> bool:
            return source.take_batch(some, limit)

        return self._take_from_each(taken, 1, take, RecordSource.put_back_batches)

    def _collect(self, values: list[Any], limit: int) -> bool:
        return self._take_from_each(values, limit, RecordSource.take, RecordSource.put_back)

    def _take_from_each(
        self,
        values: list[Any],
        limit: int,
        take: Callable[[RecordSource, list[Any], int], bool],
        put_back: Callable[[RecordSource, list[Any]], None],
    ) -> bool:
        """Append pairs until `values` has `limit` items. Each time another source comes first."""
        moved = False
        names = list(self._watched)
        first = self._turn % (len(names) or 1)
        for name in names[first:] + names[:first]:
            if len(values) >= limit:
                break
            self._turn += 1
            some: list[Any] = []
            source = self.sources[name]
            try:
                moved |= take(source, some, limit - len(values))
                pairs = zip(repeat(name), some)
                values += pairs
                some = []
            except ClosedError:
                self._leave_out(name)
            except Exception as error:
                error.add_note(f"This was an event of {name!r}.")
                raise
            finally:
                put_back(source, some)
        if not self._watched:
            self.close()
        return moved

    def _leave_out(self, name: str) -> None:
        """Forget a source that is closed."""
        watched = self._watched[name]
        try:
            self._epoll.unregister(watched.fileno())
        except (ClosedError, FileNotFoundError):  # a signal handler raised here before, or in `_add()`
            pass
        watched.close()
        del self._watched[name]

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Write what is taken from the kernel into a file as well, until the result is closed; see `Capture`.

        Raises OSError; ValueError when a source is being recorded already; ClosedError.
        """
        from pybpf.events.capture import Capture

        self._check()
        return Capture(path, {name: source for name, source in self.sources.items() if not source.closed})

    def _member(self, name: str) -> Callable[[Any], Any]:
        members = {source_name: source._member(name) for source_name, source in self.sources.items()}

        def member(pair: tuple[str, Any]) -> Any:
            if pair[0] not in members:
                members[pair[0]] = self.sources[pair[0]]._member(name)
            return members[pair[0]](pair[1])

        return member

    def __repr__(self) -> str:
        state = "closed" if self._closing else ", ".join(repr(source) for source in self.sources.values())
        return f"<EventReader: {state}>"

    def fileno(self) -> int:
        """An epoll descriptor, readable when there may be events. Raises ClosedError after `close()`.

        Consume everything after each readiness, and once after the descriptor was added to another epoll set.
        """
        self._check()
        return self._epoll.fileno()

    @property
    def lost(self) -> dict[str, int | None]:
        """The `lost` of each source; None where nobody but the program knows."""
        return {name: source.lost for name, source in self.sources.items()}

    def statistics(self) -> dict[str, dict[str, int | None]]:
        """The `statistics()` of each source that is still open."""
        return {name: source.statistics() for name, source in self.sources.items() if not source.closed}
