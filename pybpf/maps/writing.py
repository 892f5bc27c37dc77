"""Writing many elements: in batches (Linux 5.6), or one by one where the kernel has none for the map's type.

Rules of this module:

* Elements are written in the order given, a chunk after the other. A chunk is encoded before any of it is written.
* Whatever is raised has an attribute `count`: how many elements were written before.
"""

from __future__ import annotations

from pybpf import syscall
from pybpf.errors import BPFError, BPFNotFoundError
from pybpf.maps.batch import UNSUPPORTED, chunk_entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from pybpf.maps.mapping import MappingMap
    from pybpf.syscall import Buffer


def write_pairs(owner: MappingMap, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]], flags: int) -> None:
    """See `MappingMap.update`."""
    pairs: Iterable[tuple[Any, Any]] = other.items() if hasattr(other, "items") else other
    keys, values, done = [], [], 0
    limit = chunk_entries(owner.key_size + owner.values_face.size, owner.max_entries)
    try:
        for key, value in pairs:
            keys.append(key)
            values.append(value)
            if len(keys) == limit:
                _write(owner, keys, values, flags, done)
                done += len(keys)
                keys, values = [], []
    except Exception as error:
        vars(error).setdefault("count", done)  # there is none when it came from `other`
        raise
    if keys:
        _write(owner, keys, values, flags, done)


def write_many(owner: MappingMap, keys: Sequence[Any], values: Sequence[Any], flags: int) -> None:
    """See `MappingMap.update_many`."""
    if len(keys) != len(values):
        raise ValueError(f"{owner!r}: {len(keys)} keys and {len(values)} values")
    limit = chunk_entries(owner.key_size + owner.values_face.size, max(len(keys), owner.max_entries))
    for start in range(0, len(keys), limit):
        _write(owner, keys[start : start + limit], values[start : start + limit], flags, start)


def _write(owner: MappingMap, keys: Sequence[Any], values: Sequence[Any], flags: int, done: int) -> None:
    """Write a chunk; `done` elements were written before."""
    try:
        some_keys, some_values = owner._encode_keys(keys), owner.values_face.encode_run(values)
    except Exception as error:
        counted(error, done).add_note(_wrong_element(owner, keys, values, done))
        raise
    owner.write_bytes(some_keys, some_values, len(keys), flags, done)


def _wrong_element(owner: MappingMap, keys: Sequence[Any], values: Sequence[Any], done: int) -> str:
    """Which of the elements does not fit its type."""
    for position, (key, value) in enumerate(zip(keys, values, strict=True), done):
        try:
            owner._raw_key(key)
            owner.values_face.encode(value)
        except Exception:
            return f"This is element {position} of those to be written: {key!r}, {value!r}"
    return ""


def write_bytes(owner: MappingMap, keys: Buffer, values: Buffer, count: int, flags: int, done: int) -> None:
    """Write a chunk of `count` elements side by side; `done` elements were written before."""
    if "update" not in owner._refused:
        try:
            syscall.map_update_batch(owner.fd, keys, values, count, flags)
            return
        except BPFError as error:
            written = vars(error).get("count", 0)
            if error.errno not in UNSUPPORTED or written:
                counted(owner._explainer()(error), done + written)
                raise
        except Exception as error:
            counted(error, done)
            raise
    key_size, value_size = owner.keys_face.size, owner.values_face.size
    for position in range(count):
        key = bytes(keys[position * key_size : (position + 1) * key_size])
        value = bytes(values[position * value_size : (position + 1) * value_size])
        try:
            owner.put_bytes(key, value, flags)
        except Exception as error:
            if isinstance(error, BPFNotFoundError) and flags:
                raise counted(owner._missing(owner.keys_face.decode(key)), done + position) from error
            counted(error, done + position)
            raise
    if not flags:  # batches take fewer flags than single calls (generic_map_update_batch() of the kernel)
        owner._refused |= {"update"}


def counted(error: Exception, count: int) -> Exception:
    """The same error, which says how many elements were written before it."""
    vars(error)["count"] = count
    return error
