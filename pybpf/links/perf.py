"""Attaching through a perf event, which kprobes, uprobes, tracepoints and perf events share.

Rules:

* Modes: "link" makes a BPF link of the perf event (Linux 5.15), "perf" sets the program on it by ioctl, "legacy" does
  so on an event made through tracefs. "auto" takes the first of them that the kernel has.
* A cookie needs the link.
* The event is enabled when the program is on it. Whatever fails, the perf event is closed.

Source: perf_event_open(2); kernel/events/core.c; bpf_program__attach_perf_event_opts of libbpf.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_PERF_EVENT, PERF_TYPE_TRACEPOINT
from pybpf.errors import BPFError, NotSupportedError, kernel_error
from pybpf.links.base import PerfLink
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybpf.links.base import Attachable
    from pybpf.syscall import FD
    from pybpf.tracefs import ProbeEvent

MODES = ("auto", "link", "perf", "legacy")
PMU_DIRECTORY = "/sys/bus/event_source/devices"
COOKIE_HINT = "Cookies need perf links, which Linux 5.15 brought"
PARANOID_HINT = "perf_event_open(2) is refused: look at the kernel.perf_event_paranoid sysctl, lockdown and seccomp"


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")


def attach_perf(
    program: Attachable,
    perf: FD,
    kind: str,
    target: str,
    *,
    cookie: int = 0,
    mode: str = "auto",
    event: ProbeEvent | None = None,
    enable: bool = True,
) -> PerfLink:
    """Puts a program on a perf event. Takes ownership of `perf` and of `event`, also when it fails."""
    link: FD | None = None
    try:
        link = _make_link(program, perf, f"{kind} {target}", cookie, mode)
        if enable:
            syscall.perf_enable(perf)
    except BaseException:
        if link is not None:
            link.close()
        perf.close()
        if event is not None:
            event.remove()
        raise
    return PerfLink(link, perf, kind, target, event)


def _make_link(program: Attachable, perf: FD, target: str, cookie: int, mode: str) -> FD | None:
    """The link of the program and the perf event; None when the program was set on it by ioctl."""
    what = attaching(program, target)
    hints = {
        errno.EINVAL: "The program's type does not fit this event, or it reads past the event's arguments",
        errno.E2BIG: "This event has as many programs as the kernel allows (64)",
        errno.EEXIST: "The event has a program already",
    }
    if mode in ("auto", "link"):
        try:
            return syscall.link_create(program, perf, BPF_PERF_EVENT, bpf_cookie=cookie)
        except BPFError as error:
            if error.errno != errno.EINVAL or _knows_link(program):
                raise refused(error, what, {**hints, **permission_hints(CAP_PERFMON)}) from None
            if mode == "link":
                raise NotSupportedError(
                    errno.EOPNOTSUPP, error.command, what, "Linux 5.15 brought perf links"
                ) from None
    if cookie:
        raise NotSupportedError(errno.EOPNOTSUPP, "ioctl", what, COOKIE_HINT)
    try:
        syscall.perf_set_bpf(perf, program)
    except BPFError as error:
        raise refused(error, what, {**hints, **permission_hints(CAP_PERFMON)}) from None
    return None


def _knows_link(program: Attachable) -> bool:
    from pybpf.probe.links import knows_link

    return bool(knows_link(program, BPF_PERF_EVENT))


def open_event(
    what: str,
    type_number: int,
    config: int,
    *,
    pid: int = -1,
    cpu: int = 0,
    config1: int | bytes = 0,
    config2: int = 0,
    hints: Mapping[int, str] | None = None,
) -> FD:
    """A perf event that counts nothing: it only carries a program."""
    try:
        return syscall.perf_event_open(type_number, config, pid=pid, cpu=cpu, config1=config1, config2=config2)
    except BPFError as error:
        raise refused(error, what, {**permission_hints(CAP_PERFMON, PARANOID_HINT), **(hints or {})}) from None


def open_tracepoint(what: str, event_id: int, *, pid: int = -1) -> FD:
    """A perf event of a trace event: of every process on one CPU, which is enough, or of one process on every CPU."""
    return open_event(what, PERF_TYPE_TRACEPOINT, event_id, pid=pid, cpu=0 if pid < 0 else -1)


def pmu_type(name: str) -> int | None:
    """The number of a dynamic PMU (``kprobe``, ``uprobe``); None when the kernel does not have it (before 4.17)."""
    text = _read(f"{name}/type")
    return None if text is None else int(text)


def pmu_shift(name: str, field: str) -> int | None:
    """The lowest bit of a field of `config`, for example of ``retprobe``; None when the PMU has no such field.

    The file says ``config:0`` or ``config:32-63``.
    """
    text = _read(f"{name}/format/{field}")
    if text is None:
        return None
    place, _, bits = text.strip().partition(":")
    low = bits.partition("-")[0]
    if place != "config" or not low.isdigit():
        raise kernel_error(errno.EINVAL, "read", f"{PMU_DIRECTORY}/{name}/format/{field} says {text!r}")
    return int(low)


def _read(path: str) -> str | None:
    try:
        with open(f"{PMU_DIRECTORY}/{path}") as file:
            return file.read()
    except FileNotFoundError:
        return None
