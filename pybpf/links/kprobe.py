"""kprobes: programs at the entry of, inside, or at the return of a kernel function, and at system calls.

A kprobe is a perf event of the kprobe PMU (Linux 4.17), or before that a trace event made through tracefs.

Source: kernel/trace/trace_kprobe.c; Documentation/trace/kprobetrace.rst.
"""

from __future__ import annotations

import errno
import os

from pybpf.constants import BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION
from pybpf.errors import BPFError, BPFNotFoundError, NotSupportedError
from pybpf.links.perf import PARANOID_HINT, attach_perf, check_mode, open_event, open_tracepoint, pmu_shift, pmu_type
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.symbols.glob import is_pattern, matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable, Link, PerfLink

NO_KPROBES_HINT = "This kernel was built without kprobes (CONFIG_KPROBE_EVENTS); fentry or a tracepoint may do instead"


def attach_kprobe(
    program: Attachable, function: str | int, *, offset: int = 0, cookie: int = 0, mode: str = "auto"
) -> Link:
    """Attaches a program to a kernel function, or to an instruction in it, or to many functions. Since Linux 4.1.

    Args:
        program: of type kprobe.
        function: the function's name, or an address (not in legacy mode). A pattern such as ``"vfs_*"`` stands for
            every function that fits it and that ftrace can trace: with one link if the program was loaded for
            kprobe.multi or kprobe.session, else with a kprobe for each, as `pybpf.links.many` says.
        offset: bytes from the function's start to the instruction.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        mode: "auto", "link", "perf" or "legacy", as `pybpf.links.perf` says.

    Raises:
        BPFNotFoundError: the kernel has no such function.
        NotSupportedError: the kernel has no kprobes, or no cookies.
        BPFPermissionError: a capability is missing, or the function must not be probed.
    """
    if isinstance(function, str) and is_pattern(function):
        if offset:
            raise ValueError("an offset goes with a function's name, not with a pattern")
        return _attach_matching(program, function, False, cookie, mode)
    return _attach(program, function, offset, False, cookie, mode)


def attach_kretprobe(
    program: Attachable, function: str, *, maxactive: int = 0, cookie: int = 0, mode: str = "auto"
) -> Link:
    """Attaches a program to the return of a kernel function. The other arguments and errors are as for `attach_kprobe`.

    Args:
        maxactive: so many calls of the function may be under way at once; returns of more are missed. By default the
            kernel's choice, at least 10 and twice the number of CPUs. Another number needs tracefs (Linux 4.12).
    """
    if is_pattern(function):
        return _attach_matching(program, function, True, cookie, mode, maxactive)
    return _attach(program, function, 0, True, cookie, mode, maxactive)


def attach_ksyscall(program: Attachable, name: str, *, cookie: int = 0, mode: str = "auto") -> PerfLink:
    """Attaches a program to the entry of a system call, given by its bare name: ``"openat"``.

    The kernel function is ``__x64_sys_openat`` and the like where system calls have wrappers, else ``__se_sys_openat``.
    Errors are those of `attach_kprobe`.
    """
    from pybpf.symbols.kallsyms import syscall_function

    return _attach(program, syscall_function(name), 0, False, cookie, mode)


def attach_kretsyscall(program: Attachable, name: str, *, cookie: int = 0, mode: str = "auto") -> PerfLink:
    """Attaches a program to the return of a system call. Arguments and errors are those of `attach_ksyscall`."""
    from pybpf.symbols.kallsyms import syscall_function

    return _attach(program, syscall_function(name), 0, True, cookie, mode)


def has_kprobes() -> bool:
    """Whether the kernel can place kprobes: it has a PMU for them, or tracefs takes kprobe events."""
    from pybpf import tracefs

    if pmu_type("kprobe") is not None:
        return True
    try:
        return os.path.exists(f"{tracefs.root()}/kprobe_events")
    except BPFError:
        return False


