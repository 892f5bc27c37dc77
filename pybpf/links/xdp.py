"""XDP: programs at a network interface's receive path.

A BPF link needs Linux 5.9. It and a program attached through netlink (``ip link set dev ... xdp``) exclude each other.

Source: net/core/dev.c, bpf_xdp_link_attach.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import (
    BPF_XDP,
    XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_HW_MODE,
    XDP_FLAGS_SKB_MODE,
)
from pybpf.errors import BPFError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints, refused
from pybpf.links.targets import interface_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable

MODES = {
    "auto": 0,
    "native": XDP_FLAGS_DRV_MODE,
    "generic": XDP_FLAGS_SKB_MODE,
    "offload": XDP_FLAGS_HW_MODE,
}
"""Where the program runs: in the driver, in the network stack, on the card; "auto" is native where the driver can."""


def attach_xdp(
    program: Attachable,
    interface: str | int,
    *,
    mode: str = "auto",
    netlink: bool = False,
    replace: Attachable | None = None,
) -> Link:
    """Attaches an XDP program to a network interface. As a link since Linux 5.9.

    On an older kernel it is attached through netlink, which needs pyroute2.

    Args:
        program: of type xdp.
        interface: name or index.
        mode: "auto", "native", "generic" or "offload".
        netlink: attach through netlink, as ``ip link`` does: a `NetlinkXDP`, which needs pyroute2 and Linux 4.8. It
            stays attached when the process dies.
        replace: with netlink, the program attached now, whose place this one takes (Linux 5.7).

    Raises:
        BPFNotFoundError: there is no such interface.
        BPFError: EBUSY, the interface has an XDP program; EINVAL, its driver or the packets' size do not allow one.
        BPFPermissionError: CAP_NET_ADMIN is missing.
        ModuleNotFoundError: netlink is asked for and pyroute2 is not installed.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    if replace is not None and not netlink:
        raise ValueError("replace= is for netlink=True; a link changes its program by update()")
    index = interface_index(interface)
    if not netlink:
        try:
            return Link(syscall.link_create(program, index, BPF_XDP, flags=MODES[mode]), "xdp", str(interface))
        except BPFError as error:
            what = attaching(program, f"interface {interface}")
            if error.errno != errno.EINVAL or has_xdp_link():
                raise refused(error, what, _hints(mode)) from None
            from pybpf.links.netlink import NEEDS, has_pyroute2

            if not has_pyroute2():
                hint = f"Linux 5.9 brought XDP links. Before it netlink does the same; {NEEDS}"
                raise refused(error, what, {errno.EINVAL: hint}) from None
    from pybpf.links.xdp_netlink import attach_xdp_netlink

    return attach_xdp_netlink(program, interface, MODES[mode], replace)


def has_xdp_link() -> bool:
    """Whether the kernel has XDP links (Linux 5.9), as far as can be told."""
    from pybpf.probe.links import has_link_type

    return has_link_type("xdp").verdict != "no"


def _hints(mode: str) -> dict[int, str]:
    return {
        errno.EBUSY: "The interface has an XDP program; links and programs attached by `ip link` exclude each other",
        errno.EEXIST: "The interface has an XDP program in another mode",
        errno.EINVAL: "The interface does not take this program: its driver or the size of its packets forbids it",
        errno.EOPNOTSUPP: f"The driver cannot run XDP programs in {mode} mode; generic mode works on every interface",
        **permission_hints(CAP_NET_ADMIN),
    }
