"""Maps of keys and values as mutable mappings.

Rules of this module:

* ``m[k]``, ``m[k] = v``, ``del m[k]``, ``k in m``, ``len(m)``, iteration over keys, `keys`, `values`, `items`, `get`,
  `pop`, `popitem`, `setdefault`, `update`, `clear` mean what they mean for a dict. A missing key is a KeyError.
* The kernel keeps no count and no order: ``len(m)`` reads the whole map, and the order is the kernel's.
* Whole reads use the batch commands, and walk key by key where there are none (see `batch`). Elements that come or go
  meanwhile may or may not be among them. ``dict(m.items())`` is one quick read; ``dict(m)`` looks up each key again.
* Single operations go through calls that are prepared when the first one is made.
"""

from __future__ import annotations

import errno
from _collections_abc import MutableMapping
from itertools import chain, repeat

from pybpf import syscall
from pybpf.constants import BPF_ANY, BPF_NOEXIST
from pybpf.errors import BPFError, BPFExistsError
from pybpf.maps.base import PREPARING, Map
from pybpf.maps.batch import UNSUPPORTED, chunk_entries, listed, once, read_chunks, walk, walk_chunks
from pybpf.maps.face import CodecFace, Face, accessors, key_face, value_face
from pybpf.maps.view import SetView, View
from pybpf.maps.writing import write_bytes, write_many, write_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, ClassVar

    from pybpf.maps.batch import Chunk
    from pybpf.maps.many import Readers
    from pybpf.maps.snapshot import Snapshot
    from pybpf.syscall import Buffer, ElementCalls

_PREPARED = frozenset(
    ("_byte_calls", "_calls", "_get", "_memory", "_refused", "_set", "_words", "keys_face", "readers", "values_face")
)
"""What `MappingMap._at_first_use` and `ArrayMap._quick` give."""
_ABSENT: Any = object()
_OURS = "pybpf.maps."


