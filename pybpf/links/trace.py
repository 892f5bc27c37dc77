"""Programs whose target was fixed when they were loaded: tp_btf, fentry, fexit, fmod_ret, fsession, lsm and freplace.

Attaching says nothing but "now". BPF_LINK_CREATE does it since Linux 5.18 and alone takes cookies; before that,
BPF_RAW_TRACEPOINT_OPEN without a name does.

Source: kernel/bpf/syscall.c, bpf_tracing_prog_attach; bpf_link_create of libbpf.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import (
    BPF_LSM_MAC,
    BPF_MODIFY_RETURN,
    BPF_TRACE_FENTRY,
    BPF_TRACE_FEXIT,
    BPF_TRACE_FSESSION,
    BPF_TRACE_RAW_TP,
)
from pybpf.errors import BPFError, BTFError, NotSupportedError, ObjectError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, TRAMPOLINE_HINT, attaching, permission_hints, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable
    from pybpf.syscall import FD

KINDS = {
    BPF_TRACE_RAW_TP: "tp_btf",
    BPF_TRACE_FENTRY: "fentry",
    BPF_TRACE_FEXIT: "fexit",
    BPF_MODIFY_RETURN: "fmod_ret",
    BPF_LSM_MAC: "lsm",
    BPF_TRACE_FSESSION: "fsession",
}
"""The attach types that this module knows, and what they are called in section names."""


def attach_trace(program: Attachable, *, cookie: int = 0) -> Link:
    """Attaches a tp_btf, fentry, fexit, fmod_ret, fsession or lsm program to the target it was loaded for.

    Since Linux 5.5; lsm since 5.7.

    Args:
        program: of type tracing or lsm.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.18; not for lsm).

    Raises:
        BPFPermissionError: a capability is missing, or the kernel refuses to make a trampoline.
        NotSupportedError: the kernel does not know this kind, or its cookies.
        ObjectError: the program is of another kind.
    """
    kind = KINDS.get(program.attach_type_number)
    if kind is None:
        raise ObjectError(f"{program.name!r} is not a tracing or lsm program: attach type {program.attach_type_number}")
    target = _loaded_target(program)
    what = attaching(program, f"{kind} {target}".rstrip())
    try:
        fd = syscall.link_create(program, 0, program.attach_type_number, cookie=cookie)
    except BPFError as error:
        if error.errno != errno.EINVAL or program.attach_type_number == BPF_TRACE_FSESSION:
            raise refused(error, what, _hints(kind)) from None
        if cookie:
            hint = "Cookies of tracing programs need Linux 5.18"
            raise NotSupportedError(errno.EOPNOTSUPP, error.command, what, hint) from None
        fd = _open_unnamed(program, kind, what)
    return Link(fd, kind, target)


def attach_freplace(program: Attachable, target: Attachable | None = None, function: str = "") -> Link:
    """Puts an extension program in the place of a function of another BPF program. Since Linux 5.6.

    Args:
        program: of type ext, loaded for a target program.
        target: another program with the same function, in place of the one it was loaded for (Linux 5.10).
        function: the function in that program; default: the one the program was loaded for.

    Raises:
        BPFPermissionError: a capability is missing, or the kernel refuses to make a trampoline.
        ObjectError: the target has no such function, or no BTF.
    """
    function = function or _loaded_target(program)
    what = attaching(program, f"freplace {function}".rstrip())
    try:
        if target is None:
            fd = _open_unnamed(program, "freplace", what)
        else:
            fd = syscall.link_create(program, target, 0, target_btf_id=_function_id(target, function))
    except BPFError as error:
        raise refused(error, what, _hints("freplace")) from None
    return Link(fd, "freplace", function)


def _loaded_target(program: Attachable) -> str:
    """The name of the function or tracepoint that the program was loaded for, as far as its spec tells."""
    return program.spec.attach_target if program.spec is not None else ""


def _open_unnamed(program: Attachable, kind: str, what: str) -> FD:
    try:
        return syscall.raw_tracepoint_open(program, None)
    except BPFError as error:
        raise refused(error, what, _hints(kind)) from None


def _function_id(target: Attachable, function: str) -> int:
    """The BTF id of a function in a loaded program: the program's own BTF, as the kernel has it."""
    from pybpf.btf.kinds import KIND_FUNC
    from pybpf.btf.reader import BTF

    number = int(syscall.prog_info(target).btf_id)
    if not number:
        raise ObjectError(f"{target.name!r} was loaded without BTF: none of its functions can be replaced")
    with syscall.btf_get_fd_by_id(number) as fd:
        btf = BTF.from_bytes(syscall.btf_info(fd, data=True).data, name=target.name)
    try:
        return btf.find(function, KIND_FUNC).id
    except BTFError:
        raise ObjectError(f"{target.name!r} has no function {function!r}") from None


def _hints(kind: str) -> dict[int, str]:
    return {
        **permission_hints(CAP_PERFMON, "" if kind == "tp_btf" else TRAMPOLINE_HINT),
        errno.EBUSY: "The function is replaced already, or ftrace holds it",
        errno.E2BIG: "The function has as many programs as a trampoline takes (38)",
        errno.ENOENT: "The target is gone: its module was unloaded, or its program closed",
    }
