"""Perf event buffers (BPF_MAP_TYPE_PERF_EVENT_ARRAY, Linux 4.4): `PerfBuffer`.

Rules of this module:

* One perf event and one mapped buffer for each CPU. What the pages mean is `perfring`'s.
* Records of one CPU come in order; between CPUs there is none.
* The epoll set watches the perf events before programs can write to them. perf's readiness is not a level: asking
  clears it, so everything is read after each wake-up.
* The kernel takes a slot back when the map's open file that filled it goes. The reader keeps a duplicate.
* A CPU's samples go to the event in its slot. The kernel puts one over another and does not tell what stands there
  (kernel/bpf/arraymap.c: no flag but BPF_ANY, no lookup), so the readers of this process are remembered here.
"""

from __future__ import annotations

import errno
import os
from _operator import index  # the built-in part of `operator`, which takes 0.2 ms to import
from _weakref import ref
from itertools import repeat
from mmap import PAGESIZE
from struct import pack, unpack

from pybpf.constants import (
    BPF_MAP_TYPE_PERF_EVENT_ARRAY,
    PERF_COUNT_SW_BPF_OUTPUT,
    PERF_FORMAT_LOST,
    PERF_SAMPLE_RAW,
    PERF_TYPE_SOFTWARE,
)
from pybpf.errors import BPFError, BPFNotFoundError, kernel_error
from pybpf.events.pages import Pages
from pybpf.events.perfring import PerfRing
from pybpf.events.records import RecordSource
from pybpf.syscall import map_delete_elem, map_info, map_update_elem
from pybpf.syscall.cpus import cpu_list
from pybpf.syscall.fd import FD, duplicate
from pybpf.syscall.perf_event import perf_disable, perf_enable, perf_event_open, perf_pause_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Batch, Decode, Values
    from pybpf.syscall import MapInfo
    from pybpf.syscall.fd import FdLike

DEFAULT_PAGES = 64
"""Data pages for each CPU: 256 KiB with pages of 4 KiB."""

_placed: dict[tuple[int, int], ref[CpuBuffer]] = {}
"""Map id and CPU -> the buffer that was last put into that slot."""


def _buffer_in(slot: tuple[int, int]) -> CpuBuffer | None:
    """The buffer of this process that stands there. One that is closed does not, however that came about."""
    reference = _placed.get(slot)
    buffer = None if reference is None else reference()
    return None if buffer is None or buffer.closed else buffer


class CpuBuffer:
    """The perf event of one CPU, its pages, and its slot in the map. `backward`: see `pybpf.events.flight`."""

    __slots__ = ("__weakref__", "_counts_lost", "_lost", "_map", "_pages", "_slot", "cpu", "ring")

    def __init__(
        self, map: FD, cpu: int, page_count: int, wakeup_events: int = 1, watermark: int = 0, *, backward: bool = False
    ) -> None:
        self._map = map
        self._slot = (0, cpu)
        self._lost = 0
        self.cpu = cpu
        event, self._counts_lost = _open_event(cpu, wakeup_events, watermark, backward)
        self._pages = Pages(event)
        try:
            view = self._pages.map((1 + page_count) * PAGESIZE, writable=not backward)
            control, data = self._pages.part(view, 0, PAGESIZE), self._pages.part(view, PAGESIZE)
            self.ring = PerfRing(control, data, cpu)
        except BaseException:
            self._pages.close()
            raise

    def fileno(self) -> int:
        return self._pages.fd.fileno()

    @property
    def lost(self) -> int:
        """Samples dropped so far. Since Linux 6.0 the kernel is asked, before it is what its records said."""
        if self._counts_lost and not self.closed:
            self._lost = unpack("QQ", os.read(self.fileno(), 16))[1]
        return max(self._lost, self.ring.lost)

    @property
    def closed(self) -> bool:
        return self._pages.fd.closed

    def start(self, map: MapInfo) -> None:
        """Put the event into the map. Raises BPFExistsError when another one of this process stands there."""
        perf_enable(self._pages.fd)
        slot = (map.id, self.cpu)
        while _placed.setdefault(slot, ref(self))() is not self:
            if _buffer_in(slot) is not None:
                what = f"map {map.name!r}, CPU {self.cpu}"
                hint = "A reader or recorder of this process has it: close that, or choose other CPUs"
                raise kernel_error(errno.EEXIST, "BPF_MAP_UPDATE_ELEM", what, hint)
            _placed.pop(slot, None)  # an interrupt left it behind
        self._slot = slot
        map_update_elem(self._map, pack("I", self.cpu), pack("I", self.fileno()))

    def stop(self) -> None:
        """Take it out again."""
        try:
            if _buffer_in(self._slot) is self:
                map_delete_elem(self._map, pack("I", self.cpu))
        except BPFNotFoundError:  # never put in, or the map's file is gone
            pass
        finally:
            perf_disable(self._pages.fd)

    def close(self, *, inherited: bool) -> None:
        """Stop, unless the parent still uses it, unmap and close. Doing it again does nothing."""
        if self.closed:
            return
        try:
            if not inherited:
                self.stop()
                self.lost  # noqa: B018 - asks the kernel for the last time
        finally:
            if _buffer_in(self._slot) is self:  # until it is closed, nobody else
                del _placed[self._slot]
            self.ring.release()
            self._pages.close()


