"""An owned file descriptor.

Rules:

* One owner: whoever holds the `FD` closes it, by `close()`, by `with`, or by giving it away with `detach()`.
* It is never 0, 1 or 2: many fields of union bpf_attr take 0 for "none", and standard streams get replaced.
* A forgotten one is closed by the garbage collector, with a `ResourceWarning`.
"""

from __future__ import annotations

import os
from _warnings import warn  # the built-in part of `warnings`: costs nothing, and works while Python shuts down

from pybpf.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol, Self

    class HasFileno(Protocol):
        """Anything with a `fileno()`."""

        def fileno(self) -> int: ...

    FdLike = int | HasFileno


def duplicate(fd: FdLike) -> int:
    """A copy of the descriptor above 2, closed on exec (fcntl(2), F_DUPFD_CLOEXEC)."""
    import fcntl

    return fcntl.fcntl(fileno(fd), fcntl.F_DUPFD_CLOEXEC, 3)


def make_room(count: int) -> None:
    """Let this process's table of descriptors grow now, so that so many more find room in it.

    Once several threads share the table, the kernel waits some 10 ms for an RCU grace period each time that it grows
    (expand_fdtable() in fs/file.c).
    """
    import fcntl

    lowest = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(fcntl.fcntl(lowest, fcntl.F_DUPFD_CLOEXEC, lowest + count))
    except OSError:  # beyond RLIMIT_NOFILE: whoever opens so many will be told
        pass
    finally:
        os.close(lowest)


def fileno(fd: FdLike) -> int:
    """The number behind an int or anything that has a `fileno()`."""
    return fd if isinstance(fd, int) else fd.fileno()


class FD:
    """A file descriptor with one owner.

    Args:
        fd: an open descriptor, taken over from the caller. If it is below 3 it is moved up.

    Raises:
        OSError: it is not open, or the process has no descriptor left to move it to (it is closed then).
        ValueError: it is negative.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = -1
        if fd < 0:
            raise ValueError(f"a descriptor cannot be {fd}")
        if fd < 3:
            low = fd
            try:
                fd = duplicate(low)
            finally:
                os.close(low)
        self._fd = fd

    @classmethod
    def _empty(cls) -> FD:
        """One that is closed, for the door to store a descriptor in."""
        fd = cls.__new__(cls)
        fd._fd = -1
        return fd

    def _over(self, number: int) -> FD:
        """The owner of a descriptor that the door has made: this one if it was stored here, and it may stay."""
        if self._fd != number or number < 3:
            self._fd = -1
            return FD(number)
        return self

    def fileno(self) -> int:
        """The descriptor's number. Raises `ClosedError` after `close()`."""
        if self._fd < 0:
            raise ClosedError("this descriptor is closed")
        return self._fd

    def detach(self) -> int:
        """Give the descriptor away: the caller closes it from now on, and this object is closed."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def dup(self) -> FD:
        """Another descriptor of the same object, above 2 and closed on exec, with its own owner."""
        return FD(duplicate(self.fileno()))

    def close(self) -> None:
        """Close the descriptor. Closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._fd >= 0:
            text = f"unclosed {self!r}"
            self.close()  # first: the warning may be an error
            warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<FD {self._fd}>" if self._fd >= 0 else "<FD closed>"
