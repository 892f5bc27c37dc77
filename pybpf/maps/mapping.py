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
from itertools import chain

from pybpf import syscall
from pybpf.constants import BPF_ANY, BPF_NOEXIST
from pybpf.errors import BPFError, BPFExistsError
from pybpf.maps.base import Map
from pybpf.maps.batch import UNSUPPORTED, chunk_entries, read_chunks, walk, walk_chunks
from pybpf.maps.face import Face, key_face, value_face

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from pybpf.maps.batch import Chunk
    from pybpf.syscall import ElementCalls

_PREPARED = ("_calls", "_get", "_set", "keys_face", "values_face")
_ABSENT: Any = object()


class MappingMap(Map):
    """A map of keys and values: a mutable mapping.

    Keys and values are what their codecs make of them (see `pybpf.btf.codec`), `bytes` without type information.
    """

    __slots__ = ("_calls", "_get", "_refused", "_set", "_walk_calls", "keys_face", "values_face")

    _calls: ElementCalls
    _get: Callable[[Any], Any]
    """The value of a key, None if there is none."""
    _set: Callable[[Any, Any, int], None]
    keys_face: Face
    values_face: Face

    has_next_key = True
    """The kernel can walk through the keys."""
    keys_need_values = False
    """There are keys that have no value, which iteration leaves out."""

    # --- preparation -----------------------------------------------------------------------------------------------

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in _PREPARED:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._prepare()
            return object.__getattribute__(self, name)

    def _key_face(self) -> Face:
        return key_face(self.key_codec, self.key_size, self._where("key"))

    def _value_face(self) -> Face:
        return value_face(self.value_codec, self.value_size, self._where("value"))

    def _prepare(self) -> None:
        """What the first use makes. Raises ClosedError."""
        number = self.fileno()
        keys, values = self._key_face(), self._value_face()
        calls = syscall.ElementCalls(
            number, self.key_size, values.size, key_format=keys.format, value_format=values.format
        )
        self.keys_face, self.values_face = keys, values
        self._walk_calls: ElementCalls | None = None
        self._refused: frozenset[str] = frozenset()
        self._get, self._set = _accessors(calls, keys, values)
        self._calls = calls

    def close(self) -> None:
        if not self.closed and self._is_prepared():
            self._calls.close()
            if self._walk_calls is not None:
                self._walk_calls.close()
        super().close()

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

    def __getitem__(self, key: Any) -> Any:
        if key is None:
            self.keys_face.encode(key)  # raises; the prepared calls take None for no key
        try:
            value = self._get(key)
        except (TypeError, ValueError):
            self.keys_face.encode(key)  # says better what is wrong with it
            raise
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
            return self[key] is not None
        except LookupError:
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
        try:
            return self[key]
        except LookupError:
            return default

    def put(self, key: Any, value: Any, flags: int = BPF_ANY) -> None:
        """Write an element.

        Args:
            flags: BPF_ANY; BPF_NOEXIST: only if it is not there; BPF_EXIST: only if it is; BPF_F_LOCK (Linux 5.1).

        Raises:
            KeyError: BPF_EXIST, and there is no such element.
            BPFExistsError: BPF_NOEXIST, and there is one.
            BPFError: E2BIG: the map is full. EPERM: it is frozen or read-only.
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

    def lookup_and_delete(self, key: Any) -> Any:
        """Read and delete an element in one step (hash maps: Linux 5.14).

        Raises:
            KeyError: there is no such element.
            BPFError: EINVAL or ENOTSUPP on older kernels, and for types that cannot do it.
        """
        data = self._calls.lookup_and_delete(self._raw_key(key))
        if data is None:
            raise self._missing(key)
        return data if self.values_face.format else self.values_face.decode(data)

    def pop(self, key: Any, default: Any = _ABSENT) -> Any:
        """Read and delete an element; in two steps where the kernel cannot do it in one (before Linux 5.14).

        Raises:
            KeyError: there is no such element, and no default is given.
        """
        try:
            return self.lookup_and_delete(key)
        except LookupError:
            if default is _ABSENT:
                raise
            return default
        except BPFError as error:
            if error.errno not in UNSUPPORTED:
                raise
        value = self.get(key)
        if value is not None and self._calls.delete(self._raw_key(key)):
            return value
        if default is _ABSENT:
            raise self._missing(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Read and delete some element. Raises KeyError when the map is empty."""
        for key, value in self.items():
            if self._calls.delete(self._raw_key(key)):
                return key, value
        raise KeyError(f"{self!r} is empty")

    def setdefault(self, key: Any, default: Any) -> Any:
        """The value of a key; if there is none, the default is put there first, in one step."""
        try:
            self.put(key, default, BPF_NOEXIST)
        except BPFExistsError:
            return self.get(key, default)
        return self.get(key, default)

    # --- the whole map ---------------------------------------------------------------------------------------------

    def _chunks(self, *, values: bool = True, delete: bool = False) -> Iterator[Chunk]:
        """All elements in chunks. Without `values` the values may be missing from them."""
        size = self.values_face.size
        command = "delete" if delete else "read"
        if command not in self._refused:
            chunks = read_chunks(self.fd, self.key_size, size, self.max_entries, delete=delete)
            try:
                first = next(chunks, None)
            except BPFError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                self._refused |= {command}
            else:
                if first is not None:
                    yield first
                    yield from chunks
                return
        yield from self._walked_chunks(values or self.keys_need_values, delete)

    def _walked_chunks(self, values: bool, delete: bool) -> Iterator[Chunk]:
        if self._walk_calls is None:
            self._walk_calls = syscall.ElementCalls(self.fileno(), self.key_size, self.values_face.size)
        calls = self._walk_calls
        lookup: Callable[[bytes], bytes | None] | None = calls.lookup if values else None
        if delete:

            def lookup(key: bytes) -> bytes | None:
                value: bytes | None = calls.lookup(key)
                return value if calls.delete(key) else None

        return walk_chunks(self._walked_keys(calls), lookup, self.key_size, self.values_face.size)

    def _walked_keys(self, calls: ElementCalls) -> Iterator[bytes]:
        return walk(calls.next_key, self.max_entries)

    def _iterate_keys(self) -> Iterator[Any]:
        run = self.keys_face.run
        return chain.from_iterable(run(keys, count) for keys, _, count in self._chunks(values=False))

    def _iterate_values(self) -> Iterator[Any]:
        run = self.values_face.run
        return chain.from_iterable(run(values, count) for _, values, count in self._chunks())

    def _iterate_items(self, *, delete: bool = False) -> Iterator[tuple[Any, Any]]:
        run_keys, run_values = self.keys_face.run, self.values_face.run
        return chain.from_iterable(
            zip(run_keys(keys, count), run_values(values, count), strict=True)
            for keys, values, count in self._chunks(delete=delete)
        )

    def __iter__(self) -> Iterator[Any]:
        return self._iterate_keys()

    def __len__(self) -> int:
        """How many elements there are now: reads the whole map."""
        return sum(count for _, _, count in self._chunks(values=False))

    def __bool__(self) -> bool:
        return next(self._chunks(values=False), None) is not None

    def keys(self) -> View:
        """The keys. ``list(m.keys())`` is one read of the map, ``list(m)`` are two: one for the length."""
        return View(self._iterate_keys)

    def values(self) -> View:
        """The values."""
        return View(self._iterate_values)

    def items(self) -> View:
        """Pairs of key and value."""
        return View(self._iterate_items)

    def drain(self) -> list[tuple[Any, Any]]:
        """Read and delete every element (hash maps in batches, Linux 5.6; else one by one)."""
        return list(self._iterate_items(delete=True))

    def clear(self) -> None:
        """Delete every element."""
        for _ in self._chunks(delete=True):
            pass

    def update(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]], flags: int = BPF_ANY) -> None:
        """Write many elements, in batches (Linux 5.6) or one by one.

        Args:
            other: a mapping, or pairs of key and value.
            flags: as of `put`.

        Raises:
            BPFError: as of `put`; its attribute `count` says how many elements of `other` were written.
        """
        pairs: Iterable[tuple[Any, Any]] = other.items() if hasattr(other, "items") else other
        keys, values, done = [], [], 0
        limit = chunk_entries(self.key_size + self.values_face.size, self.max_entries)
        for key, value in pairs:
            keys.append(key)
            values.append(value)
            if len(keys) == limit:
                self._write(keys, values, flags, done)
                done += len(keys)
                keys, values = [], []
        if keys:
            self._write(keys, values, flags, done)

    def _write(self, keys: list[Any], values: list[Any], flags: int, done: int) -> None:
        """Write a chunk; `done` elements were written before."""
        try:
            if "update" not in self._refused:
                try:
                    written = syscall.map_update_batch(
                        self.fd, self.keys_face.encode_run(keys), self.values_face.encode_run(values), len(keys), flags
                    )
                    assert written == len(keys)
                    return
                except BPFError as error:
                    if error.errno not in UNSUPPORTED or vars(error).get("count"):
                        raise
            for position, (key, value) in enumerate(zip(keys, values, strict=True)):
                try:
                    self.put(key, value, flags)
                except BPFError as error:
                    vars(error)["count"] = position
                    raise
            if not flags:  # batches take fewer flags than single calls (generic_map_update_batch() of the kernel)
                self._refused |= {"update"}
        except BPFError as error:
            vars(error)["count"] = vars(error).get("count", 0) + done
            raise


