"""perf_event_open(2) and its ioctls.

Source: perf_event_open(2), include/uapi/linux/perf_event.h, include/uapi/asm-generic/ioctl.h.
"""

from __future__ import annotations

import struct
import sys

from pybpf.constants import PERF_FLAG_FD_CLOEXEC
from pybpf.errors import kernel_error
from pybpf.syscall import door
from pybpf.syscall.attrs import LAYOUTS, PERF_IOCTLS, SIZES
from pybpf.syscall.fd import FD, fileno
from pybpf.syscall.record import Record
from pybpf.syscall.sysno import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike


def perf_event_open(
    type: int,
    config: int,
    *,
    pid: int = -1,
    cpu: int = 0,
    group_fd: FdLike = -1,
    flags: int = PERF_FLAG_FD_CLOEXEC,
    sample_period: int = 0,
    sample_type: int = 0,
    wakeup_events: int = 0,
    config1: int | bytes = 0,
    config2: int = 0,
    **fields: int,
) -> FD:
    """Open a perf event (Linux 2.6.31): a counter, a tracepoint, a probe, or a buffer for bpf_perf_event_output().

    Args:
        type: PERF_TYPE_SOFTWARE and so on, or the number in /sys/bus/event_source/devices/NAME/type.
        config: PERF_COUNT_SW_CPU_CLOCK and so on; a tracepoint's id.
        pid: a process, 0 for this one, -1 for all.
        cpu: a CPU, -1 for all of them (of one process).
        group_fd: the leader of the group.
        flags: PERF_FLAG_FD_CLOEXEC (Linux 3.14), PERF_FLAG_PID_CGROUP.
        sample_period: a sample every so many events; nanoseconds for clocks. `sample_freq` with `freq=1` is the
            other way.
        sample_type: PERF_SAMPLE_RAW and so on.
        wakeup_events: wake the reader every so many samples. `wakeup_watermark` with `watermark=1` counts bytes.
        config1: a number; or the name of a kprobe's function, or the path of a uprobe's file, as bytes.
        config2: a number; or the offset in the function or file.
        fields: any other field of struct perf_event_attr, its single bits included: ``disabled=1``.

    Raises:
        BPFPermissionError: EACCES or EPERM: see perf_event_open(2) on kernel.perf_event_paranoid; CAP_PERFMON.
        BPFNotFoundError: ENOENT: no such event; ESRCH: no such process; ENODEV: no such CPU or PMU.
        BPFError: EINVAL; EMFILE; ENOSPC.
        NotSupportedError: EOPNOTSUPP: the hardware does not have it.
        TypeError: struct perf_event_attr has no such field.
        ValueError: a number does not fit its field.
    """
    attr = Record("perf_event_attr")
    for name in fields:
        if name not in LAYOUTS["perf_event_attr"]:
            raise TypeError(f"struct perf_event_attr has no field {name!r}")
    attr.put(size=SIZES["perf_event_attr"], type=type, config=config, sample_period=sample_period)
    attr.put(sample_type=sample_type, wakeup_events=wakeup_events, config2=config2, **fields)
    if isinstance(config1, bytes):
        attr.point("config1", config1.rstrip(b"\0") + b"\0")
    else:
        attr.put(config1=config1)
    arguments = {"pid": pid, "cpu": cpu, "group_fd": fileno(group_fd), "flags": flags}
    fd = FD._empty()
    result = door.perf_event_open(attr.data, arguments, attr.buffers, fd)
    if result < 0:
        raise kernel_error(-result, "perf_event_open")
    return fd._over(result)


def ioctl_number(name: str, machine: str = MACHINE, pointer_size: int = struct.calcsize("P")) -> int:
    """The number of PERF_EVENT_IOC_ENABLE and so on, as this machine encodes it."""
    direction, command, size = PERF_IOCTLS[name]
    if direction and not size:
        size = pointer_size
    return encode_ioctl("$", direction, command, size, machine)


def encode_ioctl(magic: str, direction: str, command: int, size: int, machine: str = MACHINE) -> int:
    """A number as _IO(), _IOR(), _IOW() and _IOWR() make it: `direction` is "", "R", "W" or "RW"."""
    if machine.startswith(("ppc", "mips", "sparc", "alpha")):
        bits = (1 if not direction else 0) | (4 if "W" in direction else 0) | (2 if "R" in direction else 0)
        return bits << 29 | size << 16 | ord(magic) << 8 | command
    if machine.startswith("parisc"):
        bits = (2 if "W" in direction else 0) | (1 if "R" in direction else 0)
    else:
        bits = (1 if "W" in direction else 0) | (2 if "R" in direction else 0)
    return bits << 30 | size << 16 | ord(magic) << 8 | command


