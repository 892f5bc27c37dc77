"""Arenas: memory that programs and user space share, pointers included.

A pointer that a program stores in its arena is an address of the process that mapped it first, so that both sides can
follow it: `ArenaMap.at` gives what is there. Nothing is allocated by hand; a page comes into being when it is touched
here, or by bpf_arena_alloc_pages() there. With BPF_F_SEGV_ON_FAULT touching a page that no program has allocated is a
segmentation fault, also in Python.

Source: kernel/bpf/arena.c.
"""

from __future__ import annotations

from pybpf.constants import BPF_F_MMAPABLE, BPF_MAP_TYPE_ARENA
from pybpf.maps.base import Map
from pybpf.syscall import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.syscall.area import Area


class ArenaMap(Map):
    """BPF_MAP_TYPE_ARENA (Linux 6.9). `max_entries` counts pages.

    Attributes:
        data_offset: where the global variables begin that the object placed in the arena.
    """

    __slots__ = ("_area", "data_offset")
    default_type = BPF_MAP_TYPE_ARENA
    required_flags = BPF_F_MMAPABLE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._area: Area | None = None
        self.data_offset = 0

    @property
    def size(self) -> int:
        """Bytes of the whole arena, touched or not."""
        return self.max_entries * PAGE_SIZE

    def map(self) -> Area:
        """The arena's memory, mapped at the first call: where the map was made to be (`map_extra`), or anywhere.

        Raises:
            BPFError: EBUSY: another process mapped it at another address first. BPFExistsError: its address is in use.
            ClosedError: the map is closed.
        """
        if self._area is None:
            from pybpf.syscall.area import map_area

            self._area = map_area(self.fd, self.size, address=self.map_extra)
        return self._area

    @property
    def address(self) -> int:
        """Where it is mapped: pointers in the arena lie between this and this plus `size`."""
        return self.map().address

    @property
    def memory(self) -> memoryview:
        """All of it, writable. The mapping stays as long as a view of it is alive, also after `close()`."""
        return self.map().view

    def at(self, pointer: int, size: int) -> memoryview:
        """The bytes that a pointer in the arena points to, writable.

        Raises:
            ValueError: they are not in the arena.
        """
        start = pointer - self.address
        if start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"{self._where('pointer')}: {size} bytes at {pointer:#x} are not in the arena")
        return self.memory[start : start + size]

    def close(self) -> None:
        """Close the descriptor and let go of the memory. May be called twice."""
        if self._area is not None:
            self._area.close()
            self._area = None
        super().close()
