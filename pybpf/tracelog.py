"""The trace log: what programs write with bpf_trace_printk(), which `bpf_printk()` in C stands for.

The kernel has one log for all, and whoever reads its `trace_pipe` takes the lines away from everybody else. A
`TraceLog` has an instance of its own in tracefs, which gets a copy of every line.

Source: kernel/trace/bpf_trace.h (trace event bpf_trace:bpf_trace_printk, Linux 5.9); Documentation/trace/ftrace.rst.
"""

from __future__ import annotations

import errno
import os
from select import EPOLLIN
from time import monotonic

from pybpf import tracefs
from pybpf.errors import ClosedError, kernel_error
from pybpf.events.waiting import Waitable
from pybpf.forks import ForkLock
from pybpf.syscall.fd import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT = "events/bpf_trace/bpf_trace_printk/enable"
MARK = ": bpf_trace_printk: "
CHUNK = 1 << 16


class TraceLine:
    """One line.

    Attributes:
        text: what the program wrote.
        task: the name of the task it ran in.
        pid: that task's number (a thread's id); -1 if the kernel wrote none that can be read.
        cpu: the CPU it ran on; -1 likewise.
    """

    __slots__ = ("cpu", "pid", "task", "text")

    def __init__(self, text: str, task: str = "", pid: int = -1, cpu: int = -1) -> None:
        self.text = text
        self.task = task
        self.pid = pid
        self.cpu = cpu

    def __repr__(self) -> str:
        return f"<TraceLine {self.task}-{self.pid} [{self.cpu}] {self.text!r}>"

    def __str__(self) -> str:
        return self.text


def parse(line: str) -> TraceLine | None:
    """A line of `trace_pipe`; None for one that no program wrote.

    ``"            bash-4711    [002] ...21  1234.567890: bpf_trace_printk: Hello"``
    """
    head, mark, text = line.partition(MARK)
    if not mark:
        return None
    task, opening, rest = head.rpartition("[")
    name, _, pid = task.strip().rpartition("-")
    cpu = rest.partition("]")[0]
    if not opening or not pid.isdigit() or not cpu.isdigit():
        return TraceLine(text)
    return TraceLine(text, name.strip(), int(pid), int(cpu))


class TraceLog(Waitable):
    """Lines that programs write from now on. A context manager; iterate over it, or `poll()` it.

    Needs root and tracefs (Linux 5.9). Threads may share it, each line goes to one of them; `close()` wakes those that
    wait. A child made by fork() may only close it.

    Raises:
        BPFNotFoundError: tracefs is not mounted, or the kernel has no such trace event.
        BPFPermissionError: it is closed to this process.
    """

    __slots__ = ("_lock", "_path", "_pipe", "_rest")

    def __init__(self) -> None:
        root = tracefs.root()
        self._path = f"{root}/instances/pybpf_{os.getpid()}_{id(self):x}"
        self._pipe: FD | None = None
        self._rest = b""
        self._lock = ForkLock()
        try:
            os.mkdir(self._path)
            with open(f"{self._path}/{EVENT}", "w") as file:
                file.write("1")
            self._pipe = FD(os.open(f"{self._path}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            super().__init__((self._pipe.fileno(),), EPOLLIN)
        except BaseException as error:
            self._release(False)
            if not isinstance(error, OSError):
                raise
            hint = tracefs.refusal_hint() if error.errno in (errno.EPERM, errno.EACCES) else "It takes Linux 5.9"
            raise kernel_error(error.errno or 0, "open", f"trace log in {root}/instances", hint) from error

    def _release(self, inherited: bool) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if not inherited:
            try:
                os.rmdir(self._path)
            except OSError:
                pass

    def fileno(self) -> int:
        """The descriptor to wait for, with select(2) and the like. Raises ClosedError after `close()`."""
        assert self._pipe is not None
        return self._pipe.fileno()

    def poll(self, timeout: float | None = None) -> list[TraceLine]:
        """The lines that have come.

        Args:
            timeout: how long to wait for the first, in seconds; None for ever, 0 not at all.

        Raises:
            ClosedError: the log is closed, or was closed by another thread meanwhile.
            RuntimeError: it was inherited by fork().
        """
        deadline = None if timeout is None else monotonic() + timeout
        try:
            self._inside.append(None)
            self._check()
            while True:
                lines = self._read()
                remaining = None if deadline is None else deadline - monotonic()
                if lines or (remaining is not None and remaining <= 0):
                    return lines
                self._wait(remaining)
        finally:
            self._inside.pop()
            self._settle()

    def _read(self) -> list[TraceLine]:
        """The lines that are there now."""
        with self._lock:
            try:
                data = self._rest + os.read(self.fileno(), CHUNK)
            except BlockingIOError:
                return []
            whole, _, self._rest = data.rpartition(b"\n")
        lines = map(parse, whole.decode("utf-8", "replace").splitlines())
        return [line for line in lines if line is not None]

    def __iter__(self) -> Iterator[TraceLine]:
        """Every line, until the log is closed."""
        self._check()
        return self._iterate()

    def _iterate(self) -> Iterator[TraceLine]:
        while not self._closing:
            try:
                lines = self.poll()
            except ClosedError:
                return
            yield from lines

    def __repr__(self) -> str:
        return f"<TraceLog {self._path}{' (closed)' if self._closing else ''}>"
