"""A batch as a table: rows, columns, numpy arrays.

Rules of this module:

* Pure. numpy is imported by `array()` alone.
* A batch of one record size is read where it lies. One of mixed sizes gives the same values, record by record.
"""

from __future__ import annotations

from pybpf.btf.composites import CompositeCodec, FlexibleCodec
from pybpf.events.batch import decoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.btf.composites import Field
    from pybpf.events.batch import Batch


def rows(batch: Batch, names: Sequence[str]) -> Iterator[Any]:
    """`Batch.rows()`."""
    codec = _codec(batch, "rows")
    if names:
        return zip(*[column(batch, name) for name in names], strict=True)
    shortest = batch.shortest
    if not codec.is_flexible and shortest is not None and shortest >= codec.size:
        if batch.stride:
            return iter(codec.tuple_run(batch.data, 0, batch.stride, len(batch)))
        return iter(codec.decode_at(batch.data, batch.starts, as_tuples=True))
    values = decoder(codec)(batch, 0)
    return map(tuple, values) if isinstance(codec, CompositeCodec) else values


def column(batch: Batch, name: str) -> Sequence[Any]:
    """`Batch.column()`."""
    codec = _codec(batch, "columns")
    _check_sizes(batch, codec.size, codec.c_name)
    return _column(batch, *_member(codec, name))


def columns(batch: Batch) -> dict[str, Sequence[Any]]:
    """`Batch.columns()`."""
    codec = _codec(batch, "columns")
    if not isinstance(codec, CompositeCodec):
        raise TypeError(f"{codec.c_name} has no members to make columns of")
    _check_sizes(batch, codec.size, codec.c_name)
    fields = zip(codec.names, codec.fields, strict=True)
    return {name: _column(batch, field.codec, field.offset) for name, field in fields}


def array(batch: Batch, dtype: Any) -> Any:
    """`Batch.array()`."""
    import numpy

    if dtype is None:
        from pybpf.btf.columns import numpy_dtype

        dtype = numpy_dtype(_codec(batch, "an array"))
    dtype = numpy.dtype(dtype)
    _check_sizes(batch, dtype.itemsize, dtype)
    if batch.stride and len(batch):
        # frombuffer() holds on to the memory, which numpy.ndarray(buffer=...) alone does not.
        base = numpy.frombuffer(batch.data, "u1")
        return numpy.ndarray((len(batch),), dtype, base, 0, (batch.stride,))
    view = memoryview(batch.data)
    return numpy.frombuffer(b"".join([view[start : start + dtype.itemsize] for start in batch.starts]), dtype)


def _codec(batch: Batch, what: str) -> Codec:
    codec: Any = batch.codec
    if codec is None:
        raise TypeError(f"there are no {what} of records whose type is not known: name it with of()")
    known: Codec = codec
    return known


def _check_sizes(batch: Batch, size: int, name: object) -> None:
    shortest = batch.shortest
    if shortest is not None and shortest < size:
        raise ValueError(f"an event record has {shortest} bytes, but {name} has {size}")


def _member(codec: Codec, path: str) -> tuple[Codec, int]:
    """The codec of a member and its byte offset. Raises KeyError."""
    fields = [field for _, field in members(codec, path)]
    return fields[-1].codec, sum(field.offset for field in fields)


def members(codec: Codec, path: str) -> list[tuple[str, Field]]:
    """The members that lead to the one of that path: each one's name in Python, and its field. Raises KeyError."""
    found = []
    for name in path.split("."):
        number = codec.c_names.get(name) if isinstance(codec, CompositeCodec) else None
        if number is None:
            raise KeyError(f"{codec.c_name} has no member {name!r}")
        assert isinstance(codec, CompositeCodec)
        field = codec.fields[number]
        found.append((codec.names[number], field))
        codec = field.codec
    return found


def _column(batch: Batch, codec: Codec, offset: int) -> Sequence[Any]:
    count = len(batch)
    if not count:
        return []
    if isinstance(codec, FlexibleCodec):
        return _tails(batch, codec, offset)
    if batch.stride:
        numbers = codec.strided(memoryview(batch.data), offset, batch.stride, count)
        return (
            list(codec.decode_run(batch.data, offset, batch.stride, count)) if numbers is None else batch.lend(numbers)
        )
    return list(codec.decode_at(batch.data, [start + offset for start in batch.starts]))


def _tails(batch: Batch, codec: FlexibleCodec, offset: int) -> list[Any]:
    """The array without a length at the end of each record."""
    return [
        codec.decode_length(batch.data, start + offset, size - offset)
        for start, size in zip(batch.starts, batch.sizes, strict=True)
    ]
