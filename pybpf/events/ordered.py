"""Events of several buffers in the order of a time that they carry: `OrderedReader`.

Rules of this module:

* Each CPU's perf buffer, and each ring buffer, is in order by itself; sorting merges them.
* A value is held until no earlier one can come any more: programs take the time first and write the record a moment
  later, so `hold` seconds after everything was read, all that is not newer than what was seen then is there.
* A value that comes still later is delivered at once, and counted as `late`.
* While what is due has not been fetched, no more is read: what does not fit then is lost in the kernel's buffer, which
  counts it, and does not fill our memory. So about what comes in `hold` seconds, and what the buffers hold, is held.
* The rules of `source` for signal handlers hold here.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from math import inf
from operator import itemgetter
from time import monotonic

from pybpf.errors import ClosedError
from pybpf.events.source import ALL, EventSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    from pybpf.events.capture import Capture

DEFAULT_HOLD = 0.01
"""Seconds. The kernel's interrupts and preemption between taking the time and writing are far shorter."""
_KEY = itemgetter(0)
_VALUE = itemgetter(1)


class OrderedReader(EventSource):
    """Reads a source, and gives its values by ascending `key`. `in_order()` of a reader makes one.

    Args:
        source: a reader. It belongs to the ordered reader, which closes it.
        key: gives the number that a value is ordered by, or anything else that can be compared.
        hold: seconds that a value is held back.

    Whoever watches `fileno()` in a loop of his own calls `consume()` also `hold` seconds after the last readiness.
    """

    __slots__ = ("_bound", "_ended", "_hold", "_key", "_late", "_marks", "_pending", "source")

    def __init__(self, source: EventSource, key: Callable[[Any], Any], hold: float = DEFAULT_HOLD) -> None:
        if not 0 <= hold < inf:
            raise ValueError(f"hold must be a number of seconds and not negative, not {hold}")
        self.source = source
        self._key = key
        self._hold = hold
        self._pending: list[tuple[Any, Any]] = []
        self._bound: Any = None
        self._marks: deque[tuple[float, Any]] = deque()
        self._late = 0
        # Readable from when the source closes, which takes its own descriptor out of the epoll set without a word.
        self._ended = source._wakeup.dup()
        try:
            super().__init__((source.fileno(), self._ended.fileno()))
        except BaseException:
            self._ended.close()
            raise

    def _release(self, inherited: bool) -> None:
        self._ended.close()
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

    @property
    def lost(self) -> Any:
        """The `lost` of the source."""
        return self.source.lost

    def statistics(self) -> dict[str, Any]:
        """The `statistics()` of the source. What is held counts as read."""
        return self.source.statistics()

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Record what the source reads, in the order in which it reads it; see `record()` of the source."""
        return self.source.record(path)

    def _collect(self, values: list[Any], limit: int) -> bool:
        room = limit - len(values)
        moved = False
        if self._count_due() < room:
            now = monotonic()  # before reading: what was written by then is there afterwards
            moved = self._read()
            while self._marks and self._marks[0][0] <= now:
                self._bound = self._marks[0][1]
                del self._marks[0]
        count = min(self._count_due(), room)
        due = list(map(_VALUE, self._pending[:count]))
        values += due
        del self._pending[:count]
        if self.source.closed and not values:
            self.close()
        return moved

    def _count_due(self) -> int:
        if self.source.closed:
            return len(self._pending)  # no earlier value can come, because none comes at all
        return 0 if self._bound is None else bisect_right(self._pending, self._bound, key=_KEY)

    def _read(self) -> bool:
        """Take all that is there. A value that has no key, or none that can be compared, counts as read."""
        taken: list[Any] = []
        moved = False
        try:
            moved = self.source.take(taken, ALL)
            if taken:
                self._hold_back(taken)
        except ClosedError:
            pass
        finally:
            self.source.put_back(taken)
        if self._errors:
            raise self._errors.popleft()
        return moved

    def _hold_back(self, taken: list[Any]) -> None:
        """Put them where they belong among those that are pending, and empty the list."""
        entries: list[tuple[Any, Any]] = []
        errors: list[Exception] = []
        late = 0
        for value in taken:
            try:
                key = self._key(value)
                if not key <= key:
                    raise ValueError(f"{key!r} has no place in an order")
                late += self._bound is not None and key < self._bound
                entries.append((key, value))
            except Exception as error:
                errors.append(_of_value(error, value))
        pending = self._merged(entries, errors)
        marks = []
        if entries and pending:
            latest = pending[-1][0]
            # Without a hold, it is due now.
            due = monotonic() + self._hold if self._hold else 0.0
            marks.append((due, latest if self._bound is None else max(latest, self._bound)))
        self._pending = pending
        self._marks += marks
        self._late += late
        self._errors += errors
        del taken[:]

    def _merged(self, entries: list[tuple[Any, Any]], errors: list[Exception]) -> list[tuple[Any, Any]]:
        """What is pending with the entries in their places. For those that cannot be compared there is an error."""
        pending = self._pending + entries
        try:
            pending.sort(key=_KEY)  # stable, and quick because it joins sorted runs
        except Exception:
            pending = self._pending.copy()
            for entry in entries:
                try:
                    insort(pending, entry, key=_KEY)
                except Exception as error:
                    errors.append(_of_value(error, entry[1]))
        return pending


def _of_value(error: Exception, value: Any) -> Exception:
    error.add_note(f"This was the key of {value!r}.")
    return error
