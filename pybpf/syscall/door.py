"""The door itself: the one place where Python calls the kernel through ctypes.

Rules:

* Results are the kernel's own: a number of 0 or more, or the negated errno. Nothing here raises for a refusal.
* The functions have no argument types on purpose: with them every call takes 450-550 ns longer. What is handed over
  is a small int or a `byref`, never an address as a bare int, which ctypes would cut to 32 bits.
* `syscall` lets other threads run during the call. `syscall_holding` keeps the GIL: it is for calls that take about
  a microsecond, where handing the GIL over and back costs more than the call.
* ctypes keeps its own errno per thread, and a system call that succeeds leaves it alone. A signal handler may run
  between a call and the reading of its errno; so whoever fails puts back the errno that it found.
* A signal handler that raises must not lose a descriptor that the kernel has just made. So calls that make one are
  given the `FD` that will own it, and the number is stored there before Python runs anything else.
"""

from __future__ import annotations

import errno

from pybpf.constants import COMMAND_NAMES
from pybpf.syscall import foreign, sysno
from pybpf.syscall.foreign import addressof, byref, c_char, c_char_p, c_long, c_ulong, c_void_p, get_errno, set_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from mmap import mmap

    from pybpf.syscall.fd import FD
    from pybpf.syscall.watch import Observer

    Buffer = bytes | bytearray | memoryview | mmap


observers: list[Observer] = []
"""Who is watching. Use `watch.add_observer` and `watch.remove_observer`."""


def pointer(buffer: Buffer) -> tuple[int, object]:
    """The address of a buffer's memory, and an object that keeps it valid: hold it until the call is over.

    Read-only memory that is not `bytes` is copied. The buffer must not be empty.
    """
    if isinstance(buffer, bytes):
        text = c_char_p(buffer)
        return c_void_p.from_buffer(text).value or 0, text
    view = memoryview(buffer)
    if view.readonly or not view.contiguous:
        return pointer(view.tobytes())
    first = c_char.from_buffer(view if view.format == "B" else view.cast("B"))
    return addressof(first), first


def bpf(command: int, data: bytearray, buffers: Mapping[str, Buffer] | None = None, into: FD | None = None) -> int:
    """The call behind every command: the result, or the negated errno. Other threads run meanwhile.

    Args:
        command: BPF_MAP_CREATE and so on.
        data: this command's part of union bpf_attr; the kernel takes what is missing at the end for zero.
        buffers: what the pointers in `data` point to, for observers.
        into: what will own the descriptor that the command makes. Under the eyes of observers it stays empty.
    """
    if observers:
        from pybpf.syscall.watch import Call, observe

        return observe(
            Call("bpf", command_name(command), command, data, None, buffers),
            lambda: _enter(sysno.BPF, command, byref(c_char.from_buffer(data)), len(data)),
        )
    if into is not None:
        return _enter_for_descriptor(into, sysno.BPF, command, byref(c_char.from_buffer(data)), len(data))
    return _enter(sysno.BPF, command, byref(c_char.from_buffer(data)), len(data))


def command_name(command: int) -> str:
    """``0`` gives ``"BPF_MAP_CREATE"``; a command that is not known gives its number."""
    name = COMMAND_NAMES[command] if 0 <= command < len(COMMAND_NAMES) else None
    return name or str(command)


def perf_event_open(
    data: bytearray, arguments: dict[str, int], buffers: Mapping[str, Buffer] | None = None, into: FD | None = None
) -> int:
    """Open a perf event: the descriptor, or the negated errno.

    Args:
        data: struct perf_event_attr.
        arguments: pid, cpu, group_fd and flags, in this order.
        buffers: what the pointers in `data` point to, for observers.
        into: what will own the descriptor. Under the eyes of observers it stays empty.
    """

    def enter() -> int:
        return _enter(sysno.PERF_EVENT_OPEN, byref(c_char.from_buffer(data)), *arguments.values())

    if into is not None and not observers:
        place = byref(c_char.from_buffer(data))
        return _enter_for_descriptor(into, sysno.PERF_EVENT_OPEN, place, *arguments.values())

    if observers:
        from pybpf.syscall.watch import Call, observe

        return observe(Call("perf_event_open", "", 0, data, arguments, buffers), enter)
    return enter()


def uprobe() -> int:
    """Call the system call uprobe, which only the kernel's own code may do: the negated errno of the refusal."""
    if sysno.UPROBE is None:
        return -errno.ENOSYS
    return other("uprobe", "", sysno.UPROBE, {}, lambda: _enter(sysno.UPROBE))


def ioctl(fd: int, name: str, request: int, argument: int | bytearray) -> int:
    """Control a descriptor: the result, or the negated errno.

    Python's own fcntl.ioctl() hands over an int of 32 bits, and -1 would arrive as 4294967295.

    Args:
        fd: what it is for.
        name: the request's name, for observers.
        request: its number.
        argument: a number, or memory that the kernel reads and writes.
    """
    last = c_long(argument) if isinstance(argument, int) else byref(c_char.from_buffer(argument))

    def enter() -> int:
        return _enter(fd, c_ulong(request), last, function=foreign.ioctl)

    if observers:
        from pybpf.syscall.watch import Call, observe

        number, memory = (argument, {}) if isinstance(argument, int) else (bytes(argument), {"argument": argument})
        return observe(Call("ioctl", name, request, None, {"fd": fd, "argument": number}, memory), enter)
    return enter()


def other(
    name: str, command: str, number: int, arguments: Mapping[str, int | str | bytes], enter: Callable[[], int]
) -> int:
    """A call that Python's own modules make (mmap, setsockopt, write): the result, or the negated errno.

    Args:
        enter: makes the call; may raise OSError.
    """

    def caught() -> int:
        try:
            return enter()
        except OSError as error:
            return -(error.errno or 0)

    if observers:
        from pybpf.syscall.watch import Call, observe

        return observe(Call(name, command, number, None, arguments), caught)
    return caught()


def call(function: Callable[..., int], *arguments: object) -> int:
    """Call a function of C of this process: the result, or the negated errno. For calls made through `other`."""
    return _enter(*arguments, function=function)


def call_for_descriptor(owner: FD, *arguments: object) -> int:
    """Make a system call by its number, whose result `owner` will own: as `call`. Not under the eyes of observers."""
    return _enter_for_descriptor(owner, *arguments)


def _enter(*arguments: object, function: Callable[..., int] = foreign.syscall) -> int:
    before = get_errno()
    result = function(*arguments)
    if result < 0:
        result = -get_errno()
        set_errno(before)
    return result


def _enter_for_descriptor(owner: FD, *arguments: object) -> int:
    before = get_errno()
    # From the call to the store all is C: a handler of a signal runs after it.
    list(map(setattr, (owner,), ("_fd",), map(foreign.syscall, *[(argument,) for argument in arguments])))
    result: int = owner._fd
    if result < 0:
        result = -get_errno()
        set_errno(before)
    return result
