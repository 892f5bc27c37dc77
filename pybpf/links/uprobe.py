"""uprobes: programs at instructions of executables and shared libraries, in one process or in all.

A uprobe sits at an offset of a file, so it is there for every process that maps the file, running now or later. It is a
perf event of the uprobe PMU (Linux 4.17), or before that a trace event made through tracefs.

Source: kernel/events/uprobes.c; Documentation/trace/uprobetracer.rst.
"""

from __future__ import annotations

import errno
import os

from pybpf.constants import BPF_TRACE_UPROBE_MULTI, BPF_TRACE_UPROBE_SESSION
from pybpf.errors import BPFError, BPFNotFoundError, NotSupportedError
from pybpf.links.perf import PARANOID_HINT, attach_perf, check_mode, open_event, open_tracepoint, pmu_shift, pmu_type
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.symbols.binary import find_binary
from pybpf.symbols.glob import is_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable, Link, PerfLink

NO_UPROBES_HINT = "This kernel was built without uprobes (CONFIG_UPROBE_EVENTS)"


def attach_uprobe(
    program: Attachable,
    path: str,
    symbol: str = "",
    *,
    offset: int = 0,
    pid: int = -1,
    cookie: int = 0,
    ref_ctr_offset: int = 0,
    mode: str = "auto",
) -> Link:
    """Attaches a program to a function, or to an instruction, of an executable or library. Since Linux 4.1.

    Args:
        program: of type kprobe.
        path: the file; a name without a slash is looked up as a library or program, in what the process has mapped
            first if one is given; ``archive.zip!/lib.so`` is a member of an archive.
        symbol: the function, perhaps with a version: ``"pthread_create@GLIBC_2.34"``. Empty: `offset` alone counts. A
            pattern such as ``"gnutls_*"`` stands for every function that fits it: with one link if the program was
            loaded for uprobe.multi or uprobe.session, else with a uprobe for each, as `pybpf.links.many` says.
        offset: bytes from the function's start, or from the start of the file (of the member, in an archive).
        pid: only this process; -1 for all, 0 for the caller.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        ref_ctr_offset: where in the file a counter is that the kernel raises while the probe is there (USDT
            semaphores, Linux 4.20).
        mode: "auto", "link", "perf" or "legacy", as `pybpf.links.perf` says.

    Raises:
        BPFNotFoundError: the file, the function or the process does not exist.
        ObjectError: the file is no executable or library, or has several such functions.
        NotSupportedError: the kernel has no uprobes, no cookies, or no reference counters.
        BPFPermissionError: a capability is missing.
    """
    if is_pattern(symbol):
        if offset or ref_ctr_offset:
            raise ValueError("an offset or a reference counter goes with a function's name, not with a pattern")
        return _attach_matching(program, path, symbol, False, pid, cookie, mode)
    return _attach(program, path, symbol, offset, False, pid, cookie, ref_ctr_offset, mode)


def attach_uretprobe(
    program: Attachable,
    path: str,
    symbol: str = "",
    *,
    offset: int = 0,
    pid: int = -1,
    cookie: int = 0,
    ref_ctr_offset: int = 0,
    mode: str = "auto",
) -> Link:
    """Attaches a program to the return of a function. Arguments and errors are those of `attach_uprobe`.

    `offset` is of use only without a symbol: it then has to be that of a function's first instruction.
    """
    if symbol and offset:
        raise ValueError("a return probe sits on a whole function: give no offset with the symbol")
    if is_pattern(symbol):
        if ref_ctr_offset:
            raise ValueError("a reference counter goes with a function's name, not with a pattern")
        return _attach_matching(program, path, symbol, True, pid, cookie, mode)
    return _attach(program, path, symbol, offset, True, pid, cookie, ref_ctr_offset, mode)


def locate(path: str, symbol: str, offset: int, pid: int = -1) -> tuple[str, int]:
    """The file to give to the kernel, and the offset in it."""
    from pybpf.symbols.elf import ARCHIVE_SEPARATOR, Binary

    binary_path = find_binary(path, pid)
    if not symbol and ARCHIVE_SEPARATOR not in binary_path:
        return binary_path, offset
    with Binary(binary_path) as binary:
        return binary.path, (binary.offset(symbol) if symbol else binary.base) + offset


