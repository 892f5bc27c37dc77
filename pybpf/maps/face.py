"""Faces: how the bytes of a map's keys and values look in Python.

Rules of this module:

* A face knows the bytes as the system call transfers them, so a per-CPU face has all CPUs' values in one.
* `format` is set when the Python value is a plain int that the prepared calls take and give as it is
  (`pybpf.syscall.ElementCalls`); everything else goes through `encode` and `decode`.
* `encode` checks size, range and kind before the kernel is asked, and names key or value and map.
"""

from __future__ import annotations

import sys
from _operator import add, index  # the built-in part of `operator`, which takes 0.2 ms to import
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class

from pybpf.btf.composites import ArrayCodec
from pybpf.btf.records import freeze
from pybpf.btf.scalars import EnumCodec, IntCodec, check_range, to_integer
from pybpf.errors import ClosedError
from pybpf.maps.percpu import PerCPU, total

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.syscall import ElementCalls


class Face:
    """Bytes as they are: what maps without type information have."""

    __slots__ = ("format", "size", "where")

    def __init__(self, size: int, where: str, format: str = "") -> None:
        """`where` names the key or value in errors: ``"key of map 'counts'"``."""
        self.size = size
        self.where = where
        self.format = format

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises TypeError, ValueError, OverflowError."""
        return check_bytes(value, self.size, self.where)

    def decode(self, data: bytes) -> Any:
        """The value of `size` bytes."""
        return data

    def decoder(self) -> Callable[[bytes], Any]:
        """What `decode` does, as a function that is quick to call often."""
        return self.decode

    def run(self, buffer: memoryview, count: int) -> Iterable[Any]:
        """`count` values side by side. Reads the buffer while it is iterated."""
        size, data = self.size, buffer[: self.size * count].tobytes()
        return [data[start : start + size] for start in range(0, size * count, size)]

    def apart(self, buffer: memoryview, stride: int, count: int) -> list[Any]:
        """`count` values that begin `stride` bytes after one another."""
        data, size = buffer[: stride * count].tobytes(), self.size
        decode = self.decoder()
        return [decode(data[start : start + size]) for start in range(0, stride * count, stride)]

    def encode_run(self, values: Sequence[Any]) -> bytes:
        """The bytes of values side by side."""
        if self.format:
            try:
                return Struct(f"{len(values)}{self.format}").pack(*values)
            except StructError:
                pass  # one of them is wrong, and has to be named
        return b"".join(map(self.encode, values))


def check_bytes(value: Any, size: int, where: str) -> bytes:
    """The bytes of a bytes-like value of the right size. Raises TypeError, ValueError."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{where} has no type information: it takes {size} bytes, not {value!r}")
    data = bytes(value)
    if len(data) != size:
        raise ValueError(f"{where} takes {size} bytes, not {len(data)}")
    return data


class CodecFace(Face):
    """Values typed by BTF."""

    __slots__ = ("codec",)

    def __init__(self, codec: Codec, where: str) -> None:
        is_plain = isinstance(codec, IntCodec) and not isinstance(codec, EnumCodec) and len(codec.code) == 1
        is_plain = is_plain and codec.byte_order == sys.byteorder
        super().__init__(codec.size, where, codec.code if is_plain else "")
        self.codec = codec

    def encode(self, value: Any) -> bytes:
        return self.codec.encode(value, self.where)

    def decode(self, data: bytes) -> Any:
        return self.codec.decode(data)

    def decoder(self) -> Callable[[bytes], Any]:
        return self.codec.decode

    def apart(self, buffer: memoryview, stride: int, count: int) -> list[Any]:
        return list(self.codec.decode_run(buffer, 0, stride, count))

    def run(self, buffer: memoryview, count: int) -> Iterable[Any]:
        return self.codec.decode_run(buffer, 0, self.size, count)


class KeyFace(CodecFace):
    """Keys typed by an array, which Python has as a list: they come as tuples, so that they can be keys of a dict."""

    __slots__ = ()

    def decode(self, data: bytes) -> Any:
        return freeze(self.codec.decode(data))

    def decoder(self) -> Callable[[bytes], Any]:
        return self.decode

    def run(self, buffer: memoryview, count: int) -> Iterable[Any]:
        return map(freeze, super().run(buffer, count))


