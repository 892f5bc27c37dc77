"""Filters put into force: for this thread or process, or for a program that is started.

Rules of this module:

* A filter cannot be taken back. It holds for everything that the thread starts from then on.
* Without CAP_SYS_ADMIN the kernel wants no_new_privs (prctl(2)), which cannot be taken back either; so it is set unless
  the caller says otherwise.
* A filter that the kernel would refuse is refused before, with the reason.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import allocate_lock
from mmap import mmap
from signal import SIGKILL

from pybpf.errors import ObjectError, kernel_error
from pybpf.seccomp import numbers as n
from pybpf.seccomp.notify import Listener
from pybpf.seccomp.rules import Policy
from pybpf.syscall.fd import FD
from pybpf.syscall.seccomp import seccomp_set_filter, set_no_new_privs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from pybpf.asm.classic import Filter

NOT_STARTED = 127
"""Exit code of a child whose program could not be executed or whose filter was refused."""
PATIENCE = 300_000_000
"""How often a child looks whether its listener was taken: some ten seconds, where it takes milliseconds."""


def install(
    program: Filter,
    *,
    all_threads: bool = False,
    log: bool = False,
    speculation: bool = False,
    listener: bool = False,
    killable: bool = False,
    no_new_privs: bool = True,
    byte_order: str = sys.byteorder,
) -> Listener | None:
    """Put this thread, and all it will start, under a filter, for ever.

    Args:
        program: the filter.
        all_threads: the other threads of this process too (SECCOMP_FILTER_FLAG_TSYNC, Linux 3.17).
        log: log what the filter does, but for calls that it allows (SECCOMP_FILTER_FLAG_LOG, Linux 4.14).
        speculation: leave the mitigations of speculative store bypass off (SECCOMP_FILTER_FLAG_SPEC_ALLOW, Linux 4.17).
        listener: give a `Listener`, through which calls with the action notify are answered (Linux 5.0).
        killable: calls that wait for an answer end by nothing but SIGKILL once they are received (Linux 5.19).
        no_new_privs: set that first. Without it CAP_SYS_ADMIN is needed.
        byte_order: what the filter was made for.

    Raises:
        ObjectError: the filter is not valid, or for another byte order.
        BPFPermissionError: neither no_new_privs is set nor does this process have CAP_SYS_ADMIN.
        BPFError: ESRCH: a thread has filters that this one has not; EBUSY: there is a listener already; EINVAL: this
            kernel does not know a flag.
    """
    from pybpf.asm.classic import check_seccomp

    check_seccomp(program.instructions)
    if byte_order != sys.byteorder:
        raise ObjectError(f"the filter is for {byte_order}-endian machines, which this is not")
    flags = 0
    for wanted, flag in (
        (all_threads, n.SECCOMP_FILTER_FLAG_TSYNC),
        (log, n.SECCOMP_FILTER_FLAG_LOG),
        (speculation, n.SECCOMP_FILTER_FLAG_SPEC_ALLOW),
        (listener, n.SECCOMP_FILTER_FLAG_NEW_LISTENER),
        (listener and all_threads, n.SECCOMP_FILTER_FLAG_TSYNC_ESRCH),  # the result is the descriptor
        (listener and killable, n.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
    ):
        flags |= flag if wanted else 0
    if no_new_privs:
        set_no_new_privs()
    fd = seccomp_set_filter(program.to_bytes(), flags)
    return None if fd is None else Listener(fd)


class Child:
    """A program that runs under a filter. `wait()` for it, or use it in a ``with`` block, which waits.

    Attributes:
        pid: of the process.
        listener: for calls with the action notify, or None.
        status: its exit code, negative for a signal, as `subprocess` has it; None while it runs.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.listener: Listener | None = None
        self.status: int | None = None
        self._waits = allocate_lock()

    def poll(self) -> int | None:
        """The exit code if it has ended, else None."""
        if self._waits.acquire(blocking=False):  # else another thread is in `wait()`, and will have the exit code
            try:
                self._wait(os.WNOHANG)
            finally:
                self._waits.release()
        return self.status

    def wait(self) -> int:
        """Wait until it ends; its exit code, or the negated number of the signal that ended it."""
        with self._waits:
            self._wait(0)
        assert self.status is not None
        return self.status

    def _wait(self, options: int) -> None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Close the listener, whose calls then fail with ENOSYS, and wait. May be called twice."""
        if self.listener is not None:
            self.listener.close()
        self.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Child {self.pid} {'runs' if self.status is None else f'ended with {self.status}'}>"


def spawn(
    policy: Policy | Filter,
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    log: bool = False,
) -> Child:
    """Start a program under a policy.

    Args:
        policy: rules, or a filter. With a rule whose action is notify the child has a `listener`, which somebody has to
            serve: the program's own start may be among the calls that wait.
        arguments: the program, looked for in PATH, and what it is told.
        environment: its variables; this process's when they are left out.
        log: log what the filter does.

    Raises:
        ObjectError: the filter is not valid.
        BPFError: the kernel refused the filter, or the program could not be executed.
        BPFPermissionError: with notify: this process may not trace its children (kernel.yama.ptrace_scope).
        ValueError: there is no program to start.
    """
    from pybpf.asm.classic import check_seccomp
    from pybpf.asm.classic.instruction import RETURN

    if not arguments:
        raise ValueError("arguments: the first of them is the program; there is none")
    program = policy.compile() if isinstance(policy, Policy) else policy
    check_seccomp(program.instructions)
    notifies = any(one.code == RETURN and one.k == n.SECCOMP_RET_USER_NOTIF for one in program)
    taken = mmap(-1, 1)  # shared with the child
    inherited = _listeners(os.getpid()) if notifies else []
    reading, writing = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            _become(
                program,
                arguments,
                dict(os.environ if environment is None else environment),
                writing,
                taken if notifies else None,
                log,
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    child = Child(pid)
    try:
        with open(reading, "rb", buffering=0) as pipe:
            if notifies:
                child.listener = _find_listener(child, inherited)
                taken[0] = 1
            problem = b"" if notifies and child.listener else pipe.read(64)
    except BaseException:
        os.kill(pid, SIGKILL)  # it may wait for its listener to be taken
        child.close()
        raise
    finally:
        taken.close()
    if problem:
        child.close()
        number, _, what = problem.decode().partition(" ")
        raise kernel_error(int(number), what, f"child {arguments[0]!r}")
    return child


def _become(
    program: Filter, arguments: Sequence[str], environment: dict[str, str], report: int, taken: mmap | None, log: bool
) -> NoReturn:
    """In the child: install the filter and execute the program. What fails is reported through a pipe.

    A listener is closed when the program is executed, so the parent has to take it before. Until it says so the child
    makes no system call to wait, as any of them may be one that the filter denies. It counts, so that it ends when the
    parent has died.
    """
    what = "seccomp"
    try:
        _listener = install(program, listener=taken is not None, log=log)
        if taken is not None:
            for _ in range(PATIENCE):
                if taken[0]:
                    break
            else:
                os._exit(NOT_STARTED)
        what = "execve"
        os.execvpe(arguments[0], list(arguments), environment)
    except (OSError, ValueError) as error:  # ValueError: text with a NUL in it
        os.write(report, f"{getattr(error, 'errno', 0) or errno.EINVAL} {what}".encode())
    finally:
        os._exit(NOT_STARTED)


def _find_listener(child: Child, inherited: Sequence[int]) -> Listener | None:
    """Take the listener out of the child, which need not help (every call of its own may be one that waits).

    None when the child has ended before it had one. Those that it inherited from this process are others.

    Raises:
        BPFPermissionError: this process may not trace its child (kernel.yama.ptrace_scope is 2 or 3, see ptrace(2)).
    """
    import time

    while child.poll() is None:
        try:
            for number in _listeners(child.pid):
                if number not in inherited:
                    return Listener(_take(child.pid, number), child)
        except FileNotFoundError:  # it has ended, or closed a descriptor meanwhile
            pass
        except PermissionError:
            if child.poll() is None:  # what has ended may not be looked at any more
                raise
        time.sleep(0.001)
    return None


def _listeners(pid: int) -> list[int]:
    """The numbers of a process's descriptors that are listeners. Raises FileNotFoundError, PermissionError."""
    folder = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{name}") == "anon_inode:seccomp notify":
                found.append(int(name))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _take(pid: int, number: int) -> FD:
    """A copy of another process's descriptor (pidfd_getfd(2), Linux 5.6)."""
    from pybpf.seccomp.architectures import Architecture, native
    from pybpf.syscall.seccomp import take_descriptor

    return take_descriptor(Architecture(native()).numbers["pidfd_getfd"], pid, number)
