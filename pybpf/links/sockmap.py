"""Programs of socket maps: sk_skb and sk_msg run on the sockets that a sockmap or sockhash holds.

A link needs Linux 6.10. Before that BPF_PROG_ATTACH is used, which replaces the program that was there.

Source: net/core/sock_map.c.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.errors import BPFError, ObjectError
from pybpf.links.base import Link
from pybpf.links.direct import attach_directly
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable
    from pybpf.syscall import FdLike


def attach_sockmap(program: Attachable, map: FdLike, attach_type: int | None = None) -> Link:
    """Attaches an sk_skb or sk_msg program to a socket map. Since Linux 4.14; as a link since 6.10.

    Args:
        program: of type sk_skb or sk_msg.
        map: of type sockmap or sockhash.
        attach_type: an `AttachType`; default: the one the program was loaded for.

    Raises:
        BPFError: EBUSY, the map has such a program attached by another link; EINVAL, the types do not fit.
        ObjectError: the program was loaded for no hook and none is given.
    """
    hook = program.attach_type_number if attach_type is None else int(attach_type)
    if not hook:
        raise ObjectError(f"{program.name!r} was loaded for no hook: say attach_type=")
    target = f"map {getattr(map, 'name', '') or syscall.fileno(map)}"
    try:
        return Link(syscall.link_create(program, map, hook), "sockmap", target)
    except BPFError as error:
        if error.errno != errno.EINVAL:
            raise refused(error, attaching(program, target), _hints()) from None
    held = duplicate(map)
    try:
        what = attaching(program, target)
        return attach_directly(program, held, hook, kind="sockmap", name=target, what=what, hints=_hints)
    except BaseException:
        held.close()
        raise


def _hints() -> dict[int, str]:
    return {
        errno.EBUSY: "Another link holds this hook of the map",
        errno.EINVAL: "The map is no sockmap or sockhash, or the program's type does not fit the hook",
        **permission_hints(CAP_NET_ADMIN),
    }
