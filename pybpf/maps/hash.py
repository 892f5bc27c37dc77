"""Hash maps: hash, LRU hash, their per-CPU kinds, resizable hash."""

from __future__ import annotations

from pybpf.constants import (
    BPF_F_NO_PREALLOC,
    BPF_MAP_TYPE_HASH,
    BPF_MAP_TYPE_LRU_HASH,
    BPF_MAP_TYPE_LRU_PERCPU_HASH,
    BPF_MAP_TYPE_PERCPU_HASH,
    BPF_MAP_TYPE_RHASH,
)
from pybpf.maps.face import Face, PerCPUFace
from pybpf.maps.mapping import MappingMap
from pybpf.syscall import possible_cpus


class HashMap(MappingMap):
    """BPF_MAP_TYPE_HASH (Linux 3.19)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_HASH


class LruHashMap(HashMap):
    """BPF_MAP_TYPE_LRU_HASH (Linux 4.10): when it is full, elements that were not used for long make room."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_LRU_HASH


class ResizableHashMap(HashMap):
    """BPF_MAP_TYPE_RHASH (Linux 7.2): a hash map that grows and shrinks."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_RHASH
    required_flags = BPF_F_NO_PREALLOC


class PerCpuHashMap(HashMap):
    """BPF_MAP_TYPE_PERCPU_HASH (Linux 4.6): each possible CPU has a value of its own.

    Values are `PerCPU` lists, one value for each possible CPU: ``m[k].sum()``. Writing takes such a list, or one value
    for all CPUs (a list is always taken as one value for each CPU; give an array as a tuple).
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERCPU_HASH

    def _value_face(self) -> Face:
        return PerCPUFace(super()._value_face(), possible_cpus())


class LruPerCpuHashMap(PerCpuHashMap):
    """BPF_MAP_TYPE_LRU_PERCPU_HASH (Linux 4.10)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_LRU_PERCPU_HASH
