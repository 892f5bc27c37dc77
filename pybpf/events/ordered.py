"""Events of several buffers in the order of a time that they carry: `OrderedReader`.

Rules of this module:

* Each CPU's perf buffer, and each ring buffer, is in order by itself; sorting merges them.
* A value is held until no earlier one can come any more: programs take the time first and write the record a moment
  later, so `hold` seconds after everything was read, all that is not newer than what was seen then is there.
* A value that comes still later is delivered at once, and counted as `late`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from operator import itemgetter
from time import monotonic

from pybpf.errors import ClosedError
from pybpf.events.source import EventSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEFAULT_HOLD = 0.01
"""Seconds. The kernel's interrupts and preemption between taking the time and writing are far shorter."""
_ALL = 1 << 30


class OrderedReader(EventSource):
    """Reads a source, and gives its values by ascending `key`. `in_order()` of a reader makes one.

    Args:
        source: a reader. It belongs to the ordered reader, which closes it.
        key: gives the number that a value is ordered by.
        hold: seconds that a value is held back.

    Whoever watches `fileno()` in a loop of his own calls `consume()` also `hold` seconds after the last readiness.
    """

    __slots__ = ("_bound", "_hold", "_key", "_late", "_marks", "_pending", "source")

    def __init__(self, source: EventSource, key: Callable[[Any], Any], hold: float = DEFAULT_HOLD) -> None:
        if hold < 0:
            raise ValueError(f"hold must not be negative, not {hold}")
        self.source = source
        self._key = key
        self._hold = hold
        self._pending: list[tuple[Any, Any]] = []
        self._bound: Any = None
        self._marks: deque[tuple[float, Any]] = deque()
        self._late = 0
        super().__init__((source.fileno(),))

    def _release(self, inherited: bool) -> None:
        self.source.close()

    def __repr__(self) -> str:
        return f"<OrderedReader: {'closed' if self._closing else repr(self.source)}>"

    def fileno(self) -> int:
        """A descriptor that is readable when events come. Raises ClosedError after `close()`."""
        return self.source.fileno()

    @property
    def late(self) -> int:
        """How many values came after a later one had been delivered."""
        return self._late

    @property
    def held(self) -> int:
        """How many values wait for their turn."""
        return len(self._pending)

    def _due(self) -> float | None:
        return max(self._marks[0][0] - monotonic(), 0.0) if self._marks else None

    def _collect(self, values: list[Any], limit: int) -> bool:
        moved = self._read()
        now = monotonic()
        while self._marks and self._marks[0][0] <= now:
            self._bound = self._marks.popleft()[1]
        if self.source.closed:
            count = len(self._pending)  # no earlier value can come, because none comes at all
        elif self._bound is None:
            count = 0
        else:
            count = bisect_right(self._pending, self._bound, key=itemgetter(0))
        count = min(count, limit - len(values))
        values.extend(map(itemgetter(1), self._pending[:count]))
        del self._pending[:count]
        if self.source.closed and not values:
            self.close()
        return moved

    def _read(self) -> bool:
        """Take all that is there. A value whose key cannot be had raises, and counts as read."""
        try:
            taken, moved = self.source.take(_ALL)
        except ClosedError:
            return False
        if not taken:
            return moved
        entries = []
        failure: Exception | None = None
        for value in taken:
            try:
                entries.append((self._key(value), value))
            except Exception as error:
                failure = error
        if entries:
            self._late += self._bound is not None and sum(entry[0] < self._bound for entry in entries)
            self._pending.extend(entries)
            self._pending.sort(key=itemgetter(0))  # stable, and quick because it joins sorted runs
            latest = self._pending[-1][0]
            mark = latest if self._bound is None else max(latest, self._bound)
            self._marks.append((monotonic() + self._hold, mark))
        if failure is not None:
            raise failure
        return moved
