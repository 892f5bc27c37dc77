"""Attachments by BPF_PROG_ATTACH: for kernels without the link, and for what links cannot do.

Such a program stays attached until its `DirectAttachment` is closed, also when the process dies without closing it.
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, kernel_error
from pybpf.links.base import Attachment
from pybpf.links.refusal import refused
from pybpf.links.targets import duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pybpf.links.base import Attachable
    from pybpf.syscall import FD


class DirectAttachment(Attachment):
    """A program that BPF_PROG_ATTACH attached; `close()` detaches it, unless another has taken its place.

    One at an interface is closed and updated in the network namespace in which it was made.
    """

    __slots__ = ("_place",)

    def __init__(self, kind: str, target: str, place: _Place) -> None:
        super().__init__(kind, target, place.remove, (place,))
        self._place = place

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program of the same type in the place of this one, without a gap.

        Since Linux 5.6 for cgroups, where several programs may stand (BPF_F_REPLACE); LIRC devices cannot do it.

        Args:
            old: when given, this must be the program attached now; kernels cannot check more than that it is there.

        Raises:
            BPFError: EINVAL, the kernel cannot replace programs here; ENOENT, the program is attached no more.
        """
        self._check_open()
        what = f"updating {self._words()} to {program.name!r}"
        if old is not None and int(syscall.prog_info(old).id) != self._place.prog_id:
            raise kernel_error(errno.EPERM, "BPF_PROG_ATTACH", what, "The attached program is not the expected one")
        self._place.replace(program, what)


class _Place:
    """A hook of a target, and the program that was put there."""

    def __init__(self, target: int | FD, hook: int, flags: int, hints: Callable[[], Mapping[int, str]]) -> None:
        self._target = target
        self._hook = hook
        self._flags = flags
        self._hints = hints
        self._program: FD | None = None
        self._detach = syscall.prog_detach  # while Python shuts down, nothing can be imported any more
        self._query = syscall.prog_query
        self.prog_id = 0

    def put(self, program: Attachable, what: str, flags: int, replaced: Attachable | FD | None, revision: int) -> None:
        held = duplicate(program)
        try:
            number = int(syscall.prog_info(held).id)
            syscall.prog_attach(
                self._target, held, self._hook, flags=flags, replace_bpf_fd=replaced, expected_revision=revision
            )
        except BPFError as error:
            held.close()
            raise refused(error, what, self._hints()) from None
        except BaseException:
            held.close()
            raise
        if self._program is not None:
            self._program.close()
        self._program, self.prog_id = held, number

    def replace(self, program: Attachable, what: str) -> None:
        lists = self._hook in LISTS or self._flags & c.BPF_F_ALLOW_MULTI
        if lists:
            self.put(program, what, self._flags | c.BPF_F_REPLACE, self._program, 0)
        else:
            self.put(program, what, self._flags, None, 0)

    def remove(self) -> None:
        try:
            # cgroups detach whatever is there, when there can be only one
            if self.prog_id not in self._query(self._target, self._hook).prog_ids:
                return
        except BPFError:  # this hook tells nothing
            pass
        try:
            self._detach(self._target, self._hook, prog_fd=self._program)
        except BPFError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):  # somebody else did, or the device is gone
                raise

    def close(self) -> None:
        if self._program is not None:
            self._program.close()
        if not isinstance(self._target, int):
            self._target.close()


LISTS = frozenset({c.BPF_TCX_INGRESS, c.BPF_TCX_EGRESS, c.BPF_NETKIT_PRIMARY, c.BPF_NETKIT_PEER})
"""Hooks with a list of programs, of which one is replaced by name."""


def attach_directly(
    program: Attachable,
    target: int | FD,
    hook: int,
    *,
    kind: str,
    name: str,
    what: str,
    hints: Callable[[], Mapping[int, str]],
    flags: int = 0,
    replace: Attachable | None = None,
    expected_revision: int = 0,
) -> DirectAttachment:
    """Attaches a program by BPF_PROG_ATTACH. Takes ownership of the target's descriptor when it succeeds.

    Args:
        target: a descriptor, or an interface's number.
        hook: the attach type.
        kind, name: of the attachment.
        what: the words for what is being done.
        hints: gives the hints for refusals, by errno.
        flags: how the hook is to take it; they are kept for `update`.
        replace: the program whose place it takes.
        expected_revision: refuse when the list was changed since.
    """
    place = _Place(target, hook, flags, hints)
    place.put(program, what, flags | (c.BPF_F_REPLACE if replace is not None else 0), replace, expected_revision)
    return DirectAttachment(kind, name, place)
