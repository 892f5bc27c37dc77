"""Arenas: memory that programs and user space share, pointers included.

A pointer that a program stores in its arena is an address of the process that mapped it first, so that both sides can
follow it: `ArenaMap.at` gives what is there. Nothing is allocated by hand; a page comes into being when it is touched
here, or by bpf_arena_alloc_pages() there. With BPF_F_SEGV_ON_FAULT only programs allocate, and touching another page is
a segmentation fault: of such an arena `at` and what uses it look first, and all of `memory` is not given out.

    node = arena.read(head, "struct node { u64 next; u32 value; }")     # or the name of a type of the object
    arena.write(node.next, "struct node", {"value": 5})
    numbers = arena.array(pointer, "u64", 512)                          # live, a memoryview

Source: kernel/bpf/arena.c.
"""

from __future__ import annotations

import errno
import os

from pybpf.btf.scalars import to_integer
from pybpf.constants import BPF_F_MMAPABLE, BPF_F_SEGV_ON_FAULT, BPF_MAP_TYPE_ARENA
from pybpf.errors import BPFError
from pybpf.maps.base import PREPARING, Map
from pybpf.syscall import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pybpf.btf.codec import Codec
    from pybpf.maps.declared import Declared
    from pybpf.syscall.area import Area


class ArenaMap(Map):
    """BPF_MAP_TYPE_ARENA (Linux 6.9). `max_entries` counts pages.

    Attributes:
        data_offset: where the global variables begin that the object placed in the arena.
    """

    __slots__ = ("_area", "_codecs", "data_offset")
    default_type = BPF_MAP_TYPE_ARENA
    required_flags = BPF_F_MMAPABLE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._area: Area | None = None
        self._codecs: dict[Declared, Codec] = {}
        self.data_offset = 0

    @property
    def size(self) -> int:
        """Bytes of the whole arena, touched or not."""
        return self.max_entries * PAGE_SIZE

    def _mapped(self) -> Area:
        """The arena's memory, mapped at the first call. Errors are those of `address`."""
        with PREPARING:
            if self._area is None:
                from pybpf.syscall.area import map_area

                try:
                    self._area = map_area(self.fd, self.size, address=self.map_extra)
                except BPFError as error:
                    error.what = self._where("mapping")
                    if error.errno == errno.EINVAL and not self.map_extra:
                        error.hint = "Who mapped it first chose the address: made with map_extra it has one for all"
                    raise
            return self._area

    @property
    def address(self) -> int:
        """Where it is mapped: pointers in the arena lie between this and this plus `size`.

        It is mapped at the first use: where it was made to be (`map_extra`), or anywhere. All processes have to map it
        at one address, so an arena that several of them use is made with `map_extra`.

        Raises:
            BPFError: EINVAL: another process, or another map object of this one, mapped it first, at an address that
                the kernel chose. BPFExistsError: something else is at its address.
            ClosedError: the map is closed.
        """
        return self._mapped().address

    @property
    def memory(self) -> memoryview:
        """All of it, writable. The mapping stays as long as a view of it is alive, also after `close()`.

        Raises:
            ValueError: the arena has BPF_F_SEGV_ON_FAULT: use `at`.
        """
        if self.flags & BPF_F_SEGV_ON_FAULT:
            raise ValueError(f"{self!r}: touching pages that nobody has allocated would end this process; use at()")
        return self._mapped().view

    def at(self, pointer: int, size: int) -> memoryview:
        """The bytes that a pointer in the arena points to, writable.

        Raises:
            ValueError: they are not in the arena.
        """
        start = to_integer(pointer, self._where("pointer"), "an address") - self.address
        if start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"{self._where('pointer')}: {size} bytes at {pointer:#x} are not in the arena")
        if self.flags & BPF_F_SEGV_ON_FAULT:
            self._check_allocated(pointer, size)
        return self._mapped().view[start : start + size]

    def _check_allocated(self, pointer: int, size: int) -> None:
        """Raises ValueError when a page does not exist. The kernel looks, whom a missing page does not hurt."""
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for page in range(pointer & -PAGE_SIZE, pointer + size, PAGE_SIZE):
                try:
                    os.pread(memory, 1, page)
                except OSError:
                    message = f"{self._where('pointer')}: no program has allocated the page at {page:#x}"
                    raise ValueError(message) from None
        finally:
            os.close(memory)

    def read(self, pointer: int, declared: Declared) -> Any:
        """The value of a type at a pointer.

        Args:
            declared: the name of a type of the object that the arena is of (``"struct node"``), or what `Map` takes as
                type of a value, but no number of bytes: these `at` gives.

        Raises:
            ValueError: it is not in the arena, or (BTFError) there is no such type.
        """
        codec = self._codec(declared)
        return codec.decode(self.at(pointer, codec.size))

    def write(self, pointer: int, declared: Declared, value: Any) -> None:
        """Write a value of a type at a pointer. Raises as `read`, and as codecs do for values that do not fit."""
        codec = self._codec(declared)
        data = codec.encode(value, self._where("value"))
        self.at(pointer, len(data))[:] = data

    def array(self, pointer: int, declared: Declared, count: int) -> memoryview:
        """`count` values of a type at a pointer, live: numbers as such, others as rows of bytes. Raises as `read`."""
        from pybpf.maps.face import CodecFace

        codec = self._codec(declared)
        data: Any = self.at(pointer, codec.size * count)
        code = CodecFace(codec, "").format
        if not code:
            rows: memoryview = data.cast("B", (count, codec.size)) if count else data
            return rows
        numbers: memoryview = data.cast(code)
        return numbers

    def _codec(self, declared: Declared) -> Codec:
        from pybpf.btf.codec import codec
        from pybpf.errors import BTFError
        from pybpf.maps.declared import codec_of

        if isinstance(declared, str) and self.btf is not None:
            try:
                return codec(self.btf, self.btf.find(declared.removeprefix("struct ").removeprefix("union ")).id)
            except BTFError:
                pass
        found = self._codecs.get(declared)
        if found is None:
            found = self._codecs[declared] = codec_of(declared)
        return found

    def __copy__(self) -> Self:
        """Another object of the same arena, which shares the mapping; see `Map`."""
        from copy import copy

        area, made = copy(self._mapped()), super().__copy__()
        made._area = area
        made.data_offset = self.data_offset
        return made

    def _release(self) -> None:
        if self._area is not None:
            self._area.close()
            self._area = None
