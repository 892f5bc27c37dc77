"""What an interface can do with XDP, as its driver says. Since Linux 6.3; through netlink, without pyroute2.

Source: Documentation/netlink/specs/netdev.yaml, net/core/netdev-genl.c.
"""

from __future__ import annotations

import errno
import sys

from pybpf.errors import BPFNotFoundError, NotSupportedError
from pybpf.links.targets import interface_index
from pybpf.syscall import netlink_numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybpf import abi


class XDPAbilities:
    """What an interface can do with XDP.

    Attributes:
        zero_copy_segments: how many pieces a packet of AF_XDP may have without being copied; 0 when the driver does
            no zero copy, or before Linux 6.6.
    """

    __slots__ = ("_features", "_metadata", "_xsk", "zero_copy_segments")

    def __init__(self, answer: Mapping[int, bytes]) -> None:
        def get(kind: int) -> int:
            return int.from_bytes(answer.get(kind, b""), sys.byteorder)

        self._features = get(n.NETDEV_A_DEV_XDP_FEATURES)
        self._metadata = get(n.NETDEV_A_DEV_XDP_RX_METADATA_FEATURES)
        self._xsk = get(n.NETDEV_A_DEV_XSK_FEATURES)
        self.zero_copy_segments = get(n.NETDEV_A_DEV_XDP_ZC_MAX_SEGS)

    @property
    def features(self) -> abi.XDPFeatures:
        """What native XDP programs may do; nothing where there is generic XDP only."""
        from pybpf.abi import XDPFeatures

        return XDPFeatures(self._features)

    @property
    def metadata(self) -> abi.XDPMetadata:
        """What a program that is bound to the interface may ask about a packet. Told since Linux 6.7."""
        from pybpf.abi import XDPMetadata

        return XDPMetadata(self._metadata)

    @property
    def xsk(self) -> abi.XSKFeatures:
        """What is done for packets sent through AF_XDP. Told since Linux 6.8."""
        from pybpf.abi import XSKFeatures

        return XSKFeatures(self._xsk)

    def __repr__(self) -> str:
        words = [str(flag.name).lower() for flags in (self.features, self.metadata, self.xsk) for flag in flags]
        return f"<XDPAbilities {' '.join(words) or 'none'}>"


def xdp_features(interface: str | int) -> XDPAbilities:
    """What an interface can do with XDP, as its driver says. Since Linux 6.3.

    `abi.XDPFeatures.REDIRECT in xdp_features("eth0").features` tells whether programs may redirect what it receives.

    Args:
        interface: name or index.

    Raises:
        BPFNotFoundError: there is no such interface.
        NotSupportedError: the kernel does not tell (before Linux 6.3).
    """
    from pybpf.syscall.genetlink import GenericSocket

    index = interface_index(interface)
    with GenericSocket() as talk:
        try:
            family = talk.family("netdev")
        except BPFNotFoundError as error:
            what, hint = f"interface {interface}", "Drivers tell what they can do with XDP since Linux 6.3"
            raise NotSupportedError(errno.EOPNOTSUPP, error.command, what, hint) from None
        asked = {n.NETDEV_A_DEV_IFINDEX: index.to_bytes(4, sys.byteorder)}
        return XDPAbilities(talk.ask("NETDEV_CMD_DEV_GET", family, n.NETDEV_CMD_DEV_GET, asked))
