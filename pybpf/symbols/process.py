"""The files that a process has mapped: which library it means by a name, and where its code is.

A process in a container has its own files. They are reached through /proc/PID/root, as a uprobe on them has to be.

Source: proc_pid_maps(5), proc_pid_root(5).
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
        path: as the process sees the file.
        device: "08:01", and `inode`: the file's number on it.
        is_code: whether it is executable.
    """

    __slots__ = ("device", "end", "inode", "is_code", "offset", "path", "start")

    def __init__(self, line: str) -> None:
        addresses, mode, offset, self.device, inode, *path = line.rstrip("\n").split(None, 5)
        start, _, end = addresses.partition("-")
        self.start, self.end = int(start, 16), int(end, 16)
        self.is_code = mode[2:3] == "x"
        self.offset = int(offset, 16)
        self.inode = int(inode)
        self.path = path[0].replace("\\012", "\n") if path else ""


def mappings(pid: int) -> Iterator[Mapping]:
    """What a process has mapped of files, by ascending address; 0 is the caller.

    Raises:
        BPFNotFoundError: there is no such process.
        BPFPermissionError: it is closed to this process (ptrace(2), PTRACE_MODE_READ).
    """
    path = f"/proc/{pid or 'self'}/maps"
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                mapping = Mapping(line)
                if mapping.path.startswith("/"):
                    yield mapping
    except FileNotFoundError:
        raise BPFNotFoundError(errno.ESRCH, "open", f"there is no process {pid}") from None
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path) from error


def mapped_files(pid: int) -> list[str]:
    """The executable files that a process has mapped: paths that this process can open, without those deleted since."""
    seen = dict.fromkeys(mapping.path for mapping in mappings(pid) if mapping.is_code)
    return [reachable(pid, path) for path in seen if not path.endswith(DELETED)]


def find_mapped(pid: int, name: str) -> str | None:
    """The file of this name (without folders) that a process has mapped, or None."""
    for path in mapped_files(pid):
        if path.rpartition("/")[2] == name:
            return path
    return None


def reachable(pid: int, path: str) -> str:
    """A path of this process for a file of that one: the same, unless another file or none is there."""
    inside = f"/proc/{pid or 'self'}/root{path}"
    try:
        if os.path.samefile(inside, path):
            return path
    except OSError:
        pass
    return inside


def code_address(pid: int, path: str, offset: int) -> int | None:
    """Where a process has mapped an offset of a file as code; None when it has not."""
    try:
        wanted: os.stat_result | None = os.stat(path)
    except OSError:
        wanted = None
    own = path.removeprefix(f"/proc/{pid}/root") if pid else os.path.realpath(path)
    for mapping in mappings(pid):
        if not mapping.is_code or not mapping.offset <= offset < mapping.offset + mapping.end - mapping.start:
            continue
        if mapping.path in (own, os.path.realpath(path)) or _is_file(mapping, wanted):
            return mapping.start - mapping.offset + offset
    return None


def _is_file(mapping: Mapping, wanted: os.stat_result | None) -> bool:
    """Whether a mapping is of this file, by its number (file systems of several layers give other ones)."""
    if wanted is None or mapping.inode != wanted.st_ino:
        return False
    major, _, minor = mapping.device.partition(":")
    return os.makedev(int(major, 16), int(minor, 16)) == wanted.st_dev
