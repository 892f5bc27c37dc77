"""Maps that hold descriptors: programs, maps, cgroups, devices, CPUs, sockets.

Rules of this module:

* A descriptor goes in, as anything with a `fileno()` (a `Program`, a `Map`, a socket) or as a number. What the kernel
  gives back is an id (programs, maps) or a cookie (sockets), or nothing: it says NotSupportedError then.
* An id that came out of a map is refused where a descriptor goes in (TypeError): it is a number of another kind.
* An array of descriptors has only the elements that were put there: the others are missing, a KeyError.
* `update_array` writes what it is given: descriptors, in the bytes of an array.
* Values are kernel-defined numbers, so type information changes nothing about them.
"""

from __future__ import annotations

import errno

from pybpf.constants import (
    BPF_MAP_TYPE_ARRAY_OF_MAPS,
    BPF_MAP_TYPE_CGROUP_ARRAY,
    BPF_MAP_TYPE_CPUMAP,
    BPF_MAP_TYPE_DEVMAP,
    BPF_MAP_TYPE_DEVMAP_HASH,
    BPF_MAP_TYPE_HASH_OF_MAPS,
    BPF_MAP_TYPE_PROG_ARRAY,
    BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
    BPF_MAP_TYPE_SOCKHASH,
    BPF_MAP_TYPE_SOCKMAP,
    BPF_MAP_TYPE_XSKMAP,
)
from pybpf.errors import BPFError
from pybpf.maps.array import IndexedMap
from pybpf.maps.base import Map
from pybpf.maps.face import DescriptorFace, Face, Id, NumberFace, key_face
from pybpf.maps.mapping import MappingMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.syscall import ElementCalls


class DescriptorMap(MappingMap):
    """What maps of descriptors share."""

    __slots__ = ()
    is_restorable = False
    default_value_size = 4

    def _value_face(self) -> Face:
        return DescriptorFace(self.value_size, self._where("value"))


class DescriptorArray(IndexedMap, DescriptorMap):
    """An array of descriptors."""

    __slots__ = ()
    keys_need_values = True


class ProgArray(DescriptorArray):
    """BPF_MAP_TYPE_PROG_ARRAY (Linux 4.2): programs to tail-call. Reading gives program ids (Linux 4.15)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PROG_ARRAY


class CgroupArray(DescriptorArray):
    """BPF_MAP_TYPE_CGROUP_ARRAY (Linux 4.8): cgroup directories. They cannot be read back."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_CGROUP_ARRAY
    keys_need_values = False


class ArrayOfMaps(DescriptorArray):
    """BPF_MAP_TYPE_ARRAY_OF_MAPS (Linux 4.12). Reading gives map ids; `open()` gives the map."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_ARRAY_OF_MAPS
    required = (*MappingMap.required, "inner")

    def open(self, key: Any) -> Map:
        """The map in a slot, as a new map object. Needs CAP_SYS_ADMIN. Raises KeyError."""
        return Map.from_id(self[key])


class HashOfMaps(DescriptorMap):
    """BPF_MAP_TYPE_HASH_OF_MAPS (Linux 4.12). Reading gives map ids; `open()` gives the map."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_HASH_OF_MAPS
    required = (*MappingMap.required, "inner")

    def open(self, key: Any) -> Map:
        """The map of a key, as a new map object. Needs CAP_SYS_ADMIN. Raises KeyError."""
        return Map.from_id(self[key])


class SocketArray(DescriptorArray):
    """BPF_MAP_TYPE_SOCKMAP (Linux 4.14). Reading gives socket cookies; with ``value=4``, as before 5.8, none."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_SOCKMAP
    default_value_size = 8

    def _new_calls(self, value_size: int, key_format: str = "", value_format: str = "") -> ElementCalls:
        calls = super()._new_calls(value_size, key_format, value_format)
        delete = calls.delete

        def delete_if_there(key: Any) -> bool:
            try:
                return delete(key)
            except BPFError as error:
                if error.errno == errno.EINVAL:  # an empty slot (__sock_map_delete() in net/core/sock_map.c)
                    return False
                raise

        calls.delete = delete_if_there
        return calls


class ReuseportArray(SocketArray):
    """BPF_MAP_TYPE_REUSEPORT_SOCKARRAY (Linux 4.19). Reading gives socket cookies, not with ``value=4``."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_REUSEPORT_SOCKARRAY


