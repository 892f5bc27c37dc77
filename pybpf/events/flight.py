"""Perf buffers that overwrite themselves (Linux 4.7): `FlightRecorder`.

Rules of this module:

* The kernel writes each CPU's buffer backwards and for ever, over the oldest samples. Nobody waits and nothing is
  refused; what is there is looked at when something of interest has happened.
* To look, output is paused: a sample that a program sends in that moment is not recorded. Then the samples lie still.
* What was looked at counts as seen when all of it is decoded: an error leaves every sample for the next time.
* What the pages mean is `perfring`'s.
"""

from __future__ import annotations

from _thread import RLock

from pybpf.events.batch import decoder
from pybpf.events.perfbuf import DEFAULT_PAGES, CpuBuffer, check_array, check_page_count, chosen_cpus, release
from pybpf.events.waiting import Waitable
from pybpf.syscall import duplicate
from pybpf.syscall.fd import FD
from pybpf.syscall.perf_event import perf_pause_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Self, TypeVar

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Batch, Decode, RecordCodec
    from pybpf.syscall.fd import FdLike

    _Result = TypeVar("_Result")


class FlightRecorder(Waitable):
    """Keeps the newest samples that programs send with bpf_perf_event_output(), and gives them when asked::

        with FlightRecorder(obj.maps["events"], decode=...) as recorder:
            ...
            for event in recorder.snapshot(key="time_ns"):

    A signal handler may use it, unless the signal came while the recorder was in use: then it gets RuntimeError.

    Args:
        map: the perf event array: a map object or a descriptor. The recorder keeps a duplicate.
        page_count: data pages for each CPU, a power of two.
        decode, strict, btf: as of `PerfBuffer`.
        cpus: the CPUs to record; by default those online.

    Raises what `PerfBuffer` raises.
    """

    __slots__ = ("_btf", "_buffers", "_codec", "_lock", "_looked", "_map", "_paused", "_using", "_values", "name")

    def __init__(
        self,
        map: FdLike,
        *,
        page_count: int = DEFAULT_PAGES,
        decode: Decode = None,
        strict: bool = True,
        btf: BTF | None = None,
        cpus: Iterable[int] | None = None,
    ) -> None:
        check_page_count(page_count)
        self._btf = btf or getattr(map, "btf", None)
        self._set_decode(decode, strict)
        self._buffers: list[CpuBuffer] = []
        self._looked: tuple[Mapping[int, int], int] = {}, 0
        self._paused = False
        self._using = False
        self._lock = RLock()
        self._map = FD(duplicate(map))
        try:
            info = check_array(self._map)
            self.name: str = info.name
            for cpu in chosen_cpus(cpus, info):
                self._buffers.append(CpuBuffer(self._map, cpu, page_count, backward=True))
            super().__init__((), 0)
        except BaseException:
            self._release(False)
            raise
        try:
            for buffer in self._buffers:
                buffer.start(info)
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
        return self._looked[1]

    def of(self, type_name: str) -> Self:
        """Decode samples from now on as the struct, union or typedef of that name. Gives the recorder itself.

        Raises BTFError when there is no type information, or no such type in it.
        """
        from pybpf.events.types import codec_of

        return self._set_decode(codec_of(self._btf, type_name))

    def of_several(self, choose: Callable[[memoryview], str | RecordCodec | None]) -> Self:
        """Decode each sample as the type that `choose` says; see `PerfBuffer.of_several()`. Gives the recorder itself.

        Raises BTFError when there is no type information.
        """
        from pybpf.events.types import Mixture

        return self._set_decode(Mixture(self._btf, choose))

    def _set_decode(self, decode: Decode, strict: bool = True) -> Self:
        self._values = decoder(decode, strict=strict)
        self._codec: RecordCodec | None = None if callable(decode) else decode
        return self

    def pause(self) -> None:
        """Record nothing until `resume()`. Raises ClosedError."""

        def stop() -> None:
            self._paused = True
            self._pause_output(True)

        self._alone(stop)

    def resume(self) -> None:
        """Record again. Raises ClosedError."""

        def start() -> None:
            self._paused = False
            self._pause_output(False)

        self._alone(start)

    def _pause_output(self, pause: bool) -> None:
        for buffer in self._buffers:
            perf_pause_output(buffer.fileno(), pause)

    def snapshot(self, *, key: str | Callable[[Any], Any] | None = None, again: bool = False) -> list[Any]:
        """The samples that are there, the oldest first: CPU by CPU, or all of them by ascending `key`.

        Args:
            key: what values are ordered by: the name of the member that holds the time, or a function that gives it.
            again: give those of earlier snapshots once more.

        Recording is paused meanwhile, and goes on afterwards, unless `pause()` was called before. When a sample cannot
        be decoded, or the key fails, nothing counts as given; `batches()` has the samples as they are.

        Raises:
            ClosedError: the recorder is closed.
            ValueError: a sample is too short for its type.
            RuntimeError: the recorder was inherited by fork(), or is in use further up the stack.
        """
        if isinstance(key, str):
            from operator import attrgetter

            order: Callable[[Any], Any] | None = attrgetter(key)
        else:
            order = key

        def give() -> list[Any]:
            found = self._look(again)
            values = [value for batch in found.values() for value in self._values(batch, 0)]
            if order is not None:
                values.sort(key=order)
            self._count_as_seen(found)
            return values

        return self._alone(give)

    def batches(self, *, again: bool = False) -> dict[int, Batch]:
        """The same undecoded, a batch for each CPU. Raises ClosedError, RuntimeError."""

        def give() -> dict[int, Batch]:
            found = self._look(again)
            self._count_as_seen(found)
            return found

        return self._alone(give)

    def _look(self, again: bool) -> dict[int, Batch]:
        seen = {} if again else self._looked[0]
        try:
            self._pause_output(True)
            found = {buffer.cpu: buffer.ring.look_back(seen.get(buffer.cpu, 0)) for buffer in self._buffers}
        finally:
            try:
                self._pause_output(self._paused)
            except BaseException:  # an interrupt: no CPU may stay silent for that
                self._pause_output(self._paused)
                raise
        for batch in found.values():
            batch.codec = self._codec
        return found

    def _count_as_seen(self, found: dict[int, Batch]) -> None:
        seen, overwritten = self._looked
        missed = sum(max(0, batch.end - seen.get(cpu, 0) - batch.extent) for cpu, batch in found.items())
        self._looked = {cpu: batch.end for cpu, batch in found.items()}, overwritten + missed

    def _alone(self, use: Callable[[], _Result]) -> _Result:
        """One thread at a time; `close()` waits for it."""
        try:
            self._inside.append(None)
            self._check()
            try:
                self._lock.acquire()
                if self._using:
                    raise RuntimeError(f"{self!r} is being used by this thread already, further up the stack")
                try:
                    self._using = True
                    return use()
                finally:
                    self._using = False
            finally:
                try:
                    self._lock.release()
                except RuntimeError:  # a signal handler raised while we waited for it
                    pass
        finally:
            self._inside.pop()
            self._settle()
