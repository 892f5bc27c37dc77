"""System calls that a filter hands to user space: received, looked at, answered.

    with policy.install(listener=True) as listener:      # or pybpf.seccomp.spawn(policy, [...]).listener
        for call in listener:
            if call.name == "mkdir":
                call.fail("EROFS")
            else:
                call.proceed()

Rules of this module:

* Every call waits until it is answered, once. When the listener is closed, those that wait fail with ENOSYS.
* What an argument points to lies in the memory of another process: by the time it is read, and again by the time that
  the kernel goes on, another thread may have changed it. `proceed()` is no decision about security
  (seccomp_unotify(2)).
* `fileno()` is for select(2): it is readable when a call waits.
* Threads may share a listener: each call goes to one of them, and `close()` wakes those that wait.
"""

from __future__ import annotations

import os
from select import EPOLLHUP, EPOLLIN
from time import monotonic

from pybpf import syscall
from pybpf.errors import BPFNotFoundError, ClosedError
from pybpf.events.waiting import Waitable
from pybpf.forks import ForkLock
from pybpf.seccomp import numbers as n
from pybpf.seccomp.architectures import Architecture, audit_name
from pybpf.seccomp.rules import errno as errno_action
from pybpf.syscall import seccomp as door
from pybpf.syscall.fd import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.seccomp.process import Child


