"""XDP: programs at a network interface's receive path.

A BPF link needs Linux 5.9. It and a program attached through netlink (``ip link set dev ... xdp``) exclude each other.

Source: net/core/dev.c, bpf_xdp_link_attach.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.constants import BPF_XDP, XDP_FLAGS_DRV_MODE, XDP_FLAGS_HW_MODE, XDP_FLAGS_SKB_MODE
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


def attach_xdp(program: Attachable, interface: str | int, *, mode: str = "auto") -> Link:
    """Attaches an XDP program to a network interface. Since Linux 5.9.

    Args:
        program: of type xdp.
        interface: name or index.
        mode: "auto", "native", "generic" or "offload".

    Raises:
        BPFNotFoundError: there is no such interface.
        BPFError: EBUSY, the interface has an XDP program; EINVAL, its driver or the packets' size do not allow one.
        BPFPermissionError: CAP_NET_ADMIN is missing.
    """
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, not {mode!r}")
    index = interface_index(interface)
    try:
        fd = syscall.link_create(program, index, BPF_XDP, flags=MODES[mode])
    except BPFError as error:
        raise refused(error, attaching(program, f"interface {interface}"), _hints(mode)) from None
    return Link(fd, "xdp", str(interface))


def _hints(mode: str) -> dict[int, str]:
    return {
        errno.EBUSY: "The interface has an XDP program; links and programs attached by `ip link` exclude each other",
        errno.EEXIST: "The interface has an XDP program in another mode",
        errno.EINVAL: "The kernel has no XDP links (Linux 5.9), or the interface does not take this program",
        errno.EOPNOTSUPP: f"The driver cannot run XDP programs in {mode} mode; generic mode works on every interface",
        **permission_hints(CAP_NET_ADMIN),
    }
