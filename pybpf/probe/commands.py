"""Which commands bpf(2) knows. Each is called with arguments that it refuses in a way of its own, and changes nothing.

A command that a kernel does not know gives EINVAL.
"""

from __future__ import annotations

import errno

from pybpf.constants import BPF_MAP_CREATE, BPF_MAP_TYPE_ARRAY, BPF_OBJ_PIN, BPF_PROG_LOAD
from pybpf.errors import BPFError
from pybpf.memlock import with_memlock
from pybpf.probe.answer import Answer, kept, undecided
from pybpf.probe.maps import has_map_type
from pybpf.probe.names import canonical, number_of
from pybpf.probe.programs import has_program_type
from pybpf.syscall.creation import map_create
from pybpf.syscall.fd import FD
from pybpf.syscall.invoke import attempt
from pybpf.syscall.record import Record

NO_FD = 0x7FFFFFFF
"""A descriptor that no process has open."""

FIELDS: dict[str, tuple[dict[str, int], int]] = {
    "map_lookup_elem": ({"map_fd": NO_FD}, errno.EBADF),
    "map_update_elem": ({"map_fd": NO_FD}, errno.EBADF),
    "map_delete_elem": ({"map_fd": NO_FD}, errno.EBADF),
    "map_get_next_key": ({"map_fd": NO_FD}, errno.EBADF),
    "obj_get": ({}, errno.EFAULT),
    "prog_attach": ({"attach_bpf_fd": NO_FD, "target_fd": NO_FD}, errno.EBADF),
    "prog_detach": ({"attach_bpf_fd": NO_FD, "target_fd": NO_FD}, errno.EBADF),
    "prog_test_run": ({"prog_fd": NO_FD}, errno.EBADF),
    "prog_get_next_id": ({"start_id": 0x7FFFFFFE}, errno.ENOENT),
    "map_get_next_id": ({"start_id": 0x7FFFFFFE}, errno.ENOENT),
    "prog_get_fd_by_id": ({"prog_id": 0x7FFFFFFE}, errno.ENOENT),
    "map_get_fd_by_id": ({"map_id": 0x7FFFFFFE}, errno.ENOENT),
    "obj_get_info_by_fd": ({"bpf_fd": NO_FD}, errno.EBADFD),
    "prog_query": ({"target_fd": NO_FD}, errno.EBADF),
    "raw_tracepoint_open": ({"prog_fd": NO_FD}, errno.EBADF),
    "btf_load": ({"btf_size": 24}, errno.EFAULT),
    "btf_get_fd_by_id": ({"btf_id": 0x7FFFFFFE}, errno.ENOENT),
    "task_fd_query": ({"pid": 0x7FFFFFFE}, errno.ENOENT),
    "map_lookup_and_delete_elem": ({"map_fd": NO_FD}, errno.EBADF),
    "map_freeze": ({"map_fd": NO_FD}, errno.EBADF),
    "btf_get_next_id": ({"start_id": 0x7FFFFFFE}, errno.ENOENT),
    "map_lookup_batch": ({"map_fd": NO_FD}, errno.EBADF),
    "map_lookup_and_delete_batch": ({"map_fd": NO_FD}, errno.EBADF),
    "map_update_batch": ({"map_fd": NO_FD}, errno.EBADF),
    "map_delete_batch": ({"map_fd": NO_FD}, errno.EBADF),
    "link_create": ({"prog_fd": NO_FD}, errno.EBADF),
    "link_update": ({"link_fd": NO_FD}, errno.EBADF),
    "link_get_fd_by_id": ({"link_id": 0x7FFFFFFE}, errno.ENOENT),
    "link_get_next_id": ({"start_id": 0x7FFFFFFE}, errno.ENOENT),
    "enable_stats": ({}, 0),
    "iter_create": ({"link_fd": NO_FD}, errno.EBADF),
    "link_detach": ({"link_fd": NO_FD}, errno.EBADF),
    "prog_bind_map": ({"prog_fd": NO_FD}, errno.EBADF),
    "token_create": ({"bpffs_fd": NO_FD}, errno.EBADF),
    "prog_stream_read_by_fd": ({"prog_fd": NO_FD, "stream_buf_len": 1}, errno.EBADF),
    "prog_assoc_struct_ops": ({"prog_fd": NO_FD, "map_fd": NO_FD}, errno.EBADF),
}
"""Command -> the fields of its attr, and the errno of a kernel that knows it; 0 for the one that succeeds."""


def has_command(name: int | str) -> Answer:
    """Whether bpf(2) knows the command.

    Raises:
        ValueError: the name is unknown, or pybpf does not know how to ask for this one.
    """
    number = number_of("command", name)
    if number == BPF_MAP_CREATE:
        return has_map_type("array")
    if number == BPF_PROG_LOAD:
        return has_program_type("socket_filter")
    if number == BPF_OBJ_PIN:
        return kept(("command", number), _pin)
    plain = canonical("command").get(number, "")
    if plain not in FIELDS:
        raise ValueError(f"there is no probe for the command {name!r}")
    return kept(("command", number), lambda: _call(plain))


def _call(plain: str) -> Answer:
    fields, expected = FIELDS[plain]
    record = Record(f"BPF_{plain.upper()}")
    record.put(**fields)
    fd = FD._empty()
    result = attempt(record, into=fd)
    if not expected and result > 0:  # BPF_ENABLE_STATS: statistics are on while its descriptor is open
        fd._over(result).close()
    return _judge(record, expected, result)


def _judge(record: Record, expected: int, result: int) -> Answer:
    if result >= 0 or -result in (expected, errno.EBADF):
        return Answer("yes", record.title, max(-result, 0))
    return Answer("no" if result == -errno.EINVAL else "cannot tell", record.title, -result)


def _pin() -> Answer:
    """Without a path; the object must be one."""
    try:
        with with_memlock(map_create, BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1) as array:
            record = Record("BPF_OBJ_PIN")
            record.put(bpf_fd=array.fileno())
            return _judge(record, errno.EFAULT, attempt(record))
    except BPFError as error:
        return undecided(error)
