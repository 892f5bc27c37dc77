"""Readers of kernel buffers: what ring buffers and perf buffers share, `RecordSource`.

Rules of this module:

* A batch is taken, then decoded: values are drawn from it as they are asked for.
* Which statement makes a batch ours is told in the class; the rules of `source` for signal handlers hold here.
"""

from __future__ import annotations

import os
from _weakref import ref  # the built-in part of `weakref`, which imports much
from itertools import islice

from pybpf.events.batch import Batch, decoder
from pybpf.events.source import EventSource, wanted_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Decode, RecordCodec, Values
    from pybpf.events.capture import Capture
    from pybpf.events.loan import Batches, Loan
    from pybpf.events.types import Mixture


class RecordSource(EventSource):
    """A source that decodes records of its own buffers.

    Attributes:
        capture: what records it at the moment, or None.
        loan_is_over: whether the block that borrowed a batch is left, and only the batch not given back.
    """

    # `_held` is the batch that values are decoded of, `_last` the one that was scanned last, `_returned` those that
    # nobody got. A store to `_last` decides: before it, nothing has happened to the buffer; after it, the records are
    # ours, and if an interrupt keeps the position from being stored, the next call makes up for that.
    # While values of `_held` are decoded, `_drawing` is the list they are put into and its length before that.
    # `_lent` is a batch that was lent to `_loan`.
    __slots__ = (
        "_btf",
        "_codec",
        "_drawing",
        "_held",
        "_last",
        "_lent",
        "_loan",
        "_mixture",
        "_returned",
        "_values",
        "capture",
        "loan_is_over",
    )

    def __init__(self, decode: Decode, strict: bool, btf: BTF | None, watched: Iterable[int]) -> None:
        self.capture: Capture | None = None
        self._btf = btf
        self._values = self._formed(decoder(decode, strict=strict))
        self._codec: RecordCodec | None = None if callable(decode) else decode
        self._mixture: Mixture | None = None
        self._held = self._last = self._lent = Batch(b"", (), ())
        self._loan: ref[Loan] | None = None
        self.loan_is_over = False
        self._drawing: tuple[list[Any], int] | None = None
        self._returned: list[Batch] = []
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
            self._find_place(None)
            self._values = values
            self._codec = None if callable(decode) else decode
            self._mixture = mixture
            for batch in (self._held, *self._returned):
                batch.chosen = None
            self._held.rest = values(self._held, self._held.delivered)
            if self.capture is not None:
                self.capture.declare_again(self)
        return self

    def _member(self, name: str) -> Callable[[Any], Any]:
        codec: Any = self._codec
        if codec is not None:
            from pybpf.events.table import members

            name = ".".join([part for part, _ in members(codec, name)])
        return super()._member(name)

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

    def _confirm(self) -> None:
        """Record the batch that was taken last, and give its space back to the kernel, unless that is done."""
        batch = self._last
        if not batch.committed:
            if self.capture is not None:
                self.capture.add(self, batch)
            batch.commit()

    def read_batch(self, limit: int | None = None, timeout: float | None = 0) -> Batch:
        """The next records as they are, undecoded, at most `limit`; a copy that is yours.

        Args:
            limit: the largest number of records. A batch has at most 2048, and at most about 1 MiB.
            timeout: seconds to wait until there is one; None waits for ever, 0 not at all.

        Values that an unfinished loop left behind are not in it. An empty batch: there was nothing in that time.
        Raises what `poll()` raises, but for errors in decoding.
        """
        wanted = wanted_of(limit)
        taken: list[Batch] = []
        try:
            self._when_there(lambda: self._alone(self._next_batch, taken, wanted), taken, timeout)
            if not taken:
                taken.append(self._typed(Batch(b"", (), ())))
        except BaseException:
            self.put_back_batches(taken)
            raise
        return taken[0]

    def take_batch(self, taken: list[Batch], limit: int) -> bool:
        """As `take()`, but one batch, if there is one."""
        return self._at_once(self._next_batch, taken, limit)

    def put_back_batches(self, batches: list[Batch]) -> None:
        """Have these batches come next, because nobody got them."""
        try:
            self._lock.acquire()
            self._returned[:0] = batches
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # a signal handler raised while we waited for it
                pass

    def _next_batch(self, taken: list[Batch], limit: int) -> bool:
        self._confirm()
        if self._returned:
            self._take_returned(taken, limit)
            return True
        batch = self._scan(limit)
        if batch is None:
            return False
        self._typed(batch)
        if batch.starts:
            taken += (batch,)
        self._last = batch
        self._confirm()
        self._account(batch)
        return True

    def _take_returned(self, taken: list[Batch], limit: int) -> None:
        whole = self._returned[0]
        parts = []
        for part in (slice(limit), slice(limit, None)):
            if starts := whole.starts[part]:
                some = self._typed(Batch(whole.data, starts, whole.sizes[part]))
                some.committed = True
                some.cpu = whole.cpu
                some.chosen = None if whole.chosen is None else whole.chosen[part]
                parts.append(some)
        first, rest = parts[:1], parts[1:]
        taken += first
        self._returned[:1] = rest

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

        return Loan(self, wanted_of(limit))

    def lend(self, loan: Loan, limit: int) -> Batch:
        """The beginning of a loan, see `borrow_batch()`."""
        known = ref(loan)
        try:
            self._inside.append(None)
            self._check()
            try:
                self._lock.acquire()
                self._refuse_nesting()
                self._confirm()
                batch = self._typed(self._scan(limit, copy=False) or Batch(b"", (), ()))
                self._loan = known
                self._lent = batch
                self._reading = loan.is_lent = True
                return batch
            except BaseException:
                try:
                    self._lock.release()
                except RuntimeError:  # a signal handler raised while we waited for it
                    pass
                raise
        except BaseException:
            self._inside.pop()
            self._settle()
            raise

    def end_loan(self) -> None:
        """Its end: the records count as read, unless the end of the block was never reached."""
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError(f"{self!r}: another thread has borrowed this batch, and has to give it back")
        batch = self._lent
        try:
            if self.loan_is_over:
                self._last = batch
                if os.getpid() == self._pid:  # a child shares the position, and must not move it
                    try:
                        self._confirm()
                    finally:
                        batch.commit()
                    self._account(batch)
        finally:
            try:
                batch.end_loan()
            finally:
                self._loan = None
                self._reading = self.loan_is_over = False
                try:
                    self._lock.release()
                finally:
                    self._inside.pop()
                    self._settle()

    def _refuse_nesting(self) -> None:
        # The lock is ours, so a loan that nobody can give back was: a signal handler raised between it and its block.
        if self._loan is not None and self._loan() is None:
            self.end_loan()
        super()._refuse_nesting()

    def close(self) -> None:
        loan = self._loan
        if loan is not None:
            try:
                if self._lock.acquire(blocking=False) and self._loan is loan and loan() is None:
                    self.end_loan()
            finally:
                try:
                    self._lock.release()
                except RuntimeError:  # another thread has it
                    pass
        super().close()

    def _collect(self, values: list[Any], limit: int) -> bool:
        moved = False
        self._confirm()
        room = self._available()
        while True:
            self._draw(values, limit)
            if len(values) >= limit or (room <= 0 and not self._returned):
                return moved
            taken = self._refill(limit - len(values))
            if not taken:
                return moved
            moved = True
            room -= taken

    def _refill(self, limit: int) -> int:
        """Take the next records, at most `limit`, and give their bytes back to the kernel. Gives how many."""
        batch = self._returned[0] if self._returned else self._scan(limit)
        if batch is None:
            return 0
        is_new = not batch.committed
        batch.codec = self._codec
        batch.rest = self._values(batch, 0)
        self._held = self._last = batch
        del self._returned[:1]
        if is_new:
            self._confirm()
            self._account(batch)
        return batch.extent

    def _draw(self, values: list[Any], limit: int) -> None:
        """Decode what is held until `values` has `limit` items. A record that raises an error is behind us then."""
        self._find_place(None)
        batch = self._held
        start, before = batch.delivered, len(values)
        if start == len(batch):
            return
        self._drawing = values, before
        try:
            values.extend(islice(batch.rest, limit - before))
            delivered = start + len(values) - before
            if len(values) < limit and delivered < len(batch):
                raise RuntimeError("the decode function raised StopIteration")
            batch.delivered = delivered
            self._drawing = None
        except Exception as error:
            self._find_place(error)
            raise

    def _find_place(self, error: Exception | None) -> None:
        """Go on behind what a call decoded that was interrupted, or ended with that error."""
        if self._drawing is None:
            return
        values, before = self._drawing
        batch = self._held
        delivered = batch.resume_at(batch.delivered + len(values) - before, error)
        rest = self._values(batch, delivered)
        batch.delivered = delivered
        batch.rest = rest
        self._drawing = None