class PerfBuffer(RecordSource):
    """Reads the samples that programs send with bpf_perf_event_output().

    Args:
        map: the perf event array: a map object or a descriptor. The reader keeps a duplicate.
        page_count: data pages for each CPU, a power of two.
        decode: what samples become. None: `bytes`. A codec (`pybpf.btf.codec.codec`): its values. A callable: what it
            returns for a `memoryview` of the sample. The kernel pads samples: `bytes`, and an array without a length
            at the end of a struct, have up to 7 bytes more than the program sent, of no meaning.
        strict: whether a sample that is shorter than the codec's type is an error; otherwise it comes as `bytes`.
        btf: where `of()` finds types by name; by default that of the map.
        with_cpu: whether values are pairs ``(cpu, value)``. (Batches have it in any case, as `Batch.cpu`.)
        on_lost: called as ``on_lost(cpu, count)`` when a record says that samples were dropped on a CPU.
        wakeup_events: wake a waiting reader after so many samples. What is left of a larger number shows at the next
            call, at the latest when its time is up.
        watermark: if not 0, wake after so many bytes instead.
        cpus: the CPUs to read from; by default those online. One that comes online later is not covered.

    The samples of a CPU go to one reader: a second one in this process is refused, one in another process takes them.

    Raises:
        ValueError: the map is of another type; `page_count` is not a power of two; the map has no place for one of
            `cpus`, or they name none, or one twice.
        BPFExistsError: another reader or recorder of this process reads one of these CPUs.
        BPFNotFoundError: one of `cpus` is not online.
        BPFPermissionError: CAP_PERFMON, or before Linux 5.8 CAP_SYS_ADMIN, is missing; or the pages exceed
            RLIMIT_MEMLOCK and kernel.perf_event_mlock_kb.
        BPFError: the kernel refuses something else. Nothing is left behind.
    """

    __slots__ = ("_buffers", "_map", "_on_lost", "_turn", "_with_cpu", "name")

    def __init__(
        self,
        map: FdLike,
        *,
        page_count: int = DEFAULT_PAGES,
        decode: Decode = None,
        strict: bool = True,
        btf: BTF | None = None,
        with_cpu: bool = False,
        on_lost: Callable[[int, int], object] | None = None,
        wakeup_events: int = 1,
        watermark: int = 0,
        cpus: Iterable[int] | None = None,
    ) -> None:
        check_page_count(page_count)
        if wakeup_events < 1 or watermark < 0:
            raise ValueError("wakeup_events must be at least 1, watermark not negative")
        self._with_cpu = with_cpu
        self._on_lost = on_lost
        self._turn = 0
        self._buffers: list[CpuBuffer] = []
        self._map = FD(duplicate(map))
        try:
            info = check_array(self._map)
            self.name: str = info.name
            for cpu in chosen_cpus(cpus, info):
                self._open(cpu, page_count, wakeup_events, watermark, skip_absent=cpus is None)
            watched = [buffer.fileno() for buffer in self._buffers]
            super().__init__(decode, strict, btf or getattr(map, "btf", None), watched)
        except BaseException:
            self._release(False)
            raise
        try:
            for buffer in self._buffers:
                buffer.start(info)
        except BaseException:
            self.close()
            raise

    def _open(self, cpu: int, page_count: int, wakeup_events: int, watermark: int, *, skip_absent: bool) -> None:
        try:
            self._buffers.append(CpuBuffer(self._map, cpu, page_count, wakeup_events, watermark))
        except BPFNotFoundError:  # ENODEV: it went offline a moment ago
            if not skip_absent:
                raise

    def _release(self, inherited: bool) -> None:
        release(self._buffers, self._map, inherited)

    def _available(self) -> int:
        return sum(buffer.ring.available for buffer in self._buffers)

    def _scan(self, limit: int, *, copy: bool = True) -> Batch | None:
        for _ in self._buffers:
            buffer = self._buffers[self._turn]
            self._turn = (self._turn + 1) % len(self._buffers)
            batch = buffer.ring.scan(limit, copy=copy)
            if batch is not None:
                return batch
        return None

    def _formed(self, values: Values) -> Values:
        return (lambda batch, first: zip(repeat(batch.cpu), values(batch, first))) if self._with_cpu else values

    def _member(self, name: str) -> Callable[[Any], Any]:
        member = super()._member(name)
        return (lambda pair: member(pair[1])) if self._with_cpu else member

    def _account(self, batch: Batch) -> None:
        if batch.lost and self._on_lost is not None and batch.cpu is not None:
            self._on_lost(batch.cpu, batch.lost)

    def __repr__(self) -> str:
        state = "closed" if self._closing else f"{len(self._buffers)} CPUs of {self.page_count} pages"
        return f"<PerfBuffer {self.name!r}: {state}>"

    def fileno(self) -> int:
        """An epoll descriptor, readable when samples have come. Raises ClosedError after `close()`.

        Readiness is given once for each wake-up: read everything then, and once after the descriptor was added to
        another epoll set.
        """
        self._check()
        return self._epoll.fileno()

    def pause(self) -> None:
        """Write no samples until `resume()`; those that programs send meanwhile are counted as lost (Linux 4.7).

        Raises ClosedError, BPFError.
        """
        self._pause_output(True)

    def resume(self) -> None:
        """Write samples again. Raises ClosedError, BPFError."""
        self._pause_output(False)

    def _pause_output(self, pause: bool) -> None:
        try:
            self._inside.append(None)
            self._check()
            for buffer in self._buffers:
                perf_pause_output(buffer.fileno(), pause)
        finally:
            self._inside.pop()
            self._settle()

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs that are read."""
        return tuple(buffer.cpu for buffer in self._buffers)

    @property
    def page_count(self) -> int:
        """Data pages for each CPU."""
        return self._buffers[0].ring.size // PAGESIZE if self._buffers else 0

    @property
    def size(self) -> int:
        """The size of the buffers of all CPUs together, in bytes."""
        return sum(buffer.ring.size for buffer in self._buffers)

    @property
    def records(self) -> int:
        """How many samples were read."""
        return sum(buffer.ring.records for buffer in self._buffers)

    @property
    def bytes(self) -> int:
        """How many bytes of payload were read, padding included."""
        return sum(buffer.ring.payload for buffer in self._buffers)

    @property
    def lost(self) -> int:
        """How many samples the kernel dropped because a CPU's buffer was full.

        Exact at any time since Linux 6.0. Before, a loss is known when the next sample finds room.
        """
        return sum(self.lost_by_cpu.values())

    @property
    def lost_by_cpu(self) -> dict[int, int]:
        """The same for each CPU."""
        return {buffer.cpu: buffer.lost for buffer in self._buffers}


def check_array(map: FD) -> MapInfo:
    """What the kernel tells of a perf event array. Raises ValueError for a map of another type."""
    info = map_info(map)
    if info.type != BPF_MAP_TYPE_PERF_EVENT_ARRAY:
        raise ValueError(f"map {info.name!r} is not a perf event array (its type is {info.type})")
    return info


def release(buffers: Iterable[CpuBuffer], map: FD, inherited: bool) -> None:
    """Close all buffers, and the map after them. Raises the first error when all is done."""
    errors: list[BaseException] = []
    for buffer in buffers:
        try:
            buffer.close(inherited=inherited)
        except BaseException as error:
            errors.append(error)
    map.close()
    if errors:
        raise errors[0]


def check_page_count(page_count: int) -> None:
    """Raises ValueError unless it is a power of two."""
    if page_count < 1 or page_count & (page_count - 1):
        raise ValueError(f"page_count must be a power of two, not {page_count}")


def chosen_cpus(cpus: Iterable[int] | None, map: MapInfo) -> list[int]:
    """The CPUs that the user names; otherwise those online that the map has a place for.

    Raises TypeError when they are no numbers, ValueError when the map has no place for one, for none, or for one twice.
    """
    if cpus is None:
        chosen = [cpu for cpu in cpu_list("online") if cpu < map.max_entries]
    else:
        try:
            chosen = [index(cpu) for cpu in cpus]
        except TypeError:
            raise TypeError(f"cpus must be numbers of CPUs, not {cpus!r}") from None
    for cpu in chosen:
        if not 0 <= cpu < map.max_entries:
            raise ValueError(f"map {map.name!r} of {map.max_entries} entries has no place for CPU {cpu}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"cpus must name at least one CPU, and none twice, not {chosen}")
    return chosen


def _open_event(cpu: int, wakeup_events: int, watermark: int, backward: bool) -> tuple[FD, bool]:
    """The perf event that bpf_perf_event_output() writes to, and whether it counts what is lost."""

    def attempt(read_format: int) -> FD:
        return perf_event_open(
            PERF_TYPE_SOFTWARE,
            PERF_COUNT_SW_BPF_OUTPUT,
            cpu=cpu,
            sample_type=PERF_SAMPLE_RAW,
            sample_period=1,
            read_format=read_format,
            wakeup_events=0 if watermark else wakeup_events,
            wakeup_watermark=watermark,
            watermark=watermark > 0,
            write_backward=backward,
        )

    try:
        try:
            return attempt(PERF_FORMAT_LOST), True
        except BPFError as error:
            if error.errno != errno.EINVAL:
                raise
            return attempt(0), False
    except BPFError as error:
        if error.errno in (errno.EINVAL, errno.ENODEV) and cpu not in cpu_list("online"):
            raise kernel_error(errno.ENODEV, "perf_event_open", hint=f"CPU {cpu} is not online") from None
        raise
