"""Memory mapped where it has to be: arenas hold pointers, so their place in the address space matters."""

from __future__ import annotations

import ctypes
import mmap

from pybpf.errors import kernel_error
from pybpf.syscall.door import other
from pybpf.syscall.fd import fileno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

MAP_FIXED_NOREPLACE = 0x100000
"""Where Python's mmap module does not have it (include/uapi/asm-generic/mman-common.h; Linux 4.17)."""

_FAILED = ctypes.c_void_p(-1).value

_library = ctypes.CDLL(None, use_errno=True)
_mmap = _library.mmap64 if hasattr(_library, "mmap64") else _library.mmap
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_mmap.restype = ctypes.c_void_p
_munmap = _library.munmap
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Area:
    """A stretch of mapped memory.

    Attributes:
        address: where it begins.
        length: bytes.
    """

    __slots__ = ("_memory", "address", "length")

    def __init__(self, address: int, length: int) -> None:
        """Takes over a mapping, and ends it when it is closed and no view of it is left."""
        self.address = address
        self.length = length

        class Mapping(ctypes.Array[ctypes.c_char]):
            _type_ = ctypes.c_char
            _length_ = length

            def __del__(self) -> None:
                _munmap(address, length)

        self._memory: Mapping | None = Mapping.from_address(address)

    @property
    def view(self) -> memoryview:
        """The memory, writable. The mapping stays as long as a view of it is alive. Raises ValueError when closed."""
        if self._memory is None:
            raise ValueError("the memory is unmapped")
        return memoryview(self._memory).cast("B")

    def close(self) -> None:
        """Let go of the memory: it is unmapped when the last view of it is gone. May be called twice."""
        self._memory = None

    def __repr__(self) -> str:
        state = "closed" if self._memory is None else f"at {self.address:#x}"
        return f"<Area {self.length} bytes {state}>"


def map_area(fd: FdLike, length: int, *, address: int = 0) -> Area:
    """Map an arena, readable and writable, shared with the kernel (mmap(2), MAP_SHARED; arenas: Linux 6.9).

    Args:
        length: bytes; all of the arena.
        address: where; 0 lets the kernel choose. What is mapped there already is never replaced.

    Raises:
        BPFExistsError: something else is mapped at the address.
        BPFError: EBUSY: the arena is mapped elsewhere already, by whoever made it; EINVAL: not all of it, or not at the
            address that it was made for.
    """
    number = fileno(fd)
    flags = mmap.MAP_SHARED | (MAP_FIXED_NOREPLACE if address else 0)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    made: list[int] = []

    def enter() -> int:
        place = _mmap(address or None, length, protection, flags, number, 0)
        if place is None or place == _FAILED:
            number_of_error = ctypes.get_errno()
            raise OSError(number_of_error, "mmap")
        made.append(place)
        return 0

    arguments = {"fd": number, "length": length, "prot": protection, "address": address}
    result = other("mmap", "", 0, arguments, enter)
    if result < 0 or not made:
        raise kernel_error(-result, "mmap")
    return Area(made[0], length)
