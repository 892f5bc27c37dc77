"""What every reader of events offers: `poll`, `consume`, ``for`` and ``async for``.

Rules of this module:

* The styles are thin layers over one `_gather()`, which takes values without waiting.
* Values are taken before anybody waits: a wake-up that came earlier is never needed, only later ones are.
* Nothing is lost and nothing repeated by `break`, a timeout, a cancelled task or an error in one record: what was
  taken and not delivered stays with the source.
* Nor by a signal handler that raises, as that of Ctrl-C does. It runs behind a call of a C function, on entry of a
  Python function and when a loop goes round; nowhere else. So whoever takes something makes an empty list first, has
  it filled by one C call, and gives it back in an ``except`` or ``finally``; what belongs together is stored by
  statements without calls; a ``for`` takes the next value and stores it without a gap; a token or lock is taken as the
  first thing in its ``try``; and behind the last call on the way out nothing is done but to return.
* asyncio is imported by ``async for`` only.
"""

from __future__ import annotations

import os
from _thread import RLock
from itertools import islice, repeat, starmap
from select import EPOLLIN
from time import monotonic

from pybpf.errors import ClosedError
from pybpf.events.waiting import Waitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self

    from pybpf.events.capture import Capture
    from pybpf.events.ordered import OrderedReader
else:
    from _collections import deque  # the built-in part of `collections`, which takes 1.2 ms to import

CHUNK = 512
"""How many values a loop over events takes at once, once it goes on for long."""
FIRST_CHUNK = 8
"""How many it takes first: a loop that ends at its first event should not have decoded hundreds."""
ALL = 1 << 30
"""A limit that is none."""
PAUSE = 0.001
"""Seconds between two looks at a ring whose next record is reserved but not submitted."""


