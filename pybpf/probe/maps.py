"""Which types of maps this kernel makes. Each question is one BPF_MAP_CREATE of the smallest map.

Source: tools/lib/bpf/libbpf_probes.c of the kernel.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import ENOTSUPP, BPFError
from pybpf.memlock import with_memlock
from pybpf.probe.answer import Answer, ask, kept, undecided
from pybpf.probe.btf import load_btf
from pybpf.probe.names import number_of
from pybpf.syscall.memory import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.writer import BTFBuilder
    from pybpf.syscall.fd import FdLike

NEEDS_BTF = frozenset(
    (
        c.BPF_MAP_TYPE_SK_STORAGE,
        c.BPF_MAP_TYPE_INODE_STORAGE,
        c.BPF_MAP_TYPE_TASK_STORAGE,
        c.BPF_MAP_TYPE_CGRP_STORAGE,
    )
)
NEEDS_INNER = frozenset((c.BPF_MAP_TYPE_ARRAY_OF_MAPS, c.BPF_MAP_TYPE_HASH_OF_MAPS))

_CGROUP_STORAGE = {"key_size": 16, "value_size": 8, "max_entries": 0}
_STORAGE = {"value_size": 8, "max_entries": 0, "map_flags": c.BPF_F_NO_PREALLOC}
_RING = {"key_size": 0, "value_size": 0, "max_entries": PAGE_SIZE}

FIELDS: dict[int, dict[str, int]] = {
    c.BPF_MAP_TYPE_STACK_TRACE: {"value_size": 8},
    c.BPF_MAP_TYPE_LPM_TRIE: {"key_size": 8, "value_size": 8, "map_flags": c.BPF_F_NO_PREALLOC},
    c.BPF_MAP_TYPE_RHASH: {"map_flags": c.BPF_F_NO_PREALLOC},
    c.BPF_MAP_TYPE_CGROUP_STORAGE: _CGROUP_STORAGE,
    c.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: _CGROUP_STORAGE,
    c.BPF_MAP_TYPE_QUEUE: {"key_size": 0},
    c.BPF_MAP_TYPE_STACK: {"key_size": 0},
    c.BPF_MAP_TYPE_BLOOM_FILTER: {"key_size": 0},
    c.BPF_MAP_TYPE_STRUCT_OPS: {"btf_vmlinux_value_type_id": 1},
    c.BPF_MAP_TYPE_RINGBUF: _RING,
    c.BPF_MAP_TYPE_USER_RINGBUF: _RING,
    c.BPF_MAP_TYPE_ARENA: {"key_size": 0, "value_size": 0, "map_flags": c.BPF_F_MMAPABLE},
    c.BPF_MAP_TYPE_INSN_ARRAY: {"value_size": 16},
    **dict.fromkeys(NEEDS_BTF, _STORAGE),
}
"""What a map of a type needs, where that is not a key of 4 bytes, a value of 4 bytes and one entry."""


def has_map_type(name: int | str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether maps of this type can be made.

    Raises:
        ValueError: the name is unknown.
    """
    number = number_of("map type", name)
    return kept(("map type", number), lambda: _create(number, token_fd), token_fd)


def create(number: int, *, token_fd: FdLike | None = None, yes: tuple[int, ...] = (), **fields: int) -> Answer:
    """Ask by making a map of small sizes; fields that are given replace them."""
    sizes: dict[str, Any] = {"key_size": 4, "value_size": 4, "max_entries": 1, **FIELDS.get(number, {}), **fields}
    return ask(syscall.map_create, number, token_fd=token_fd, yes=yes, **sizes)


def _create(number: int, token_fd: FdLike | None) -> Answer:
    if number == c.BPF_MAP_TYPE_STRUCT_OPS:  # type 1 of the kernel's BTF is no struct of operations
        return create(number, token_fd=token_fd, yes=(ENOTSUPP,))
    try:
        if number in NEEDS_BTF:
            with load_btf(_storage_types, token_fd) as btf:
                types: dict[str, Any] = {"btf_fd": btf.fileno(), "btf_key_type_id": 1, "btf_value_type_id": 3}
                return create(number, token_fd=token_fd, **types)
        if number in NEEDS_INNER:
            inner: dict[str, Any] = {"key_size": 4, "value_size": 4, "max_entries": 1}
            with with_memlock(syscall.map_create, c.BPF_MAP_TYPE_HASH, **inner, token_fd=token_fd) as fd:
                return create(number, token_fd=token_fd, inner_map_fd=fd.fileno())
    except BPFError as error:
        return undecided(error)
    return create(number, token_fd=token_fd)


def _storage_types(builder: BTFBuilder) -> None:
    """``struct val { int cnt; struct bpf_spin_lock l; }`` is type 3; its key, an int, is type 1."""
    number = builder.add_int("int", 4, 32, 1)
    lock = builder.add_struct("bpf_spin_lock", 4, [("val", number, 0)])
    builder.add_struct("val", 8, [("cnt", number, 0), ("l", lock, 32)])
