"""Programs on perf events: sampling by a clock or a counter, ``SEC("perf_event")``.

Source: perf_event_open(2). The event names are those of perf-list(1).
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError
from pybpf.links.base import Links
from pybpf.links.perf import PARANOID_HINT, attach_perf, check_mode
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.syscall.cpus import cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.links.base import Attachable, PerfLink
    from pybpf.syscall import FD, FdLike

EVENTS = {
    "cpu-clock": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_CLOCK),
    "task-clock": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_TASK_CLOCK),
    "page-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS),
    "minor-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS_MIN),
    "major-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS_MAJ),
    "context-switches": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CONTEXT_SWITCHES),
    "cpu-migrations": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_MIGRATIONS),
    "alignment-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_ALIGNMENT_FAULTS),
    "emulation-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_EMULATION_FAULTS),
    "cgroup-switches": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CGROUP_SWITCHES),
    "cpu-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CPU_CYCLES),
    "instructions": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_INSTRUCTIONS),
    "cache-references": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CACHE_REFERENCES),
    "cache-misses": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CACHE_MISSES),
    "branch-instructions": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    "branch-misses": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BRANCH_MISSES),
    "bus-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BUS_CYCLES),
    "ref-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_REF_CPU_CYCLES),
}
"""Event name: type and config of perf_event_attr."""


def attach_perf_event(
    program: Attachable,
    event: str | tuple[int, int] = "cpu-clock",
    *,
    frequency: int = 0,
    period: int = 0,
    pid: int = -1,
    cpus: Iterable[int] | None = None,
    cookie: int = 0,
    mode: str = "auto",
) -> Links:
    """Runs a program at samples of a perf event, on every CPU that is online. Since Linux 4.9.

    Args:
        program: of type perf_event.
        event: a name of `EVENTS`, or type and config of perf_event_attr.
        frequency: samples per second, on each CPU.
        period: one sample for so many events (nanoseconds for the clocks). Either this or `frequency`.
        pid: only this process; -1 for all, 0 for the caller.
        cpus: only these CPUs; default: those online now.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        mode: "auto", "link" or "perf", as `pybpf.links.perf` says.

    Returns:
        One link for each CPU.

    Raises:
        BPFNotFoundError: this machine does not count this event (virtual machines often lack hardware counters).
        BPFPermissionError: CAP_PERFMON is missing.
        ValueError: an unknown event, or not one of frequency and period.
    """
    check_mode(mode)
    if (frequency > 0) == (period > 0):
        raise ValueError("give frequency (samples per second) or period (events per sample)")
    if isinstance(event, str) and event not in EVENTS:
        raise ValueError(f"unknown event {event!r}; known are {', '.join(EVENTS)}")
    type_number, config = EVENTS[event] if isinstance(event, str) else event
    name = event if isinstance(event, str) else f"{type_number}:{config:#x}"
    links = Links()
    try:
        for cpu in cpu_list("online") if cpus is None else cpus:
            target = f"{name} cpu {cpu}"
            perf = _open(attaching(program, f"perf event {target}"), type_number, config, frequency, period, pid, cpu)
            if perf is not None:
                links.append(attach_perf(program, perf, "perf_event", target, cookie=cookie, mode=mode))
    except BaseException:
        links.close()
        raise
    return links


def attach_perf_fd(program: Attachable, perf_fd: FdLike, *, cookie: int = 0, mode: str = "auto") -> PerfLink:
    """Attaches a program to a perf event that was opened with `pybpf.syscall.perf_event_open`.

    The descriptor is duplicated: the caller's may be closed.

    Raises:
        BPFError: it is no perf event (EBADF, EINVAL), or the program's type does not fit it.
    """
    from pybpf.links.targets import duplicate

    check_mode(mode)
    return attach_perf(
        program, duplicate(perf_fd), "perf_event", f"descriptor {syscall.fileno(perf_fd)}", cookie=cookie, mode=mode
    )


def _open(what: str, type_number: int, config: int, frequency: int, period: int, pid: int, cpu: int) -> FD | None:
    """The perf event of one CPU; None when the CPU has gone offline meanwhile."""
    try:
        if frequency:
            return syscall.perf_event_open(type_number, config, pid=pid, cpu=cpu, sample_freq=frequency, freq=1)
        return syscall.perf_event_open(type_number, config, pid=pid, cpu=cpu, sample_period=period)
    except BPFError as error:
        if error.errno == errno.ENODEV and cpu not in cpu_list("online"):
            return None
        missing = "This machine does not count this event; software events such as cpu-clock are always there"
        hints = {
            errno.ENOENT: missing,
            errno.EOPNOTSUPP: missing,
            errno.EINVAL: "The frequency may be above the kernel.perf_event_max_sample_rate sysctl",
            errno.ESRCH: f"There is no process {pid}",
            **permission_hints(CAP_PERFMON, PARANOID_HINT),
        }
        raise refused(error, what, hints) from None
