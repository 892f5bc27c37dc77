"""Maps whose values hang on kernel objects, stack traces, and maps that only programs use.

The objects of local storage are named by descriptors: a socket, a pidfd, a cgroup directory, an open file.
"""

from __future__ import annotations

from itertools import takewhile

from pybpf.constants import (
    BPF_F_NO_PREALLOC,
    BPF_F_STACK_BUILD_ID,
    BPF_MAP_TYPE_CGRP_STORAGE,
    BPF_MAP_TYPE_INODE_STORAGE,
    BPF_MAP_TYPE_SK_STORAGE,
    BPF_MAP_TYPE_STACK_TRACE,
    BPF_MAP_TYPE_TASK_STORAGE,
    BPF_MAP_TYPE_USER_RINGBUF,
)
from pybpf.maps.base import Map
from pybpf.maps.face import DescriptorFace, Face, NumberFace, PerCPUFace
from pybpf.maps.mapping import MappingMap
from pybpf.syscall import possible_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class LocalStorage(MappingMap):
    """What storage that hangs on kernel objects shares.

    The key is a descriptor of the object, or anything with a `fileno()`. The kernel cannot list the objects: iteration
    raises NotSupportedError.
    """

    __slots__ = ()
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
    """BPF_MAP_TYPE_TASK_STORAGE (Linux 5.11): a value for each task; the key is a pidfd (`os.pidfd_open`)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_TASK_STORAGE


class CgroupLocalStorage(LocalStorage):
    """BPF_MAP_TYPE_CGRP_STORAGE (Linux 6.2): a value for each cgroup; the key is its open directory."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_CGRP_STORAGE


class PerCpuCgroupStorage(MappingMap):
    """BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE (Linux 4.20): values are `PerCPU` lists."""

    __slots__ = ()

    def _value_face(self) -> Face:
        return PerCPUFace(super()._value_face(), possible_cpus())


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
