"""Maps: the memory that programs and user space share.

`make_map` and `open_map` give the class that fits a map's type; the table here is the whole of what is known about
types. Modules of map families are imported when the first map of theirs is made.

    hash      HashMap, LruHashMap, PerCpuHashMap, LruPerCpuHashMap, ResizableHashMap
    array     ArrayMap, PerCpuArrayMap
    lpm       LpmTrie
    queue     Queue, Stack, BloomFilter
    fdarray   ProgArray, ArrayOfMaps, HashOfMaps, CgroupArray, DevMap, DevMapHash, CpuMap, XskMap, SocketArray,
              SocketHash, ReuseportArray
    ringbuf   RingBufferMap                 perf    PerfEventArrayMap
    storage   SocketStorage, InodeStorage, TaskStorage, CgroupLocalStorage, CgroupStorage, PerCpuCgroupStorage,
              StackTraceMap, UserRingBufferMap
    insn      InsnArray
    arena     ArenaMap
    struct_ops StructOpsMap

Every other type, and types that this version does not know, are `MappingMap`: keys and values, as far as the kernel
lets user space have them.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf import syscall
from pybpf.lazy import lazy_names
from pybpf.maps.base import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.maps.arena import ArenaMap
    from pybpf.maps.array import ArrayMap, PerCpuArrayMap
    from pybpf.maps.eventmap import EventMap
    from pybpf.maps.fdarray import (
        ArrayOfMaps,
        CgroupArray,
        CpuMap,
        DevMap,
        DevMapHash,
        HashOfMaps,
        ProgArray,
        ReuseportArray,
        SocketArray,
        SocketHash,
        XskMap,
    )
    from pybpf.maps.hash import HashMap, LruHashMap, LruPerCpuHashMap, PerCpuHashMap, ResizableHashMap
    from pybpf.maps.insn import InsnArray
    from pybpf.maps.lpm import LpmTrie, Prefix
    from pybpf.maps.mapping import MappingMap
    from pybpf.maps.percpu import PerCPU
    from pybpf.maps.perf import PerfEventArrayMap
    from pybpf.maps.queue import BloomFilter, Queue, Stack
    from pybpf.maps.ringbuf import RingBufferMap
    from pybpf.maps.snapshot import Snapshot
    from pybpf.maps.storage import (
        CgroupLocalStorage,
        CgroupStorage,
        InodeStorage,
        PerCpuCgroupStorage,
        Pid,
        SocketStorage,
        StackTraceMap,
        TaskStorage,
        UserRingBufferMap,
    )
    from pybpf.maps.struct_ops import StructOpsMap
    from pybpf.mapspec import MapSpec
    from pybpf.syscall import FD

__all__ = [
    "ArenaMap",
    "ArrayMap",
    "ArrayOfMaps",
    "BloomFilter",
    "CgroupArray",
    "CgroupLocalStorage",
    "CgroupStorage",
    "CpuMap",
    "DevMap",
    "DevMapHash",
    "EventMap",
    "HashMap",
    "HashOfMaps",
    "InodeStorage",
    "InsnArray",
    "LpmTrie",
    "LruHashMap",
    "LruPerCpuHashMap",
    "Map",
    "MappingMap",
    "PerCPU",
    "PerCpuArrayMap",
    "PerCpuCgroupStorage",
    "PerCpuHashMap",
    "PerfEventArrayMap",
    "Pid",
    "Prefix",
    "ProgArray",
    "Queue",
    "ResizableHashMap",
    "ReuseportArray",
    "RingBufferMap",
    "Snapshot",
    "SocketArray",
    "SocketHash",
    "SocketStorage",
    "Stack",
    "StackTraceMap",
    "StructOpsMap",
    "TaskStorage",
    "UserRingBufferMap",
    "XskMap",
    "btf_by_id",
    "class_of",
    "make_map",
    "open_map",
]

_CLASSES = {
    c.BPF_MAP_TYPE_HASH: "HashMap",
    c.BPF_MAP_TYPE_ARRAY: "ArrayMap",
    c.BPF_MAP_TYPE_PROG_ARRAY: "ProgArray",
    c.BPF_MAP_TYPE_PERF_EVENT_ARRAY: "PerfEventArrayMap",
    c.BPF_MAP_TYPE_PERCPU_HASH: "PerCpuHashMap",
    c.BPF_MAP_TYPE_PERCPU_ARRAY: "PerCpuArrayMap",
    c.BPF_MAP_TYPE_STACK_TRACE: "StackTraceMap",
    c.BPF_MAP_TYPE_CGROUP_ARRAY: "CgroupArray",
    c.BPF_MAP_TYPE_LRU_HASH: "LruHashMap",
    c.BPF_MAP_TYPE_LRU_PERCPU_HASH: "LruPerCpuHashMap",
    c.BPF_MAP_TYPE_LPM_TRIE: "LpmTrie",
    c.BPF_MAP_TYPE_ARRAY_OF_MAPS: "ArrayOfMaps",
    c.BPF_MAP_TYPE_HASH_OF_MAPS: "HashOfMaps",
    c.BPF_MAP_TYPE_DEVMAP: "DevMap",
    c.BPF_MAP_TYPE_SOCKMAP: "SocketArray",
    c.BPF_MAP_TYPE_CPUMAP: "CpuMap",
    c.BPF_MAP_TYPE_XSKMAP: "XskMap",
    c.BPF_MAP_TYPE_SOCKHASH: "SocketHash",
    c.BPF_MAP_TYPE_CGROUP_STORAGE: "CgroupStorage",
    c.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: "ReuseportArray",
    c.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: "PerCpuCgroupStorage",
    c.BPF_MAP_TYPE_QUEUE: "Queue",
    c.BPF_MAP_TYPE_STACK: "Stack",
    c.BPF_MAP_TYPE_SK_STORAGE: "SocketStorage",
    c.BPF_MAP_TYPE_DEVMAP_HASH: "DevMapHash",
    c.BPF_MAP_TYPE_STRUCT_OPS: "StructOpsMap",
    c.BPF_MAP_TYPE_RINGBUF: "RingBufferMap",
    c.BPF_MAP_TYPE_INODE_STORAGE: "InodeStorage",
    c.BPF_MAP_TYPE_TASK_STORAGE: "TaskStorage",
    c.BPF_MAP_TYPE_BLOOM_FILTER: "BloomFilter",
    c.BPF_MAP_TYPE_USER_RINGBUF: "UserRingBufferMap",
    c.BPF_MAP_TYPE_CGRP_STORAGE: "CgroupLocalStorage",
    c.BPF_MAP_TYPE_ARENA: "ArenaMap",
    c.BPF_MAP_TYPE_INSN_ARRAY: "InsnArray",
    c.BPF_MAP_TYPE_RHASH: "ResizableHashMap",
}
"""Map type -> class."""

_HOMES = {
    "arena": ("ArenaMap",),
    "array": ("ArrayMap", "PerCpuArrayMap"),
    "eventmap": ("EventMap",),
    "fdarray": (
        "ArrayOfMaps",
        "CgroupArray",
        "CpuMap",
        "DevMap",
        "DevMapHash",
        "HashOfMaps",
        "ProgArray",
        "ReuseportArray",
        "SocketArray",
        "SocketHash",
        "XskMap",
    ),
    "hash": ("HashMap", "LruHashMap", "LruPerCpuHashMap", "PerCpuHashMap", "ResizableHashMap"),
    "insn": ("InsnArray",),
    "lpm": ("LpmTrie", "Prefix"),
    "mapping": ("MappingMap",),
    "percpu": ("PerCPU",),
    "perf": ("PerfEventArrayMap",),
    "queue": ("BloomFilter", "Queue", "Stack"),
    "ringbuf": ("RingBufferMap",),
    "snapshot": ("Snapshot",),
    "storage": (
        "CgroupLocalStorage",
        "CgroupStorage",
        "InodeStorage",
        "PerCpuCgroupStorage",
        "Pid",
        "SocketStorage",
        "StackTraceMap",
        "TaskStorage",
        "UserRingBufferMap",
    ),
    "struct_ops": ("StructOpsMap",),
}
"""Module -> classes."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}


