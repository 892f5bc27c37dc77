"""netlink: the talk with the kernel about interfaces, queues and routes, one request at a time.

The messages are made and read by whoever asks; here are only the socket and the frames. A socket belongs to the network
namespace of the thread that opened it, for as long as it is open.

Source: netlink(7), rtnetlink(7), include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import errno
import struct

from pybpf.errors import kernel_error
from pybpf.syscall.door import other
from pybpf.syscall.netlink_numbers import (
    NETLINK_EXT_ACK,
    NETLINK_ROUTE,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket
    from typing import Self

SOL_NETLINK = 270
"""include/linux/socket.h, which is not among the headers for user space."""

DUMPS = 10
"""How often a list that changes meanwhile is asked for."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
ATTRIBUTE = struct.Struct("=HH")  # length, type


class NetlinkSocket:
    """A netlink socket in this thread's network namespace. A context manager."""

    def __init__(self, name: str, protocol: int) -> None:
        """Opens it.

        Args:
            name: of the protocol, for errors and observers ("NETLINK_ROUTE").
            protocol: its number.

        Raises:
            BPFError: the kernel gives none.
        """
        import _socket

        made: list[socket] = []

        def enter() -> int:
            sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
            made.append(sock)  # type: ignore[arg-type]  # socket.socket is a subclass with more to import
            sock.bind((0, 0))
            try:
                sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)  # Linux 4.12
            except OSError:
                pass  # refusals come without words
            return sock.fileno()

        result = other("socket", name, 0, {}, enter)
        if result < 0 or not made:  # an observer that answers in the kernel's place makes no socket
            for sock in made:
                sock.close()
            raise kernel_error(max(-result, 0) or errno.ENOSYS, f"socket {name}")
        self._socket = made[0]
        self._sequence = 0

    def fileno(self) -> int:
        """The descriptor's number; -1 when it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """May be called twice."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def request(self, command: str, message: bytes) -> list[bytes]:
        """Send a message and collect what the kernel answers.

        Args:
            command: what the message asks, for errors and observers ("RTM_NEWTFILTER").
            message: with its header, whose sequence number is filled in here. It asks for an acknowledgement
                (NLM_F_ACK) or for a dump (NLM_F_DUMP): that ends the answer.

        Returns:
            The messages of the answer, each with its header, without acknowledgements. A list that changed while the
            kernel wrote it down (NLM_F_DUMP_INTR) is asked for again.

        Raises:
            BPFError: the kernel refused; the hint is what it says about the reason. EINTR: the list changed each time.
        """
        for _ in range(DUMPS):
            answers, changed = self._request(command, message)
            if not changed:
                return answers
        raise kernel_error(errno.EINTR, command, "", f"The list changed {DUMPS} times while the kernel wrote it down")

    def _request(self, command: str, message: bytes) -> tuple[list[bytes], bool]:
        """Ask once: the answer, and whether what it lists changed meanwhile."""
        self._sequence += 1
        frame = bytearray(message)
        struct.pack_into("=I", frame, 8, self._sequence)
        answers: list[bytes] = []
        words: list[str] = []
        changed = False

        def enter() -> int:
            nonlocal changed
            self._socket.send(frame)
            while True:
                for answer in _frames(self._receive()):
                    _, kind, flags, sequence, _ = _HEADER.unpack_from(answer)
                    if sequence != self._sequence:
                        continue  # the rest of an answer that was interrupted
                    changed |= bool(flags & NLM_F_DUMP_INTR)
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        number = struct.unpack_from("=i", answer, 16)[0] if len(answer) >= 20 else 0
                        words.append(_words(answer, flags))
                        return min(int(number), 0)
                    answers.append(answer)

        result = other("netlink", command, 0, {"message": bytes(frame)}, enter)
        if result < 0:
            raise kernel_error(-result, command, "", words[0] if words else "")
        return answers, changed

    def _receive(self) -> bytes:
        import _socket

        # the length first: messages about interfaces have no upper bound
        room = self._socket.recv_into(bytearray(1), 1, _socket.MSG_PEEK | _socket.MSG_TRUNC)
        return self._socket.recv(room)


class RouteSocket(NetlinkSocket):
    """A socket of NETLINK_ROUTE (rtnetlink). A context manager."""

    def __init__(self) -> None:
        super().__init__("NETLINK_ROUTE", NETLINK_ROUTE)


def _frames(data: bytes) -> list[bytes]:
    found = []
    place = 0
    while place + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, place)[0]
        if length < _HEADER.size:
            break
        found.append(data[place : place + length])
        place += (length + 3) & ~3
    return found


def _words(answer: bytes, flags: int) -> str:
    """What an acknowledgement says beside its number: empty when it says nothing."""
    if not flags & NLM_F_ACK_TLVS or len(answer) < 36:
        return ""
    place = 36 if flags & NLM_F_CAPPED else 20 + ((_HEADER.unpack_from(answer, 20)[0] + 3) & ~3)
    for kind, value in attributes_of(answer, place):
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode("utf-8", "replace")
    return ""


def attributes_of(message: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    """The numbers and values of the attributes of a message, from a place on."""
    while place + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, place)
        if length < ATTRIBUTE.size:
            break
        yield kind, message[place + ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3
