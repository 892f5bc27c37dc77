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
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pybpf import syscall
from pybpf.errors import BPFNotFoundError
from pybpf.seccomp import numbers as n
from pybpf.seccomp.architectures import Architecture, audit_name
from pybpf.seccomp.rules import errno as errno_action
from pybpf.syscall import seccomp as door

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
        door.seccomp_respond(self._listener, self.id, value, error, flags)
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
            self._listener,
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
        return door.seccomp_is_valid(self._listener, self.id)

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


class Listener:
    """Where the calls arrive. It owns the descriptor; close it, or use it in a ``with`` block."""

    def __init__(self, fd: syscall.FD, child: Child | None = None) -> None:
        """Own a descriptor.

        Args:
            fd: of the listener.
            child: who is under the filter, if that is a child of this process. Before Linux 6.11 a child that has ended
                keeps its filter until it is waited for (commit bfafe5efa975), so `receive()` has to do that.
        """
        self._fd = fd
        self._child = child

    def fileno(self) -> int:
        """The descriptor's number. Raises `ClosedError` after `close()`."""
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        return self._fd.closed

    def receive(self, timeout: float | None = None) -> Notification | None:
        """The next call; None after `timeout` seconds without one, or when nobody is left under the filter.

        Raises:
            ClosedError: the listener is closed.
        """
        from select import POLLHUP, POLLIN, poll
        from time import monotonic

        listener = self.fileno()
        waiting = poll()
        waiting.register(listener, POLLIN)
        end = None if timeout is None else monotonic() + timeout
        with ExitStack() as stack:
            process = -1
            if self._child is not None and self._child.poll() is None:
                process = os.pidfd_open(self._child.pid)
                stack.callback(os.close, process)
                waiting.register(process, POLLIN)
            while True:
                left = None if end is None else max(0.0, end - monotonic()) * 1000
                ready = dict(waiting.poll(left))
                if ready.get(listener, 0) & POLLIN:
                    try:
                        return Notification(self, door.seccomp_receive(self))
                    except BPFNotFoundError:  # whoever made the call has ended meanwhile
                        continue
                if not ready or ready.get(listener, 0) & POLLHUP:
                    return None
                if process in ready:
                    waiting.unregister(process)
                    assert self._child is not None
                    self._child.poll()

    def __iter__(self) -> Iterator[Notification]:
        while (call := self.receive()) is not None:
            yield call

    def close(self) -> None:
        """Calls that wait, and later ones, fail with ENOSYS. May be called twice."""
        self._fd.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener {'closed' if self.closed else self.fileno()}>"
