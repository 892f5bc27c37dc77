"""Perf event arrays: iterating one is reading its events."""

from __future__ import annotations

import sys

from pybpf import syscall
from pybpf.constants import BPF_ANY, BPF_MAP_TYPE_PERF_EVENT_ARRAY
from pybpf.errors import BPFNotFoundError
from pybpf.maps.eventmap import EventMap
from pybpf.maps.face import DescriptorFace, NumberFace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.events import FlightRecorder, PerfBuffer
    from pybpf.syscall import FdLike


class PerfEventArrayMap(EventMap):
    """BPF_MAP_TYPE_PERF_EVENT_ARRAY (Linux 4.3): ``for event in m`` reads its samples; see `pybpf.events.PerfBuffer`.

    It can also hold perf events that the caller opened, for programs that read counters: ``m[cpu] = event``. They
    cannot be read back.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERF_EVENT_ARRAY
    default_key_size = 4
    default_value_size = 4

    def reader(self, **options: Any) -> PerfBuffer:
        """A reader of this map, which the caller closes. Options are those of `pybpf.events.PerfBuffer`.

        Without `decode`, samples have the type that `value` named when the map was made, or that the object file
        tells or suggests (`pybpf.events.types`).
        """
        from pybpf.events import PerfBuffer

        return PerfBuffer(self, **self._typed(options))

    def recorder(self, **options: Any) -> FlightRecorder:
        """Keeps the newest samples of this map until they are asked for. Options are those of `FlightRecorder`."""
        from pybpf.events import FlightRecorder

        return FlightRecorder(self, **self._typed(options))

    def _key(self, cpu: Any) -> bytes:
        data = NumberFace(self._where("index")).encode(cpu)
        if int.from_bytes(data, sys.byteorder) >= self.max_entries:
            raise IndexError(f"{self._where('index')}: {cpu} is not in 0..{self.max_entries - 1}")
        return data

    def put(self, cpu: int, event: FdLike, flags: int = BPF_ANY) -> None:
        """Put a perf event (a descriptor, or anything with a `fileno()`) at an index. Raises IndexError, BPFError."""
        value = DescriptorFace(4, self._where("value")).encode(event)
        syscall.map_update_elem(self.fd, self._key(cpu), value, flags)

    def __setitem__(self, cpu: int, event: FdLike) -> None:
        self.put(cpu, event)

    def __delitem__(self, cpu: int) -> None:
        try:
            syscall.map_delete_elem(self.fd, self._key(cpu))
        except BPFNotFoundError:
            raise KeyError(cpu) from None
