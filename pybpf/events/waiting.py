"""Waiting for a kernel buffer, and closing while others wait.

Rules of this module:

* A `Waitable` owns an epoll set and an eventfd that wakes it.
* `close()` never pulls memory from under another thread. Whoever is inside is woken, and the last one out lets
  go. No lock is needed for that, so `close()` may be called from a signal handler.
* A child made by fork() shares the memory, not the reader: it may only close it.
"""

from __future__ import annotations

import os
from _thread import get_native_id
from _warnings import warn  # the built-in part of `warnings`, see pybpf.syscall.fd
from select import EPOLLIN, POLLIN, epoll
from select import poll as select_poll

from pybpf.errors import ClosedError
from pybpf.syscall.fd import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self


LONGEST_WAIT = 1e6
"""Seconds: epoll_wait(2) takes milliseconds in 31 bits. Who waits longer waits again."""
SIGNAL_WAIT = 0.5
"""Seconds that the main thread, which alone runs signal handlers, waits at once. A signal that comes just before it
enters epoll_wait(2) does not end the wait, and its handler runs behind it only: Ctrl-C would do nothing until the next
event."""


class Waitable:
    """Something that can be waited for, closed from another thread, and must not be used after fork()."""

    __slots__ = ("__weakref__", "_closing", "_epoll", "_inside", "_pid", "_unreleased", "_wakeup")

    # The two lists are sets of tokens: append and pop are atomic, need no lock and are safe in signal handlers.
    # An append is the first thing inside its `try`, where no signal handler can run before it.

    def __init__(self, watched: Iterable[int], events: int) -> None:
        """`watched` are the descriptors to wait for, `events` what of them: EPOLLIN or EPOLLOUT."""
        self._closing = False
        self._inside: list[None] = []
        self._unreleased: list[None] = []
        self._pid = os.getpid()
        self._wakeup = FD(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        try:
            self._epoll = epoll()
            try:
                self._epoll.register(self._wakeup.fileno(), EPOLLIN)
                for fd in watched:
                    self._epoll.register(fd, events)
            except BaseException:
                self._epoll.close()
                raise
        except BaseException:
            self._wakeup.close()
            raise
        self._unreleased.append(None)

    def _release(self, inherited: bool) -> None:
        """Let go of everything. `inherited`: this is a child process, what the parent shares must stay as it is."""
        raise AssertionError("a subclass gives it")

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closing

    def close(self) -> None:
        """Let go of the buffer. May be called twice, from any thread and from a signal handler.

        Threads and tasks that wait are woken: loops over events end, other calls raise ClosedError. Records still
        in the kernel's buffer stay there; values that were read but not delivered are dropped. When a signal handler
        raises meanwhile, calling it again does what is left to do.
        """
        mine = os.getpid() == self._pid
        if not mine:
            self._inside.clear()  # the parent's threads, which are not in this process
        try:
            self._inside.append(None)
            if not self._closing:  # so nobody has let go, and nobody will while we are inside
                wakeup = self._wakeup.fileno()
                self._closing = True
                if mine:
                    os.eventfd_write(wakeup, 1)
        finally:
            self._inside.pop()
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_unreleased", None):
            return
        if not self._closing and os.getpid() == self._pid:
            warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        self._closing = True
        self._inside.clear()
        self._settle()

    def _check(self) -> None:
        if self._closing:
            raise ClosedError(f"{self!r} is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self!r} belongs to process {self._pid}: a child opens the map itself to read it")

    def _settle(self) -> None:
        """Called by whoever leaves: the last one out lets go."""
        if not self._closing or self._inside:
            return
        try:
            self._unreleased.pop()
        except IndexError:
            return
        except BaseException:  # a signal handler raised: closing again goes on
            self._unreleased.append(None)
            raise
        try:
            try:
                self._release(os.getpid() != self._pid)
            finally:
                self._epoll.close()
                self._wakeup.close()
        except Exception:
            raise
        except BaseException:
            self._unreleased.append(None)
            raise

    def _wait(self, timeout: float | None) -> bool:
        """Wait for readiness, at most `timeout` seconds; false when that time, or the longest at once, is over."""
        longest = SIGNAL_WAIT if get_native_id() == self._pid else LONGEST_WAIT
        ready = bool(self._epoll.poll(longest if timeout is None else min(timeout, longest)))
        if self._closing:
            raise ClosedError(f"{self!r} was closed")
        self._check()  # a signal handler may have forked meanwhile
        return ready

    def _pause(self, seconds: float) -> None:
        """Wait for nothing but `close()`."""
        closing = select_poll()
        closing.register(self._wakeup.fileno(), POLLIN)
        closing.poll(1000 * seconds)
        if self._closing:
            raise ClosedError(f"{self!r} was closed")
