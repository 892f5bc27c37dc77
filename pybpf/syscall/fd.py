"""An owned file descriptor.

Rules:

* One owner: whoever holds the `FD` closes it, by `close()`, by `with`, or by giving it away with `detach()`.
* It is never 0, 1 or 2: many fields of union bpf_attr take 0 for "none", and standard streams get replaced.
* A forgotten one is closed by the garbage collector, with a `ResourceWarning`.
* Closing in one thread while another is in a call: whoever makes calls on somebody else's descriptor takes a `Lease`.
  `close()` ends the descriptor at once for everybody who asks for it; the number itself is given back to the kernel
  when the last lease ends, so that no call ever reaches a later file of the same number. In a forked child only the
  leases of the thread that forked are left.
* An interrupt (an exception that a signal handler raises) loses no number: one that `close()` could not close is closed
  by the next `close()` or by the garbage collector, which also ends the leases that nobody can end any more.
"""

from __future__ import annotations

import os
from _thread import get_ident
from _warnings import warn  # the built-in part of `warnings`: costs nothing, and works while Python shuts down
from _weakref import ref

from pybpf.errors import ClosedError
from pybpf.forks import tell_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
    """The number behind an int or anything that has a `fileno()`. Raises TypeError."""
    if isinstance(fd, int):
        return fd
    try:
        method = fd.fileno
    except AttributeError:
        raise TypeError(f"a descriptor or an object with fileno() is wanted, not {fd!r}") from None
    return method()


def lend(fd: FdLike) -> Lease:
    """A lease of the number behind a descriptor, for a ``with``. Raises ClosedError.

    Only an `FD` can wait for the end of a lease; of anything else this is just the number.
    """
    return fd.lend() if isinstance(fd, FD) else Lease(None, fileno(fd))


class Lease:
    """The right to use a descriptor's number for a while, however it is closed meanwhile.

    Attributes:
        number: the descriptor.
    """

    __slots__ = ("__weakref__", "_owner", "number")

    def __init__(self, owner: FD | None, number: int) -> None:
        self._owner = owner
        self.number = number

    def __enter__(self) -> int:
        return self.number

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Give it back. Doing it twice does nothing, and one that is forgotten is given back when it is collected."""
        if self._owner is not None:
            self._owner._returned(ref(self))


class FD:
    """A file descriptor with one owner.

    Args:
        fd: an open descriptor, taken over from the caller. If it is below 3 it is moved up.

    Raises:
        OSError: it is not open, or the process has no descriptor left to move it to (it is closed then).
        ValueError: it is negative.
    """

    # No __slots__: `dict.pop` is atomic, also in free-threaded Python, and of two threads that close only one may.
    _fd = -1
    _leases: dict[ref[Lease], int]
    """Each, and the thread that has it; there are mostly none, and then no dict."""
    _late: int
    """The number of one that is closed, until the kernel has it back."""

    def __init__(self, fd: int) -> None:
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
        return cls.__new__(cls)

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
        number: int = self.__dict__.pop("_fd", -1)
        if number < 0:
            raise ClosedError("this descriptor is closed")
        return number

    def dup(self) -> FD:
        """Another descriptor of the same object, above 2 and closed on exec, with its own owner."""
        return FD(duplicate(self.fileno()))

    def lend(self) -> Lease:
        """A lease: until it ends the number stays this file's, even if this is closed. Raises ClosedError."""
        leases: dict[ref[Lease], int] | None = self.__dict__.get("_leases")
        if leases is None:
            tell_children(self)
            leases = self.__dict__.setdefault("_leases", {})
        lease = Lease(self, -1)
        leases[ref(lease, self._returned)] = get_ident()  # first: whoever closes sees it, or we see that it is closed
        lease.number = self._fd
        if lease.number < 0:
            lease.end()
            raise ClosedError("this descriptor is closed")
        return lease

    def _returned(self, lease: ref[Lease]) -> None:
        """It has been ended, or collected. (In Python a `__del__` would run after each, and swallow interrupts.)"""
        self._leases.pop(lease, None)
        if self._fd < 0:
            self._close_late()

    def _close_late(self) -> None:
        """Close what was closed while it was lent, if it is not lent any more."""
        if "_late" in self.__dict__ and not self.__dict__.get("_leases"):
            self._hand_over("_late", os.close)

    def forked(self) -> None:
        """This is a child: what other threads had is not given back here."""
        mine = get_ident()
        for lease, thread in list(self._leases.items()):
            if thread != mine:
                del self._leases[lease]
        self._close_late()

    def close(self) -> None:
        """Close the descriptor, if it is lent when the last lease ends. Closing twice does nothing."""
        if self._fd >= 0:
            self._hand_over("_fd", self.__dict__.setdefault, "_late")
        self._close_late()

    def _hand_over(self, name: str, to: Callable[..., object], *arguments: object) -> None:
        """Take an attribute away and give it to a function, as its last argument; nothing if there is none.

        All of it is one call of C: of several threads one does it, and no interrupt comes in between.
        """
        try:
            next(map(to, *[(argument,) for argument in arguments], map(self.__dict__.pop, (name,))))
        except KeyError:
            pass

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
        text = f"unclosed {self!r}" if self._fd >= 0 else ""
        if text or "_late" in self.__dict__:
            self.__dict__.get("_leases", {}).clear()  # nobody has one: it would hold this
            self.close()  # first: the warning may be an error
        if text:
            warn(text, ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        return f"<FD {self._fd}>" if self._fd >= 0 else "<FD closed>"
