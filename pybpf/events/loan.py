"""Batch after batch, and batches that are read where they lie: `RecordSource.batches()` and `borrow_batch()`."""

from __future__ import annotations

from pybpf.errors import ClosedError
from pybpf.events.source import PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from pybpf.events.batch import Batch
    from pybpf.events.records import RecordSource


class Batches:
    """An iterable of batches, in two styles. Cancelling the wait for one, or leaving the loop, loses no record."""

    __slots__ = ("_source", "_timeout")

    def __init__(self, source: RecordSource, timeout: float | None) -> None:
        self._source = source
        self._timeout = timeout

    def __iter__(self) -> Iterator[Batch]:
        while not self._source.closed:
            try:
                batch = self._source.read_batch(None, self._timeout)
            except ClosedError:
                return
            if not batch.starts:
                return
            yield batch

    async def __aiter__(self) -> AsyncIterator[Batch]:
        from asyncio import sleep

        source = self._source
        while not source.closed:
            # One turn for the other tasks before each batch, however fast events come.
            await sleep(0)
            try:
                batch = source.read_batch()
                if batch.starts:  # no len(), behind which a signal handler could raise
                    yield batch
                elif not await source.readable(lambda: source.available > 0):
                    await sleep(PAUSE)
            except ClosedError:
                return


class Loan:
    """A context manager that gives a borrowed `Batch`, and gives it back at the end of the block.

    For the time of the block its thread is inside the source, holding its lock: closing the source from elsewhere
    takes effect at the end of the block, so the views of the batch never lead to memory that is unmapped. That thread
    ends it: another one, which closes its generator, say, gets RuntimeError.

    Attributes:
        is_lent: whether the source has lent it a batch and not got it back.
    """

    __slots__ = ("__weakref__", "_limit", "_source", "is_lent")

    def __init__(self, source: RecordSource, limit: int) -> None:
        self._source = source
        self._limit = limit
        self.is_lent = False

    def __enter__(self) -> Batch:
        """Raises ClosedError, and RuntimeError after fork() or inside another read of this thread."""
        return self._source.lend(self, self._limit)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.is_lent:
            self.is_lent = False
            self._source.loan_is_over = True
            self._source.end_loan()
