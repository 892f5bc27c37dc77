"""Reading records where they are: `RecordSource.borrow_batch()`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from pybpf.events.batch import Batch
    from pybpf.events.source import RecordSource


class Loan:
    """A context manager that gives a borrowed `Batch`, and gives it back at the end of the block.

    For the time of the block its thread is inside the source, holding its lock: closing the source from elsewhere
    takes effect at the end of the block, so the views of the batch never lead to memory that is unmapped.
    """

    __slots__ = ("_batch", "_limit", "_source")

    def __init__(self, source: RecordSource, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._batch: Batch | None = None

    def __enter__(self) -> Batch:
        """Raises ClosedError, and RuntimeError after fork() or inside another read of this thread."""
        self._batch = self._source.lend(self._limit)
        return self._batch

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            self._source.end_loan(batch)
