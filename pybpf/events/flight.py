"""Perf buffers that overwrite themselves (Linux 4.7): `FlightRecorder`.

Rules of this module:

* The kernel writes each CPU's buffer backwards and for ever, over the oldest samples. Nobody waits and nothing is
  refused; what is there is looked at when something of interest has happened.
* To look, output is paused: a sample that a program sends in that moment is not recorded. Then the samples lie still.
* What the pages mean is `perfring`'s.
"""

from __future__ import annotations

from _thread import allocate_lock
from contextlib import contextmanager

from pybpf.events.batch import decoder
from pybpf.events.perfbuf import DEFAULT_PAGES, CpuBuffer, check_array, check_page_count, chosen_cpus, release
from pybpf.events.waiting import Waitable
from pybpf.syscall import duplicate
from pybpf.syscall.fd import FD
from pybpf.syscall.perf_event import perf_pause_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from pybpf.events.batch import Batch, Decode
    from pybpf.syscall.fd import FdLike


class FlightRecorder(Waitable):
    """Keeps the newest samples that programs send with bpf_perf_event_output(), and gives them when asked::

        with FlightRecorder(obj.maps["events"], decode=...) as recorder:
            ...
            for event in recorder.snapshot(key=lambda event: event.time_ns):

    Args:
        map: the perf event array: a map object or a descriptor. The recorder keeps a duplicate.
        page_count: data pages for each CPU, a power of two.
        decode, strict: as of `PerfBuffer`.
        cpus: the CPUs to record; by default those online.

    Raises what `PerfBuffer` raises.
    """

    __slots__ = ("_buffers", "_lock", "_map", "_overwritten", "_paused", "_seen", "_values", "name")

    def __init__(
        self,
        map: FdLike,
        *,
        page_count: int = DEFAULT_PAGES,
        decode: Decode = None,
        strict: bool = True,
        cpus: Sequence[int] | None = None,
    ) -> None:
        check_page_count(page_count)
        self._values = decoder(decode, strict=strict)
        self._buffers: list[CpuBuffer] = []
        self._seen: dict[int, int] = {}
        self._overwritten = 0
        self._paused = False
        self._lock = allocate_lock()
        self._map = FD(duplicate(map))
        try:
            self.name, slots = check_array(self._map)
            for cpu in chosen_cpus(cpus, slots):
                self._buffers.append(CpuBuffer(self._map, cpu, page_count, backward=True))
            super().__init__((), 0)
        except BaseException:
            self._release(False)
            raise
        try:
            for buffer in self._buffers:
                buffer.start()
        except BaseException:
            self.close()
            raise

    def _release(self, inherited: bool) -> None:
        release(self._buffers, self._map, inherited)

    def __repr__(self) -> str:
        return f"<FlightRecorder {self.name!r}: {'closed' if self._closing else f'{len(self._buffers)} CPUs'}>"

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs that are recorded."""
        return tuple(buffer.cpu for buffer in self._buffers)

    @property
    def overwritten(self) -> int:
        """Bytes that newer samples pushed out before a snapshot gave them."""
        return self._overwritten

    def pause(self) -> None:
        """Record nothing until `resume()`. Raises ClosedError."""
        with self._inside_and_locked():
            self._paused = True
            self._pause_output(True)

    def resume(self) -> None:
        """Record again. Raises ClosedError."""
        with self._inside_and_locked():
            self._paused = False
            self._pause_output(False)

    def _pause_output(self, pause: bool) -> None:
        for buffer in self._buffers:
            perf_pause_output(buffer.fileno(), pause)

    def snapshot(self, *, key: Callable[[Any], Any] | None = None, again: bool = False) -> list[Any]:
        """The samples that are there, the oldest first: CPU by CPU, or all of them by ascending `key`.

        Args:
            key: gives the number, a time for example, that values are ordered by.
            again: give those of earlier snapshots once more.

        Recording is paused meanwhile, and goes on afterwards, unless `pause()` was called before.

        Raises:
            ClosedError: the recorder is closed.
            ValueError: a sample is too short for its type.
        """
        values = [value for batch in self.batches(again=again).values() for value in self._values(batch, 0)]
        if key is not None:
            values.sort(key=key)
        return values

    def batches(self, *, again: bool = False) -> dict[int, Batch]:
        """The same undecoded, a batch for each CPU."""
        with self._inside_and_locked():
            try:
                self._pause_output(True)
                found = {buffer.cpu: buffer.ring.look_back(self._since(buffer, again)) for buffer in self._buffers}
            finally:
                if not self._paused:
                    self._pause_output(False)
            for cpu, batch in found.items():
                self._overwritten += 0 if again else batch.overwritten
                self._seen[cpu] = batch.end
            return found

    def _since(self, buffer: CpuBuffer, again: bool) -> int:
        """The position up to which samples are not wanted."""
        return 0 if again else self._seen.get(buffer.cpu, 0)

    @contextmanager
    def _inside_and_locked(self) -> Iterator[None]:
        """One thread at a time; `close()` waits for it."""
        try:
            self._inside.append(None)
            self._check()
            with self._lock:
                yield
        finally:
            self._inside.pop()
            self._settle()
