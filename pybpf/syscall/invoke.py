"""What every bpf(2) command function does: make the call and raise what the kernel refused."""

from __future__ import annotations

import os

from pybpf import constants
from pybpf.errors import kernel_error
from pybpf.syscall import door
from pybpf.syscall.fd import FD, fileno
from pybpf.syscall.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

NUMBERS: dict[str, int] = {name: number for number, name in enumerate(constants.COMMAND_NAMES) if name}
"""Command name -> number."""


def invoke(record: Record, what: str = "", into: FD | None = None) -> int:
    """Call bpf(2) with the command that the record is for.

    Args:
        record: the attr.
        what: what is being done, for the error message.
        into: what will own the descriptor that the command makes.

    Raises:
        BPFError: the kernel refused.
    """
    result = attempt(record, into=into)
    if result < 0:
        raise kernel_error(-result, record.title, what)
    return result


def attempt(record: Record, again: int = 0, attempts: int = 1, into: FD | None = None) -> int:
    """Make the call without raising: the result, or the negated errno. The buffers are let go of afterwards.

    Args:
        record: the attr.
        again: an errno that means to try again, from the same start.
        attempts: how often to try in total; 0 is without end.
        into: what will own the descriptor that the command makes.
    """
    number = NUMBERS[record.title]
    try:
        if not again:
            return door.bpf(number, record.data, record.buffers, into)
        fresh = bytes(record.data)
        while True:
            result = door.bpf(number, record.data, record.buffers, into)
            attempts -= 1
            if result != -again or not attempts:
                return result
            record.data[:] = fresh
    finally:
        record.release()


def number(fd: FdLike | None) -> int:
    """The descriptor's number; 0, which the kernel takes for "none", when there is none."""
    return 0 if fd is None else fileno(fd)


def path_bytes(path: Path) -> bytes:
    """The path as the kernel wants it, with its NUL.

    Raises:
        ValueError: there is a NUL inside.
    """
    data = os.fsencode(path)
    if b"\0" in data:
        raise ValueError(f"the path {path!r} has a NUL in it")
    return data + b"\0"


def descriptor(record: Record, what: str = "") -> FD:
    """The descriptor that the command makes."""
    fd = FD._empty()
    return fd._over(invoke(record, what, fd))
