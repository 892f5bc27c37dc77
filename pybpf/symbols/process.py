"""The files that a process has mapped: which library it means by a name, and where its code is.

A process in a container has its own files. They are reached through /proc/PID/root or /proc/PID/map_files, and so is a
uprobe on them.

Source: proc_pid_maps(5), proc_pid_root(5), proc_pid_map_files(5).
"""

from __future__ import annotations

import errno
import os

from pybpf.errors import BPFNotFoundError, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DELETED = " (deleted)"


class Mapping:
    """A stretch of a file in the memory of a process.

    Attributes:
        start, end: addresses.
        offset: where in the file it starts.
        path: as the kernel names the file, with ``(deleted)`` behind it for one that is no more.
        is_code: whether it is executable.
    """

    __slots__ = ("end", "is_code", "offset", "path", "start")

    def __init__(self, line: str) -> None:
        addresses, mode, offset, _, _, *path = line.rstrip("\n").split(None, 5)
        start, _, end = addresses.partition("-")
        self.start, self.end = int(start, 16), int(end, 16)
        self.is_code = mode[2:3] == "x"
        self.offset = int(offset, 16)
        self.path = path[0].replace("\\012", "\n") if path else ""


def mappings(pid: int) -> Iterator[Mapping]:
    """What a process has mapped of files, by ascending address; 0 is the caller.

    Raises:
        BPFNotFoundError: there is no such process.
        BPFPermissionError: it is closed to this process (ptrace(2), PTRACE_MODE_READ).
    """
    path = f"/proc/{pid or 'self'}/maps"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                mapping = Mapping(line)
                if mapping.path.startswith("/"):
                    yield mapping
    except FileNotFoundError:
        raise BPFNotFoundError(errno.ESRCH, "open", f"there is no process {pid}") from None
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path) from error


def mapped_files(pid: int) -> list[str]:
    """The executable files that a process has mapped, as paths that this process can open."""
    seen = {mapping.path: mapping for mapping in mappings(pid) if mapping.is_code}
    return [reachable(pid, mapping) for mapping in seen.values()]


def find_mapped(pid: int, name: str) -> str | None:
    """The executable file of this name (without folders) that a process has mapped, or None."""
    for mapping in mappings(pid):
        if mapping.is_code and mapping.path.removesuffix(DELETED).rpartition("/")[2] == name:
            return reachable(pid, mapping)
    return None


def reachable(pid: int, mapping: Mapping) -> str:
    """A path of this process for a mapped file: its own, that below the root of its process, or what the kernel holds.

    The last of them is there for deleted files too. It needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    """
    folder = f"/proc/{pid or 'self'}"
    inside = f"{folder}/root{mapping.path}"
    held = f"{folder}/map_files/{mapping.start:x}-{mapping.end:x}"
    if os.path.exists(held):
        return next((path for path in (mapping.path, inside) if _is_same(path, held)), held)
    return mapping.path if _is_same(mapping.path, inside) else inside


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def code_address(pid: int, path: str, offset: int) -> int | None:
    """Where a process has mapped an offset of a file as code; None when it has not."""
    for mapping in mappings(pid):
        is_there = mapping.is_code and mapping.offset <= offset < mapping.offset + mapping.end - mapping.start
        if is_there and _is_same(path, reachable(pid, mapping)):
            return mapping.start - mapping.offset + offset
    return None
