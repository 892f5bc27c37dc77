"""Whole maps as memory: keys side by side, values side by side, for those who compute with them as a whole.

Rules of this module:

* What is given out is the caller's: it does not change when the map does, and outlives it.
* numpy is imported when it is asked for.
"""

from __future__ import annotations

from pybpf.maps.batch import chunk_entries
from pybpf.maps.face import PerCPUFace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.maps.face import Face
    from pybpf.maps.mapping import MappingMap


def read_whole(owner: MappingMap, flags: int) -> tuple[bytearray, bytearray]:
    """All keys and all values in one piece each."""
    key_size, value_size = owner.keys_face.size, owner.values_face.size
    keys, values = bytearray(), bytearray()
    for some_keys, some_values, count in owner.chunks(flags=flags):
        keys += some_keys[: count * key_size]
        values += some_values[: count * value_size]
    return keys, values


def items_array(owner: MappingMap, flags: int) -> tuple[memoryview, memoryview]:
    """See `MappingMap.items_array`."""
    keys, values = read_whole(owner, flags)
    return _shaped(keys, owner.keys_face), _shaped(values, owner.values_face)


def items_numpy(owner: MappingMap, flags: int) -> tuple[Any, Any]:
    """See `MappingMap.items_numpy`."""
    keys, values = read_whole(owner, flags)
    face = owner.values_face
    if not isinstance(face, PerCPUFace):
        return as_numpy(keys, owner.keys_face, owner.key_codec), as_numpy(values, face, owner.value_codec)
    columns = as_numpy(values, face.one, owner.value_codec, face.stride)
    return as_numpy(keys, owner.keys_face, owner.key_codec), columns.reshape(-1, face.cpus)


def as_numpy(data: Any, face: Face, codec: Codec | None, stride: int = 0) -> Any:
    """Memory as a numpy array without a copy: one element for each value, `stride` bytes from one to the next."""
    from numpy import dtype, frombuffer

    inner = _dtype(face, codec)
    if stride in (0, face.size):
        elements: Any = frombuffer(data, inner)
        return elements
    padded: Any = {"names": ["value"], "formats": [inner], "offsets": [0], "itemsize": stride}
    return frombuffer(data, dtype(padded))["value"]


def update_array(owner: MappingMap, keys: Any, values: Any, flags: int) -> None:
    """See `MappingMap.update_array`."""
    key_size, value_size = owner.keys_face.size, owner.values_face.size
    all_keys, all_values = _flat(keys, owner.keys_face), _flat(values, owner.values_face)
    count = len(all_keys) // key_size
    if count != len(all_values) // value_size:
        raise ValueError(f"{owner!r}: {count} keys and {len(all_values) // value_size} values")
    limit = chunk_entries(key_size + value_size, max(count, owner.max_entries))
    for start in range(0, count, limit):
        end = min(start + limit, count)
        owner.write_bytes(
            all_keys[start * key_size : end * key_size],
            all_values[start * value_size : end * value_size],
            end - start,
            flags,
            start,
        )


def _shaped(data: bytearray, face: Face) -> memoryview:
    view: Any = memoryview(data)  # the types of memoryview.cast know literal codes only
    if face.format:
        view = view.cast(face.format)
    elif data:
        view = view.cast("B", (len(data) // face.size, face.size))
    shaped: memoryview = view
    return shaped


def _dtype(face: Face, codec: Codec | None) -> Any:
    from numpy import dtype

    if face.format or codec is None:
        return dtype(face.format or f"V{face.size}")
    from pybpf.btf.columns import numpy_dtype

    return numpy_dtype(codec)


def _flat(buffer: Any, face: Face) -> memoryview:
    """The bytes of a buffer. Raises ValueError when they are not whole elements, TypeError when it is none."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError(f"{face.where}: the memory is not contiguous")
    try:
        data = view.cast("B") if view.nbytes else memoryview(b"")
    except TypeError:  # a structured format, which memoryview does not cast
        data = memoryview(view.tobytes())
    if len(data) % face.size:
        raise ValueError(f"{face.where}: {len(data)} bytes are no whole number of elements of {face.size}")
    return data
