"""What programs are attached to, given the way people write it: interfaces, cgroups, network namespaces.

Descriptors that are opened here for a path belong to the caller.
"""

from __future__ import annotations

import errno
import os

from pybpf import syscall
from pybpf.errors import BPFNotFoundError, kernel_error
from pybpf.syscall import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall import FdLike

CGROUP_HINT = "A directory of a cgroup version 2 file system is needed, usually below /sys/fs/cgroup"


def interface_index(interface: str | int) -> int:
    """The index of a network interface, given by name (or by the index itself).

    Raises:
        BPFNotFoundError: this network namespace has no such interface.
        ValueError: an index of zero or less.
    """
    from _socket import if_indextoname, if_nametoindex

    if isinstance(interface, int) and interface <= 0:
        raise ValueError(f"an interface's index is positive, not {interface}")
    try:
        if isinstance(interface, int):
            if_indextoname(interface)
            return interface
        return if_nametoindex(interface)
    except OSError:
        raise BPFNotFoundError(
            errno.ENODEV, "if_nametoindex", f"interface {interface!r} does not exist in this network namespace"
        ) from None


def interface_name(interface: str | int) -> str:
    """What an interface is called, as far as this network namespace knows it."""
    from _socket import if_indextoname

    if isinstance(interface, str):
        return interface
    try:
        return if_indextoname(interface)
    except OSError:
        return f"interface {interface}"


def open_directory(path: str | os.PathLike[str], hint: str = "") -> FD:
    """A descriptor of a directory, for example of a cgroup."""
    return _open(os.fspath(path), os.O_DIRECTORY, hint)


def open_cgroup(cgroup: str | os.PathLike[str] | FdLike) -> FD:
    """A descriptor of a cgroup's directory, given by path or as a descriptor (which is duplicated)."""
    if isinstance(cgroup, (str, os.PathLike)):
        return open_directory(cgroup, CGROUP_HINT)
    return duplicate(cgroup)


def open_netns(namespace: str | os.PathLike[str] | int | FdLike | None) -> tuple[FD, str]:
    """A descriptor of a network namespace, and what it is called.

    Args:
        namespace: None for that of this thread, a path (``/run/netns/blue``), a name as ip-netns(8) keeps it
            (``blue``), or an object with a descriptor. A number is the id of a process.
    """
    if namespace is None:
        path = "/proc/thread-self/ns/net"
    elif isinstance(namespace, int):
        path = f"/proc/{namespace}/ns/net"
    elif isinstance(namespace, (str, os.PathLike)):
        path = os.fspath(namespace)
        if "/" not in path:
            path = f"/run/netns/{path}"
    else:
        fd = duplicate(namespace)
        return fd, f"netns:[{os.fstat(fd.fileno()).st_ino}]"
    return _open(path, 0, "Name a network namespace, the path of one, or a process"), path


def duplicate(source: FdLike) -> FD:
    """A descriptor of our own for somebody's open file."""
    return FD(os.dup(syscall.fileno(source)))


def _open(path: str, flags: int, hint: str) -> FD:
    try:
        return FD(os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags))
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path, hint) from error
