"""Hooks of a network namespace: flow_dissector (a link since Linux 5.8) and sk_lookup (Linux 5.9).

Source: kernel/bpf/net_namespace.c.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_FLOW_DISSECTOR, BPF_PROG_TYPE_FLOW_DISSECTOR, BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP
from pybpf.errors import BPFError, ObjectError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import open_netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

    from pybpf.links.base import Attachable
    from pybpf.syscall import FdLike

HOOKS = {BPF_PROG_TYPE_FLOW_DISSECTOR: BPF_FLOW_DISSECTOR, BPF_PROG_TYPE_SK_LOOKUP: BPF_SK_LOOKUP}
"""Program type and its hook."""


def attach_netns(program: Attachable, namespace: str | os.PathLike[str] | int | FdLike | None = None) -> Link:
    """Attaches a flow_dissector or sk_lookup program to a network namespace. Since Linux 5.8.

    Args:
        program: of type flow_dissector (one for each namespace) or sk_lookup (up to 64).
        namespace: None for this thread's, the name or path of one, the id of a process, or an open file.

    Raises:
        BPFNotFoundError: there is no such namespace.
        BPFExistsError: the namespace has a flow dissector; the initial namespace's excludes all others.
        ObjectError: the program is of another type.
    """
    hook = HOOKS.get(program.type_number)
    if hook is None:
        raise ObjectError(f"{program.name!r} is neither a flow_dissector nor an sk_lookup program")
    fd, name = open_netns(namespace)
    with fd:
        try:
            link = syscall.link_create(program, fd, hook)
        except BPFError as error:
            hints = {
                errno.EEXIST: "There is a flow dissector, here or in the initial network namespace",
                errno.EINVAL: "The descriptor is no network namespace, or the kernel has no such links (Linux 5.8)",
                errno.E2BIG: "The namespace has 64 sk_lookup programs, which is all it takes",
                **permission_hints(CAP_NET_ADMIN),
            }
            raise refused(error, attaching(program, f"network namespace {name}"), hints) from None
    return Link(link, "netns", name)