_import, _names = lazy_names(globals(), _HOME)
if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = _import, _names


def class_of(type_number: int) -> type[Map]:
    """The class of maps of a type; `MappingMap` for types that have none of their own."""
    name = _CLASSES.get(type_number, "MappingMap")
    found: type[Map] = globals().get(name) or _import(name)
    return found


def make_map(
    fd: FD,
    *,
    name: str,
    type_number: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    map_extra: int = 0,
    key_codec: Codec | None = None,
    value_codec: Codec | None = None,
    btf: BTF | None = None,
    spec: MapSpec | None = None,
) -> Map:
    """The map object over a descriptor, of which it takes ownership: if this fails, the descriptor is closed.

    Args:
        key_size, value_size: bytes, as the map was created with.
        key_codec, value_codec: types of keys and values; left aside when their size is not the map's.
        btf: the type information that the codecs come from.
        spec: what the map was made from.
    """
    try:
        return class_of(type_number)(
            fd,
            name=name,
            type_number=type_number,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
            map_extra=map_extra,
            key_codec=key_codec,
            value_codec=value_codec,
            btf=btf,
            spec=spec,
        )
    except BaseException:
        fd.close()
        raise


def open_map(fd: FD) -> Map:
    """The map object over a descriptor that came from the kernel, of which it takes ownership.

    Sizes come from the kernel (Linux 4.13), types from the BTF that the map was made with (Linux 4.18). Without the
    right to open that (CAP_SYS_ADMIN), or when it is not understood, keys and values are `bytes`.

    Raises:
        BPFError: the descriptor is not a map.
    """
    try:
        info = syscall.map_info(fd)
        btf, key_codec, value_codec = _types(info.btf_id, info.btf_key_type_id, info.btf_value_type_id)
    except BaseException:
        fd.close()
        raise
    return make_map(
        fd,
        name=info.name,
        type_number=info.type,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        flags=info.map_flags,
        map_extra=info.map_extra,
        key_codec=key_codec,
        value_codec=value_codec,
        btf=btf,
    )


