"""Where a program goes in a list of programs on one hook: tcx, netkit and (Linux 6.17) cgroups have such lists.

Without anything said it goes to the end. ``before=`` and ``after=`` name a neighbour: a `Link`, or a program that is
attached there. ``first=True`` and ``last=True`` mean the ends. `expected_revision` guards against somebody else's
change in between: the kernel refuses (ESTALE) when its counter is another.

Source: kernel/bpf/mprog.c.
"""

from __future__ import annotations

import errno

from pybpf.constants import BPF_F_AFTER, BPF_F_BEFORE, BPF_F_LINK
from pybpf.links.base import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

HINTS = {
    errno.ESTALE: "The list of programs has changed: its revision is not the expected one",
    errno.ERANGE: "The list is full (64 programs), or the neighbour is not in it",
    errno.EEXIST: "This program is in the list already",
    errno.ENOENT: "The neighbour is not attached there",
}


def anchor(
    before: Link | Attachable | None, after: Link | Attachable | None, first: bool, last: bool
) -> tuple[int, int]:
    """The attach flags and the relative descriptor (0: none).

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
        return flags, 0
    if isinstance(neighbour, Link):
        flags |= BPF_F_LINK
    return flags, neighbour.fileno()