def _attach_matching(
    program: Attachable, path: str, pattern: str, is_return: bool, pid: int, cookie: int, mode: str
) -> Link:
    """On every function that fits the pattern."""
    if program.attach_type_number in (BPF_TRACE_UPROBE_MULTI, BPF_TRACE_UPROBE_SESSION):
        from pybpf.links.uprobe_multi import attach_uprobe_multi

        return attach_uprobe_multi(program, path, pattern, pid=pid, cookie=cookie, retprobe=is_return)
    from pybpf.links.many import attach_each
    from pybpf.symbols.elf import Binary

    kind = "uretprobe" if is_return else "uprobe"
    what = attaching(program, f"{kind} {path}:{pattern}")
    try:
        with Binary(find_binary(path, pid)) as binary:
            places = dict(binary.matches(pattern))
            file = binary.path
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}") from None
    if not places:
        raise BPFNotFoundError(errno.ENOENT, "open", f"{what}: no function of {file} fits the pattern")
    return attach_each(
        kind,
        f"{path}:{pattern}",
        places,
        lambda name: _attach(program, file, "", places[name], is_return, pid, cookie, 0, mode),
    )


def _attach(
    program: Attachable,
    path: str,
    symbol: str,
    offset: int,
    is_return: bool,
    pid: int,
    cookie: int,
    ref_ctr_offset: int,
    mode: str,
) -> PerfLink:
    check_mode(mode)
    if offset < 0:
        raise ValueError(f"an offset is not negative: {offset}")
    kind = "uretprobe" if is_return else "uprobe"
    target = f"{path}:{symbol}" + (f"+{offset:#x}" if symbol and offset else "" if symbol else f"{offset:#x}")
    what = attaching(program, f"{kind} {target}")
    try:
        file, place = locate(path, symbol, offset, pid)
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}") from None
    number = None if mode == "legacy" else pmu_type("uprobe")
    if number is None:
        if ref_ctr_offset:
            raise NotSupportedError(errno.EOPNOTSUPP, "write", what, "Reference counters need Linux 4.20")
        return _attach_legacy(program, file, place, is_return, pid, cookie, kind, target)
    config = 1 << (pmu_shift("uprobe", "retprobe") or 0) if is_return else 0
    if ref_ctr_offset:
        shift = pmu_shift("uprobe", "ref_ctr_offset")
        if shift is None:
            raise NotSupportedError(errno.EOPNOTSUPP, "perf_event_open", what, "Reference counters need Linux 4.20")
        if not 0 < ref_ctr_offset < 1 << 64 - shift:
            raise ValueError(f"the kernel takes {64 - shift} bits of a reference counter's offset: {ref_ctr_offset:#x}")
        config |= ref_ctr_offset << shift
    cpu = 0 if pid < 0 else -1
    perf = open_event(
        what, number, config, pid=pid, cpu=cpu, config1=os.fsencode(file), config2=place, hints=_hints(file, pid)
    )
    return attach_perf(program, perf, kind, target, cookie=cookie, mode=mode)


def _attach_legacy(
    program: Attachable, file: str, place: int, is_return: bool, pid: int, cookie: int, kind: str, target: str
) -> PerfLink:
    from pybpf.tracefs import ProbeEvent

    what = attaching(program, f"{kind} {target}")
    try:
        event = ProbeEvent("uprobe", file, offset=place, is_return=is_return)
    except BPFError as error:
        raise refused(error, what, _hints(file, pid)) from None
    try:
        perf = open_tracepoint(what, event.id, pid=pid)
    except BaseException:
        event.remove()
        raise
    return attach_perf(program, perf, kind, target, cookie=cookie, mode="perf", event=event)


def _hints(file: str, pid: int) -> dict[int, str]:
    return {
        errno.ENOENT: f"{file} does not exist, or this kernel has no uprobes",
        errno.EINVAL: f"{file} is no regular file, or the offset is outside of it or not at an instruction",
        errno.EIO: f"The offset is not in {file}, or not where its code is",
        errno.ESRCH: f"There is no process {pid}",
        errno.EOPNOTSUPP: NO_UPROBES_HINT,
        **permission_hints(CAP_PERFMON, PARANOID_HINT),
    }
