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
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import interface_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

TCX = {"ingress": BPF_TCX_INGRESS, "egress": BPF_TCX_EGRESS}
NETKIT = {"primary": BPF_NETKIT_PRIMARY, "peer": BPF_NETKIT_PEER}


def attach_tcx(
    program: Attachable,
    interface: str | int,
    direction: str = "",
    *,
    before: Link | Attachable | None = None,
    after: Link | Attachable | None = None,
    first: bool = False,
    last: bool = False,
    expected_revision: int = 0,
) -> Link:
    """Attaches a tc classifier to a network interface with a tcx link. Since Linux 6.6.

    Args:
        program: of type sched_cls.
        interface: name or index.
        direction: "ingress" or "egress"; default: what the program's section says (``tcx/ingress``, ``tc/egress``).
        before: a `Link` or program to stand before.
        after: a `Link` or program to stand after.
        first: stand before all others.
        last: stand after all others, which is the default.
        expected_revision: refuse when the list was changed since; 0 does not check.

    Raises:
        BPFNotFoundError: there is no such interface, or the neighbour is not in the list.
        BPFExistsError: the program is attached there already.
        ObjectError: neither the call nor the section gives a direction.
    """
    attach_type = _attach_type(program, direction, TCX, "direction")
    flags, relative = anchor.anchor(before, after, first, last)
    return _attach(program, interface, attach_type, flags, relative, expected_revision, "tcx")


def attach_netkit(
    program: Attachable,
    interface: str | int,
    side: str = "",
    *,
    before: Link | Attachable | None = None,
    after: Link | Attachable | None = None,
    first: bool = False,
    last: bool = False,
    expected_revision: int = 0,
) -> Link:
    """Attaches a program to a netkit device pair. Since Linux 6.7.

    Args:
        program: of type sched_cls.
        interface: name or index of the *primary* device.
        side: "primary" or "peer"; default: what the program's section says (``netkit/peer``).
        before: a `Link` or program to stand before.
        after: a `Link` or program to stand after.
        first: stand before all others.
        last: stand after all others, which is the default.
        expected_revision: refuse when the list was changed since; 0 does not check.

    Raises:
        BPFNotFoundError: there is no such interface, or the neighbour is not in the list.
        BPFError: the interface is not a primary netkit device (EINVAL).
        ObjectError: neither the call nor the section gives a side.
    """
    attach_type = _attach_type(program, side, NETKIT, "side")
    flags, relative = anchor.anchor(before, after, first, last)
    return _attach(program, interface, attach_type, flags, relative, expected_revision, "netkit")


def _attach_type(program: Attachable, word: str, words: dict[str, int], name: str) -> int:
    if word:
        if word not in words:
            raise ValueError(f"{name} is one of {', '.join(words)}, not {word!r}")
        return words[word]
    if program.attach_type_number in words.values():
        return program.attach_type_number
    raise ObjectError(f"{program.name!r}: its section gives no {name}: say {name}= {' or '.join(words)}")


def _attach(
    program: Attachable, interface: str | int, attach_type: int, flags: int, relative: int, revision: int, kind: str
) -> Link:
    index = interface_index(interface)
    side = next(word for words in (TCX, NETKIT) for word, number in words.items() if number == attach_type)
    try:
        fd = syscall.link_create(
            program, index, attach_type, flags=flags, relative_fd=relative, expected_revision=revision
        )
    except BPFError as error:
        since = (
            "Linux 6.6 brought tcx"
            if kind == "tcx"
            else "Linux 6.7 brought netkit, and the device must be a primary one"
        )
        hints = {**anchor.HINTS, errno.EINVAL: since, **permission_hints(CAP_NET_ADMIN)}
        raise refused(error, attaching(program, f"{kind} {side} of {interface}"), hints) from None
    return Link(fd, kind, f"{interface} {side}")
