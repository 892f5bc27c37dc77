"""Maps whose values hang on kernel objects, stack traces, and maps that only programs use.

The objects of local storage are named by descriptors: a socket, a pidfd, a cgroup directory, an open file. `Pid` makes
a key of a process number.
"""

from __future__ import annotations

import os
import struct
from itertools import takewhile

from pybpf.constants import (
    BPF_F_NO_PREALLOC,
    BPF_F_STACK_BUILD_ID,
    BPF_MAP_TYPE_CGROUP_STORAGE,
    BPF_MAP_TYPE_CGRP_STORAGE,
    BPF_MAP_TYPE_INODE_STORAGE,
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_STACK_TRACE,
    BPF_MAP_TYPE_TASK_STORAGE,
    BPF_MAP_TYPE_USER_RINGBUF,
)
from pybpf.maps.base import Map
from pybpf.maps.cpus import PerCPUMap
from pybpf.maps.face import DescriptorFace, Face, NumberFace, key_face
from pybpf.maps.mapping import MappingMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pybpf.btf.codec import Codec


class Pid:
    """A process as a key of task storage: ``m[Pid(1234)]``. Linux 5.3.

    It opens a pidfd when it is used, and closes it when nobody uses this object any more, or by `close()`.

    Args:
        number: the process; of a thread its own number.
        thread: the number may be that of any thread (Linux 6.9).
    """

    __slots__ = ("_fd", "number", "thread")

    def __init__(self, number: int, *, thread: bool = False) -> None:
        self._fd = -1
        self.number = number
        self.thread = thread

    def fileno(self) -> int:
        """The pidfd. Raises ProcessLookupError."""
        if self._fd < 0:
            self._fd = os.pidfd_open(self.number, os.O_EXCL if self.thread else 0)  # O_EXCL is PIDFD_THREAD
        return self._fd

    def close(self) -> None:
        """Close the pidfd, if there is one. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Pid({self.number}{', thread=True' if self.thread else ''})"


class LocalStorage(MappingMap):
    """What storage that hangs on kernel objects shares.

    The key is a descriptor of the object, or anything with a `fileno()`. The kernel cannot list the objects: iteration,
    `len` and `bool` raise NotSupportedError.
    """

    __slots__ = ()
    required = ("value",)
    required_flags = BPF_F_NO_PREALLOC
    default_key_size = 4

    def _key_face(self) -> Face:
        return DescriptorFace(self.key_size, self._where("key"))


class SocketStorage(LocalStorage):
    """BPF_MAP_TYPE_SK_STORAGE (Linux 5.2): a value for each socket."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_SK_STORAGE


class InodeStorage(LocalStorage):
    """BPF_MAP_TYPE_INODE_STORAGE (Linux 5.10): a value for each inode; the key is an open file of it."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_INODE_STORAGE


class TaskStorage(LocalStorage):
    """BPF_MAP_TYPE_TASK_STORAGE (Linux 5.11): a value for each task; the key is a pidfd, or a `Pid`."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_TASK_STORAGE


class CgroupLocalStorage(LocalStorage):
    """BPF_MAP_TYPE_CGRP_STORAGE (Linux 6.2): a value for each cgroup; the key is its open directory."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_CGRP_STORAGE


class CgroupKeyFace(Face):
    """The number of a cgroup and how the program is attached to it (struct bpf_cgroup_storage_key)."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return super().encode(value)
        try:
            cgroup_id, attach_type = value
            return _CGROUP_KEY.pack(cgroup_id, attach_type)
        except (TypeError, ValueError, struct.error):
            raise ValueError(f"{self.where} takes a pair (cgroup id, attach type), not {value!r}") from None

    def decode(self, data: bytes) -> tuple[int, int]:
        cgroup_id, attach_type = _CGROUP_KEY.unpack(data)
        return cgroup_id, attach_type

    def run(self, buffer: memoryview, count: int) -> Iterable[tuple[int, int]]:
        return map(self.decode, super().run(buffer, count))


_CGROUP_KEY = struct.Struct("=QI4x")


class CgroupStorage(MappingMap):
    """BPF_MAP_TYPE_CGROUP_STORAGE (Linux 4.19, superseded by `CgroupLocalStorage`): a value for each attached program.

    Keys are pairs (cgroup id, attach type); of a map made with keys of 8 bytes (Linux 5.9) the cgroup's id alone.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_CGROUP_STORAGE
    required = ("value",)
    default_key_size = 16

    def _key_face(self) -> Face:
        return cgroup_key_face(self.key_codec, self.key_size, self._where("key"))


class PerCpuCgroupStorage(PerCPUMap):
    """BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE (Linux 4.20): values are `PerCPU` lists; keys as of `CgroupStorage`."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
    required = ("value",)
    default_key_size = 16

    def _key_face(self) -> Face:
        return cgroup_key_face(self.key_codec, self.key_size, self._where("key"))


def cgroup_key_face(codec: Codec | None, size: int, where: str) -> Face:
    """The face of the keys of cgroup storage."""
    if codec is not None or size != _CGROUP_KEY.size:
        return key_face(codec, size, where) if codec is not None or size != 8 else Face(8, where, "Q")
    return CgroupKeyFace(size, where)


class StackFace(Face):
    """Addresses of a stack, innermost first."""

    __slots__ = ()

    def decode(self, data: bytes) -> list[int]:
        return list(takewhile(bool, memoryview(data).cast("Q").tolist()))

    def run(self, buffer: memoryview, count: int) -> Iterable[list[int]]:
        return map(self.decode, super().run(buffer, count))


class StackTraceMap(MappingMap):
    """BPF_MAP_TYPE_STACK_TRACE (Linux 4.6): stacks by the number that bpf_get_stackid() gave.

    A value is the list of addresses, innermost first; of a map with BPF_F_STACK_BUILD_ID, and of one whose values have
    a type, what the codec makes of it, `bytes` without.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_STACK_TRACE
    is_restorable = False
    default_key_size = 4

    def _key_face(self) -> Face:
        return NumberFace(self._where("key"))

    def _value_face(self) -> Face:
        if self.flags & BPF_F_STACK_BUILD_ID or self.value_size % 8:
            return super()._value_face()
        return StackFace(self.value_size, self._where("value"))


class UserRingBufferMap(Map):
    """BPF_MAP_TYPE_USER_RINGBUF (Linux 6.1): written by user space, see `pybpf.events`."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_USER_RINGBUF
