"""The door: everything that pybpf asks of the kernel goes through here, and ctypes is used nowhere else.

One documented function per bpf(2) command, each field by the name it has in union bpf_attr. They can be called by
hand, without the rest of pybpf:

    >>> from pybpf import syscall
    >>> from pybpf.constants import BPF_MAP_TYPE_HASH
    >>> with syscall.map_create(BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=10) as fd:
    ...     syscall.map_update_elem(fd, b"abcd", bytes(8))
    ...     syscall.map_lookup_elem(fd, b"abcd", 8)

Descriptors come as `FD`, which has one owner; refusals as `BPFError`. `add_observer` lets a program see every call.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.area import Area, map_area
    from pybpf.syscall.cpus import cpu_list, possible_cpus
    from pybpf.syscall.creation import (
        btf_load,
        map_create,
        map_freeze,
        prog_bind_map,
        prog_load,
        raw_tracepoint_open,
    )
    from pybpf.syscall.door import Buffer as Buffer
    from pybpf.syscall.elements import ElementCalls
    from pybpf.syscall.fd import FD, Lease, duplicate, fileno, lend
    from pybpf.syscall.fd import FdLike as FdLike
    from pybpf.syscall.info import (
        BTFInfo,
        LinkInfo,
        MapInfo,
        ProgramInfo,
        TokenInfo,
        btf_info,
        link_info,
        map_info,
        prog_info,
        token_info,
    )
    from pybpf.syscall.links import iter_create, link_create, link_detach, link_update
    from pybpf.syscall.logs import LogBuffer
    from pybpf.syscall.maps import (
        map_delete_batch,
        map_delete_elem,
        map_get_next_key,
        map_lookup_and_delete_batch,
        map_lookup_and_delete_elem,
        map_lookup_batch,
        map_lookup_elem,
        map_update_batch,
        map_update_elem,
    )
    from pybpf.syscall.memory import PAGE_SIZE, barrier, map_memory
    from pybpf.syscall.objects import (
        TaskFdInfo,
        btf_get_fd_by_id,
        btf_get_next_id,
        enable_stats,
        link_get_fd_by_id,
        link_get_next_id,
        map_get_fd_by_id,
        map_get_next_id,
        obj_get,
        obj_get_info_by_fd,
        obj_pin,
        prog_get_fd_by_id,
        prog_get_next_id,
        task_fd_query,
        token_create,
    )
    from pybpf.syscall.perf_event import (
        perf_disable,
        perf_enable,
        perf_event_open,
        perf_id,
        perf_pause_output,
        perf_period,
        perf_query_bpf,
        perf_refresh,
        perf_reset,
        perf_set_bpf,
        perf_set_filter,
        perf_set_output,
    )
    from pybpf.syscall.programs import (
        QueryResult,
        TestRunResult,
        prog_assoc_struct_ops,
        prog_attach,
        prog_detach,
        prog_query,
        prog_stream_read_by_fd,
        prog_test_run,
    )
    from pybpf.syscall.seccomp import (
        get_no_new_privs,
        seccomp_action_available,
        seccomp_add_descriptor,
        seccomp_is_valid,
        seccomp_receive,
        seccomp_respond,
        seccomp_set_filter,
        set_no_new_privs,
        take_descriptor,
    )
    from pybpf.syscall.sockets import (
        attach_classic_filter,
        attach_reuseport,
        attach_reuseport_classic,
        attach_socket_filter,
        detach_reuseport,
        detach_socket_filter,
        get_classic_filter,
        lock_filter,
    )
    from pybpf.syscall.watch import Call, add_observer, remove_observer
    from pybpf.syscall.watch import Observer as Observer

_HOMES = {
    "area": "Area map_area",
    "cpus": "cpu_list possible_cpus",
    "creation": "btf_load map_create map_freeze prog_bind_map prog_load raw_tracepoint_open",
    "elements": "ElementCalls",
    "fd": "FD Lease duplicate fileno lend",
    "info": "BTFInfo LinkInfo MapInfo ProgramInfo TokenInfo btf_info link_info map_info prog_info token_info",
    "links": "iter_create link_create link_detach link_update",
    "logs": "LogBuffer",
    "maps": "map_delete_batch map_delete_elem map_get_next_key map_lookup_and_delete_batch "
    "map_lookup_and_delete_elem map_lookup_batch map_lookup_elem map_update_batch map_update_elem",
    "memory": "PAGE_SIZE barrier map_memory",
    "objects": "TaskFdInfo btf_get_fd_by_id btf_get_next_id enable_stats link_get_fd_by_id link_get_next_id "
    "map_get_fd_by_id map_get_next_id obj_get obj_get_info_by_fd obj_pin prog_get_fd_by_id prog_get_next_id "
    "task_fd_query token_create",
    "perf_event": "perf_disable perf_enable perf_event_open perf_id perf_pause_output perf_period perf_query_bpf "
    "perf_refresh perf_reset perf_set_bpf perf_set_filter perf_set_output",
    "programs": "QueryResult TestRunResult prog_assoc_struct_ops prog_attach prog_detach "
    "prog_query prog_stream_read_by_fd prog_test_run",
    "seccomp": "get_no_new_privs seccomp_action_available seccomp_add_descriptor seccomp_is_valid seccomp_receive "
    "seccomp_respond seccomp_set_filter set_no_new_privs take_descriptor",
    "sockets": "attach_classic_filter attach_reuseport attach_reuseport_classic attach_socket_filter detach_reuseport "
    "detach_socket_filter get_classic_filter lock_filter",
    "watch": "Call add_observer remove_observer",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "FD",
    "PAGE_SIZE",
    "Area",
    "BTFInfo",
    "Call",
    "ElementCalls",
    "Lease",
    "LinkInfo",
    "LogBuffer",
    "MapInfo",
    "ProgramInfo",
    "QueryResult",
    "TaskFdInfo",
    "TestRunResult",
    "TokenInfo",
    "add_observer",
    "attach_classic_filter",
    "attach_reuseport",
    "attach_reuseport_classic",
    "attach_socket_filter",
    "barrier",
    "btf_get_fd_by_id",
    "btf_get_next_id",
    "btf_info",
    "btf_load",
    "cpu_list",
    "detach_reuseport",
    "detach_socket_filter",
    "duplicate",
    "enable_stats",
    "fileno",
    "get_classic_filter",
    "get_no_new_privs",
    "iter_create",
    "lend",
    "link_create",
    "link_detach",
    "link_get_fd_by_id",
    "link_get_next_id",
    "link_info",
    "link_update",
    "lock_filter",
    "map_area",
    "map_create",
    "map_delete_batch",
    "map_delete_elem",
    "map_freeze",
    "map_get_fd_by_id",
    "map_get_next_id",
    "map_get_next_key",
    "map_info",
    "map_lookup_and_delete_batch",
    "map_lookup_and_delete_elem",
    "map_lookup_batch",
    "map_lookup_elem",
    "map_memory",
    "map_update_batch",
    "map_update_elem",
    "obj_get",
    "obj_get_info_by_fd",
    "obj_pin",
    "perf_disable",
    "perf_enable",
    "perf_event_open",
    "perf_id",
    "perf_pause_output",
    "perf_period",
    "perf_query_bpf",
    "perf_refresh",
    "perf_reset",
    "perf_set_bpf",
    "perf_set_filter",
    "perf_set_output",
    "possible_cpus",
    "prog_assoc_struct_ops",
    "prog_attach",
    "prog_bind_map",
    "prog_detach",
    "prog_get_fd_by_id",
    "prog_get_next_id",
    "prog_info",
    "prog_load",
    "prog_query",
    "prog_stream_read_by_fd",
    "prog_test_run",
    "raw_tracepoint_open",
    "remove_observer",
    "seccomp_action_available",
    "seccomp_add_descriptor",
    "seccomp_is_valid",
    "seccomp_receive",
    "seccomp_respond",
    "seccomp_set_filter",
    "set_no_new_privs",
    "take_descriptor",
    "task_fd_query",
    "token_create",
    "token_info",
]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
