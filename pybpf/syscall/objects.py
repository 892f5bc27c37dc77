"""The bpf(2) commands about objects of any kind: pins, ids, information, BTF, statistics, tokens.

Source: bpf(2), include/uapi/linux/bpf.h, kernel/bpf/syscall.c, kernel/bpf/inode.c.
"""

from __future__ import annotations

import errno

from pybpf.constants import BPF_F_PATH_FD, BPF_F_TOKEN_FD
from pybpf.errors import kernel_error
from pybpf.syscall.fd import FD, fileno
from pybpf.syscall.invoke import attempt, descriptor, invoke, number, path_bytes
from pybpf.syscall.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike
    from pybpf.syscall.invoke import Path


def obj_pin(path: Path, fd: FdLike, *, flags: int = 0, path_fd: FdLike | None = None) -> None:
    """BPF_OBJ_PIN (Linux 4.4): give a map, program, or link (Linux 5.7) a name in the BPF file system.

    Args:
        path: where; no dot in its last part.
        flags: BPF_F_PATH_FD, which `path_fd` sets.
        path_fd: the directory that `path` is relative to (Linux 6.5).

    Raises:
        BPFExistsError: EEXIST: there is something of this name.
        BPFNotFoundError: ENOENT: there is no such directory.
        BPFPermissionError: EPERM: it is not on a BPF file system, or the name has a dot.
    """
    attr = _path("BPF_OBJ_PIN", path, flags, path_fd)
    attr.put(bpf_fd=fileno(fd))
    invoke(attr, f"pin {path!r}")


def obj_get(path: Path, *, flags: int = 0, path_fd: FdLike | None = None) -> FD:
    """BPF_OBJ_GET (Linux 4.4): open a pinned map, program or link.

    Args:
        flags: BPF_F_RDONLY or BPF_F_WRONLY for maps (Linux 4.15); BPF_F_PATH_FD, which `path_fd` sets.
        path_fd: the directory that `path` is relative to (Linux 6.5).

    Raises:
        BPFNotFoundError: ENOENT: there is nothing of this name.
        BPFPermissionError: EACCES: it is not a pin, or its mode does not allow it.
    """
    return descriptor(_path("BPF_OBJ_GET", path, flags, path_fd), f"pin {path!r}")


def _path(command: str, path: Path, flags: int, path_fd: FdLike | None) -> Record:
    attr = Record(command)
    if path_fd is not None:
        flags |= BPF_F_PATH_FD
    attr.put(file_flags=flags, path_fd=number(path_fd))
    attr.point("pathname", path_bytes(path))
    return attr


def prog_get_next_id(start: int = 0) -> int | None:
    """BPF_PROG_GET_NEXT_ID (Linux 4.13): the lowest program id above `start`; None if there is none.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _next_id("BPF_PROG_GET_NEXT_ID", start)


def map_get_next_id(start: int = 0) -> int | None:
    """BPF_MAP_GET_NEXT_ID (Linux 4.13): the lowest map id above `start`; None if there is none.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _next_id("BPF_MAP_GET_NEXT_ID", start)


def btf_get_next_id(start: int = 0) -> int | None:
    """BPF_BTF_GET_NEXT_ID (Linux 5.4): the lowest BTF id above `start`; None if there is none.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _next_id("BPF_BTF_GET_NEXT_ID", start)


def link_get_next_id(start: int = 0) -> int | None:
    """BPF_LINK_GET_NEXT_ID (Linux 5.8): the lowest link id above `start`; None if there is none.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _next_id("BPF_LINK_GET_NEXT_ID", start)


def _next_id(command: str, start: int) -> int | None:
    attr = Record(command)
    attr.put(start_id=start)
    result = attempt(attr)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise kernel_error(-result, command)
    return attr["next_id"]


def prog_get_fd_by_id(prog_id: int) -> FD:
    """BPF_PROG_GET_FD_BY_ID (Linux 4.13): open a program.

    Raises:
        BPFNotFoundError: ENOENT: no program has this id.
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    attr = Record("BPF_PROG_GET_FD_BY_ID")
    attr.put(prog_id=prog_id)
    return descriptor(attr, f"program {prog_id}")


def map_get_fd_by_id(map_id: int, open_flags: int = 0) -> FD:
    """BPF_MAP_GET_FD_BY_ID (Linux 4.13): open a map.

    Args:
        open_flags: BPF_F_RDONLY or BPF_F_WRONLY (Linux 4.15).

    Raises:
        BPFNotFoundError: ENOENT: no map has this id.
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    attr = Record("BPF_MAP_GET_FD_BY_ID")
    attr.put(map_id=map_id, open_flags=open_flags)
    return descriptor(attr, f"map {map_id}")


