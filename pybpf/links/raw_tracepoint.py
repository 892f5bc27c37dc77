"""Raw tracepoints, whose programs see the arguments as the kernel passes them: ``SEC("raw_tp/<name>")``.

Source: bpf(2); kernel/bpf/syscall.c, bpf_raw_tracepoint_open.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_F_SLEEPABLE, BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE
from pybpf.errors import BPFError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable


def attach_raw_tracepoint(program: Attachable, name: str, *, cookie: int = 0) -> Link:
    """Attaches a raw tracepoint program. Since Linux 4.17; writable ones since 5.2; a link object since 5.8.

    Args:
        program: of type raw_tracepoint or raw_tracepoint_writable.
        name: the tracepoint's name, without a category: ``"sched_switch"``.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 6.10).

    Raises:
        BPFNotFoundError: there is no such tracepoint.
        BPFError: EINVAL: the program reads past the tracepoint's arguments, writes one that is not writable, or is
            sleepable (Linux 7.3) and the tracepoint is not.
    """
    try:
        fd = syscall.raw_tracepoint_open(program, name, cookie=cookie)
    except BPFError as error:
        raise refused(error, _what(program, name, error), _hints(program, cookie)) from None
    return Link(fd, "raw_tracepoint", name)


def _what(program: Attachable, name: str, error: BPFError) -> str:
    if error.errno == errno.ENOENT:
        return attaching(program, f"raw tracepoint {name!r}, which does not exist")
    return attaching(program, f"raw tracepoint {name!r}")


def _hints(program: Attachable, cookie: int) -> dict[int, str]:
    if program.spec is not None and program.spec.flags & BPF_F_SLEEPABLE:
        invalid = "Sleepable programs are for tracepoints where the kernel may sleep: sys_enter and sys_exit"
    elif cookie:
        invalid = "Cookies of raw tracepoints need Linux 6.10"
    elif program.type_number == BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE:
        invalid = "The tracepoint is not writable that far: only those declared with DECLARE_EVENT_CLASS_WRITABLE are"
    else:
        invalid = "The program reads more arguments than the tracepoint has"
    return {errno.EINVAL: invalid, **permission_hints(CAP_PERFMON)}
