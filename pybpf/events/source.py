"""What every reader of events offers: `poll`, `consume`, ``for`` and ``async for``.

Rules of this module:

* The styles are thin layers over one `_gather()`, which takes values without waiting.
* Values are taken before anybody waits: a wake-up that came earlier is never needed, only later ones are.
* Nothing is lost and nothing repeated by `break`, a timeout, a cancelled task or an error in one record: what was
  taken and not delivered stays with the source.
* asyncio is imported by ``async for`` only.
"""

from __future__ import annotations

import os
from _thread import RLock
from itertools import islice
from select import EPOLLIN
from time import monotonic

from pybpf.errors import ClosedError
from pybpf.events.batch import Batch, decoder
from pybpf.events.waiting import Waitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections import deque
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Self, TypeVar

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Decode, RecordCodec, Values
    from pybpf.events.capture import Capture
    from pybpf.events.loan import Batches, Loan
    from pybpf.events.ordered import OrderedReader
    from pybpf.events.types import Mixture

    _Taken = TypeVar("_Taken", list[Any], Batch)
else:
    from _collections import deque  # the built-in part of `collections`, which takes 1.2 ms to import

CHUNK = 512
"""How many values a loop over events takes at once, once it goes on for long."""
FIRST_CHUNK = 8
"""How many it takes first: a loop that ends at its first event should not have decoded hundreds."""
_ALL = 1 << 30
PAUSE = 0.001
"""Seconds between two looks at a ring whose next record is reserved but not submitted."""


