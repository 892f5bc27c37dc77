"""Where a program goes in a list of programs on one hook: tcx, netkit and (Linux 6.17) cgroups have such lists.

Without anything said it goes to the end. ``before=`` and ``after=`` name a neighbour: a `Link`, a program that is
attached there, or an `AttachedProgram` that `query` has found there. ``first=True`` and ``last=True`` mean the ends.
`expected_revision` guards against somebody else's change in between: the kernel refuses (ESTALE) when its counter is
another.

Source: kernel/bpf/mprog.c.
"""

from __future__ import annotations

import errno

from pybpf.constants import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_LINK
from pybpf.links.attached import AttachedProgram
from pybpf.links.base import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

    Neighbour = Link | Attachable | AttachedProgram

HINTS = {
    errno.ESTALE: "The list of programs has changed: its revision is not the expected one",
    errno.ERANGE: "The list is full (64 programs), or the neighbour is not in it",
    errno.EEXIST: "This program is in the list already",
    errno.ENOENT: "The neighbour is not attached there",
}


class Place:
    """A place in a list, in the words of BPF_LINK_CREATE.

    Attributes:
        flags: BPF_F_BEFORE, BPF_F_AFTER, BPF_F_LINK.
        relative_fd, relative_id: the neighbour: one of them, or none.
    """

    __slots__ = ("flags", "relative_fd", "relative_id")

    def __init__(self, flags: int, relative_fd: int | None = None, relative_id: int = 0) -> None:
        self.flags = flags
        self.relative_fd = relative_fd
        self.relative_id = relative_id


def place_of(before: Neighbour | None, after: Neighbour | None, first: bool, last: bool) -> Place:
    """What the caller's words mean.

    Raises:
        ValueError: more than one place is given.
    """
    if (before is not None) + (after is not None) + first + last > 1:
        raise ValueError("give one of before, after, first and last")
    neighbour = before if before is not None else after
    flags = 0
    if before is not None or first:
        flags = BPF_F_BEFORE
    elif after is not None or last:
        flags = BPF_F_AFTER
    if neighbour is None:
        return Place(flags)
    if isinstance(neighbour, AttachedProgram):
        link = BPF_F_LINK if neighbour.link_id else 0
        return Place(flags | link, relative_id=neighbour.link_id or neighbour.prog_id)
    if isinstance(neighbour, Link):
        flags |= BPF_F_LINK
    return Place(flags, neighbour.fileno())
