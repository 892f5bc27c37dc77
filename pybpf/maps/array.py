"""Arrays: array and per-CPU array.

Rules of this module:

* Keys are indexes from 0 to max_entries - 1, plain ints with or without type information. There are no negative ones:
  anything outside is an IndexError. Every element is always there.
* They iterate as mappings do, over the indexes: ``a.values()``, ``a.items()``.
* Elements cannot be deleted; `clear()` writes zeros.
* An array made with BPF_F_MMAPABLE (Linux 5.5) is read from its memory, without a system call. A value that is one
  aligned word is read in one piece; a longer one may be caught halfway through a change.
"""

from __future__ import annotations

from array import array

from pybpf import syscall
from pybpf.constants import BPF_ANY, BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY
from pybpf.errors import BPFError
from pybpf.maps.face import Face, NumberFace, PerCPUFace
from pybpf.maps.mapping import MappingMap
from pybpf.syscall import PAGE_SIZE, possible_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap
    from typing import Any, NoReturn

    from pybpf.maps.batch import Chunk
    from pybpf.syscall import ElementCalls


class IndexedMap(MappingMap):
    """What maps with indexes for keys share."""

    __slots__ = ()
    key_word = "index"
    default_key_size = 4

    def _key_face(self) -> Face:
        return NumberFace(self._where("index"))

    def _index(self, key: Any) -> int:
        """The index, checked. Raises IndexError, TypeError."""
        if type(key) is bytes and len(key) == 4:
            key = self.keys_face.decode(key)
        try:
            number: int = key.__index__()
        except AttributeError:
            raise TypeError(f"{self._where('index')}: an integer, not {key!r}") from None
        if not 0 <= number < self.max_entries:
            raise IndexError(f"{self._where('index')}: {number} is not in 0..{self.max_entries - 1}")
        return number

    def _raw_key(self, key: Any) -> int:
        return self._index(key)

    def __getitem__(self, key: Any) -> Any:
        if type(key) is not int or not 0 <= key < self.max_entries:
            key = self._index(key)
        value = self._get(key)
        if value is None:
            raise self._missing(key)
        return value

    def put(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Write an element; see `MappingMap.put`. Raises IndexError for an index outside."""
        if type(key) is not int or not 0 <= key < self.max_entries:
            key = self._index(key)
        super().put(key, value, flags)

    def __contains__(self, key: object) -> bool:
        try:
            return self._get(self._index(key)) is not None
        except IndexError:
            return False

    def _write(self, keys: list[Any], values: list[Any], flags: int, done: int) -> None:
        super()._write([self._index(key) for key in keys], values, flags, done)

    def _walked_keys(self, calls: ElementCalls) -> Iterator[bytes]:
        return map(self.keys_face.encode, range(self.max_entries))


class ArrayMap(IndexedMap):
    """BPF_MAP_TYPE_ARRAY (Linux 3.19)."""

    __slots__ = ("_memory", "_words")
    default_type = BPF_MAP_TYPE_ARRAY
    is_array = True

    _memory: mmap | None
    _words: Any

    def _prepare(self) -> None:
        super()._prepare()
        self._memory = self._words = None
        if self.flags & BPF_F_MMAPABLE:
            self._map()

    def _map(self) -> None:
        """Read from the array's memory from now on, if the kernel lets it be mapped."""
        size, stride = self.value_size, self.value_size + 7 & ~7
        length = -(-stride * self.max_entries // PAGE_SIZE) * PAGE_SIZE
        try:
            memory = self._memory = syscall.map_memory(self.fd, length)
        except BPFError:
            return
        if self.values_face.format and size == stride:
            whole: Any = memoryview(memory)
            self._words = whole.cast(self.values_face.format)
            self._get = self._words.__getitem__
        else:
            decode = self.values_face.decoder()
            self._get = lambda key: decode(memory[key * stride : key * stride + size])

    def close(self) -> None:
        if not self.closed and self._is_prepared() and self._memory is not None:
            self._get = self._closed_get
            if self._words is not None:
                self._words.release()
            self._memory.close()
        super().close()

    def _closed_get(self, key: Any) -> NoReturn:
        self.fileno()
        raise AssertionError("fileno() of a closed map raises")

    def _chunks(self, *, values: bool = True, delete: bool = False) -> Iterator[Chunk]:
        if self._memory is None or self.value_size % 8:
            yield from super()._chunks(values=values, delete=delete)
            return
        self.fileno()
        keys = array("I", range(self.max_entries))
        yield (
            memoryview(keys).cast("B"),
            memoryview(self._memory[: self.value_size * self.max_entries]),
            self.max_entries,
        )

    def __len__(self) -> int:
        return self.max_entries

    def __bool__(self) -> bool:
        return True

    def __contains__(self, key: object) -> bool:
        try:
            self._index(key)
        except IndexError:
            return False
        return True

    def _iterate_keys(self) -> Iterator[int]:
        self.fileno()
        return iter(range(self.max_entries))

    def _cannot_delete(self) -> TypeError:
        return TypeError(f"the elements of {self!r} cannot be deleted, an array has them all; write zeros")

    def __delitem__(self, key: Any) -> None:
        raise self._cannot_delete()

    def lookup_and_delete(self, key: Any) -> Any:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def pop(self, key: Any, default: Any = None) -> Any:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def popitem(self) -> tuple[Any, Any]:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def drain(self) -> list[tuple[Any, Any]]:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def clear(self) -> None:
        """Write zeros to every element."""
        zero = self.values_face.decode(bytes(self.values_face.size))
        self.update((index, zero) for index in range(self.max_entries))


class PerCpuArrayMap(ArrayMap):
    """BPF_MAP_TYPE_PERCPU_ARRAY (Linux 4.6): each possible CPU has an array of its own.

    Values are `PerCPU` lists, one value for each possible CPU: ``a[i].sum()``. Writing takes such a list, or one value
    for all CPUs (a list is always taken as one value for each CPU; give an array as a tuple).
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERCPU_ARRAY

    def _value_face(self) -> Face:
        return PerCPUFace(super()._value_face(), possible_cpus())
