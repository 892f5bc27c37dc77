"""Generic netlink: families of commands, which are asked for by name.

The messages are small and are made here, without pyroute2.

Source: include/uapi/linux/genetlink.h, net/netlink/genetlink.c.
"""

from __future__ import annotations

import struct
import sys

from pybpf.syscall import netlink_numbers as n
from pybpf.syscall.netlink import ATTRIBUTE, NetlinkSocket, attributes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADERS = struct.Struct("=IHHIIBBH")  # netlink's: length, type, flags, sequence number, port; command, version, unused


class GenericSocket(NetlinkSocket):
    """A socket of NETLINK_GENERIC in this thread's network namespace. A context manager."""

    def __init__(self) -> None:
        super().__init__("NETLINK_GENERIC", n.NETLINK_GENERIC)

    def family(self, name: str) -> int:
        """The number of a family on this kernel.

        Raises:
            BPFNotFoundError: the kernel has no such family.
        """
        asked = {n.CTRL_ATTR_FAMILY_NAME: name.encode() + b"\0"}
        answer = self.ask("CTRL_CMD_GETFAMILY", n.GENL_ID_CTRL, n.CTRL_CMD_GETFAMILY, asked)
        return int.from_bytes(answer.get(n.CTRL_ATTR_FAMILY_ID, b""), sys.byteorder)

    def ask(self, name: str, family: int, command: int, attributes: Mapping[int, bytes]) -> dict[int, bytes]:
        """Sends a command that has one answer.

        Args:
            name: the command's, for errors and observers ("NETDEV_CMD_DEV_GET").
            family: from `family`.
            command: its number in the family.
            attributes: by number.

        Returns:
            The attributes of the answer; none when an observer answers in the kernel's place.

        Raises:
            BPFError: the kernel refused.
        """
        body = b"".join(
            ATTRIBUTE.pack(ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)
            for kind, data in attributes.items()
        )
        flags = n.NLM_F_REQUEST | n.NLM_F_ACK
        headers = _HEADERS.pack(_HEADERS.size + len(body), family, flags, 0, 0, command, 1, 0)
        answers = self.request(name, headers + body)
        return dict(attributes_of(answers[0], _HEADERS.size)) if answers else {}
