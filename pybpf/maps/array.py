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

import errno
from array import array
from struct import unpack_from

from pybpf import syscall
from pybpf.constants import BPF_ANY, BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY
from pybpf.errors import BPFError, ClosedError, NotSupportedError
from pybpf.maps.cpus import PerCPUMap
from pybpf.maps.face import CodecFace, Face, NumberFace
from pybpf.maps.mapping import MappingMap
from pybpf.maps.writing import counted
from pybpf.syscall import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from mmap import mmap
    from typing import Any, NoReturn

    from pybpf.maps.batch import Chunk
    from pybpf.syscall import Buffer, ElementCalls


class IndexedMap(MappingMap):
    """What maps with indexes for keys share."""

    __slots__ = ()
    key_word = "index"
    default_key_size = 4
    resumes_at_key = False

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

    def get(self, key: Any, default: Any = None, *, flags: int = 0) -> Any:
        """The value at an index, or the default; see `MappingMap.get`."""
        try:
            return super().get(self._index(key), default, flags=flags)
        except IndexError:
            return default

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

    def _encode_keys(self, keys: Sequence[Any]) -> bytes:
        return super()._encode_keys([self._index(key) for key in keys])

    def write_bytes(self, keys: Buffer, values: Buffer, count: int, flags: int, done: int) -> None:
        """See `MappingMap.write_bytes`. Raises IndexError for an index outside."""
        try:
            super().write_bytes(keys, values, count, flags, done)
        except BPFError as error:
            if error.errno == errno.E2BIG:
                written: int = vars(error)["count"]
                start = 4 * (written - done)
                try:
                    self._index(bytes(keys[start : start + 4]))
                except IndexError as outside:
                    raise counted(outside, written) from error
            raise

    def get_many(self, keys: Iterable[Any], default: Any = None, *, flags: int = 0) -> list[Any]:
        """The values of many indexes, in their order; see `MappingMap.get_many`. Raises IndexError."""
        wanted = [self._index(key) for key in keys]
        return super().get_many(wanted, default, flags=flags)

    def _walked_keys(self, calls: ElementCalls) -> Iterator[bytes]:
        return map(self.keys_face.encode, range(self.max_entries))