def _types(btf_id: int, key_id: int, value_id: int) -> tuple[BTF | None, Codec | None, Codec | None]:
    """The BTF of this id and the codecs of the types, as far as they can be had."""
    if not btf_id:
        return None, None, None
    from pybpf.errors import BTFError

    try:
        btf = btf_by_id(btf_id)
    except (PermissionError, BTFError):
        return None, None, None
    return btf, _codec(btf, key_id), _codec(btf, value_id)


def _codec(btf: BTF, type_id: int) -> Codec | None:
    from pybpf.btf.codec import codec
    from pybpf.errors import BTFError

    try:
        return codec(btf, type_id) if type_id else None
    except BTFError:
        return None


def btf_by_id(btf_id: int) -> BTF:
    """The type information that the kernel has under this id. Needs CAP_SYS_ADMIN; since Linux 4.18.

    Raises:
        BPFNotFoundError: there is none.
        BTFError: it is malformed.
    """
    from pybpf.btf.reader import BTF

    with syscall.btf_get_fd_by_id(btf_id) as fd:
        info = syscall.btf_info(fd, data=True)
    base = None
    if info.kernel_btf and info.name != "vmlinux":
        from pybpf.btf.kernel import vmlinux

        base = vmlinux()
    return BTF.from_bytes(info.data, base=base, name=info.name)