class View:
    """The keys, values or items of a map: an iterable without a length. Each iteration reads the map anew."""

    __slots__ = ("_iterate",)

    def __init__(self, iterate: Callable[[], Iterator[Any]]) -> None:
        self._iterate = iterate

    def __iter__(self) -> Iterator[Any]:
        return self._iterate()

    def __contains__(self, wanted: object) -> bool:
        return any(found == wanted for found in self)

    def __repr__(self) -> str:
        return f"<view of {self._iterate.__self__!r}>"  # type: ignore[attr-defined]  # a bound method has it


MutableMapping.register(MappingMap)


def _accessors(
    calls: ElementCalls, keys: Face, values: Face
) -> tuple[Callable[[Any], Any], Callable[[Any, Any, int], None]]:
    """What reads and what writes one element, made for these faces."""
    lookup, update = calls.lookup, calls.update
    encode_key, encode_value, decode = keys.encode, values.encode, values.decoder()
    if keys.format and values.format:
        return lookup, update
    if keys.format:

        def get(key: Any) -> Any:
            data = lookup(key)
            return None if data is None else decode(data)

        def set(key: Any, value: Any, flags: int) -> None:
            update(key, encode_value(value), flags)

    elif values.format:

        def get(key: Any) -> Any:
            return lookup(encode_key(key))

        def set(key: Any, value: Any, flags: int) -> None:
            update(encode_key(key), value, flags)

    else:

        def get(key: Any) -> Any:
            data = lookup(encode_key(key))
            return None if data is None else decode(data)

        def set(key: Any, value: Any, flags: int) -> None:
            update(encode_key(key), encode_value(value), flags)

    return get, set
