"""fentry, fexit and fsession programs on many kernel functions with one link. Since Linux 7.2.

Functions are given by name or by a pattern (``*`` any run, ``?`` one character), after ``module:`` for those of a
module. The kernel takes BTF type ids. A pattern stands for the functions that ftrace can trace, that the BTF describes,
and whose arguments a trampoline can pass on.

Source: kernel/bpf/trampoline.c; bpf_program__attach_tracing_multi of libbpf.
"""

from __future__ import annotations

import errno

from pybpf import syscall, tracefs
from pybpf.btf import kinds
from pybpf.btf.kernel import module, vmlinux
from pybpf.constants import BPF_TRACE_FENTRY_MULTI, BPF_TRACE_FEXIT_MULTI, BPF_TRACE_FSESSION_MULTI
from pybpf.errors import BPFError, BPFNotFoundError, BTFError, ObjectError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, TRAMPOLINE_HINT, attaching, permission_hints, refused
from pybpf.symbols.glob import is_pattern, matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.btf.reader import BTF
    from pybpf.links.base import Attachable

KINDS = {
    BPF_TRACE_FENTRY_MULTI: "fentry_multi",
    BPF_TRACE_FEXIT_MULTI: "fexit_multi",
    BPF_TRACE_FSESSION_MULTI: "fsession_multi",
}
MAX_ARGUMENTS = 12
"""A trampoline passes on so many arguments (MAX_BPF_FUNC_ARGS)..."""
MAX_ARGUMENT_SIZE = 16
"""... of so many bytes."""


def attach_tracing_multi(program: Attachable, functions: str | Sequence[str], *, cookies: Sequence[int] = ()) -> Link:
    """Attaches a program to many kernel functions with one link. Since Linux 7.2.

    Args:
        program: of type tracing, loaded for fentry.multi, fexit.multi or fsession.multi.
        functions: a name, a pattern such as ``"tcp_*"`` or ``"xfs:xfs_buf_*"``, or a list of names.
        cookies: one number for each function, which bpf_get_attach_cookie() gives to the program. Not with a pattern.

    Raises:
        BPFNotFoundError: no function fits, or one of the names is unknown.
        BPFPermissionError: a capability is missing, or the kernel refuses to make a trampoline.
        ObjectError: the program was not loaded for such a section.
        ValueError: cookies that do not pair up.
    """
    kind = KINDS.get(program.attach_type_number)
    if kind is None:
        raise ObjectError(f"{program.name!r} was not loaded for fentry.multi, fexit.multi or fsession.multi")
    names = [functions] if isinstance(functions, str) else list(functions)
    target = names[0] if len(names) == 1 else f"{len(names)} functions"
    what = attaching(program, f"{kind} {target}")
    try:
        ids = _type_ids(names, bool(cookies))
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}") from None
    if cookies and len(cookies) != len(ids):
        raise ValueError(f"{len(cookies)} cookies for {len(ids)} functions")
    try:
        fd = syscall.link_create(program, 0, program.attach_type_number, ids=ids, cookies=list(cookies) or None)
    except BPFError as error:
        hints = {
            errno.EINVAL: "Linux 7.2 brought fentry.multi, fexit.multi and fsession.multi; a function may not fit them",
            **permission_hints(CAP_PERFMON, TRAMPOLINE_HINT),
        }
        raise refused(error, what, hints) from None
    return Link(fd, kind, target)


def _type_ids(names: list[str], has_cookies: bool) -> list[int]:
    """The BTF type id of each function."""
    modules = {name.rpartition(":")[0] for name in names}
    if len(modules) != 1:
        raise ValueError("the functions of one link are all in the kernel, or all in one module")
    owner = modules.pop()
    bare = [name.rpartition(":")[2] for name in names]
    try:
        btf = module(owner) if owner else vmlinux()
    except BTFError as error:
        raise BPFNotFoundError(errno.ENOENT, "open", str(error)) from None
    if len(bare) == 1 and is_pattern(bare[0]):
        if has_cookies:
            raise ValueError("cookies go with names, not with a pattern")
        return _matching_ids(btf, owner, bare[0])
    ids = []
    for name in bare:
        function = btf.get(name, kinds.KIND_FUNC)
        if function is None:
            raise BPFNotFoundError(errno.ENOENT, "open", f"the BTF of {owner or 'the kernel'} has no function {name!r}")
        ids.append(function.id)
    return ids


def _matching_ids(btf: BTF, owner: str, pattern: str) -> list[int]:
    fits = matcher(pattern)
    names = {name for name, place in tracefs.traceable_functions() if place == owner and fits(name)}
    found = (btf.get(name, kinds.KIND_FUNC) for name in names)
    ids = sorted(function.id for function in found if isinstance(function, kinds.Func) and _is_traceable(btf, function))
    if not ids:
        raise BPFNotFoundError(
            errno.ENOENT, "open", f"no traceable function of {owner or 'the kernel'} fits {pattern!r}"
        )
    return ids


def _is_traceable(btf: BTF, function: kinds.Func) -> bool:
    """Whether a trampoline can pass on the function's arguments and its return value."""
    try:
        proto = btf.type(function.type_id)
        if not isinstance(proto, kinds.FuncProto) or len(proto.params) > MAX_ARGUMENTS:
            return False
        if proto.type_id and isinstance(btf.resolve(proto.type_id), (kinds.Struct, kinds.Union)):
            return False
        return all(param.type_id and 1 <= btf.size_of(param.type_id) <= MAX_ARGUMENT_SIZE for param in proto.params)
    except BTFError:
        return False
