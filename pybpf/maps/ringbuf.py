"""Ring buffer maps: iterating one is reading its events."""

from __future__ import annotations

from pybpf.constants import BPF_MAP_TYPE_RINGBUF
from pybpf.maps.eventmap import EventMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from pybpf.events import RingBuffer


class RingBufferMap(EventMap):
    """BPF_MAP_TYPE_RINGBUF (Linux 5.8): ``for event in m`` reads its records; see `pybpf.events.RingBuffer`."""

    __slots__ = ("drops",)
    default_type = BPF_MAP_TYPE_RINGBUF

    drops: Callable[[], int | None]
    """Gives the count that the object's programs keep of records which found no room; absent when nobody knows any."""

    def __copy__(self) -> Self:
        made = super().__copy__()
        if hasattr(self, "drops"):
            made.drops = self.drops
        return made

    def reader(self, **options: Any) -> RingBuffer:
        """A reader of this map, which the caller closes. Options are those of `pybpf.events.RingBuffer`.

        Without `decode`, records have the type that `value` named when the map was made, or that the object file
        tells or suggests (`pybpf.events.types`).
        """
        from pybpf.events import RingBuffer

        return RingBuffer(self, **{"drops": getattr(self, "drops", None), **self._typed(options)})
