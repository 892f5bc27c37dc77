"""Programs on sockets: socket filters, and the choice among sockets that share a port.

The kernel has no link for these: the program stays on the socket until `close()` here, or until the socket is closed.

Source: socket(7), SO_ATTACH_BPF and SO_ATTACH_REUSEPORT_EBPF; net/core/filter.c.
"""

from __future__ import annotations

import errno
import os
import stat

from pybpf import syscall
from pybpf.errors import BPFError, ClosedError, kernel_error
from pybpf.links.base import Attachment
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.links.base import Attachable
    from pybpf.syscall import FdLike


class SocketAttachment(Attachment):
    """A program on a socket; `close()` takes it away, unless the socket is closed."""

    __slots__ = ("_put",)

    def __init__(self, kind: str, target: str, undo: Callable[[], None], put: Callable[[Attachable], None]) -> None:
        super().__init__(kind, target, undo)
        self._put = put

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program in the place of this one, without a gap.

        Args:
            program: of the same type.
            old: not for sockets: the kernel cannot compare.

        Raises:
            ValueError: `old` is given.
        """
        if old is not None:
            raise ValueError("old= is not for programs of sockets: the kernel does not tell which one is attached")
        self._check_open()
        self._put(program)


def attach_socket_filter(program: Attachable, socket: FdLike) -> SocketAttachment:
    """Puts a filter on a socket: it says how many bytes of each packet are kept, 0 drops it. Since Linux 3.19.

    Args:
        program: of type socket_filter.
        socket: a socket object or its descriptor. It is not closed with the link, and not held open by it.

    Raises:
        BPFError: the descriptor is no socket (ENOTSOCK), or its filter is locked (EPERM).
    """
    return _attach(program, socket, "socket_filter", syscall.attach_socket_filter, syscall.detach_socket_filter)


def attach_reuseport(program: Attachable, socket: FdLike) -> SocketAttachment:
    """Lets a program choose among the sockets of a SO_REUSEPORT group. Since Linux 4.19; detached since 5.3.

    Args:
        program: of type sk_reuseport, or socket_filter.
        socket: a socket of the group, with SO_REUSEPORT set.

    Raises:
        BPFError: the socket is in no group (EINVAL), or no socket (ENOTSOCK).
    """
    return _attach(program, socket, "sk_reuseport", syscall.attach_reuseport, syscall.detach_reuseport)


def _attach(
    program: Attachable,
    socket: FdLike,
    kind: str,
    attach: Callable[[FdLike, FdLike], None],
    detach: Callable[[FdLike], None],
) -> SocketAttachment:
    number = syscall.fileno(socket)
    target = f"socket {number}"
    try:
        status = os.fstat(number)
    except OSError as error:
        raise kernel_error(error.errno or 0, "fstat", attaching(program, target)) from None
    if not stat.S_ISSOCK(status.st_mode):
        raise kernel_error(
            errno.ENOTSOCK, "setsockopt", attaching(program, target), f"Descriptor {number} is not a socket"
        )

    def put(program: Attachable) -> None:
        if not _is_same_socket(number, status.st_ino):
            raise ClosedError(f"{kind} {target}: the socket was closed")
        try:
            attach(number, program)
        except BPFError as error:
            hints = {
                errno.EINVAL: "The program's type does not fit, or the socket does not have SO_REUSEPORT set",
                **permission_hints(CAP_NET_ADMIN, "The socket's filter is locked (SO_LOCK_FILTER)"),
            }
            raise refused(error, attaching(program, target), hints) from None

    put(program)

    def undo() -> None:
        if _is_same_socket(number, status.st_ino):
            detach(number)

    return SocketAttachment(kind, target, undo, put)


def _is_same_socket(number: int, inode: int) -> bool:
    """Whether a descriptor still is the socket that it was: its number may have been given to another file."""
    try:
        return os.fstat(number).st_ino == inode
    except OSError:
        return False
