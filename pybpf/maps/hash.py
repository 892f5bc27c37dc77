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
from pybpf.maps.cpus import PerCPUMap
from pybpf.maps.mapping import MappingMap


class HashMap(MappingMap):
    """BPF_MAP_TYPE_HASH (Linux 3.19)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_HASH
    helper_reads = True
    resumes_at_key = False


class LruHashMap(HashMap):
    """BPF_MAP_TYPE_LRU_HASH (Linux 4.10): when it is full, elements that were not used for long make room."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_LRU_HASH
    helper_reads = False


class ResizableHashMap(HashMap):
    """BPF_MAP_TYPE_RHASH (Linux 7.2): a hash map that grows and shrinks."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_RHASH
    required_flags = BPF_F_NO_PREALLOC
    resumes_at_key = True


class PerCpuHashMap(PerCPUMap, HashMap):
    """BPF_MAP_TYPE_PERCPU_HASH (Linux 4.6): each possible CPU has a value of its own.

    Values are `PerCPU` lists, one value for each possible CPU: ``m[k].sum()``, ``m.sums()``.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_PERCPU_HASH


class LruPerCpuHashMap(PerCpuHashMap):
    """BPF_MAP_TYPE_LRU_PERCPU_HASH (Linux 4.10)."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_LRU_PERCPU_HASH
    helper_reads = False
