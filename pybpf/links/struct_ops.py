"""struct_ops: registering a map of programs as an implementation of one of the kernel's structs.

A map with BPF_F_LINK (``SEC(".struct_ops.link")``, Linux 6.4) is registered by a link, which can change over to another
map without a gap. Without, writing the map's value registers it and deleting it unregisters it.

Source: bpf_map__attach_struct_ops() of libbpf; kernel/bpf/bpf_struct_ops.c.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_F_REPLACE, BPF_STRUCT_OPS
from pybpf.errors import BPFError, BPFNotFoundError, ObjectError
from pybpf.links.base import Attachment, Link
from pybpf.links.refusal import CAP_NET_ADMIN, permission_hints, refused
from pybpf.maps.struct_ops import StructOpsMap
from pybpf.syscall.fd import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

KEY = bytes(4)


class StructOpsLink(Link):
    """A registered struct_ops map, of which `update` puts another in its place."""

    __slots__ = ()

    def update(self, program: Attachable | StructOpsMap, *, old: Attachable | StructOpsMap | None = None) -> None:
        """Lets another map of the same struct take the place of the registered one, without a gap. Since Linux 6.4.

        Args:
            program: the map, which has BPF_F_LINK.
            old: when given, the kernel checks that this map is registered now.

        Raises:
            ObjectError: it is no such map.
            BPFError: EINVAL, it is of another struct, or this struct cannot be updated; EPERM, the map that is
                registered is not `old`.
        """
        if not isinstance(program, StructOpsMap) or not program.needs_link:
            raise ObjectError(f"{program!r}: a struct_ops link takes a struct_ops map with BPF_F_LINK")
        what = f"updating {self._words()} to map {program.name!r}"
        _write(program, what)
        try:
            if old is None:
                syscall.link_update(self.fd, program)
            else:
                syscall.link_update(self.fd, program, flags=BPF_F_REPLACE, old_prog_fd=old)
        except BPFError as error:
            hints = {
                errno.EINVAL: "The map is of another struct, or it was never written",
                errno.EPERM: "The map that is registered is not the expected one",
                errno.EOPNOTSUPP: "The kernel's struct cannot be updated while it is in use",
            }
            raise refused(error, what, hints) from None
        self.target = program.name


def attach_struct_ops(made: StructOpsMap) -> Link:
    """Registers a struct_ops map. Since Linux 5.6; with BPF_F_LINK since 6.4.

    Args:
        made: a struct_ops map of a loaded object.

    Returns:
        A `StructOpsLink`. For a map without BPF_F_LINK a `Link` without a link object, whose `close()` unregisters it;
        if it is forgotten, the kernel keeps the map registered.

    Raises:
        BPFExistsError: one of this name is registered.
        BPFError: EBUSY, a map without BPF_F_LINK was registered before: it can be only once.
        BPFError: EINVAL, the kernel wants a member that is not set, or a value is out of range.
        ObjectError: the map was opened, not loaded, and has no value to register.
    """
    what = f"registering struct_ops map {made.name!r}"
    if not made.prepared and not made.needs_link:
        raise ObjectError(f"map {made.name!r}: only a map of a loaded object can be registered")
    _write(made, what)
    if not made.needs_link:
        held = FD(duplicate(made))
        return Attachment("struct_ops", made.name, lambda: _unregister(held), (held,))
    try:
        return StructOpsLink(syscall.link_create(made, 0, BPF_STRUCT_OPS), "struct_ops", made.name)
    except BPFError as error:
        raise refused(error, what, _HINTS | permission_hints(CAP_NET_ADMIN)) from None


_HINTS = {
    errno.EEXIST: "One of this name is registered already",
    errno.EBUSY: "A map without BPF_F_LINK can be registered only once",
    errno.EINVAL: "The kernel wants a member that is not set, or refuses the value of one",
}


def _write(made: StructOpsMap, what: str) -> None:
    """Write the prepared value, unless the map has it already: it can be written only once."""
    if not made.prepared:
        return
    try:
        syscall.map_update_elem(made, KEY, made.prepared)
    except BPFError as error:
        if error.errno != errno.EBUSY or not made.needs_link:
            raise refused(error, what, _HINTS | permission_hints(CAP_NET_ADMIN)) from None


def _unregister(held: FD) -> None:
    try:
        syscall.map_delete_elem(held, KEY)
    except BPFNotFoundError:  # somebody else did
        return
