"""Many sources of events behind one wait: `EventReader`."""

from __future__ import annotations

import os
from itertools import repeat

from pybpf.errors import ClosedError
from pybpf.events.source import EventSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pybpf.events.capture import Capture
    from pybpf.events.source import RecordSource


class EventReader(EventSource):
    """Reads several ring buffers and perf buffers; its values are pairs ``(name, value)``.

    Args:
        sources: the readers by name. They belong to the event reader, which closes them.

    A source that is closed by itself is left out from then on; when none is left, the event reader closes. Between
    sources there is no order.
    """

    __slots__ = ("_order", "_watched", "sources")

    def __init__(self, sources: Mapping[str, RecordSource]) -> None:
        if not sources:
            raise ValueError("an event reader needs at least one source")
        self.sources = dict(sources)
        self._order = list(self.sources)
        # Duplicates, so that a source that closes can still be taken out of the epoll set.
        self._watched: dict[str, int] = {}
        try:
            for name, source in self.sources.items():
                self._watched[name] = os.dup(source.fileno())
            super().__init__(self._watched.values())
        except BaseException:
            self._unwatch()
            raise

    def _unwatch(self) -> None:
        while self._watched:
            os.close(self._watched.popitem()[1])

    def _release(self, inherited: bool) -> None:
        self._unwatch()
        for source in self.sources.values():
            source.close()

    def _collect(self, values: list[Any], limit: int) -> bool:
        moved = False
        for _ in range(len(self._order)):
            if len(values) >= limit:
                break
            name = self._order.pop(0)
            self._order.append(name)
            try:
                some, did = self.sources[name].take(limit - len(values))
            except ClosedError:
                self._leave_out(name)
                continue
            except Exception as error:
                error.add_note(f"This was an event of {name!r}.")
                raise
            values.extend(zip(repeat(name), some))
            moved |= did
        return moved

    def _leave_out(self, name: str) -> None:
        """Forget a source that is closed."""
        self._order.remove(name)
        fd = self._watched.pop(name)
        self._epoll.unregister(fd)
        os.close(fd)
        if not self._watched:
            self.close()

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Write what is taken from the kernel into a file as well, until the result is closed; see `Capture`.

        Raises OSError; ValueError when a source is being recorded already; ClosedError.
        """
        from pybpf.events.capture import Capture

        self._check()
        return Capture(path, {name: source for name, source in self.sources.items() if not source.closed})

    def _member(self, name: str) -> Callable[[Any], Any]:
        member = super()._member(name)
        return lambda pair: member(pair[1])

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
