"""Programs on perf events: sampling by a clock or a counter, and breakpoints, ``SEC("perf_event")``.

Source: perf_event_open(2).
"""

from __future__ import annotations

import errno
import struct

from pybpf import syscall
from pybpf.constants import PERF_TYPE_BREAKPOINT
from pybpf.errors import BPFError, kernel_error
from pybpf.links.base import Links
from pybpf.links.perf import PARANOID_HINT, attach_perf, check_mode
from pybpf.links.perf_names import ACCESS, event_numbers
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.syscall.cpus import cpu_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pybpf.links.base import Attachable, PerfLink
    from pybpf.syscall import FD, FdLike


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
        event: a name as perf-list(1) has it (see `pybpf.links.perf_names`): of a software or hardware event, of a cache
            (``"LLC-load-misses"``), or raw (``"r1a8"``); or type and config of perf_event_attr.
        frequency: samples per second, on each CPU.
        period: one sample for so many events (nanoseconds for the clocks). Either this or `frequency`.
        pid: only this process; -1 for all, 0 for the caller.
        cpus: only these CPUs; default: those online now.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        mode: "auto", "link" or "perf", as `pybpf.links.perf` says.

    Returns:
        One link for each CPU.

    Raises:
        BPFNotFoundError: this machine does not count this event (virtual machines often lack hardware counters), or
            one of `cpus` is not online.
        BPFPermissionError: CAP_PERFMON is missing.
        ValueError: an unknown event, or not one of frequency and period.
    """
    check_mode(mode)
    if (frequency > 0) == (period > 0):
        raise ValueError("give frequency (samples per second) or period (events per sample)")
    type_number, config = event_numbers(event) if isinstance(event, str) else event
    name = event if isinstance(event, str) else f"{type_number}:{config:#x}"
    rate = {"sample_freq": frequency, "freq": 1} if frequency else {"sample_period": period}
    return _attach_each_cpu(program, "perf_event", name, (type_number, config), pid, cpus, rate, cookie, mode)


def attach_breakpoint(
    program: Attachable,
    address: int | str,
    *,
    length: int = 4,
    access: str = "w",
    pid: int = 0,
    cpus: Iterable[int] | None = None,
    cookie: int = 0,
    mode: str = "auto",
) -> Links:
    """Runs a program when an address is used: a hardware breakpoint. Since Linux 4.9.

    Args:
        program: of type perf_event.
        address: of the process, or of the kernel; the name of a kernel variable or function stands for its address.
        length: bytes from the address on, 1, 2, 4 or 8; machines differ in what they can. Of no meaning for "x".
        access: "r", "w" or "rw" for reading and writing (x86 cannot tell reading alone), "x" for execution.
        pid: only this process; 0 for the caller, -1 for all, which makes sense for addresses of the kernel.
        cpus: only these CPUs; default: all of them.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        mode: "auto", "link" or "perf", as `pybpf.links.perf` says.

    Returns:
        One link for each CPU; of one process on every CPU, one link.

    Raises:
        BPFNotFoundError: the process or the kernel's symbol does not exist; the machine has no breakpoints; one of
            `cpus` is not online.
        BPFPermissionError: CAP_PERFMON is missing; addresses of the kernel are hidden.
        BPFError: ENOSPC: the machine has no breakpoint left (x86 has four); EINVAL: not such an address or length.
        ValueError: another word than these for access.
    """
    check_mode(mode)
    if access not in ACCESS:
        raise ValueError(f"access is one of {', '.join(ACCESS)}, not {access!r}")
    target = f"{address:#x}" if isinstance(address, int) else address
    what = attaching(program, f"breakpoint {target}")
    place = address if isinstance(address, int) else _kernel_address(address, what)
    if access == "x":
        length = struct.calcsize("P")
    fields = {"bp_type": ACCESS[access], "config1": place, "config2": length, "sample_period": 1}
    if cpus is None and pid >= 0:
        cpus = [-1]
    return _attach_each_cpu(program, "breakpoint", target, (PERF_TYPE_BREAKPOINT, 0), pid, cpus, fields, cookie, mode)


def _attach_each_cpu(
    program: Attachable,
    kind: str,
    name: str,
    event: tuple[int, int],
    pid: int,
    cpus: Iterable[int] | None,
    fields: Mapping[str, int],
    cookie: int,
    mode: str,
) -> Links:
    """One link for each CPU, by default for those online; -1 stands for all of them, of one process."""
    links = Links()
    try:
        for cpu in cpu_list("online") if cpus is None else cpus:
            target = f"{name} cpu {cpu}" if cpu >= 0 else name
            what = attaching(program, f"{kind.replace('_', ' ')} {target}")
            perf = _open(what, event, pid, cpu, fields)
            if perf is not None:
                links.append(attach_perf(program, perf, kind, target, cookie=cookie, mode=mode))
            elif cpus is not None:
                raise kernel_error(errno.ENODEV, "perf_event_open", what, f"CPU {cpu} is not online")
    except BaseException:
        links.close()
        raise
    return links


def _kernel_address(name: str, what: str) -> int:
    from pybpf.symbols.kallsyms import kernel_addresses

    found = kernel_addresses([name]).get(name, ())
    if len(found) == 1:
        return found[0]
    hint = f"There are {len(found)} symbols of this name: give an address" if found else "/proc/kallsyms lists them"
    raise kernel_error(errno.EADDRNOTAVAIL if found else errno.ENOENT, "perf_event_open", what, hint)


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


def _open(what: str, event: tuple[int, int], pid: int, cpu: int, fields: Mapping[str, int]) -> FD | None:
    """The perf event of one CPU (-1: of a process on every CPU); None when the CPU is not online, or is none."""
    try:
        return syscall.perf_event_open(*event, pid=pid, cpu=cpu, **fields)
    except BPFError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL) and cpu >= 0 and cpu not in cpu_list("online"):
            return None
        missing = "This machine does not count this event; software events such as cpu-clock are always there"
        hints = {
            errno.ENOENT: missing,
            errno.EOPNOTSUPP: missing,
            errno.EINVAL: "The frequency may be above the kernel.perf_event_max_sample_rate sysctl"
            if "sample_freq" in fields
            else "This machine may not know such an event, or a breakpoint of this length at this address",
            errno.ENOSPC: "All breakpoints of the machine are in use",
            errno.ESRCH: f"There is no process {pid}",
            **permission_hints(CAP_PERFMON, PARANOID_HINT),
        }
        raise refused(error, what, hints) from None
