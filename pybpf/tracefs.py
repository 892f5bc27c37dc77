"""The tracing file system: where it is, the ids of its events, and probe events of our own.

Nothing is mounted here. The root is looked up at each use, because a mount is no fact for ever.
Reference: Documentation/trace/ftrace.rst, kprobetrace.rst and uprobetracer.rst of the kernel.
"""

from __future__ import annotations

import errno
import os

from pybpf.errors import BPFNotFoundError, kernel_error
from pybpf.syscall.door import other

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ROOTS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
"""Where tracefs is found: its own mount point (Linux 4.1), and the one inside debugfs."""

MOUNT_HINT = "Mount it: mount -t tracefs tracefs /sys/kernel/tracing"
ROOT_HINT = "tracefs can be read by root only; run as root, or mount it with a gid that this process has"
LOCKDOWN_HINT = "Even root may not: the kernel is locked down, see kernel_lockdown(7)"
EVENT_NAME_LENGTH = 63
"""A trace event's name is at most this long (MAX_EVENT_NAME_LEN is 64 with the final NUL)."""


def refusal_hint() -> str:
    """What to tell when a file of tracefs cannot be opened."""
    return ROOT_HINT if os.geteuid() else LOCKDOWN_HINT


def root() -> str:
    """The directory where tracefs is mounted.

    Raises:
        BPFNotFoundError: it is not mounted; the hint says how to mount it.
        BPFPermissionError: it is there and closed to this process.
    """
    for path in ROOTS:
        if os.path.exists(f"{path}/events"):
            return path
    for path in _mounts():
        return path
    if not os.access(ROOTS[0], os.X_OK) and os.path.exists(ROOTS[0]):
        raise kernel_error(errno.EACCES, "open", ROOTS[0], refusal_hint())
    raise BPFNotFoundError(errno.ENOENT, "open", "tracefs is not mounted", MOUNT_HINT)


def _mounts() -> Iterator[str]:
    """Other places where tracefs is mounted and readable."""
    from pybpf.probe.system import mounts

    for place, _ in mounts("tracefs"):
        if os.path.exists(f"{place}/events"):
            yield place


def event_id(category: str, name: str) -> int:
    """The id of a trace event, which is the `config` of a perf event of type tracepoint.

    Raises:
        BPFNotFoundError: there is no such event, or tracefs is not mounted.
        BPFPermissionError: tracefs is closed to this process.
        ValueError: a name is empty or holds a slash.
    """
    for part in (category, name):
        if not part or "/" in part or "\0" in part or part in (".", ".."):
            raise ValueError(f"not the name of a tracepoint: {category!r}/{name!r}")
    path = f"{root()}/events/{category}/{name}/id"
    try:
        return _read_number(path)
    except FileNotFoundError:
        raise BPFNotFoundError(errno.ENOENT, "open", f"tracepoint '{category}/{name}' does not exist") from None
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path, refusal_hint()) from error


def _read_number(path: str) -> int:
    with open(path, "rb") as file:
        return int(file.read())


class ProbeEvent:
    """A kprobe or uprobe event made through tracefs, for kernels whose perf has no PMU of that kind (before 4.17).

    It lives until `remove()`, which must follow the closing of every perf event that uses it.

    Attributes:
        id: the `config` of the perf event.
        name: its name within its group.
    """

    __slots__ = ("_file", "group", "id", "name")

    def __init__(self, kind: str, place: str, *, offset: int, is_return: bool, maxactive: int = 0) -> None:
        """Makes the event.

        Args:
            kind: "kprobe" or "uprobe".
            place: the function's name, or the path of the binary.
            offset: bytes from the function's start, or from the start of the file.
            is_return: probe the return of the function.
            maxactive: of a kernel function: so many calls may be under way; 0 for the kernel's choice (Linux 4.12).

        Raises:
            ValueError: the place holds blanks, which the file's grammar cannot say.
            BPFError: the kernel refused the event.
        """
        if len(place.split()) != 1:
            raise ValueError(f"tracefs cannot name a place with blanks: {place!r}")
        directory = root()
        self._file = f"{directory}/{kind}_events"
        self.group = f"{kind}s" if not is_return else f"{kind.replace('probe', 'retprobe')}s"
        self.name = _event_name(place.rpartition("/")[2], offset)
        where = f"{place}+{offset:#x}" if kind == "kprobe" else f"{place}:{offset:#x}"
        if kind == "kprobe" and is_return and not offset:
            where = place
        self._write(f"{'r' if is_return else 'p'}{maxactive or ''}:{self.group}/{self.name} {where}")
        try:
            self.id = _read_number(f"{directory}/events/{self.group}/{self.name}/id")
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Takes the event away. The kernel refuses it (EBUSY) while a perf event uses it."""
        self._write(f"-:{self.group}/{self.name}")

    def _write(self, line: str) -> None:
        def enter() -> int:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                return os.write(descriptor, os.fsencode(line) + b"\n")
            finally:
                os.close(descriptor)

        result = other("write", "", 0, {"file": self._file, "line": line}, enter)
        if result < 0:
            raise kernel_error(-result, "write", f"{line!r} to {self._file}")


def _event_name(place: str, offset: int) -> str:
    """A name that no other event has: the process, a random number, and what is probed."""
    text = f"pybpf_{os.getpid()}_{os.urandom(4).hex()}_{place}_{offset:#x}"
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in text)[:EVENT_NAME_LENGTH]


def traceable_functions() -> Iterator[tuple[str, str]]:
    """Name and module (empty for the kernel itself) of each function that ftrace can trace.

    Raises:
        BPFNotFoundError: the kernel has no function tracer (CONFIG_FUNCTION_TRACER), or tracefs is not mounted.
        BPFPermissionError: tracefs is closed to this process.
    """
    path = f"{root()}/available_filter_functions"
    try:
        with open(path) as file:
            for line in file:
                name, _, module = line.rstrip().partition(" ")
                yield name, module.strip("[]")
    except OSError as error:
        hint = "The kernel needs CONFIG_FUNCTION_TRACER" if error.errno == errno.ENOENT else refusal_hint()
        raise kernel_error(error.errno or 0, "open", path, hint) from error
