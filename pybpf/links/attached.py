"""What is attached to a hook: programs, their links, and the revision of the list.

| hook | target | since |
|---|---|---|
| cgroup hooks, lsm_cgroup | the cgroup's directory, as a path or descriptor | 4.15; lsm_cgroup 6.0 |
| tcx, netkit | an interface, by name or index | 6.6; 6.7 |
| flow_dissector, sk_lookup | a network namespace, as `attach_netns` takes it | 4.20; 5.9 |
| sk_msg, sk_skb | a sockmap or sockhash | 5.17 |
| lirc_mode2 | a LIRC device, by path | 4.18 |
| xdp | an interface, by name or index; needs pyroute2 | 4.8 |

What has no query in the kernel: socket filters, reuseport programs, LWT (ask for the route), netfilter and tracing (go
through `pybpf.system.links()`). tc filters: `pybpf.links.tc_filters`.

Source: bpf_prog_query() in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno
import os

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, ObjectError
from pybpf.links.describe import hook_name
from pybpf.links.refusal import CAP_NET_ADMIN, permission_hints, refused
from pybpf.links.targets import duplicate, interface_index, open_cgroup, open_netns
from pybpf.syscall import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pybpf.links.base import Attachable, Link
    from pybpf.program import Program
    from pybpf.syscall import FdLike

    Target = str | os.PathLike[str] | int | FdLike | None


class AttachedProgram:
    """One program at a hook.

    Attributes:
        prog_id: the program's id.
        link_id: its link's id; 0 when it has none, or the kernel does not tell (cgroups).
        flags: how it was attached, as `AttachFlags`; 0 where the kernel does not tell.
    """

    __slots__ = ("flags", "link_id", "prog_id")

    def __init__(self, prog_id: int, link_id: int, flags: int) -> None:
        self.prog_id = prog_id
        self.link_id = link_id
        self.flags = flags

    def open(self) -> Program:
        """The program. Needs CAP_SYS_ADMIN.

        Raises:
            BPFNotFoundError: it is gone.
        """
        from pybpf.program import Program

        return Program.from_id(self.prog_id)

    def open_link(self) -> Link:
        """Its link. Needs CAP_SYS_ADMIN.

        Raises:
            BPFNotFoundError: it is gone.
            ObjectError: it was attached without one.
        """
        from pybpf.links.base import Link

        if not self.link_id:
            raise ObjectError(f"program {self.prog_id} was attached without a link, as far as the kernel tells")
        return Link.from_id(self.link_id)

    def __repr__(self) -> str:
        link = f" link={self.link_id}" if self.link_id else ""
        return f"<AttachedProgram {self.prog_id}{link}{f' flags={self.flags:#x}' if self.flags else ''}>"


class Attached:
    """What is attached to one hook, in the order in which it runs. It iterates over `AttachedProgram`.

    Attributes:
        hook: the hook's name, "tcx_ingress".
        programs: the list.
        revision: counts the changes of the list, for `expected_revision`; 0 where the kernel does not tell.
        flags: of a cgroup: 0 when it forbids other programs below, BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI.
    """

    def __init__(self, hook: str, programs: list[AttachedProgram], revision: int = 0, flags: int = 0) -> None:
        self.hook = hook
        self.programs = programs
        self.revision = revision
        self.flags = flags

    @property
    def prog_ids(self) -> list[int]:
        return [program.prog_id for program in self.programs]

    def __iter__(self) -> Iterator[AttachedProgram]:
        return iter(self.programs)

    def __len__(self) -> int:
        return len(self.programs)

    def __contains__(self, program: object) -> bool:
        """Whether a `Program` is attached there."""
        number = program if isinstance(program, int) else getattr(program, "id", None)
        return number in self.prog_ids

    def __repr__(self) -> str:
        return f"<Attached {self.hook} {self.prog_ids} revision={self.revision}>"


def query(target: Target, attach_type: int | str, *, effective: bool = False) -> Attached:
    """What is attached to a hook.

    Args:
        target: what the hook is of; see the table of this module.
        attach_type: the hook, an `AttachType` or its name: "tcx_ingress".
        effective: of a cgroup, what runs there: the programs of the cgroups above included.

    Raises:
        BPFNotFoundError: there is no such target.
        BPFPermissionError: CAP_NET_ADMIN is missing.
        BPFError: EINVAL, the hook is none of this target, or the kernel cannot tell.
        TypeError: the hook is none of such a target.
        ValueError: no hook has this name.
    """
    hook = _number_of(attach_type) if isinstance(attach_type, str) else int(attach_type)
    if hook == c.BPF_XDP:
        return _query_xdp(target)
    opened = _open(target, hook)
    # which program was attached how: Linux 6.0, for cgroups; not for what is effective
    with_flags = hook in CGROUP_HOOKS and not effective
    try:
        try:
            found = _ask(opened, hook, effective, with_flags)
        except BPFError as error:
            if not with_flags or error.errno not in (errno.EINVAL, errno.E2BIG):
                raise
            found = _ask(opened, hook, effective, False)
    except BPFError as error:
        hints = {
            errno.EINVAL: "The target has no such hook, or this kernel does not tell what is attached to it",
            **permission_hints(CAP_NET_ADMIN),
        }
        raise refused(error, f"asking what is attached to {hook_name(hook)} of {target}", hints) from None
    finally:
        if isinstance(opened, FD):
            opened.close()
    count = len(found.prog_ids)
    links = found.link_ids or [0] * count
    flags = found.prog_attach_flags or [0] * count
    programs = [AttachedProgram(*row) for row in zip(found.prog_ids, links, flags, strict=True)]
    return Attached(hook_name(hook), programs, found.revision, found.attach_flags)


def _number_of(name: str) -> int:
    if name not in c.ATTACH_TYPE_NAMES:
        raise ValueError(f"no hook is called {name!r}: 'tcx_ingress', 'cgroup_inet_egress' and so on are")
    return c.ATTACH_TYPE_NAMES.index(name)


def query_program(program: Attachable, target: Target, attach_type: int | None = None, **options: bool) -> Attached:
    """What is attached to the hook that a program is for: `query` with the program's own attach type.

    Args:
        attach_type: the hook, when the program was loaded for none.
        options: `effective`, as `query` takes it.
    """
    from pybpf.links.cgroup import hook_of
    from pybpf.links.netns import HOOKS

    hook = HOOKS.get(program.type_number) if attach_type is None else int(attach_type)
    if program.type_number == c.BPF_PROG_TYPE_XDP and hook is None:
        hook = c.BPF_XDP
    return query(target, hook_of(program) if hook is None else hook, **options)


def _ask(opened: int | FD, hook: int, effective: bool, with_flags: bool) -> syscall.QueryResult:
    flags = c.BPF_F_QUERY_EFFECTIVE if effective else 0
    return syscall.prog_query(opened, hook, query_flags=flags, prog_attach_flags=with_flags)


def _query_xdp(target: Target) -> Attached:
    from pybpf.links.xdp_netlink import xdp_status

    if not isinstance(target, (str, int)):
        raise TypeError(f"an interface is a name or a number, not {target!r}")
    status = xdp_status(target)
    ids = [status.generic_id, status.native_id, status.offload_id]
    found = [AttachedProgram(number, 0, 0) for number in ids if number]
    if not found and status.prog_id:
        found = [AttachedProgram(status.prog_id, 0, 0)]
    return Attached("xdp", found)


def _cgroup_hooks() -> frozenset[int]:
    """The attach types of cgroups. Their names begin with "cgroup_", all but one."""
    names = enumerate(c.ATTACH_TYPE_NAMES)
    return frozenset(number for number, name in names if (name or "").startswith(("cgroup_", "lsm_cgroup")))


CGROUP_HOOKS = _cgroup_hooks()
_INTERFACE_HOOKS = (c.BPF_TCX_INGRESS, c.BPF_TCX_EGRESS, c.BPF_NETKIT_PRIMARY, c.BPF_NETKIT_PEER)
_NETNS_HOOKS = (c.BPF_FLOW_DISSECTOR, c.BPF_SK_LOOKUP)


def _open(target: Any, hook: int) -> int | FD:
    """The descriptor of a target, which is ours; or its number, for an interface."""
    if hook in _INTERFACE_HOOKS:
        return interface_index(target)
    if hook in _NETNS_HOOKS:
        return open_netns(target)[0]
    if hook == c.BPF_LIRC_MODE2:
        from pybpf.links.lirc import open_lirc

        return open_lirc(target)
    if hook in CGROUP_HOOKS:
        return open_cgroup(target)
    if target is None or isinstance(target, (str, os.PathLike)):
        raise TypeError(f"what is attached to {hook_name(hook)} is asked of a descriptor, not of {target!r}")
    opener: Callable[[FdLike], FD] = duplicate
    return opener(target)
