"""netfilter hooks: BPF programs among the rules of iptables and nftables. Since Linux 6.4.

The program belongs to the network namespace of the thread that attaches it.

Source: net/netfilter/nf_bpf_link.c.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_F_NETFILTER_IP_DEFRAG, BPF_NETFILTER
from pybpf.errors import BPFError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

FAMILIES = {"ipv4": 2, "ipv6": 10}
"""NFPROTO_IPV4 and NFPROTO_IPV6 (include/uapi/linux/netfilter.h)."""

HOOKS = {"pre_routing": 0, "local_in": 1, "forward": 2, "local_out": 3, "post_routing": 4}
"""NF_INET_... (include/uapi/linux/netfilter.h)."""


def attach_netfilter(
    program: Attachable, hook: str, *, family: str = "ipv4", priority: int = 0, defragment: bool = False
) -> Link:
    """Attaches a netfilter program to a hook of this thread's network namespace. Since Linux 6.4.

    Args:
        program: of type netfilter; it answers NF_DROP (0) or NF_ACCEPT (1).
        hook: "pre_routing", "local_in", "forward", "local_out" or "post_routing".
        family: "ipv4" or "ipv6".
        priority: programs and rules with lower numbers run first; each number can be taken once.
        defragment: the program wants whole packets (Linux 6.6); needs a priority above -400.

    Raises:
        BPFError: EBUSY, the priority is taken; ERANGE, the priority is out of range.
        NotSupportedError: this kernel has no netfilter programs, or cannot defragment.
    """
    if hook not in HOOKS:
        raise ValueError(f"hook is one of {', '.join(HOOKS)}, not {hook!r}")
    if family not in FAMILIES:
        raise ValueError(f"family is one of {', '.join(FAMILIES)}, not {family!r}")
    target = f"{family} {hook} priority {priority}"
    try:
        fd = syscall.link_create(
            program,
            0,
            BPF_NETFILTER,
            pf=FAMILIES[family],
            hooknum=HOOKS[hook],
            priority=priority,
            netfilter_flags=BPF_F_NETFILTER_IP_DEFRAG if defragment else 0,
        )
    except BPFError as error:
        hints = {
            errno.EBUSY: "This priority is taken by another program of the same hook",
            errno.ERANGE: "The lowest and the highest number are no priorities; defragmenting needs one above -400",
            errno.EINVAL: "Linux 6.4 brought netfilter links",
            errno.EOPNOTSUPP: "Linux 6.6 brought defragmenting, with CONFIG_NF_DEFRAG_IPV4 and _IPV6",
            **permission_hints(CAP_NET_ADMIN),
        }
        raise refused(error, attaching(program, f"netfilter {target}"), hints) from None
    return Link(fd, "netfilter", target)
