"""The trace log: what programs write with bpf_trace_printk(), which `bpf_printk()` in C stands for.

The kernel has one log for all, and whoever reads its `trace_pipe` takes the lines away from everybody else. A
`TraceLog` has an instance of its own in tracefs, which gets a copy of every line.

Source: kernel/trace/bpf_trace.h (trace event bpf_trace:bpf_trace_printk, Linux 5.9); Documentation/trace/ftrace.rst.
"""

from __future__ import annotations

import errno
import os

from pybpf import tracefs
from pybpf.errors import ClosedError, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

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


class TraceLog:
    """Lines that programs write from now on. A context manager; iterate over it, or `poll()` it.

    Needs root and tracefs (Linux 5.9).

    Raises:
        BPFNotFoundError: tracefs is not mounted, or the kernel has no such trace event.
        BPFPermissionError: it is closed to this process.
    """

    def __init__(self) -> None:
        root = tracefs.root()
        self._path = f"{root}/instances/pybpf_{os.getpid()}_{id(self):x}"
        self._fd = -1
        self._rest = b""
        self._pid = os.getpid()
        try:
            os.mkdir(self._path)
            with open(f"{self._path}/{EVENT}", "w") as file:
                file.write("1")
            self._fd = os.open(f"{self._path}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self.close()
            hint = tracefs.refusal_hint() if error.errno in (errno.EPERM, errno.EACCES) else "It takes Linux 5.9"
            raise kernel_error(error.errno or 0, "open", f"trace log in {root}/instances", hint) from error

    def fileno(self) -> int:
        """The descriptor to wait for, with select(2) and the like."""
        if self._fd < 0:
            raise ClosedError("this trace log is closed")
        return self._fd

    def poll(self, timeout: float | None = None) -> list[TraceLine]:
        """The lines that have come.

        Args:
            timeout: how long to wait for the first, in seconds; None for ever, 0 not at all.
        """
        import select

        fd = self.fileno()
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        if not waiting.poll(None if timeout is None else max(0, timeout) * 1000):
            return []
        try:
            data = self._rest + os.read(fd, CHUNK)
        except BlockingIOError:
            return []
        whole, _, self._rest = data.rpartition(b"\n")
        lines = map(parse, whole.decode("utf-8", "replace").splitlines())
        return [line for line in lines if line is not None]

    def __iter__(self) -> Iterator[TraceLine]:
        """Every line, for ever."""
        from pybpf.events.waiting import SIGNAL_WAIT

        while True:
            yield from self.poll(SIGNAL_WAIT)

    def close(self) -> None:
        """Stop listening, and remove the instance. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._pid == os.getpid():  # a forked child leaves the parent's instance alone
            try:
                os.rmdir(self._path)
            except OSError:
                pass

    def __enter__(self) -> TraceLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            from _warnings import warn

            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"<TraceLog {self._path}{' (closed)' if self._fd < 0 else ''}>"
