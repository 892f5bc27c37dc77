"""Programs on sockets, which setsockopt(2) attaches: socket filters and reuseport selection, eBPF and classic.

Source: socket(7), include/uapi/asm-generic/socket.h.
"""

from __future__ import annotations

import os
import struct
import sys

from pybpf.errors import kernel_error
from pybpf.syscall import foreign
from pybpf.syscall.door import call, other, pointer
from pybpf.syscall.fd import fileno
from pybpf.syscall.numbers import SOCKET_OPTIONS
from pybpf.syscall.sysno import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike

OPTIONS = SOCKET_OPTIONS.get(MACHINE.removesuffix("64"), SOCKET_OPTIONS[""])
"""The numbers of SO_ATTACH_BPF and its like on this machine."""


CLASSIC_SIZE = 8
"""Bytes of a classic instruction (struct sock_filter)."""


def classic_program(code: Buffer) -> tuple[bytes, object]:
    """struct sock_fprog of a classic filter, and what keeps its instructions where they are.

    Raises:
        ValueError: these are no whole instructions, or none, or too many for the struct.
    """
    count, rest = divmod(len(code), CLASSIC_SIZE)
    if rest or not 0 < count < 1 << 16:
        raise ValueError(f"a classic filter has 1 to 65535 instructions of {CLASSIC_SIZE} bytes, not {len(code)} bytes")
    address, alive = pointer(code)
    return struct.pack("@HP", count, address), alive


def _set(sock: FdLike, name: str, value: int | bytes) -> None:
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


def attach_classic_filter(sock_fd: FdLike, code: Buffer) -> None:
    """SO_ATTACH_FILTER (Linux 2.2): let a classic filter decide what the socket receives, and how much of it.

    Args:
        sock_fd: a socket or its descriptor.
        code: struct sock_filter, one after the other; the filter that was there before is replaced.

    Raises:
        BPFPermissionError: EPERM: the socket's filter is locked.
        BPFError: EINVAL: the filter is not valid; ENOTSOCK; ENOMEM: it is more than net.core.optmem_max.
        ValueError: these are no instructions.
    """
    program, alive = classic_program(code)
    _set(sock_fd, "SO_ATTACH_FILTER", program)
    del alive


def get_classic_filter(sock_fd: FdLike) -> bytes:
    """SO_GET_FILTER (Linux 3.8): the classic filter of a socket, empty when it has none.

    Raises:
        BPFPermissionError: EACCES: its filter is an eBPF program.
    """
    number, option = fileno(sock_fd), OPTIONS["SO_ATTACH_FILTER"]
    import _socket

    # The kernel counts in instructions, not in bytes: of both the length given and the one it gives back.
    count = 0
    code = bytearray(CLASSIC_SIZE)
    while True:
        length = bytearray(struct.pack("@I", count))

        def enter(code: bytearray = code, length: bytearray = length) -> int:
            places = pointer(code), pointer(length)
            arguments = number, _socket.SOL_SOCKET, option, *(foreign.c_void_p(place) for place, _ in places)
            return call(foreign.getsockopt, *arguments)

        result = other("getsockopt", "SO_GET_FILTER", option, {"fd": number, "length": count}, enter)
        if result < 0:
            raise kernel_error(-result, "getsockopt SO_GET_FILTER")
        found = int.from_bytes(length, sys.byteorder)
        if found <= count:
            return bytes(code[: found * CLASSIC_SIZE])
        count, code = found, bytearray(found * CLASSIC_SIZE)


def lock_filter(sock_fd: FdLike) -> None:
    """SO_LOCK_FILTER (Linux 3.9): nobody changes the socket's filter any more, whoever they are.

    Raises:
        BPFError: ENOTSOCK.
    """
    _set(sock_fd, "SO_LOCK_FILTER", 1)


def attach_reuseport_classic(sock_fd: FdLike, code: Buffer) -> None:
    """SO_ATTACH_REUSEPORT_CBPF (Linux 4.5): let a classic filter choose, by the index it returns, a port's socket.

    Raises:
        BPFError: EINVAL: the socket does not share a port, or the filter is not valid.
        ValueError: these are no instructions.
    """
    program, alive = classic_program(code)
    _set(sock_fd, "SO_ATTACH_REUSEPORT_CBPF", program)
    del alive