def btf_get_fd_by_id(btf_id: int, *, token_fd: FdLike | None = None) -> FD:
    """BPF_BTF_GET_FD_BY_ID (Linux 4.18): open a BTF object.

    Args:
        token_fd: a BPF token to use; sets BPF_F_TOKEN_FD (Linux 6.16).

    Raises:
        BPFNotFoundError: ENOENT: no BTF object has this id.
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    attr = Record("BPF_BTF_GET_FD_BY_ID")
    attr.put(btf_id=btf_id)
    if token_fd is not None:
        attr.put(open_flags=BPF_F_TOKEN_FD, fd_by_id_token_fd=fileno(token_fd))
    return descriptor(attr, f"BTF object {btf_id}")


def link_get_fd_by_id(link_id: int) -> FD:
    """BPF_LINK_GET_FD_BY_ID (Linux 5.8): open a link.

    Raises:
        BPFNotFoundError: ENOENT: no link has this id.
        BPFPermissionError: CAP_SYS_ADMIN is missing.
        BPFBlockingError: EAGAIN: it is just being made.
    """
    attr = Record("BPF_LINK_GET_FD_BY_ID")
    attr.put(link_id=link_id)
    return descriptor(attr, f"link {link_id}")


def obj_get_info_by_fd(fd: FdLike, info: bytearray) -> int:
    """BPF_OBJ_GET_INFO_BY_FD (Linux 4.13): what the kernel knows of an object. `prog_info` and the others read it.

    Args:
        info: struct bpf_prog_info, bpf_map_info, bpf_btf_info, bpf_link_info or bpf_token_info; it is read too.

    Returns:
        How many bytes the kernel filled.

    Raises:
        BPFError: E2BIG: bytes past the struct that the kernel knows are not zero; EFAULT; ENOSPC.
    """
    attr = Record("BPF_OBJ_GET_INFO_BY_FD")
    attr.put(bpf_fd=fileno(fd), info_len=len(info))
    attr.point("info", info)
    invoke(attr)
    return attr["info_len"]


class TaskFdInfo:
    """What BPF_TASK_FD_QUERY found behind a descriptor.

    Attributes:
        prog_id: the program.
        fd_type: BPF_FD_TYPE_TRACEPOINT and so on.
        name: the tracepoint, the kernel function, or the file.
        probe_offset: offset in the function or file, in bytes.
        probe_addr: a kprobe's address, if it was given as one.
    """

    __slots__ = ("fd_type", "name", "probe_addr", "probe_offset", "prog_id")

    def __init__(self, prog_id: int, fd_type: int, name: str, probe_offset: int, probe_addr: int) -> None:
        self.prog_id = prog_id
        self.fd_type = fd_type
        self.name = name
        self.probe_offset = probe_offset
        self.probe_addr = probe_addr

    def __repr__(self) -> str:
        return f"<TaskFdInfo program {self.prog_id} at {self.name!r}>"


def task_fd_query(pid: int, fd: int, flags: int = 0) -> TaskFdInfo:
    """BPF_TASK_FD_QUERY (Linux 4.18): what a process's descriptor attaches to what.

    Args:
        pid: the process.
        fd: the number of its descriptor: of a perf event or a raw tracepoint.
        flags: none is defined.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
        BPFNotFoundError: ENOENT: no such process.
        NotSupportedError: the descriptor is something else.
        BPFError: EBADF: the process has no such descriptor.
    """
    room = 256
    while True:
        name = bytearray(room)
        attr = Record("BPF_TASK_FD_QUERY")
        attr.put(pid=pid, fd=fd, flags=flags, buf_len=room)
        attr.point("buf", name)
        result = attempt(attr)
        if result == -errno.ENOSPC and attr["buf_len"] >= room:
            room = attr["buf_len"] + 1
            continue
        if result < 0:
            raise kernel_error(-result, attr.title)
        text = name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return TaskFdInfo(attr["prog_id"], attr["fd_type"], text, attr["probe_offset"], attr["probe_addr"])


def enable_stats(stats_type: int = 0) -> FD:
    """BPF_ENABLE_STATS (Linux 5.8): count runs and run time of all programs, as long as the descriptor is open.

    Args:
        stats_type: BPF_STATS_RUN_TIME.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    attr = Record("BPF_ENABLE_STATS")
    attr.put(type=stats_type)
    return descriptor(attr)


def token_create(bpffs_fd: FdLike, flags: int = 0) -> FD:
    """BPF_TOKEN_CREATE (Linux 6.9): take the rights that a BPF file system delegates.

    Args:
        bpffs_fd: the root directory of a BPF file system that was mounted with delegate_* options.
        flags: none is defined.

    Raises:
        BPFPermissionError: not in that file system's user namespace, or without CAP_BPF there.
        NotSupportedError: the initial user namespace gives no tokens.
        BPFNotFoundError: ENOENT: nothing is delegated.
    """
    attr = Record("BPF_TOKEN_CREATE")
    attr.put(flags=flags, bpffs_fd=fileno(bpffs_fd))
    return descriptor(attr)
