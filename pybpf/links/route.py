"""LWT: programs in a route's encapsulation, which see what is sent or received over it.

Through netlink, with pyroute2 (``pip install 'pybpf[net]'``). The route is the attachment: closing removes it. It stays
when the process dies. `ip route ... encap bpf` and `encap seg6local` do the same with a pinned program.

Source: net/core/lwt_bpf.c (Linux 4.10), net/ipv6/seg6_local.c (Linux 4.18); ip-route(8).
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf.errors import BPFError, ObjectError
from pybpf.links.base import Attachment
from pybpf.links.netlink import Talk, pyroute2_module
from pybpf.links.refusal import attaching
from pybpf.links.targets import interface_index
from pybpf.syscall import netlink_numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pybpf.links.base import Attachable

HOOKS = {
    c.BPF_PROG_TYPE_LWT_IN: "LWT_BPF_IN",
    c.BPF_PROG_TYPE_LWT_OUT: "LWT_BPF_OUT",
    c.BPF_PROG_TYPE_LWT_XMIT: "LWT_BPF_XMIT",
}
"""Program type and its place in the encapsulation."""

_HINTS = {
    errno.EEXIST: "There is such a route",
    errno.EOPNOTSUPP: "The kernel was built without this encapsulation (CONFIG_LWTUNNEL_BPF, CONFIG_IPV6_SEG6_BPF)",
    errno.EINVAL: "The program is not of the type that this place takes, or the route makes no sense",
    errno.ENETUNREACH: "The gateway is not reachable, or the interface is down",
    errno.ENETDOWN: "The interface is down",
}


class RouteAttachment(Attachment):
    """Programs on a route; `close()` removes the route."""

    __slots__ = ("_place",)

    def __init__(self, target: str, place: _Place) -> None:
        super().__init__("lwt", target, place.remove, (place,))
        self._place = place

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program on the route, in the place of all that are there.

        Args:
            program: of any of the types.
            old: not for routes: the kernel does not tell which programs they have.

        Raises:
            ValueError: `old` is given.
        """
        if old is not None:
            raise ValueError("old= is not for routes: the kernel does not tell which programs they have")
        self._check_open()
        self._place.put((program,), f"updating {self._words()} to {program.name!r}", n.NLM_F_CREATE | n.NLM_F_REPLACE)


class _Place:
    """A route, and the talk about it."""

    def __init__(self, fields: dict[str, int], attributes: list[tuple[str, Any]], headroom: int) -> None:
        self._fields = fields
        self._attributes = attributes
        self._headroom = headroom
        self._talk = Talk(pyroute2_module("netlink.rtnl.rtmsg").rtmsg)

    def put(self, programs: Sequence[Attachable], what: str, flags: int) -> None:
        attributes = [*self._attributes, *_encapsulation(programs, self._headroom)]
        self._talk.ask("RTM_NEWROUTE", n.RTM_NEWROUTE, self._fields, attributes, what, flags=flags, hints=_HINTS)

    def remove(self) -> None:
        try:
            self._talk.ask("RTM_DELROUTE", n.RTM_DELROUTE, self._fields, self._attributes, "removing a route")
        except BPFError as error:
            if error.errno not in (errno.ESRCH, errno.ENODEV):  # it is gone, or its interface
                raise

    def close(self) -> None:
        self._talk.close()


def attach_lwt(
    program: Attachable,
    destination: str,
    interface: str | int,
    *,
    gateway: str = "",
    others: Sequence[Attachable] = (),
    headroom: int = 0,
    table: int = n.RT_TABLE_MAIN,
    metric: int = 0,
) -> RouteAttachment:
    """Adds a route over which a program sees every packet. Since Linux 4.10; needs pyroute2.

    Args:
        program: of type lwt_in (what arrives), lwt_out (what leaves), lwt_xmit (what is sent, and may be changed), or
            lwt_seg6local (IPv6 segment routing, End.BPF; Linux 4.18).
        destination: "10.1.0.0/16", "fc00::/64", or an address.
        interface: name or index of the interface that the route leads to.
        gateway: the next router, of the same address family.
        others: more programs for the same route, of other types.
        headroom: bytes that an lwt_xmit program may add to a packet, at most 256.
        table: the routing table.
        metric: lower is preferred; 0 lets the kernel choose.

    Raises:
        BPFExistsError: there is such a route.
        BPFNotFoundError: there is no such interface.
        ModuleNotFoundError: pyroute2 is not installed.
        ObjectError: a program is of another type, or two are of the same.
        ValueError: the destination is no network, the gateway no address of its family, or a number out of range.
    """
    import ipaddress
    from _socket import AF_INET, AF_INET6

    network = ipaddress.ip_network(destination)
    index = interface_index(interface)
    fields = {
        "family": AF_INET if network.version == 4 else AF_INET6,
        "dst_len": network.prefixlen,
        "table": table if table < 256 else 0,
        "proto": n.RTPROT_STATIC,
        "type": n.RTN_UNICAST,
        "scope": n.RT_SCOPE_UNIVERSE if gateway or network.version == 6 else n.RT_SCOPE_LINK,
    }
    attributes: list[tuple[str, Any]] = [
        ("RTA_DST", str(network.network_address)),
        ("RTA_OIF", index),
        ("RTA_TABLE", table),
    ]
    if gateway:
        attributes.append(("RTA_GATEWAY", gateway))
    if metric:
        attributes.append(("RTA_PRIORITY", metric))
    target = f"{network} over {interface}"
    place = _Place(fields, attributes, headroom)
    try:
        place.put((program, *others), attaching(program, f"route {target}"), n.NLM_F_CREATE | n.NLM_F_EXCL)
    except BaseException:
        place.close()
        raise
    return RouteAttachment(target, place)


def _encapsulation(programs: Sequence[Attachable], headroom: int) -> list[tuple[str, Any]]:
    places: dict[str, Any] = {}
    for program in programs:
        code = {"attrs": [("LWT_BPF_PROG_FD", program.fileno()), ("LWT_BPF_PROG_NAME", program.name)]}
        if program.type_number == c.BPF_PROG_TYPE_LWT_SEG6LOCAL and len(programs) == 1:
            action = [("SEG6_LOCAL_ACTION", "End.BPF"), ("SEG6_LOCAL_BPF", code)]
            return [("RTA_ENCAP_TYPE", n.LWTUNNEL_ENCAP_SEG6_LOCAL), ("RTA_ENCAP", {"attrs": action})]
        place = HOOKS.get(program.type_number)
        if place is None or place in places:
            kinds = "lwt_in, lwt_out and lwt_xmit, or one lwt_seg6local program alone"
            raise ObjectError(f"{program.name!r}: a route takes one program of each of the types {kinds}")
        places[place] = code
    if headroom:
        places["LWT_BPF_XMIT_HEADROOM"] = headroom
    return [("RTA_ENCAP_TYPE", n.LWTUNNEL_ENCAP_BPF), ("RTA_ENCAP", {"attrs": list(places.items())})]
