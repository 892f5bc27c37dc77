"""The mapped pages of one buffer."""

from __future__ import annotations

import os
import sys

from pybpf.syscall.memory import map_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

    from pybpf.events.ring import Word
    from pybpf.syscall.fd import FD

_KERNELS_OF_64_BITS = frozenset(
    ("x86_64", "aarch64", "s390x", "ppc64", "ppc64le", "riscv64", "loongarch64", "mips64", "sparc64")
)


def position_format() -> Word:
    """The format of a BPF ring position: an unsigned long of the kernel, which may be wider than this process's."""
    return "Q" if sys.maxsize > 1 << 32 or os.uname().machine in _KERNELS_OF_64_BITS else "I"


class Pages:
    """A descriptor, what is mapped of it, and the views of that. The descriptor is taken over."""

    __slots__ = ("_mappings", "_views", "fd")

    def __init__(self, fd: FD) -> None:
        self.fd = fd
        self._mappings: list[mmap.mmap] = []
        self._views: list[memoryview] = []

    def map(self, length: int, offset: int = 0, *, writable: bool) -> memoryview:
        """Map `length` bytes at `offset`. Raises BPFError."""
        memory = map_memory(self.fd, length, offset=offset, writable=writable)
        self._mappings.append(memory)
        view = memoryview(memory)
        self._views.append(view)
        return view

    def part(self, view: memoryview, start: int, end: int | None = None) -> memoryview:
        """A view of some of the bytes of a view."""
        some = view[start:end]
        self._views.append(some)
        return some

    def close(self) -> None:
        """Unmap and close. The views are unusable afterwards."""
        while self._views:
            self._views.pop().release()
        while self._mappings:
            # A slice that a user keeps of a reserved sample holds the memory; it goes when the slice goes.
            try:
                self._mappings.pop().close()
            except BufferError:
                continue
        self.fd.close()