class Notification:
    """A call that waits.

    Attributes:
        id: the kernel's number of it.
        pid: the thread that made it, 0 if it is in a process-id namespace that this process does not see.
        number, architecture, instruction_pointer, arguments: as in struct seccomp_data.
        answered: whether an answer has been given.
    """

    def __init__(self, listener: Listener, record: bytes) -> None:
        self._listener = listener
        self.id, self.pid, _, self.number, audit, self.instruction_pointer, *arguments = door.NOTIFICATION.unpack(
            record
        )
        self.arguments: tuple[int, ...] = tuple(arguments)
        self.architecture = audit_name(audit, self.number)
        self.answered = False

    @property
    def name(self) -> str:
        """The name of the system call."""
        return Architecture(self.architecture).call_name(self.number)

    def respond(self, value: int = 0) -> None:
        """Let the call return a value; it is not made.

        Raises:
            BPFNotFoundError: it waits no longer.
            BPFError: EINPROGRESS: it has been answered.
        """
        self._answer(value=value)

    def fail(self, number: int | str) -> None:
        """Let the call fail with an errno, by number or name; it is not made. Raises as `respond`; ValueError."""
        self._answer(error=errno_action(number).data)

    def proceed(self) -> None:
        """Let the kernel make the call (SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5). Raises as `respond`."""
        self._answer(flags=n.SECCOMP_USER_NOTIF_FLAG_CONTINUE)

    def _answer(self, value: int = 0, error: int = 0, flags: int = 0) -> None:
        door.seccomp_respond(self._listener.fd, self.id, value, error, flags)
        self.answered = True

    def add_descriptor(
        self, source: syscall.FdLike, *, number: int | None = None, cloexec: bool = False, respond: bool = False
    ) -> int:
        """Give the process a copy of a descriptor; its number there (Linux 5.9).

        Args:
            source: a descriptor of this process.
            number: which one it shall become; any when it is left out.
            cloexec: whether it closes when the process executes a program.
            respond: the number is the answer to the call, too (Linux 5.14).

        Raises:
            BPFNotFoundError: the call waits no longer.
            BPFError: EMFILE.
        """
        flags = (n.SECCOMP_ADDFD_FLAG_SETFD if number is not None else 0) | (
            n.SECCOMP_ADDFD_FLAG_SEND if respond else 0
        )
        result = door.seccomp_add_descriptor(
            self._listener.fd,
            self.id,
            source,
            flags=flags,
            number=number or 0,
            number_flags=os.O_CLOEXEC if cloexec else 0,
        )
        self.answered = self.answered or respond
        return result

    def is_valid(self) -> bool:
        """Whether the call still waits: what was read of the process belongs to it only if so."""
        return door.seccomp_is_valid(self._listener.fd, self.id)

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes of the process's memory, for example of a path; may be fewer at the end of what is mapped.

        Raises:
            OSError: they cannot be read.
            BPFNotFoundError: the call waits no longer, so that they may be another process's.
        """
        from errno import EIO, ENOENT

        if address >> 63:  # no place of a file; the process may give any number as a pointer
            raise OSError(EIO, os.strerror(EIO))
        with open(f"/proc/{self.pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            data = memory.read(size)
        if not self.is_valid():
            raise BPFNotFoundError(ENOENT, "SECCOMP_IOCTL_NOTIF_ID_VALID", f"process {self.pid}")
        return data

    def read_string(self, address: int, limit: int = 4096) -> str:
        """Text that ends with NUL, for example a path. Raises as `read_memory`."""
        data = b""
        while b"\0" not in data and len(data) < limit:
            room = 4096 - (address + len(data)) % 4096  # not into a page that may not be there
            piece = self.read_memory(address + len(data), min(room, limit - len(data)))
            if not piece:
                break
            data += piece
        return os.fsdecode(data.partition(b"\0")[0])

    def __repr__(self) -> str:
        return f"<Notification {self.name}({', '.join(map(hex, self.arguments))}) of {self.pid}>"


class _Wait(Waitable):
    """One wait for calls. It sees the end of the child too.

    It is made by who waits, not with the listener: then the thread may be under the filter already, which need not
    allow the calls that this takes.
    """

    __slots__ = ("_child", "_lease", "_process")

    def __init__(self, listener: FD, child: Child | None) -> None:
        self._child = child
        self._process: FD | None = None
        self._lease = listener.lend()
        try:
            watched = [self._lease.number]
            if child is not None and child.poll() is None:
                try:
                    self._process = FD(os.pidfd_open(child.pid))
                    watched.append(self._process.fileno())
                except ProcessLookupError:  # another thread has waited for it meanwhile
                    pass
            super().__init__(watched, EPOLLIN)
        except BaseException:
            self._release(False)
            raise

    def _release(self, inherited: bool) -> None:
        self._lease.end()
        if self._process:
            self._process.close()

    def events(self, timeout: float | None) -> int:
        """What is ready of the listener; 0 when time, or the longest at once, is over. Raises ClosedError."""
        try:
            self._inside.append(None)
            self._check()
            ready = dict(self._epoll.poll(0)) if self._wait(timeout) else {}
            if self._process and self._process.fileno() in ready:
                self._epoll.unregister(self._process.fileno())
                assert self._child is not None
                self._child.poll()
            return ready.get(self._lease.number, 0)
        finally:
            self._inside.pop()
            self._settle()

    def __repr__(self) -> str:
        return f"<Listener {self._lease.number}>"


class Listener:
    """Where the calls arrive. It owns the descriptor; close it, or use it in a ``with`` block.

    Attributes:
        fd: the descriptor.
    """

    def __init__(self, fd: FD, child: Child | None = None) -> None:
        """Own a descriptor.

        Args:
            fd: of the listener.
            child: who is under the filter, if that is a child of this process. Before Linux 6.11 a child that has ended
                keeps its filter until it is waited for (commit bfafe5efa975), so `receive()` has to do that.
        """
        self.fd = fd
        self._child = child
        self._waits: set[_Wait] = set()
        self._taking = ForkLock()

    def fileno(self) -> int:
        """The descriptor's number. Raises `ClosedError` after `close()`."""
        return self.fd.fileno()

    @property
    def closed(self) -> bool:
        return self.fd.closed

    def receive(self, timeout: float | None = None) -> Notification | None:
        """The next call; None after `timeout` seconds without one, or when nobody is left under the filter.

        Raises:
            ClosedError: the listener is closed, or was closed by another thread meanwhile.
        """
        end = None if timeout is None else monotonic() + timeout
        with _Wait(self.fd, self._child) as wait:
            try:
                self._waits.add(wait)  # first: whoever closes sees it, or we see that it is closed
                self.fileno()
                while True:
                    left = None if end is None else max(0.0, end - monotonic())
                    events = wait.events(left)
                    if events & EPOLLIN:
                        call = self._take(wait)
                        if call is not None:
                            return call
                    elif events & EPOLLHUP or left == 0:
                        return None
            finally:
                self._waits.discard(wait)

    def _take(self, wait: _Wait) -> Notification | None:
        """A call that has arrived, unless another thread has taken it. The kernel would wait for the next then."""
        with self._taking:
            if not wait.events(0) & EPOLLIN:
                return None
            try:
                return Notification(self, door.seccomp_receive(self.fd))
            except BPFNotFoundError:  # whoever made the call has ended meanwhile
                return None

    def __iter__(self) -> Iterator[Notification]:
        """Every call, until nobody is left under the filter or the listener is closed."""
        self.fileno()
        return self._iterate()

    def _iterate(self) -> Iterator[Notification]:
        while not self.closed:
            try:
                call = self.receive()
            except ClosedError:
                return
            if call is None:
                return
            yield call

    def close(self) -> None:
        """Calls that wait, and later ones, fail with ENOSYS. May be called twice, and while others `receive()`."""
        self.fd.close()
        for wait in list(self._waits):
            wait.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener {'closed' if self.closed else self.fileno()}>"
