"""Capture: the packets that pass an interface and a classic filter.

    from pybpf.asm.classic import Filter
    from pybpf.capture import Capture

    with Capture("eth0", Filter.from_ddd(text)) as capture:
        for packet in capture:
            print(packet.time, packet.length, packet.data.hex())

Rules of this module:

* The filter runs in the kernel: what it drops is never copied.
* Nothing is received that the filter has not seen: until it is attached, one that drops everything is there.
* It needs CAP_NET_RAW, as every packet socket (packet(7)).
"""

from __future__ import annotations

import socket

from pybpf import syscall
from pybpf.asm.classic.names import ETHERNET
from pybpf.asm.classic.pcap import SNAPSHOT_LENGTH, Captured
from pybpf.errors import ClosedError, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.asm.classic import Filter

_ALL_PROTOCOLS = ETHERNET["ETH_P_ALL"]


def attach(sock: syscall.FdLike, program: Filter) -> None:
    """Let a filter decide what a socket receives (SO_ATTACH_FILTER, Linux 2.2).

    Raises:
        ObjectError: the kernel would not take the filter; the message says why, which the kernel's own does not.
        BPFPermissionError: the socket's filter is locked.
        BPFError: ENOTSOCK and so on.
    """
    program.check()
    syscall.attach_classic_filter(sock, program.to_bytes())


class Capture:
    """An open capture. Iterating over it waits for packets; `fileno()` is for select(2).

    Attributes:
        interface: its name, or empty for all of them.
        program: the filter, or None.
    """

    def __init__(self, interface: str = "", program: Filter | None = None, *, snapshot: int = SNAPSHOT_LENGTH) -> None:
        """Open a packet socket and attach the filter.

        Args:
            interface: its name; all interfaces when it is empty.
            program: what to keep; everything when it is None.
            snapshot: at most so many bytes of each packet.

        Raises:
            ObjectError: the filter is not valid.
            BPFPermissionError: CAP_NET_RAW is missing.
            BPFNotFoundError: there is no such interface.
        """
        from pybpf.asm.classic import Filter, Instruction
        from pybpf.asm.classic.instruction import RETURN

        self.interface = interface
        self.program = program
        self._buffer = memoryview(bytearray(snapshot))
        if program is not None:
            program.check()
        # A socket that will be bound has no protocol yet and receives nothing. One for all interfaces is not bound, and
        # receives from the start: what came before the filter was there is thrown away.
        protocol = 0 if interface else socket.htons(_ALL_PROTOCOLS)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol)
        except OSError as error:
            raise kernel_error(error.errno or 0, "socket", "capture", "It needs CAP_NET_RAW") from None
        try:
            attach(self._socket, Filter([Instruction(RETURN)]))
            if interface:
                try:
                    self._socket.bind((interface, _ALL_PROTOCOLS))
                except OSError as error:
                    raise kernel_error(error.errno or 0, "bind", f"interface {interface!r}") from None
            else:
                while self.receive(timeout=0) is not None:
                    pass
            if program is None:
                syscall.detach_socket_filter(self._socket)
            else:
                attach(self._socket, program)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The socket's descriptor. Raises `ClosedError` after `close()`."""
        if self.closed:
            raise ClosedError("the capture is closed")
        return self._socket.fileno()

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def receive(self, timeout: float | None = None) -> Captured | None:
        """The next packet, or None after `timeout` seconds without one.

        Raises:
            ClosedError: the capture is closed.
            BPFError: ENETDOWN: the interface went down.
        """
        from time import time

        self.fileno()
        self._socket.settimeout(timeout)
        try:
            # With MSG_TRUNC the call gives the packet's real length.
            length = self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError as error:
            raise kernel_error(error.errno or 0, "recvmsg", f"interface {self.interface!r}") from None
        return Captured(time(), length, bytes(self._buffer[: min(length, len(self._buffer))]))

    def __iter__(self) -> Iterator[Captured]:
        while (packet := self.receive()) is not None:
            yield packet

    def close(self) -> None:
        """Close the socket. May be called twice."""
        self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Capture {self.interface or 'all interfaces'}{' closed' if self.closed else ''}>"
