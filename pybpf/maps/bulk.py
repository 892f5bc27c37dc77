"""Whole maps as memory: keys side by side, values side by side, for those who compute with them as a whole.

Rules of this module:

* What is given out is the caller's: it does not change when the map does, and outlives it.
* numpy is imported when it is asked for.
"""

from __future__ import annotations

import sys

from pybpf.btf.composites import ArrayCodec
from pybpf.btf.scalars import INTEGER_CODES
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
    return as_numpy(keys, owner.keys_face, owner.key_codec), columns.reshape(-1, face.cpus, *columns.shape[1:])


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
    """The bytes of a buffer as the kernel takes them.

    Raises:
        ValueError: they are not whole elements.
        TypeError: it is no buffer, or one of another type than the elements.
    """
    if not isinstance(face, PerCPUFace):
        return _whole(_checked(buffer, face), face.size, face.where)
    one, view = face.one, _checked(buffer, face.one)
    row = view.nbytes // len(view) if view.ndim > 1 and view.nbytes else view.itemsize
    if one.size == face.stride or row == face.size or (view.ndim <= 1 and row == 1):
        return _whole(view, face.size, face.where)
    # Values without the padding that the kernel has behind each: numpy's.
    data = _whole(view, one.size * face.cpus, face.where).tobytes()
    padded = bytearray(len(data) // one.size * face.stride)
    for at in range(one.size):
        padded[at :: face.stride] = data[at :: one.size]
    return memoryview(padded)


def _checked(buffer: Any, face: Face) -> memoryview:
    """A buffer that holds bytes, or what the face has. Raises TypeError."""
    whole: Codec | None = getattr(face, "codec", None)
    leaf = whole
    while isinstance(leaf, ArrayCodec):
        leaf = leaf.element
    wanted = face.format or (leaf.code if leaf is not None else "")
    dtype: Any = getattr(buffer, "dtype", None)
    if getattr(dtype, "names", None):  # of numpy; a memoryview cannot say members that overlap
        view = memoryview(buffer.view(f"V{dtype.itemsize}"))
        code, is_right = "", dtype == _dtype(face, whole).base
    else:
        try:
            view = memoryview(buffer)
        except ValueError as error:
            raise TypeError(f"{face.where}: {error}") from None
        code = _code(view)
        is_bytes = (view.itemsize == 1 and code != "?") or (code[-1] in "sx}" and view.itemsize == face.size)
        is_right = code == wanted or is_bytes
    if not is_right and (wanted or code == "O"):
        plain = f"u{face.size * 8}" if face.format else f"{face.size} bytes"
        named = plain if whole is None else whole.c_name
        found = code if dtype is None else dtype
        raise TypeError(f"{face.where} takes bytes or elements of {named}, not a buffer of {found}")
    return view


def _code(view: memoryview) -> str:
    """What a buffer holds, as `struct` says it: numbers of this machine's byte order as one letter of fixed size."""
    order, code = (view.format[0], view.format[1:]) if view.format[0] in "@=<>!" else ("@", view.format)
    if view.itemsize > 1 and order in (">!" if sys.byteorder == "little" else "<"):
        return view.format
    if code in ("b", "h", "i", "l", "q", "n", "B", "H", "I", "L", "Q", "N"):
        return INTEGER_CODES[view.itemsize, code.islower()]
    return code


def _whole(view: memoryview, size: int, where: str) -> memoryview:
    """The bytes of elements of `size` bytes. Raises ValueError."""
    if view.nbytes % size:
        raise ValueError(f"{where}: {view.nbytes} bytes are no whole number of elements of {size}")
    try:
        return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    except TypeError:  # a format that memoryview does not cast
        return memoryview(view.tobytes())