class SocketHash(DescriptorMap):
    """BPF_MAP_TYPE_SOCKHASH (Linux 4.18). Reading gives socket cookies; with ``value=4``, as before 5.8, none."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_SOCKHASH
    default_value_size = 8


class XskMap(DescriptorArray):
    """BPF_MAP_TYPE_XSKMAP (Linux 4.18): AF_XDP sockets by queue. They cannot be read back."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_XSKMAP
    keys_need_values = False


class PairFace(Face):
    """A number and a program: (number, program). A program goes in as a descriptor, -1 or None for none.

    Coming out, the program is an id, 0 for none. Source: struct bpf_devmap_val, struct bpf_cpumap_val.
    """

    __slots__ = ("number", "program")

    def __init__(self, where: str) -> None:
        super().__init__(8, where)
        self.number = NumberFace(where)
        self.program = DescriptorFace(4, where)

    def encode(self, value: Any) -> bytes:
        number, program = value if isinstance(value, tuple | list) and len(value) == 2 else (value, None)
        has_none = program is None or (type(program) is int and program == -1) or (type(program) is Id and not program)
        return self.number.encode(number) + (b"\xff" * 4 if has_none else self.program.encode(program))

    def decode(self, data: bytes) -> tuple[int, int]:
        return self.number.decode(data[:4]), self.program.decode(data[4:8])

    def run(self, buffer: memoryview, count: int) -> list[tuple[int, int]]:
        data = buffer[: 8 * count].tobytes()
        return [self.decode(data[start : start + 8]) for start in range(0, 8 * count, 8)]


class TargetMap(MappingMap):
    """What maps of devices and CPUs share: values are a number, and in 8 bytes a program besides."""

    __slots__ = ()
    default_value_size = 4

    def _value_face(self) -> Face:
        where = self._where("value")
        return NumberFace(where) if self.value_size == 4 else PairFace(where)

    def check_restorable(self, values: bytes | bytearray) -> None:
        """Raises TypeError for values with programs: their ids cannot be written."""
        if self.value_size == 8 and any(memoryview(values).cast("I")[1::2]):
            raise TypeError(f"{self!r}: the programs that are read from it cannot be written to one")


class TargetArray(IndexedMap, TargetMap):
    """An array of these."""

    __slots__ = ()
    keys_need_values = True

    def _new_calls(self, value_size: int, key_format: str = "", value_format: str = "") -> ElementCalls:
        calls = super()._new_calls(value_size, key_format, value_format)
        lookup, delete = calls.lookup, calls.delete
        calls.delete = lambda key: lookup(key) is not None and delete(key)  # the kernel does not say if there was one
        return calls


class DevMap(TargetArray):
    """BPF_MAP_TYPE_DEVMAP (Linux 4.14): interface indexes to redirect to.

    With values of 8 bytes (Linux 5.8) a value is (interface index, program); the program is written as a descriptor and
    read as an id.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_DEVMAP


class DevMapHash(TargetMap):
    """BPF_MAP_TYPE_DEVMAP_HASH (Linux 5.4): interface indexes by any number. Values as in `DevMap`."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_DEVMAP_HASH
    default_key_size = 4

    def _key_face(self) -> Face:
        return key_face(self.key_codec, 4, self._where("key")) if self.key_codec else NumberFace(self._where("key"))


class CpuMap(TargetArray):
    """BPF_MAP_TYPE_CPUMAP (Linux 4.15): CPUs to redirect to; the value is the length of the queue.

    With values of 8 bytes (Linux 5.9) a value is (length, program); the program is written as a descriptor and read as
    an id.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_CPUMAP