def key_face(codec: Codec | None, size: int, where: str) -> Face:
    """The face of keys."""
    if codec is None:
        return Face(size, where)
    return KeyFace(codec, where) if isinstance(codec, ArrayCodec) else CodecFace(codec, where)


def value_face(codec: Codec | None, size: int, where: str) -> Face:
    """The face of values."""
    return Face(size, where) if codec is None else CodecFace(codec, where)


class NumberFace(Face):
    """Unsigned 32-bit numbers whether or not there is type information: indexes, ids, interfaces, CPUs."""

    __slots__ = ()

    def __init__(self, where: str) -> None:
        super().__init__(4, where, "I")

    def encode(self, value: Any) -> bytes:
        number = check_range(to_integer(value, self.where, "u32"), 0, 0xFFFFFFFF, self.where, "u32")
        return number.to_bytes(4, sys.byteorder)

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, sys.byteorder)

    def run(self, buffer: memoryview, count: int) -> Iterable[int]:
        return buffer[: 4 * count].cast("I").tolist()


class Id(int):
    """The id of a program or map, or the cookie of a socket, that came out of a map: a number that is no descriptor."""

    __slots__ = ()


class DescriptorFace(Face):
    """Descriptors go in, as anything with a `fileno()`; what comes out is an `Id`, which does not go in."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        if isinstance(value, Id):
            raise TypeError(f"{self.where} takes a descriptor: {value} is an id or cookie that came out of a map")
        fileno = getattr(value, "fileno", None)
        number = fileno() if fileno is not None else value
        try:
            number = index(number)
        except TypeError:
            raise TypeError(f"{self.where} takes a descriptor or an object with fileno(), not {value!r}") from None
        if number == -1 and fileno is not None:
            raise ClosedError(f"{self.where}: {value!r} is closed")
        check_range(number, 0, 0x7FFFFFFF, self.where, "a descriptor")
        return number.to_bytes(self.size, sys.byteorder)

    def decode(self, data: bytes) -> Id:
        return Id.from_bytes(data, sys.byteorder)

    def run(self, buffer: memoryview, count: int) -> Iterable[Id]:
        return map(Id, buffer[: self.size * count].cast("I" if self.size == 4 else "Q").tolist())


class PerCPUFace(Face):
    """One value for each possible CPU, each rounded up to 8 bytes: `PerCPU`.

    Writing takes a list (one value for each possible CPU) or one value for all of them.
    """

    __slots__ = ("cpus", "one", "stride")

    def __init__(self, one: Face, cpus: int) -> None:
        self.one = one
        self.cpus = cpus
        self.stride = one.size + 7 & ~7
        super().__init__(self.stride * cpus, one.where)

    def encode(self, value: Any) -> bytes:
        one = self.one
        if not isinstance(value, list):
            return one.encode(value).ljust(self.stride, b"\0") * self.cpus
        if len(value) != self.cpus:
            raise ValueError(f"{self.where} takes one value for each of {self.cpus} possible CPUs, not {len(value)}")
        return b"".join([one.encode(item).ljust(self.stride, b"\0") for item in value])

    def decode(self, data: bytes) -> PerCPU:
        return PerCPU(self._flat(memoryview(data), self.cpus))

    def run(self, buffer: memoryview, count: int) -> Iterable[PerCPU]:
        cpus = self.cpus
        flat = self._flat(buffer, cpus * count)
        return [PerCPU(flat[start : start + cpus]) for start in range(0, cpus * count, cpus)]

    def sums(self, buffer: memoryview, count: int) -> Iterable[Any]:
        """The sum over all CPUs of each of `count` values: see `PerCPU.sum`."""
        cpus = self.cpus
        flat = self._flat(buffer, cpus * count)
        if self.one.format:
            columns = [flat[cpu::cpus] for cpu in range(cpus)]
            return map(add, *columns) if cpus == 2 else map(sum, zip(*columns, strict=True))
        return (total(flat[start : start + cpus]) for start in range(0, cpus * count, cpus))

    def _flat(self, buffer: memoryview, count: int) -> list[Any]:
        return self.one.apart(buffer, self.stride, count)


def accessors(
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
