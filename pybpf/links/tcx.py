"""tcx and netkit: lists of programs at a network interface's ingress and egress, in the place of tc filters.

Source: kernel/bpf/tcx.c (Linux 6.6), drivers/net/netkit.c (Linux 6.7).
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_NETKIT_PEER, BPF_NETKIT_PRIMARY, BPF_TCX_EGRESS, BPF_TCX_INGRESS
from pybpf.errors import BPFError, ObjectError
from pybpf.links import anchor
from pybpf.links.base import Link
from pybpf.links.direct import attach_directly
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import interface_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.anchor import Neighbour
    from pybpf.links.base import Attachable

TCX = {"ingress": BPF_TCX_INGRESS, "egress": BPF_TCX_EGRESS}
NETKIT = {"primary": BPF_NETKIT_PRIMARY, "peer": BPF_NETKIT_PEER}


def attach_tcx(
    program: Attachable,
    interface: str | int,
    direction: str = "",
    *,
    before: Neighbour | None = None,
    after: Neighbour | None = None,
    first: bool = False,
    last: bool = False,
    expected_revision: int = 0,
    replace: Attachable | None = None,
) -> Link:
    """Attaches a tc classifier to a network interface with a tcx link. Since Linux 6.6.

    On an older kernel it becomes a tc filter (`attach_tc`), which needs pyroute2, and where no place is asked for.

    Args:
        program: of type sched_cls.
        interface: name or index.
        direction: "ingress" or "egress"; default: what the program's section says (``tcx/ingress``, ``tc/egress``).
        before: a `Link`, program or `AttachedProgram` to stand before.
        after: a `Link`, program or `AttachedProgram` to stand after.
        first: stand before all others.
        last: stand after all others, which is the default.
        expected_revision: refuse when the list was changed since; 0 does not check.
        replace: a program that was attached without a link, whose place this one takes, without a link too: a
            `DirectAttachment`, which stays when the process dies.

    Raises:
        BPFNotFoundError: there is no such interface, or the neighbour is not in the list.
        BPFExistsError: the program is attached there already.
        ObjectError: neither the call nor the section gives a direction.
    """
    attach_type = attach_type_of(program, direction, TCX, "direction")
    place = anchor.place_of(before, after, first, last)
    try:
        return _attach(program, interface, attach_type, place, expected_revision, replace, "tcx")
    except BPFError as error:
        if error.errno != errno.EINVAL or has_tcx():
            raise
        placed = bool(place.flags or expected_revision or replace)
        return _attach_before_tcx(error, program, interface, side_of(attach_type), placed)


def attach_netkit(
    program: Attachable,
    interface: str | int,
    side: str = "",
    *,
    before: Neighbour | None = None,
    after: Neighbour | None = None,
    first: bool = False,
    last: bool = False,
    expected_revision: int = 0,
    replace: Attachable | None = None,
) -> Link:
    """Attaches a program to a netkit device pair. Since Linux 6.7.

    Args:
        program: of type sched_cls.
        interface: name or index of the *primary* device.
        side: "primary" or "peer"; default: what the program's section says (``netkit/peer``).
        before: a `Link`, program or `AttachedProgram` to stand before.
        after: a `Link`, program or `AttachedProgram` to stand after.
        first: stand before all others.
        last: stand after all others, which is the default.
        expected_revision: refuse when the list was changed since; 0 does not check.
        replace: a program that was attached without a link, whose place this one takes, without a link too: a
            `DirectAttachment`, which stays when the process dies.

    Raises:
        BPFNotFoundError: there is no such interface, or the neighbour is not in the list.
        BPFError: the interface is not a primary netkit device (EINVAL).
        ObjectError: neither the call nor the section gives a side.
    """
    attach_type = attach_type_of(program, side, NETKIT, "side")
    place = anchor.place_of(before, after, first, last)
    return _attach(program, interface, attach_type, place, expected_revision, replace, "netkit")


def attach_type_of(program: Attachable, word: str, words: dict[str, int], name: str) -> int:
    """The attach type that the caller's word means, or the one that the program was loaded for."""
    if word:
        if word not in words:
            raise ValueError(f"{name} is one of {', '.join(words)}, not {word!r}")
        return words[word]
    if program.attach_type_number in words.values():
        return program.attach_type_number
    raise ObjectError(f"{program.name!r}: its section gives no {name}: say {name}= {' or '.join(words)}")


def side_of(attach_type: int) -> str:
    """The word for an attach type: "ingress", "peer" ..."""
    return next(word for words in (TCX, NETKIT) for word, number in words.items() if number == attach_type)


def has_tcx() -> bool:
    """Whether the kernel has tcx links (Linux 6.6), as far as can be told."""
    from pybpf.probe.links import has_link_type

    return has_link_type("tcx").verdict != "no"


def _attach(
    program: Attachable,
    interface: str | int,
    attach_type: int,
    place: anchor.Place,
    revision: int,
    replace: Attachable | None,
    kind: str,
) -> Link:
    if replace is not None and place.flags:
        raise ValueError("replace= says the place: leave out before, after, first and last")
    index = interface_index(interface)
    side = side_of(attach_type)
    name, what = f"{interface} {side}", attaching(program, f"{kind} {side} of {interface}")
    if replace is not None:
        return attach_directly(
            program,
            index,
            attach_type,
            kind=kind,
            name=name,
            what=what,
            hints=lambda: _hints(kind),
            replace=replace,
            expected_revision=revision,
        )
    try:
        fd = syscall.link_create(
            program,
            index,
            attach_type,
            flags=place.flags,
            relative_fd=place.relative_fd,
            relative_id=place.relative_id,
            expected_revision=revision,
        )
    except BPFError as error:
        raise refused(error, what, _hints(kind)) from None
    return Link(fd, kind, name)


def _hints(kind: str) -> dict[int, str]:
    invalid = "The program is not of type sched_cls"
    if kind == "netkit":
        invalid = "Linux 6.7 brought netkit, and the device must be a primary one"
    return {**anchor.HINTS, errno.EINVAL: invalid, **permission_hints(CAP_NET_ADMIN)}


def _attach_before_tcx(error: BPFError, program: Attachable, interface: str | int, side: str, placed: bool) -> Link:
    """What kernels before Linux 6.6 have in the place of tcx: a tc filter, when nothing forbids it."""
    from pybpf.links.netlink import NEEDS, has_pyroute2

    reason = ""
    if placed:
        reason = "Linux 6.6 brought tcx, and with it places and revisions"
    elif not has_pyroute2():
        reason = f"Linux 6.6 brought tcx. Before it a tc filter does the same; {NEEDS}"
    if reason:
        raise refused(error, error.what, {errno.EINVAL: reason}) from None
    from pybpf.links.tc import attach_tc

    return attach_tc(program, interface, side)