class ArrayMap(IndexedMap):
    """BPF_MAP_TYPE_ARRAY (Linux 3.19)."""

    __slots__ = ("_forget", "_memory", "_words")
    default_type = BPF_MAP_TYPE_ARRAY
    is_array = True
    helper_reads = True

    _memory: mmap | None
    _words: Any
    _forget: Callable[[], None]

    def _quick(self, calls: ElementCalls, keys: Face, values: Face) -> dict[str, Any]:
        mapped = self._mapped(values) if self.flags & BPF_F_MMAPABLE else {}
        return mapped or {"_memory": None, "_words": None, **super()._quick(calls, keys, values)}

    def _mapped(self, values: Face) -> dict[str, Any]:
        """What reads from the array's memory, if the kernel lets it be mapped."""
        try:
            memory = syscall.map_memory(self.fd, self._mapped_size())
        except BPFError:
            return {}
        words: Any = None
        stride, count = self._stride, self.max_entries
        get: Callable[[int], Any]
        if values.format and values.size == stride:
            whole: Any = memoryview(memory)
            words = whole.cast(values.format)
            get = words.__getitem__
        elif isinstance(values, CodecFace):
            decode_at = values.codec.decode

            def get(key: int) -> Any:
                return decode_at(memory, key * stride)

        else:
            size, decode = values.size, values.decode

            def get(key: int) -> Any:
                return decode(memory[key * stride : key * stride + size])

        slow, closed_get = type(self).__getitem__, _closed_get(repr(self))

        def getitem(self: Any, key: Any) -> Any:
            return get(key) if key.__class__ is int and 0 <= key < count else slow(self, key)

        def forget() -> None:
            nonlocal get
            get = closed_get

        operators = self._class_with(getitem, type(self).__setitem__)
        return {"_memory": memory, "_words": words, "_forget": forget, "_get": get, "__class__": operators}

    @property
    def _stride(self) -> int:
        """Bytes from one value to the next, in the array's memory."""
        return self.value_size + 7 & ~7

    def _mapped_size(self) -> int:
        return -(-self._stride * self.max_entries // PAGE_SIZE) * PAGE_SIZE

    def _release(self) -> None:
        super()._release()
        if self._is_prepared() and self._memory is not None:
            self._get = _closed_get(repr(self))
            self._forget()
            # Another thread may be reading: it holds the memory, which is unmapped when the last one lets go of it.
            self._memory = self._words = None

    def view(self, *, writable: bool = False) -> memoryview:
        """The array's memory itself, for arrays made with BPF_F_MMAPABLE (Linux 5.5): no system call, no copy.

        What programs write is there at once, and what is written here they see at once. The view holds numbers where
        values are numbers of 8 bytes, else bytes in two dimensions: a row for each element, rounded up to 8 bytes. It
        outlives the map object.

        Raises:
            NotSupportedError: the array is not made so.
            BPFPermissionError: writable, and it is frozen or may only be read.
            BPFError: EINVAL: it was opened with BPF_F_RDONLY; the kernel maps no such descriptor.
        """
        data, values = self._live(writable), self.values_face
        if values.format and values.size == self._stride:
            shaped: memoryview = data.cast(values.format)
            return shaped
        rows: memoryview = data.cast("B", (self.max_entries, self._stride))
        return rows

    def numpy(self, *, writable: bool = False) -> Any:
        """The same as a numpy array, structs as structured elements. Needs numpy."""
        from pybpf.maps.bulk import as_numpy

        return as_numpy(self._live(writable), self.values_face, self.value_codec, self._stride)

    def _live(self, writable: bool) -> Any:
        """The bytes of all elements."""
        if not self.flags & BPF_F_MMAPABLE or self.is_per_cpu:
            hint = "The array has to be made with BPF_F_MMAPABLE"
            raise NotSupportedError(errno.ENODEV, "mmap", f"map {self.name!r}" if self.name else "", hint)
        with self.fd.lend() as number:
            memory = syscall.map_memory(number, self._mapped_size(), writable=writable)
        return memoryview(memory)[: self._stride * self.max_entries]

    def get_many(self, keys: Iterable[Any], default: Any = None, *, flags: int = 0) -> list[Any]:
        """The values of many indexes, in their order; see `MappingMap.get_many`. Raises IndexError."""
        memory, get = self._memory, self._get
        if memory is None or flags:  # in this order: another thread may close it, and sets the other `get` before
            return super().get_many(keys, default, flags=flags)
        return [get(self._index(key)) for key in keys]

    def chunks(self, *, values: bool = True, delete: bool = False, flags: int = 0) -> Iterator[Chunk]:
        memory = self._memory
        if memory is None or self.value_size % 8 or flags:
            yield from super().chunks(values=values, delete=delete, flags=flags)
            return
        keys = array("I", range(self.max_entries))
        yield (
            memoryview(keys).cast("B"),
            memoryview(memory[: self.value_size * self.max_entries]),
            self.max_entries,
        )

    def _iterate_values(self, *, flags: int = 0) -> Iterator[Any]:
        memory, words = self._memory, self._words
        if memory is None or words is None or flags:
            return super()._iterate_values(flags=flags)
        # Not ``words[:n]``: see pybpf.btf.layout.numbers.
        return iter(unpack_from(f"{self.max_entries}{words.format}", memory))

    def __getitem__(self, key: Any) -> Any:
        """The value at an index; of a slice a list of values."""
        if type(key) is slice:
            return self._slice(key)
        return super().__getitem__(key)

    def _slice(self, part: slice) -> list[Any]:
        indexes = range(*part.indices(self.max_entries))
        if len(indexes) == self.max_entries and indexes.step == 1:
            return list(self._iterate_values())
        return self.get_many(indexes)

    def put(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Write an element, or those of a slice: as many values as the slice has indexes; see `MappingMap.put`."""
        if type(key) is slice:
            self.update_many(range(*key.indices(self.max_entries)), list(value), flags)
        else:
            super().put(key, value, flags)

    def __reversed__(self) -> Iterator[int]:  # type: ignore[override]  # other maps have no order
        self.fileno()
        return reversed(range(self.max_entries))

    def __len__(self) -> int:
        self.fileno()
        return self.max_entries

    def __bool__(self) -> bool:
        return len(self) > 0

    def __contains__(self, key: object) -> bool:
        self.fileno()
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

    def lookup_and_delete(self, key: Any, *, flags: int = 0) -> Any:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def pop(self, key: Any, default: Any = None) -> Any:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def popitem(self) -> tuple[Any, Any]:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def drain(self, *, flags: int = 0) -> list[tuple[Any, Any]]:
        """Not for arrays. Raises TypeError."""
        raise self._cannot_delete()

    def clear(self) -> None:
        """Write zeros to every element."""
        zero = self.values_face.decode(bytes(self.values_face.size))
        self.update((index, zero) for index in range(self.max_entries))


def _closed_get(told: str) -> Callable[[int], NoReturn]:
    """What a closed array reads with."""

    def get(key: int) -> NoReturn:
        raise ClosedError(f"{told} is closed")

    return get


class PerCpuArrayMap(PerCPUMap, ArrayMap):
    """BPF_MAP_TYPE_PERCPU_ARRAY (Linux 4.6): each possible CPU has an array of its own.

    Values are `PerCPU` lists, one value for each possible CPU: ``a[i].sum()``, ``a.sums()``.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERCPU_ARRAY
