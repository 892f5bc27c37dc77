"""Programs on sockets, which setsockopt(2) attaches: socket filters and reuseport selection.

Source: socket(7), include/uapi/asm-generic/socket.h.
"""

from __future__ import annotations

import os

from pybpf.errors import kernel_error
from pybpf.syscall.door import other
from pybpf.syscall.fd import fileno
from pybpf.syscall.numbers import SOCKET_OPTIONS
from pybpf.syscall.sysno import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

OPTIONS = SOCKET_OPTIONS.get(MACHINE.removesuffix("64"), SOCKET_OPTIONS[""])
"""The numbers of SO_ATTACH_BPF and its like on this machine."""


def _set(sock: FdLike, name: str, value: int) -> None:
    import _socket

    number = fileno(sock)

    def enter() -> int:
        # The caller's socket under a descriptor of our own, which is closed at the end.
        borrowed = _socket.socket(fileno=os.dup(number))
        try:
            borrowed.setsockopt(_socket.SOL_SOCKET, OPTIONS[name], value)
        finally:
            borrowed.close()
        return 0

    result = other("setsockopt", name, OPTIONS[name], {"fd": number, "value": value}, enter)
    if result < 0:
        raise kernel_error(-result, f"setsockopt {name}")


def attach_socket_filter(sock_fd: FdLike, prog_fd: FdLike) -> None:
    """SO_ATTACH_BPF (Linux 3.19): let a BPF_PROG_TYPE_SOCKET_FILTER program decide what the socket receives.

    Args:
        sock_fd: a socket or its descriptor.
        prog_fd: the program; the one that was there before is replaced.

    Raises:
        BPFPermissionError: EPERM: the socket's filter is locked (SO_LOCK_FILTER).
        BPFError: EINVAL: the program is of another type; ENOTSOCK.
    """
    _set(sock_fd, "SO_ATTACH_BPF", fileno(prog_fd))


def detach_socket_filter(sock_fd: FdLike) -> None:
    """SO_DETACH_BPF (Linux 3.19): take the filter away.

    Raises:
        BPFNotFoundError: ENOENT: there is none.
    """
    _set(sock_fd, "SO_DETACH_BPF", 0)


def attach_reuseport(sock_fd: FdLike, prog_fd: FdLike) -> None:
    """SO_ATTACH_REUSEPORT_EBPF (Linux 4.5): let a program choose among the sockets that share a port.

    Args:
        sock_fd: a socket with SO_REUSEPORT.
        prog_fd: a SOCKET_FILTER program, which returns an index, or an SK_REUSEPORT program (Linux 4.19).

    Raises:
        BPFError: EINVAL: the socket does not share a port, or the program is of another type.
    """
    _set(sock_fd, "SO_ATTACH_REUSEPORT_EBPF", fileno(prog_fd))


def detach_reuseport(sock_fd: FdLike) -> None:
    """SO_DETACH_REUSEPORT_BPF (Linux 5.3): take that program away.

    Raises:
        BPFNotFoundError: ENOENT: there is none.
    """
    _set(sock_fd, "SO_DETACH_REUSEPORT_BPF", 0)
