"""The one seam of the door: observers see every call into the kernel, and may answer it.

An observer has two methods:

    before(call) -> int | None    before the kernel is entered. A positive errno makes the call fail with it and the
                                  kernel is not entered. Setting ``call.result`` answers the call without the kernel.
    after(call) -> None           when the result is there.

Rules:

* Nobody watching costs one truth test of an empty list.
* What an observer itself calls is not observed.
* `after` is called, in reverse order, for every observer whose `before` was called.
* If an observer raises, the caller gets that exception, and a descriptor that the kernel made is closed.
"""

from __future__ import annotations

import os
from _thread import get_ident

from pybpf.syscall.door import observers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, TypeVar

    from pybpf.syscall.door import Buffer

    T = TypeVar("T")

    class Observer(Protocol):
        """What `add_observer` takes."""

        def before(self, call: Call, /) -> int | None: ...

        def after(self, call: Call, /) -> object: ...


_inside: set[int] = set()
"""Threads that are running an observer."""

_MAKES_DESCRIPTOR = frozenset(
    (
        "BPF_MAP_CREATE",
        "BPF_PROG_LOAD",
        "BPF_OBJ_GET",
        "BPF_PROG_GET_FD_BY_ID",
        "BPF_MAP_GET_FD_BY_ID",
        "BPF_BTF_GET_FD_BY_ID",
        "BPF_LINK_GET_FD_BY_ID",
        "BPF_RAW_TRACEPOINT_OPEN",
        "BPF_BTF_LOAD",
        "BPF_LINK_CREATE",
        "BPF_ENABLE_STATS",
        "BPF_ITER_CREATE",
        "BPF_TOKEN_CREATE",
        "SECCOMP_FILTER_FLAG_NEW_LISTENER",
        "pidfd_getfd",
        "perf_event_open",
    )
)


class Call:
    """One call into the kernel.

    Attributes:
        name: "bpf", "perf_event_open", "ioctl", "mmap", "setsockopt", "netlink" and so on.
        command: the bpf(2) command ("BPF_MAP_CREATE"), the ioctl, the socket option or the request; else "".
        number: the number of the command; 0 for calls that have none.
        data: the live struct that is handed over (union bpf_attr, struct perf_event_attr); empty if there is none.
        arguments: the other arguments, by name.
        buffers: field name -> the memory that the field points to. Live: outputs stand there after the call.
        result: what the call returned; None before it did. Set it in `before` to answer the call.
        errno: 0, or why the call failed; `result` is -1 then.
        answered: an observer answered; the kernel was not entered.
    """

    __slots__ = ("answered", "arguments", "buffers", "command", "data", "errno", "name", "number", "result")

    def __init__(
        self,
        name: str,
        command: str = "",
        number: int = 0,
        data: bytearray | memoryview | None = None,
        arguments: Mapping[str, int | str | bytes] | None = None,
        buffers: Mapping[str, Buffer] | None = None,
    ) -> None:
        self.name = name
        self.command = command
        self.number = number
        self.data = memoryview(data) if data is not None else memoryview(b"")
        self.arguments = arguments or {}
        self.buffers = buffers or {}
        self.result: int | None = None
        self.errno = 0
        self.answered = False

    @property
    def makes_descriptor(self) -> bool:
        """Whether the result, if the call succeeds, is a descriptor that the caller has to close."""
        return self.command in _MAKES_DESCRIPTOR or self.name in _MAKES_DESCRIPTOR

    @property
    def attr(self) -> bytes:
        """A copy of the struct as it stands now."""
        return bytes(self.data)

    @property
    def layout(self) -> str:
        """The layout of `data` in `attrs.LAYOUTS`; "" when there is none."""
        if self.name == "bpf":
            return self.command
        return "perf_event_attr" if self.name == "perf_event_open" else ""

    def fields(self) -> dict[str, int | str | bytes]:
        """The struct's fields and the other arguments, by name.

        Fields that share a place (``target_fd`` and ``target_ifindex``) are all there.
        """
        from pybpf.syscall.attrs import LAYOUTS
        from pybpf.syscall.record import decode

        found = decode(self.layout, self.attr) if self.layout in LAYOUTS else {}
        found.update(self.arguments)
        return found

    def __repr__(self) -> str:
        if self.result is None:
            outcome = ""
        else:
            outcome = f" = {self.result}" if not self.errno else f" = -1, errno {self.errno}"
        return f"<Call {self.command or self.name}{outcome}>"


def add_observer(observer: Observer) -> None:
    """Let an observer see every call from now on, in all threads."""
    observers.append(observer)


def remove_observer(observer: Observer) -> None:
    """Stop it.

    Raises:
        ValueError: it is not watching.
    """
    observers.remove(observer)


def observe(call: Call, enter: Callable[[], int]) -> int:
    """Make the call with the observers around it.

    Args:
        enter: enters the kernel; the result, or the negated errno.

    Returns:
        The result, or the negated errno.
    """
    thread = get_ident()
    if thread in _inside:
        return enter()
    watching: list[Observer] = []
    try:
        for observer in tuple(observers):
            watching.append(observer)
            refusal = _run(thread, observer.before, call)
            if refusal:
                call.result, call.errno = -1, refusal
            if call.result is not None:
                call.answered = True
                break
        if call.result is None:
            result = enter()
            call.result, call.errno = (-1, -result) if result < 0 else (result, 0)
    finally:
        try:
            for observer in reversed(watching):
                _run(thread, observer.after, call)
        except BaseException:
            if call.makes_descriptor and call.result is not None and call.result >= 0:
                os.close(call.result)
            raise
    return -call.errno if call.errno else call.result or 0


def _run(thread: int, method: Callable[[Call], T], call: Call) -> T:
    """Call an observer; what it calls itself goes straight to the kernel."""
    _inside.add(thread)
    try:
        return method(call)
    finally:
        _inside.discard(thread)