class MappingMap(Map):
    """A map of keys and values: a mutable mapping.

    Keys and values are what their codecs make of them (see `pybpf.btf.codec`), `bytes` without type information.
    """

    __slots__ = ("_byte_calls", "_calls", "_get", "_refused", "_set", "keys_face", "readers", "values_face")

    _calls: ElementCalls
    _get: Callable[[Any], Any]
    """The value of a key, None if there is none."""
    _set: Callable[[Any, Any, int], None]
    _byte_calls: ElementCalls | None
    """Calls whose keys and values are bytes, see `_by_bytes`."""
    _refused: frozenset[str]
    """What the kernel does not have for this map: batch commands, and "take": read and delete in one step."""
    keys_face: Face
    values_face: Face
    readers: Readers | None
    """What `get_many` reads with."""

    required: ClassVar[tuple[str, ...]] = ("key", "value", "max_entries")
    has_next_key = True
    """The kernel can walk through the keys."""
    keys_need_values = False
    """There are keys that have no value, which iteration leaves out."""
    resumes_at_key: ClassVar[bool] = True
    """A batch goes on from a key, and the kernel begins again when that key is gone; not so where it has buckets."""
    helper_reads: ClassVar[bool] = False
    """A program that looks a key up sees the bytes that user space sees, and changes nothing by looking."""
    is_per_cpu: ClassVar[bool] = False
    """An element has a value for each possible CPU."""
    is_restorable: ClassVar[bool] = True
    """What is read can be written back."""

    # --- preparation -----------------------------------------------------------------------------------------------

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _PREPARED:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with PREPARING:
                if not self._is_prepared():  # another thread may have been quicker
                    made = self._at_first_use()
                    # One call of C: an interrupt finds all of them set, or none.
                    any(map(setattr, repeat(self), made, made.values()))
            return object.__getattribute__(self, name)

    def _key_face(self) -> Face:
        return key_face(self.key_codec, self.key_size, self._where("key"))

    def _value_face(self) -> Face:
        return value_face(self.value_codec, self.value_size, self._where("value"))

    def _at_first_use(self) -> dict[str, Any]:
        """The attributes that the first use makes. Raises ClosedError."""
        keys, values = self._key_face(), self._value_face()
        calls = self._new_calls(values.size, keys.format, values.format)
        get, set = accessors(calls, keys, values)
        return {
            "_calls": calls,
            "_byte_calls": None,
            "_refused": frozenset(),
            "keys_face": keys,
            "values_face": values,
            "readers": None,
            "_get": get,
            "_set": set,
            **self._quick(calls, keys, values),
        }

    def _new_calls(self, value_size: int, key_format: str = "", value_format: str = "") -> ElementCalls:
        """Prepared calls on this map. Raises ClosedError."""
        return syscall.ElementCalls(
            self.fileno(),
            self.key_size,
            value_size,
            key_format=key_format,
            value_format=value_format,
            explain=self._explainer(),
        )

    def _quick(self, calls: ElementCalls, keys: Face, values: Face) -> dict[str, Any]:
        """Of these attributes those with ``m[k]`` and ``m[k] = v`` made for this object alone, see `_class_with`."""
        decode: Callable[[Any], Any] | None = None
        if isinstance(values, CodecFace):
            decode = None if values.format else values.decoder()
        elif not values.format and type(values) is not Face:

            def decode(memory: memoryview) -> Any:
                return values.decode(memory.tobytes())

        operators = calls.subscript(
            type(self).__getitem__,
            type(self).__setitem__,
            None if keys.format else keys.encode,
            None if values.format else values.encode,
            decode,
        )
        return {"__class__": self._class_with(*operators)}

    def _class_with(self, getitem: Callable[[Any, Any], Any], setitem: Callable[[Any, Any, Any], None]) -> type:
        """A class for this object whose ``m[k]`` and ``m[k] = v`` are these.

        Python looks operators up in the class, so the object gets a class of its own with nothing else in it. It saves
        a tenth of a lookup and a quarter of an update. Subclasses with operators of their own keep those.
        """
        plain = type(self)
        if not (plain.__getitem__.__module__.startswith(_OURS) and plain.__setitem__.__module__.startswith(_OURS)):
            return plain
        body = {"__slots__": (), "__module__": plain.__module__, "__doc__": plain.__doc__, "_plain_class": plain}
        return type(plain.__name__, (plain,), {**body, "__getitem__": getitem, "__setitem__": setitem})

    def _release(self) -> None:
        if self._is_prepared():
            self._calls.close(self._fd)
            if self._byte_calls is not None:
                self._byte_calls.close(self._fd)
            if self.readers is not None:
                self.readers.close()

    def _is_prepared(self) -> bool:
        try:
            object.__getattribute__(self, "_calls")
        except AttributeError:
            return False
        return True

    def _raw_key(self, key: Any) -> Any:
        """A key as the prepared calls take it. Raises TypeError, ValueError, OverflowError."""
        data = self.keys_face.encode(key)
        return self.keys_face.decode(data) if self.keys_face.format else data

    # --- one element -----------------------------------------------------------------------------------------------

    def _find(self, key: Any) -> Any:
        """The value of a key, None if there is none. Raises TypeError, ValueError, OverflowError, BPFError."""
        if key is None:
            self.keys_face.encode(key)  # raises; the prepared calls take None for no key
        try:
            return self._get(key)
        except (TypeError, ValueError):
            self.keys_face.encode(key)  # says better what is wrong with it
            raise

    def __getitem__(self, key: Any) -> Any:
        value = self._find(key)
        if value is None:
            raise self._missing(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        if not self._calls.delete(self._raw_key(key)):
            raise self._missing(key)

    def __contains__(self, key: object) -> bool:
        try:
            return self._find(key) is not None
        except OverflowError:  # no key can be so large
            return False

    def _missing(self, key: Any) -> LookupError:
        """What a key that is not there raises."""
        return KeyError(key)

    def get(self, key: Any, default: Any = None, *, flags: int = 0) -> Any:
        """The value of a key, or the default.

        Args:
            flags: BPF_F_LOCK to read under the element's spin lock (Linux 5.1).
        """
        if flags:
            data = self._calls.lookup(self._raw_key(key), flags)
            if data is None:
                return default
            return data if self.values_face.format else self.values_face.decode(data)
        value = self._find(key)
        return default if value is None else value

    def put(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Write an element.

        Args:
            flags: BPF_ANY; BPF_NOEXIST: only if it is not there; BPF_EXIST: only if it is; BPF_F_LOCK (Linux 5.1).

        Raises:
            KeyError: BPF_EXIST, and there is no such element.
            BPFExistsError: BPF_NOEXIST, and there is one.
            BPFError: E2BIG (prefix tries: ENOSPC): the map is full. EPERM: it is frozen or read-only.
            TypeError, ValueError, OverflowError: the key or the value does not fit its type.
        """
        if key is None:
            self.keys_face.encode(key)
        try:
            self._set(key, value, flags)
        except (TypeError, ValueError):
            self.keys_face.encode(key)
            self.values_face.encode(value)
            raise
        except BPFError as error:
            if error.errno == errno.ENOENT and flags:
                raise self._missing(key) from error
            raise

    def lookup_and_delete(self, key: Any, *, flags: int = 0) -> Any:
        """Read and delete an element in one step (hash maps: Linux 5.14).

        Args:
            flags: as of `get`.

        Raises:
            KeyError: there is no such element.
            BPFError: EINVAL or ENOTSUPP on older kernels, and for types that cannot do it.
        """
        data = self._calls.lookup_and_delete(self._raw_key(key), flags)
        if data is None:
            raise self._missing(key)
        return data if self.values_face.format else self.values_face.decode(data)

    def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        """Read and delete an element; in two steps where the kernel cannot do it in one (before Linux 5.14).

        Raises:
            KeyError: there is no such element, and no default is given.
        """
        try:
            data = self._take(self._calls, self._raw_key(key))
            if data is None:
                raise self._missing(key)
        except LookupError:
            if default is _ABSENT:
                raise
            return default
        return data if self.values_face.format else self.values_face.decode(data)

    def _take(self, calls: ElementCalls, key: Any, flags: int = 0) -> Any:
        """Read and delete an element, in one step or two; None if there is none."""
        if "take" not in self._refused:
            try:
                return calls.lookup_and_delete(key, flags)
            except BPFError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                if not flags:
                    self._refused |= {"take"}
        value = calls.lookup(key, flags)
        return value if value is not None and calls.delete(key) else None

    def popitem(self) -> tuple[Any, Any]:
        """Read and delete some element. Raises KeyError when the map is empty."""
        calls = self._by_bytes()
        for key in self._walked_keys(calls):
            value = self._take(calls, key)
            if value is not None:
                return self.keys_face.decode(key), self.values_face.decode(value)
        raise KeyError(f"{self!r} is empty")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of a key; if there is none, the default is put there, unless somebody else is quicker.

        Raises:
            TypeError: there is none, and no default that fits the values' type.
        """
        value = self.get(key)
        if value is not None:
            return value
        try:
            self.put(key, default, BPF_NOEXIST)
        except BPFExistsError:
            pass
        return self.get(key, default)

    # --- many elements ---------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Any], default: Any = None, *, flags: int = 0) -> list[Any]:
        """The values of many keys, in their order; the default for those that are not there.

        The kernel has no such command. Where it can be done, a small program of ours looks up thousands of keys in one
        call, in a fraction of the time of a loop in C (see `pybpf.maps.many`). Elsewhere, and with flags, it is one
        call for each.

        Args:
            flags: as of `get`.

        Raises:
            TypeError, ValueError, OverflowError: a key does not fit its type.
        """
        from pybpf.maps.many import get_many

        return get_many(self, keys, default, flags)

    def update_many(self, keys: Iterable[Any], values: Iterable[Any], flags: int = BPF_ANY) -> None:
        """Write as many values as keys, in batches (Linux 5.6) or one by one.

        Raises:
            ValueError: there are not as many of one as of the other.
            BPFError and others: as of `update`.
        """
        write_many(self, listed(keys), listed(values), flags)

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Delete many elements, in batches (Linux 5.6) or one by one; how many of them there were."""
        wanted = listed(keys)
        self.fileno()
        limit = chunk_entries(self.key_size, max(len(wanted), self.max_entries))
        return sum(self._delete(wanted[start : start + limit]) for start in range(0, len(wanted), limit))

    def _delete(self, keys: Sequence[Any]) -> int:
        """Delete a chunk. The command ends at a key that is not there: it goes on behind that one."""
        deleted = start = 0
        if "delete batch" not in self._refused:
            data, size = memoryview(self.keys_face.encode_run(keys)), self.keys_face.size
            while start < len(keys):
                try:
                    deleted += syscall.map_delete_batch(self.fd, data[start * size :], len(keys) - start)
                    return deleted
                except BPFError as error:
                    done = vars(error).get("count", 0)
                    if error.errno in UNSUPPORTED and not done and not deleted:
                        self._refused |= {"delete batch"}
                        break
                    if error.errno != errno.ENOENT:
                        self._explainer()(error)
                        raise
                    deleted += done
                    start += done + 1
        return deleted + sum(self._calls.delete(self._raw_key(key)) for key in keys[start:])

    # --- the whole map ---------------------------------------------------------------------------------------------

    def chunks(self, *, values: bool = True, delete: bool = False, flags: int = 0) -> Iterator[Chunk]:
        """All elements in chunks. Without `values` the values may be missing from them.

        Args:
            flags: as of `get`, for each element.
        """
        size = self.values_face.size
        command = "delete" if delete else "read"
        if command not in self._refused:
            chunks = read_chunks(self.fd, self.key_size, size, self.max_entries, delete=delete, flags=flags)
            try:
                first = next(chunks, None)
            except BPFError as error:
                if error.errno not in UNSUPPORTED:
                    self._explainer()(error)
                    raise
                if not flags:  # it may be these that were refused
                    self._refused |= {command}
            else:
                if first is not None:
                    found = chain((first,), chunks)
                    again = self.resumes_at_key and not delete
                    yield from once(found, self.key_size, size, self.max_entries) if again else found
                return
        yield from self._walked_chunks(values or (self.keys_need_values and not delete), delete, flags)

    def _walked_chunks(self, values: bool, delete: bool, flags: int) -> Iterator[Chunk]:
        calls = self._by_bytes()
        keys = self._walked_keys(calls)
        if delete and not values:
            keys = filter(calls.delete, keys)

        def lookup(key: bytes) -> bytes | None:
            value: bytes | None = self._take(calls, key, flags) if delete else calls.lookup(key, flags)
            return value

        return walk_chunks(keys, lookup if values else None, self.key_size, self.values_face.size)

    def _by_bytes(self) -> ElementCalls:
        """Calls that take each key as the kernel gave it, also those that Python values are not the whole of."""
        calls = self._byte_calls
        if calls is None:
            with PREPARING:
                calls = self._byte_calls  # another thread may have been quicker
                if calls is None:
                    calls = self._byte_calls = self._new_calls(self.values_face.size)
        return calls

    def _walked_keys(self, calls: ElementCalls) -> Iterator[bytes]:
        return walk(calls.next_key, self.max_entries)

    def _iterate_keys(self) -> Iterator[Any]:
        run = self.keys_face.run
        return chain.from_iterable(run(keys, count) for keys, _, count in self.chunks(values=False))

    def _iterate_values(self, *, flags: int = 0) -> Iterator[Any]:
        run = self.values_face.run
        return chain.from_iterable(run(values, count) for _, values, count in self.chunks(flags=flags))

    def _iterate_items(self, *, delete: bool = False, flags: int = 0) -> Iterator[tuple[Any, Any]]:
        run_keys, run_values = self.keys_face.run, self.values_face.run
        return chain.from_iterable(
            zip(run_keys(keys, count), run_values(values, count), strict=True)
            for keys, values, count in self.chunks(delete=delete, flags=flags)
        )

    def __iter__(self) -> Iterator[Any]:
        return self._iterate_keys()

    __reversed__ = None  # there is no order

    def __len__(self) -> int:
        """How many elements there are now: reads the whole map."""
        return sum(count for _, _, count in self.chunks(values=False))

    def __bool__(self) -> bool:
        calls = self._by_bytes()
        keys: Iterable[Any] = self._walked_keys(calls)
        if self.keys_need_values:
            keys = (key for key in keys if calls.lookup(key) is not None)
        return any(True for _ in keys)

    def keys(self) -> SetView:
        """The keys. ``list(m.keys())`` is one read of the map, ``list(m)`` are two: one for the length."""
        return SetView(self._iterate_keys)

    def values(self, *, flags: int = 0) -> View:
        """The values; flags as of `get`, for each element."""
        return View(self._iterate_values, flags=flags)

    def items(self, *, flags: int = 0) -> SetView:
        """Pairs of key and value; flags as of `get`, for each element."""
        return SetView(self._iterate_items, flags=flags)

    def to_dict(self, *, flags: int = 0) -> dict[Any, Any]:
        """All of it as a dict. ``dict(m)`` gives the same, but asks for each value by its key.

        Args:
            flags: as of `get`, for each element.
        """
        run_keys, run_values = self.keys_face.run, self.values_face.run
        found: dict[Any, Any] = {}
        for keys, values, count in self.chunks(flags=flags):
            found.update(zip(run_keys(keys, count), run_values(values, count), strict=True))
        return found

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of key and value as the bytes that the kernel has.

        Two keys of the kernel may be the same value in Python: programs leave rubbish in padding or behind the NUL of a
        string, and the kernel compares all bytes. Here they come apart, and `get`, ``m[k]``, ``del m[k]`` take such
        bytes for a key of a struct, union, array or string.
        """
        key, value = Face(self.key_size, "key"), Face(self.values_face.size, "value")
        return chain.from_iterable(
            zip(key.run(keys, count), value.run(values, count), strict=True) for keys, values, count in self.chunks()
        )

    def items_array(self, *, flags: int = 0) -> tuple[memoryview, memoryview]:
        """All keys and all values side by side, as two views of memory of their own: no Python object for each element.

        The views hold numbers where keys or values are numbers. All others are bytes in two dimensions, a row for each
        element. Of a per-CPU map each row has the values of all possible CPUs. Flags are those of `get`.
        """
        from pybpf.maps.bulk import items_array

        return items_array(self, flags)

    def items_numpy(self, *, flags: int = 0) -> tuple[Any, Any]:
        """All keys and all values as two numpy arrays of their own, structs as structured ones. Needs numpy.

        Of a per-CPU map the values have a second dimension, the CPU; arrays have theirs behind it. The dtypes are those
        of `pybpf.btf.columns`, in which bitfields are left out; without type information, of ``V`` (bytes).
        Flags are those of `get`.
        """
        from pybpf.maps.bulk import items_numpy

        return items_numpy(self, flags)

    def update_array(self, keys: Any, values: Any, flags: int = BPF_ANY) -> None:
        """Write elements from memory: what `items_array` and `items_numpy` give, or any buffers of bytes or elements.

        Raises:
            ValueError: a buffer does not hold whole elements, or one holds more than the other.
            TypeError: it is no buffer, or holds elements of another type, size or byte order than the map.
            BPFError: as of `put`; its attribute `count` says how many were written.
        """
        from pybpf.maps.bulk import update_array

        update_array(self, keys, values, flags)

    def snapshot(self, *, flags: int = 0) -> Snapshot:
        """All elements with their types, to be kept in a file or given back; see `pybpf.maps.snapshot`.

        Args:
            flags: as of `get`, for each element.
        """
        from pybpf.maps.snapshot import Snapshot

        return Snapshot.of(self, flags)

    def check_restorable(self, values: bytes | bytearray) -> None:
        """Raises TypeError when values that were read from a map like this would mean something else when written."""
        if not self.is_restorable:
            raise TypeError(f"{self!r}: what is read from a {self.type_name} map cannot be written to one")

    def restore(self, source: Snapshot | str | os.PathLike[str], *, clear: bool = True) -> None:
        """Write the elements of a snapshot, or of the file of one; see `pybpf.maps.snapshot.Snapshot.restore`."""
        from pybpf.maps.snapshot import Snapshot

        if isinstance(source, bytes | bytearray | memoryview):
            raise TypeError("restore() takes a Snapshot or the path of one: Snapshot.from_bytes() makes one of bytes")
        taken = source if isinstance(source, Snapshot) else Snapshot.load(source)
        taken.restore(self, clear=clear)

    def drain(self, *, flags: int = 0) -> list[tuple[Any, Any]]:
        """Read and delete every element (hash maps in batches, Linux 5.6; else one by one).

        Args:
            flags: as of `get`, for each element.
        """
        return list(self._iterate_items(delete=True, flags=flags))

    def clear(self) -> None:
        """Delete every element."""
        for _ in self.chunks(values=False, delete=True):
            pass

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]], flags: int = BPF_ANY) -> None:
        """Write many elements, in batches (Linux 5.6) or one by one.

        Args:
            other: a mapping, or pairs of key and value.
            flags: as of `put`.

        Raises:
            BPFError, KeyError, TypeError, ValueError, OverflowError: as of `put`. Whatever is raised, its attribute
                `count` says how many elements were written: the first ones, in the order given.
        """
        write_pairs(self, other, flags)

    def write_bytes(self, keys: Buffer, values: Buffer, count: int, flags: int, done: int) -> None:
        """Write a chunk of `count` elements side by side; `done` elements were written before."""
        write_bytes(self, keys, values, count, flags, done)

    def _encode_keys(self, keys: Sequence[Any]) -> bytes:
        return self.keys_face.encode_run(keys)

    def put_bytes(self, key: bytes, value: bytes, flags: int) -> None:
        """Write one element that is encoded already."""
        keys, values = self.keys_face, self.values_face
        self._calls.update(
            keys.decode(key) if keys.format else key, values.decode(value) if values.format else value, flags
        )


MutableMapping.register(MappingMap)