class EventSource(Waitable):
    """An iterable of what has happened, in three styles that may be mixed.

    ``for value in source`` blocks, ``source.poll(timeout)`` waits and gives a list, ``async for value in source``
    uses the running event loop. Any other event loop watches `fileno()` for reading and calls `consume()`: once
    after it began to watch, then after each readiness. Threads may share a source: each value goes to one of them.
    """

    __slots__ = ("_error", "_lock", "_reading", "_ready")

    def __init__(self, watched: Iterable[int]) -> None:
        self._ready: deque[Any] = deque()
        self._error: Exception | None = None
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

    def in_order(self, key: str | Callable[[Any], Any], hold: float = 0.01) -> OrderedReader:
        """The same values by ascending `key`: those of several CPUs, or several buffers, merged by time.

        Args:
            key: the name of the member that holds the time, or a function that gives it of a value.
            hold: seconds to wait for a record that was stamped before others and written after them.

        The ordered reader takes this one over, and closes it.
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
        wanted = _wanted(limit)
        return self._when_there(lambda: self._gather(wanted), timeout)

    def _when_there(self, take: Callable[[], tuple[_Taken, bool]], timeout: float | None) -> _Taken:
        """What `take` gives, as soon as that is something, or when time is up. `take` also tells if a buffer moved."""
        deadline = _deadline(timeout)
        try:
            self._inside.append(None)
            self._check()
            ready = False
            while True:
                values, moved = take()
                if values or deadline == 0:
                    return values
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    return values
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

    def take(self, limit: int) -> tuple[list[Any], bool]:
        """What is there now, at most `limit`, and whether a buffer moved. `consume()` is the one for people."""
        try:
            self._inside.append(None)
            self._check()
            return self._gather(limit)
        finally:
            self._inside.pop()
            self._settle()

    def _gather(self, limit: int) -> tuple[list[Any], bool]:
        """`take()`, by one thread at a time, and so that an error or an interrupt loses nothing."""
        values: list[Any] = []
        with self._lock:
            self._refuse_nesting()
            try:
                self._reading = True
                if self._ready:
                    self._reclaim(values, limit)
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                return values, self._collect(values, limit)
            except Exception as error:
                # What was decoded before goes out first.
                if not values:
                    raise
                self._error = error
                return values, True
            except BaseException:
                self._ready.extendleft(reversed(values))
                raise
            finally:
                self._reading = False

    def _reclaim(self, values: list[Any], limit: int) -> None:
        """Append what a loop took and did not get to."""
        try:
            while len(values) < limit:
                values.append(self._ready.popleft())
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
        ready = self._ready
        chunk = FIRST_CHUNK
        while not self._closing:
            try:
                while ready and not self._closing:
                    yield ready.popleft()
            except IndexError:  # another thread was quicker
                continue
            try:
                ready.extend(self.poll(None, chunk))
            except ClosedError:
                return
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
                return self._ready.popleft()
            except IndexError:
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
        values, moved = self._gather(CHUNK)
        self._ready.extend(values)
        return moved or bool(values)

    async def readable(self, look: Callable[[], bool]) -> bool:
        """Wait in the running event loop until there may be something; `look` tells whether there is.

        False when there seem to be records that cannot be read yet. Raises ClosedError.
        """
        from asyncio import get_running_loop

        try:
            self._inside.append(None)
            self._check()
            loop = get_running_loop()
            future = loop.create_future()
            # A descriptor of its own for each waiting task, because a loop knows one callback for each descriptor.
            watched = os.dup(self._epoll.fileno())
            due = self._due()
            timer = None if due is None else loop.call_later(due, _set, future)
            try:
                loop.add_reader(watched, _set, future)
                # To watch a perf buffer is to ask it, and asking clears its readiness: look again, now that it is.
                if not look():
                    await future
                    return self._closing or look()
                return True
            finally:
                if timer is not None:
                    timer.cancel()
                loop.remove_reader(watched)
                os.close(watched)
        finally:
            self._inside.pop()
            self._settle()


class RecordSource(EventSource):
    """A source that decodes records of its own buffers.

    Attributes:
        capture: what records it at the moment, or None.
    """

    __slots__ = ("_btf", "_codec", "_held", "_mixture", "_values", "capture")

    def __init__(self, decode: Decode, strict: bool, btf: BTF | None, watched: Iterable[int]) -> None:
        self.capture: Capture | None = None
        self._btf = btf
        self._values = self._formed(decoder(decode, strict=strict))
        self._codec: RecordCodec | None = None if callable(decode) else decode
        self._mixture: Mixture | None = None
        self._held = Batch(b"", (), ())
        super().__init__(watched)

    def _available(self) -> int:
        """How many bytes the buffers hold."""
        raise AssertionError("a subclass gives it")

    def _scan(self, limit: int, *, copy: bool = True) -> Batch | None:
        """The next records of one buffer, at most `limit`: copied out, or where they are if that is possible."""
        raise AssertionError("a subclass gives it")

    def _formed(self, values: Values) -> Values:
        """The same in the form that the reader gives them."""
        return values

    def _account(self, batch: Batch) -> None:
        """Called once for each batch that was taken."""

    @property
    def lost(self) -> int | None:
        """How many records were dropped for lack of room; None where only the program knows."""
        return None

    @property
    def records(self) -> int:
        """How many records were read."""
        raise AssertionError("a subclass gives it")

    @property
    def bytes(self) -> int:
        """How many bytes of payload were read."""
        raise AssertionError("a subclass gives it")

    @property
    def available(self) -> int:
        """Bytes in the buffers, headers and records not submitted yet included. Raises ClosedError."""
        self._check()
        return self._available()

    @property
    def size(self) -> int:
        """Bytes that the buffers can hold."""
        raise AssertionError("a subclass gives it")

    def statistics(self) -> dict[str, int | None]:
        """Numbers for a log or a monitor.

        ``records`` and ``bytes`` that were read, ``lost`` (None when nobody counts), and how full the buffers are:
        ``available`` bytes of ``size``. Raises ClosedError.
        """
        self._check()
        return {
            "records": self.records,
            "bytes": self.bytes,
            "lost": self.lost,
            "available": self._available(),
            "size": self.size,
        }

    def of(self, type_name: str) -> Self:
        """Decode records from now on as the struct, union or typedef of that name. Gives the reader itself.

        Raises BTFError when there is no type information, or no such type in it.
        """
        from pybpf.events.types import codec_of

        return self._decode_as(codec_of(self._btf, type_name))

    def of_several(self, choose: Callable[[memoryview], str | RecordCodec | None]) -> Self:
        """Decode each record as the type that `choose` says. Gives the reader itself.

        Args:
            choose: gets a record as `memoryview`; gives the name of a type, a codec, or None for `bytes`.

        Raises BTFError when there is no type information. A name that is not in it raises BTFError when the first such
        record is read.
        """
        from pybpf.events.types import Mixture

        mixture = Mixture(self._btf, choose)
        return self._decode_as(mixture, mixture)

    def _decode_as(self, decode: Decode, mixture: Mixture | None = None) -> Self:
        values = self._formed(decoder(decode) if mixture is None else mixture.values)
        self._check()
        with self._lock:
            self._refuse_nesting()
            self._values = values
            self._codec = None if callable(decode) else decode
            self._mixture = mixture
            self._held.chosen = None
            self._held.rest = values(self._held, self._held.delivered)
            if self.capture is not None:
                self.capture.declare_again(self)
        return self

    def record(self, path: str | os.PathLike[str]) -> Capture:
        """Write what is taken from the kernel into a file as well, until the result is closed.

        `pybpf.events.Replay` reads it. What a loop took before and did not get to is not in it.

        Raises OSError; ValueError when it is being recorded already; ClosedError.
        """
        from pybpf.events.capture import Capture

        self._check()
        return Capture(path, {getattr(self, "name", "events") or "events": self})

    def recorded_type(self) -> tuple[BTF | None, int]:
        """Type information and type id for a recording; (None, 0) when its type cannot be told that way."""
        from pybpf.events.types import type_id_of

        if self._mixture is not None:
            return self._btf, 0
        type_id = 0 if self._btf is None or self._codec is None else type_id_of(self._btf, self._codec)
        return (self._btf, type_id) if type_id else (None, 0)

    def types_of(self, batch: Batch) -> list[int] | None:
        """The type id of each record in a buffer of several types, otherwise None."""
        if self._mixture is None:
            return None
        types = self._mixture.types_of(batch)
        if batch is self._held:  # decode as was chosen now
            batch.rest = self._values(batch, batch.delivered)
        return types

    def _take(self, batch: Batch) -> None:
        """Called once for each batch that was taken, while its data is there."""
        if self.capture is not None:
            self.capture.add(self, batch)
        self._account(batch)

    def read_batch(self, limit: int | None = None, timeout: float | None = 0) -> Batch:
        """The next records as they are, undecoded, at most `limit`; a copy that is yours.

        Args:
            limit: the largest number of records. A batch has at most 2048, and at most about 1 MiB.
            timeout: seconds to wait until there is one; None waits for ever, 0 not at all.

        Values that an unfinished loop left behind are not in it. An empty batch: there was nothing in that time.
        Raises what `poll()` raises, but for errors in decoding.
        """
        wanted = _wanted(limit)
        return self._when_there(lambda: self._next_batch(wanted), timeout)

    def _next_batch(self, limit: int) -> tuple[Batch, bool]:
        with self._lock:
            self._refuse_nesting()
            self._held.commit()
            batch = self._scan(limit)
            if batch is None:
                return self._typed(Batch(b"", (), ())), False
            if self.capture is not None:  # before the commit: when it cannot be written, it is still there
                self.capture.add(self, self._typed(batch))
            batch.commit()
        self._account(batch)
        return self._typed(batch), True

    def _typed(self, batch: Batch) -> Batch:
        batch.codec = self._codec
        return batch

    def batches(self, timeout: float | None = None) -> Batches:
        """`read_batch()` again and again, for ``for`` and ``async for``, until the source is closed.

        Args:
            timeout: end also when nothing came for so many seconds; None never. ``async for`` does not look at it.
        """
        from pybpf.events.loan import Batches

        return Batches(self, timeout)

    def borrow_batch(self, limit: int | None = None) -> Loan:
        """The next records where they are, in the kernel's buffer, without a copy and without waiting::

            with ring.borrow_batch() as batch:
                total += sum(batch.column("bytes"))

        In the block nobody else reads from this source: other threads wait, this one gets RuntimeError. At its end,
        however that comes, the records count as read and the views are taken back. Programs lose records when the
        block takes so long that the buffer fills up. A batch is a run of records of one size, however long, or up to
        2048 of mixed sizes; where a perf buffer wraps around, and from overwriting ring buffers, it is a copy.
        """
        from pybpf.events.loan import Loan

        return Loan(self, _wanted(limit))

    def lend(self, limit: int) -> Batch:
        """The beginning of a loan, see `borrow_batch()`."""
        try:
            self._inside.append(None)
            self._check()
            self._lock.acquire()
            try:
                self._refuse_nesting()
                self._held.commit()
                batch = self._typed(self._scan(limit, copy=False) or Batch(b"", (), ()))
                self._reading = True
                return batch
            except BaseException:
                self._lock.release()
                raise
        except BaseException:
            self._inside.pop()
            self._settle()
            raise

    def end_loan(self, batch: Batch) -> None:
        """Its end: the records count as read."""
        try:
            try:
                self._take(batch)
            finally:
                batch.commit()
                batch.end_loan()
        finally:
            self._reading = False
            self._lock.release()
            self._inside.pop()
            self._settle()

    def _collect(self, values: list[Any], limit: int) -> bool:
        moved = False
        room = self._available()
        while True:
            self._draw(values, limit)
            if room <= 0 or len(values) >= limit:
                return moved
            taken = self._refill(limit - len(values))
            if not taken:
                return moved
            moved = True
            room -= taken

    def _refill(self, limit: int) -> int:
        """Take the next records, at most `limit`, and give their bytes back to the kernel. Gives how many.

        The store to `_held` decides: before it, nothing has happened; after it, the records are ours, and if an
        interrupt keeps the position from being stored, the next call makes up for that.
        """
        self._held.commit()
        batch = self._scan(limit)
        if batch is None:
            return 0
        batch.codec = self._codec
        batch.rest = self._values(batch, 0)
        self._held = batch
        batch.commit()
        self._take(batch)
        return batch.extent

    def _draw(self, values: list[Any], limit: int) -> None:
        """Decode what is held until `values` has `limit` items. A record that raises an error is behind us then."""
        batch = self._held
        start, before = batch.delivered, len(values)
        if start == len(batch):
            return
        try:
            values.extend(islice(batch.rest, limit - before))
            batch.delivered = start + len(values) - before
            if len(values) < limit and batch.delivered < len(batch):
                raise RuntimeError("the decode function raised StopIteration")
        except BaseException as error:
            batch.delivered = batch.resume_at(start + len(values) - before, error)
            batch.rest = self._values(batch, batch.delivered)
            raise


def _wanted(limit: int | None) -> int:
    if limit is None:
        return _ALL
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