def _ioctl(perf_fd: FdLike, name: str, argument: int | bytearray = 0) -> None:
    result = door.ioctl(fileno(perf_fd), name, ioctl_number(name), argument)
    if result < 0:
        raise kernel_error(-result, name)


def perf_enable(perf_fd: FdLike) -> None:
    """PERF_EVENT_IOC_ENABLE: let the event count, and run its programs."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_ENABLE")


def perf_disable(perf_fd: FdLike) -> None:
    """PERF_EVENT_IOC_DISABLE: stop it."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_DISABLE")


def perf_reset(perf_fd: FdLike) -> None:
    """PERF_EVENT_IOC_RESET: set the count to 0."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_RESET")


def perf_refresh(perf_fd: FdLike, overflows: int = 0) -> None:
    """PERF_EVENT_IOC_REFRESH: let it count until it has overflowed so many times more; 0 changes nothing."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_REFRESH", overflows)


def perf_period(perf_fd: FdLike, period: int) -> None:
    """PERF_EVENT_IOC_PERIOD: change the sample period, or the frequency if it was opened with one."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_PERIOD", bytearray(period.to_bytes(8, sys.byteorder)))


def perf_set_output(perf_fd: FdLike, target_fd: FdLike | None) -> None:
    """PERF_EVENT_IOC_SET_OUTPUT: write the event's records to another event's buffer; None ends that."""
    _ioctl(perf_fd, "PERF_EVENT_IOC_SET_OUTPUT", -1 if target_fd is None else fileno(target_fd))


def perf_set_filter(perf_fd: FdLike, text: str) -> None:
    """PERF_EVENT_IOC_SET_FILTER: a trace event's filter, as in tracefs: ``prev_pid == 1``.

    Raises:
        BPFError: EINVAL: the filter makes no sense for this event.
    """
    _ioctl(perf_fd, "PERF_EVENT_IOC_SET_FILTER", bytearray(text.encode() + b"\0"))


def perf_id(perf_fd: FdLike) -> int:
    """PERF_EVENT_IOC_ID (Linux 3.12): the number that samples carry with PERF_SAMPLE_ID."""
    out = bytearray(8)
    _ioctl(perf_fd, "PERF_EVENT_IOC_ID", out)
    return int.from_bytes(out, sys.byteorder)


def perf_set_bpf(perf_fd: FdLike, prog_fd: FdLike) -> None:
    """PERF_EVENT_IOC_SET_BPF (Linux 4.1): run a program on each event; it stays as long as the event is open.

    Raises:
        BPFExistsError: EEXIST: an event that takes one program has one.
        BPFError: EINVAL: the program's type does not fit the event; E2BIG: 64 programs are there already.
    """
    _ioctl(perf_fd, "PERF_EVENT_IOC_SET_BPF", fileno(prog_fd))


def perf_pause_output(perf_fd: FdLike, pause: bool) -> None:
    """PERF_EVENT_IOC_PAUSE_OUTPUT (Linux 4.7): stop or go on writing to the event's buffer.

    Raises:
        BPFError: EINVAL: it has no buffer (it is not mapped).
    """
    _ioctl(perf_fd, "PERF_EVENT_IOC_PAUSE_OUTPUT", int(pause))


def perf_query_bpf(perf_fd: FdLike, room: int = 64) -> list[int]:
    """PERF_EVENT_IOC_QUERY_BPF (Linux 4.15): the ids of the programs at a trace event, in the order they run.

    Args:
        room: at most so many; the kernel allows 64.

    Raises:
        BPFPermissionError: CAP_PERFMON is missing.
        BPFError: EINVAL: it is not a trace event; ENOSPC: there are more than `room`.
    """
    head = SIZES["perf_event_query_bpf"]
    query = Record("perf_event_query_bpf", head + 4 * room)
    query["ids_len"] = room
    _ioctl(perf_fd, "PERF_EVENT_IOC_QUERY_BPF", query.data)
    count = query["prog_cnt"]
    return list(memoryview(query.data)[head : head + 4 * count].cast("I"))
