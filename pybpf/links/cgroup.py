"""cgroup hooks: programs that see what the processes of a cgroup (version 2) and of those below it do.

A link needs Linux 5.7. Before that BPF_PROG_ATTACH with BPF_F_ALLOW_MULTI is used; such a program stays attached until
the link object here is closed, also when the process dies without closing it.

Source: kernel/bpf/cgroup.c.
"""

from __future__ import annotations

import errno
import os

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, ObjectError
from pybpf.links.anchor import HINTS, place_of
from pybpf.links.base import Link
from pybpf.links.describe import hook_name
from pybpf.links.direct import attach_directly
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import open_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.anchor import Neighbour
    from pybpf.links.base import Attachable
    from pybpf.syscall import FdLike

SINGLE_HOOK = {
    c.BPF_PROG_TYPE_SOCK_OPS: c.BPF_CGROUP_SOCK_OPS,
    c.BPF_PROG_TYPE_CGROUP_DEVICE: c.BPF_CGROUP_DEVICE,
    c.BPF_PROG_TYPE_CGROUP_SYSCTL: c.BPF_CGROUP_SYSCTL,
    c.BPF_PROG_TYPE_CGROUP_SOCK: c.BPF_CGROUP_INET_SOCK_CREATE,
}
"""The attach type of programs that were loaded without one."""


ALLOW = {"multi": c.BPF_F_ALLOW_MULTI, "override": c.BPF_F_ALLOW_OVERRIDE, "none": 0}
"""How a cgroup's hook takes other programs."""


def attach_cgroup(
    program: Attachable,
    cgroup: str | os.PathLike[str] | FdLike,
    attach_type: int | None = None,
    *,
    before: Neighbour | None = None,
    after: Neighbour | None = None,
    first: bool = False,
    last: bool = False,
    preorder: bool = False,
    expected_revision: int = 0,
    allow: str = "multi",
    replace: Attachable | None = None,
) -> Link:
    """Attaches a program to a cgroup. Since Linux 4.10; as a link since 5.7.

    Args:
        program: of a cgroup type (cgroup_skb, cgroup_sock, sock_ops ...) or of type lsm loaded for lsm_cgroup.
        cgroup: the cgroup's directory, as a path or a descriptor.
        attach_type: the hook, an `AttachType`; default: the one the program was loaded for.
        before: a `Link`, program or `AttachedProgram` to stand before (this and the next three: Linux 6.17).
        after: a `Link`, program or `AttachedProgram` to stand after.
        first: stand before all others.
        last: stand after all others, which is the default.
        preorder: run before the programs of the cgroups below (Linux 6.15).
        expected_revision: refuse when the list was changed since (Linux 6.17); 0 does not check.
        allow: what may be attached to the same hook besides. "multi": other programs, here and below, which all run;
            "override": one program in each cgroup below, which runs instead; "none": nothing below. All programs of a
            hook agree about it. The last two have no link: a `DirectAttachment`, which stays when the process dies.
        replace: a program that was attached without a link, whose place this one takes (Linux 5.6).

    Raises:
        BPFNotFoundError: there is no such directory.
        BPFError: it is no cgroup version 2 directory (EBADF); the program does not fit the hook (EINVAL).
        BPFPermissionError: CAP_NET_ADMIN is missing, or an ancestor's program forbids others.
    """
    if allow not in ALLOW:
        raise ValueError(f"allow is one of {', '.join(ALLOW)}, not {allow!r}")
    hook = hook_of(program) if attach_type is None else int(attach_type)
    place = place_of(before, after, first, last)
    if preorder:
        place.flags |= c.BPF_F_PREORDER
    placed = bool(place.flags or expected_revision)
    directly = allow != "multi" or replace is not None
    if directly and placed:
        raise ValueError("places, preorder and revisions are for links: leave out allow= and replace=")
    name = os.fspath(cgroup) if isinstance(cgroup, (str, os.PathLike)) else f"cgroup of descriptor {cgroup}"
    what = attaching(program, f"{hook_name(hook)} of {name}")
    directory = open_cgroup(cgroup)
    try:
        if not directly:
            try:
                fd = syscall.link_create(
                    program,
                    directory,
                    hook,
                    flags=place.flags,
                    relative_fd=place.relative_fd,
                    relative_id=place.relative_id,
                    expected_revision=expected_revision,
                )
            except BPFError as error:
                if error.errno != errno.EINVAL or placed or _knows_link(program, hook):
                    raise refused(error, what, _hints(placed)) from None
            else:
                directory.close()
                return Link(fd, "cgroup", f"{hook_name(hook)} of {name}")
        return attach_directly(
            program,
            directory,
            hook,
            kind="cgroup",
            name=f"{hook_name(hook)} of {name}",
            what=what,
            hints=lambda: _hints(False),
            flags=ALLOW[allow],
            replace=replace,
        )
    except BaseException:
        directory.close()
        raise


def hook_of(program: Attachable) -> int:
    """The attach type of a program: the one it was loaded for, or the only one that its type has.

    Raises:
        ObjectError: neither says it.
    """
    hook = program.attach_type_number or SINGLE_HOOK.get(program.type_number, 0)
    if not hook and program.type_number != c.BPF_PROG_TYPE_CGROUP_SKB:
        raise ObjectError(f"{program.name!r} was loaded for no hook: say attach_type=")
    return hook


def _knows_link(program: Attachable, hook: int) -> bool:
    from pybpf.probe.links import knows_link

    return bool(knows_link(program, hook))


def _hints(placed: bool) -> dict[int, str]:
    invalid = "The program does not fit this hook"
    if placed:
        invalid += ", or the kernel has no places in the list (Linux 6.17)"
    return {
        **HINTS,
        errno.EINVAL: invalid,
        errno.EBADF: "The directory is not one of a cgroup version 2 file system",
        **permission_hints(CAP_NET_ADMIN, "A program of this cgroup or of one above forbids others"),
    }