def _attach_matching(
    program: Attachable, pattern: str, is_return: bool, cookie: int, mode: str, maxactive: int = 0
) -> Link:
    """On every function that fits the pattern."""
    kind = "kretprobe" if is_return else "kprobe"
    what = attaching(program, f"{kind} {pattern}")
    if program.attach_type_number in (BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION):
        from pybpf.links.kprobe_multi import attach_kprobe_multi

        return attach_kprobe_multi(program, pattern, retprobe=is_return, cookie=cookie)
    from pybpf import tracefs
    from pybpf.links.many import attach_each

    fits = matcher(pattern)
    try:
        names = dict.fromkeys(name for name, _ in tracefs.traceable_functions() if fits(name))
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}") from None
    if not names:
        raise BPFNotFoundError(errno.ENOENT, "read", f"{what}: no traceable kernel function fits the pattern")
    return attach_each(kind, pattern, names, lambda name: _attach(program, name, 0, is_return, cookie, mode, maxactive))


def _attach(
    program: Attachable,
    function: str | int,
    offset: int,
    is_return: bool,
    cookie: int,
    mode: str,
    maxactive: int = 0,
) -> PerfLink:
    check_mode(mode)
    if offset < 0:
        raise ValueError(f"an offset into a function is not negative: {offset}")
    kind = "kretprobe" if is_return else "kprobe"
    name = f"{function:#x}" if isinstance(function, int) else function
    target = f"{name}+{offset:#x}" if offset else name
    what = attaching(program, f"{kind} {target}")
    if maxactive < 0:
        raise ValueError(f"maxactive is not negative: {maxactive}")
    number = None if mode == "legacy" or maxactive else pmu_type("kprobe")
    if number is None:
        way = "perf" if mode == "legacy" else mode
        return _attach_legacy(program, name, offset, is_return, cookie, kind, what, maxactive, way)
    config = 1 << (pmu_shift("kprobe", "retprobe") or 0) if is_return else 0
    symbol = 0 if isinstance(function, int) else function.encode()
    place = function + offset if isinstance(function, int) else offset
    perf = open_event(what, number, config, config1=symbol, config2=place, hints=_hints(name))
    return attach_perf(program, perf, kind, target, cookie=cookie, mode=mode)


def _attach_legacy(
    program: Attachable,
    function: str,
    offset: int,
    is_return: bool,
    cookie: int,
    kind: str,
    what: str,
    maxactive: int,
    mode: str,
) -> PerfLink:
    from pybpf.symbols.kallsyms import has_kernel_symbol
    from pybpf.tracefs import ProbeEvent

    if not has_kprobes():
        raise NotSupportedError(errno.EOPNOTSUPP, "perf_event_open", what, NO_KPROBES_HINT)
    try:
        event = ProbeEvent("kprobe", function, offset=offset, is_return=is_return, maxactive=maxactive)
    except BPFError as error:
        if error.errno == errno.EINVAL and not has_kernel_symbol(function):  # tracefs says no more
            raise BPFNotFoundError(errno.ENOENT, error.command, what, _hints(function)[errno.ENOENT]) from None
        raise refused(error, what, _hints(function)) from None
    try:
        perf = open_tracepoint(what, event.id)
    except BaseException:
        event.remove()
        raise
    target = f"{function}+{offset:#x}" if offset else function
    return attach_perf(program, perf, kind, target, cookie=cookie, mode=mode, event=event)


def _hints(function: str) -> dict[int, str]:
    return {
        errno.ENOENT: f"The kernel has no function {function!r}, or it was inlined: /proc/kallsyms lists what there is",
        errno.EADDRNOTAVAIL: f"The kernel has several functions {function!r}: give an address",
        errno.EINVAL: f"{function!r} must not be probed (/sys/kernel/debug/kprobes/blacklist lists those)",
        errno.EILSEQ: "The offset is not at the start of an instruction",
        errno.EOPNOTSUPP: NO_KPROBES_HINT,
        **permission_hints(CAP_PERFMON, PARANOID_HINT),
    }