class EventSource(Waitable):
    """An iterable of what has happened, in three styles that may be mixed.

    ``for value in source`` blocks, ``source.poll(timeout)`` waits and gives a list, ``async for value in source``
    uses the running event loop. Any other event loop watches `fileno()` for reading and calls `consume()`: once
    after it began to watch, then after each readiness. Threads may share a source: each value goes to one of them.
    """

    __slots__ = ("_errors", "_lock", "_reading", "_ready", "_supply")

    def __init__(self, watched: Iterable[int]) -> None:
        self._ready: deque[Any] = deque()
        # Takes them out, and raises IndexError when there is none.
        self._supply: Iterator[Any] = starmap(self._ready.popleft, repeat(()))
        self._errors: deque[Exception] = deque()
        self._lock = RLock()
        self._reading = False
        super().__init__(watched, EPOLLIN)

    def _collect(self, values: list[Any], limit: int) -> bool:
        """Append what is there now until `values` has `limit` items. Tells whether a buffer moved."""
        raise AssertionError("a subclass gives it")

    def _due(self) -> float | None:
        """In how many seconds there will be values without any readiness; None: there will not."""
        return None

    def fileno(self) -> int:
        """A descriptor that is readable when there may be events."""
        raise AssertionError("a subclass gives it")

    @property
    def lost(self) -> Any:
        """What was dropped for lack of room, as far as that is known."""
        raise AssertionError("a subclass gives it")

    def statistics(self) -> dict[str, Any]:
        """Numbers for a log or a monitor."""
        raise AssertionError("a subclass gives it")

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Write what is read from now on into a file as well, until the result is closed."""
        raise AssertionError("a subclass gives it")

    def in_order(self, key: str | Callable[[Any], Any], hold: float = 0.01) -> OrderedReader:
        """The same values by ascending `key`: those of several CPUs, or several buffers, merged by time.

        Args:
            key: the name of the member that holds the time, or a function that gives it of a value.
            hold: seconds to wait for a record that was stamped before others and written after them.

        The ordered reader takes this one over, and closes it. Raises KeyError when the records' type is known and has
        no such member.
        """
        from pybpf.events.ordered import OrderedReader

        return OrderedReader(self, self._member(key) if isinstance(key, str) else key, hold)

    def _member(self, name: str) -> Callable[[Any], Any]:
        """A function that gives the member of that name of a value."""
        from operator import attrgetter

        return attrgetter(name)

    def consume(self, limit: int | None = None) -> list[Any]:
        """The values that are there now, at most `limit`, without waiting. Raises what `poll()` raises."""
        return self.poll(0, limit)

    def poll(self, timeout: float | None = None, limit: int | None = None) -> list[Any]:
        """Wait until there are values, then give all that are there, at most `limit`.

        Args:
            timeout: seconds to wait; None waits for ever, 0 not at all. The list is empty when time is up.
            limit: the largest number of values to give; the others stay where they are.

        Raises:
            ClosedError: the source is closed, or was closed by another thread meanwhile.
            ValueError: a record is too short for its type. It counts as read; the next call goes on behind it.
            RuntimeError: the source was inherited by fork(), or a decode function reads from its own source.
        """
        wanted = wanted_of(limit)
        values: list[Any] = []
        try:
            self._when_there(lambda: self._gather(values, wanted), values, timeout)
        except BaseException:
            self.put_back(values)
            raise
        return values

    def _when_there(self, take: Callable[[], bool], taken: list[Any], timeout: float | None) -> None:
        """Call `take` until it has put something into `taken`, or time is up. It tells whether a buffer moved."""
        deadline = _deadline(timeout)
        try:
            self._inside.append(None)
            self._check()
            ready = False
            while True:
                moved = take()
                if taken or deadline == 0:
                    return
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    return
                due = self._due()
                if due is not None:
                    remaining = due if remaining is None else min(due, remaining)
                if ready and not moved:
                    # The next record is reserved and not yet submitted. That takes a moment only.
                    self._pause(PAUSE if remaining is None else min(remaining, PAUSE))
                    ready = False
                else:
                    ready = self._wait(remaining)
        finally:
            self._inside.pop()
            self._settle()

    def take(self, values: list[Any], limit: int) -> bool:
        """Append to `values`, which is empty, what is there now, at most `limit`. Tells whether a buffer moved.

        For readers of readers, which `put_back()` what they could not deliver. `consume()` is the one for people.
        """
        return self._at_once(self._gather_alone, values, limit)

    def _at_once(self, work: Callable[[list[Any], int], bool], taken: list[Any], limit: int) -> bool:
        """`_alone()`, and `close()` waits for it."""
        try:
            self._inside.append(None)
            self._check()
            return self._alone(work, taken, limit)
        finally:
            self._inside.pop()
            self._settle()

    def put_back(self, values: list[Any]) -> None:
        """Have these values come next, because nobody got them."""
        self._ready.extendleft(reversed(values))

    def _alone(self, work: Callable[[list[Any], int], bool], taken: list[Any], limit: int) -> bool:
        """`work(taken, limit)`, by one thread at a time, and not inside of itself."""
        try:
            self._lock.acquire()
            self._refuse_nesting()
            try:
                self._reading = True
                return work(taken, limit)
            finally:
                self._reading = False
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # a signal handler raised while we waited for it
                pass

    def _gather(self, values: list[Any], limit: int) -> bool:
        return self._alone(self._gather_alone, values, limit)

    def _gather_alone(self, values: list[Any], limit: int) -> bool:
        try:
            if self._ready:
                self._reclaim(values, limit)
            if self._errors:
                raise self._errors.popleft()
            return self._collect(values, limit)
        except Exception as error:
            # What was decoded before goes out first.
            if not values:
                raise
            self._errors.appendleft(error)
            return True

    def _reclaim(self, values: list[Any], limit: int) -> None:
        """Append what a loop took and did not get to."""
        try:
            values.extend(islice(self._supply, limit))
        except IndexError:  # that was all
            return

    def _refuse_nesting(self) -> None:
        """A decode function or a signal handler must not read from the source that is calling it."""
        if self._reading:
            raise RuntimeError(f"{self!r} is being read by this thread already, further up the stack")

    def __iter__(self) -> Iterator[Any]:
        """Wait for values and yield them, until the source is closed. A loop that was left may be begun again."""
        self._check()
        return self._iterate()

    def _iterate(self) -> Iterator[Any]:
        chunk = FIRST_CHUNK
        while not self.closed:
            try:
                for value in self._supply:
                    yield value
                    if self._closing:
                        return
            except IndexError:  # that was all
                pass
            values: list[Any] = []
            try:
                self._when_there(lambda: self._gather(values, chunk), values, None)  # noqa: B023 - called at once
            except ClosedError:
                return
            finally:
                self._ready.extend(values)
            chunk = min(2 * chunk, CHUNK)

    def __aiter__(self) -> Self:
        self._check()
        return self

    async def __anext__(self) -> Any:
        """The next value. Cancelling the wait neither loses nor repeats one."""
        from asyncio import sleep

        stalled = False
        while not self._closing:
            try:
                for value in self._supply:
                    return value
            except IndexError:  # that was all
                pause = PAUSE if stalled else 0
            # One turn for the other tasks before each chunk, however fast events come.
            await sleep(pause)
            try:
                self._inside.append(None)
                self._check()
                stalled = not self._take_chunk() and not await self.readable(self._take_chunk)
            except ClosedError:
                break
            finally:
                self._inside.pop()
                self._settle()
        raise StopAsyncIteration

    def _take_chunk(self) -> bool:
        values: list[Any] = []
        try:
            moved = self._gather(values, CHUNK)
        finally:
            self._ready.extend(values)
        return moved or bool(values)

    async def readable(self, look: Callable[[], bool]) -> bool:
        """Wait in the running event loop until there may be something; `look` tells whether there is.

        False when there seem to be records that cannot be read yet. Raises ClosedError.
        """
        from asyncio import get_running_loop

        watched: list[int] = []
        try:
            self._inside.append(None)
            self._check()
            loop = get_running_loop()
            future = loop.create_future()
            # A descriptor of its own for each waiting task, because a loop knows one callback for each descriptor.
            watched.extend(map(os.dup, (self._epoll.fileno(),)))
            due = self._due()
            timer = None if due is None else loop.call_later(due, _set, future)
            try:
                loop.add_reader(watched[0], _set, future)
                # To watch a perf buffer is to ask it, and asking clears its readiness: look again, now that it is.
                if not look():
                    await future
                    return self._closing or look()
                return True
            finally:
                loop.remove_reader(watched[0])
                if timer is not None:
                    timer.cancel()
        finally:
            try:
                for one in watched:
                    os.close(one)
            finally:
                self._inside.pop()
                self._settle()


def wanted_of(limit: int | None) -> int:
    """A limit as a number. Raises ValueError, TypeError."""
    if limit is None:
        return ALL
    if not hasattr(limit, "__index__"):
        raise TypeError(f"limit must be an integer or None, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    return limit


def _deadline(timeout: float | None) -> float | None:
    """When the time is up. None: never; 0: it is."""
    if not timeout:
        return timeout
    try:
        deadline = monotonic() + timeout
    except OverflowError:
        deadline = float("nan")
    if deadline != deadline:
        raise ValueError(f"timeout must be seconds or None, not {timeout}")
    return deadline


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)
