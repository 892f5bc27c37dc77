"""rtnetlink: one request at a time, its answer, and what the kernel says when it refuses."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from pybpf import syscall
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError
from pybpf.syscall import netlink_numbers as n
from pybpf.syscall.netlink import RouteSocket, _frames, _words

IFINFO = struct.Struct("=BxHiII")


def get_link(index: int, flags: int = n.NLM_F_ACK) -> bytes:
    body = IFINFO.pack(0, 0, index, 0, 0)
    return struct.pack("=IHHII", 16 + len(body), n.RTM_GETLINK, n.NLM_F_REQUEST | flags, 0, 0) + body


class Watch:
    def __init__(self, answer: int | None = None, refusal: int = 0, name: str = "netlink") -> None:
        self.answer, self.refusal, self.name = answer, refusal, name
        self.calls: list[syscall.Call] = []

    def before(self, call: syscall.Call) -> int | None:
        if call.name != self.name:
            return None
        self.calls.append(call)
        call.result = self.answer
        return self.refusal or None

    def after(self, call: syscall.Call) -> None:
        pass

    def __enter__(self) -> Watch:
        syscall.add_observer(self)
        return self

    def __exit__(self, *_: object) -> None:
        syscall.remove_observer(self)


def test_one_answer() -> None:
    with RouteSocket() as route:
        (answer,) = route.request("RTM_GETLINK", get_link(1))
        assert IFINFO.unpack_from(answer, 16)[2] == 1
        assert b"lo\0" in answer


def test_a_list() -> None:
    with RouteSocket() as route:
        answers = route.request("RTM_GETLINK", get_link(0, n.NLM_F_DUMP))
    assert sorted(IFINFO.unpack_from(a, 16)[2] for a in answers) == sorted(i for i, _ in socket.if_nameindex())


class Changing:
    """In the place of a socket: lists that change while they are written down, `times` times, maybe at the very end."""

    def __init__(self, times: int, at_the_end: bool = False) -> None:
        self.times, self.at_the_end, self.requests = times, at_the_end, 0
        self.answer = b""

    def send(self, frame: bytes) -> None:
        self.requests += 1
        flags = n.NLM_F_DUMP_INTR if self.requests <= self.times else 0
        sequence = struct.unpack_from("=I", frame, 8)[0]
        pieces = [
            (n.RTM_GETLINK, 0, b"whole"),
            (n.RTM_GETLINK, 0 if self.at_the_end else flags, b"half"),
            (n.NLMSG_DONE, flags, bytes(4)),
        ]
        self.answer = b"".join(
            struct.pack("=IHHII", 16 + len(body), kind, bits, sequence, 0) + body.ljust(len(body) + 3 & ~3, b"\0")
            for kind, bits, body in pieces
        )

    def recv_into(self, buffer: bytearray, size: int, flags: int) -> int:
        return len(self.answer)

    def recv(self, size: int) -> bytes:
        return self.answer[:size]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("times", [0, 1, 9])
def test_a_list_that_changes_meanwhile_is_asked_for_again(
    times: int, at_the_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RouteSocket() as real, monkeypatch.context() as patch:
        patch.setattr(real, "_socket", Changing(times, at_the_end))
        assert len(real.request("RTM_GETLINK", get_link(0, n.NLM_F_DUMP))) == 2
        assert real._socket.requests == times + 1


def test_a_list_that_never_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with RouteSocket() as real, monkeypatch.context() as patch:
        patch.setattr(real, "_socket", Changing(10))
        with pytest.raises(BPFError, match="changed 10 times") as raised:
            real.request("RTM_GETLINK", get_link(0, n.NLM_F_DUMP))
        assert raised.value.errno == errno.EINTR


def test_a_refusal_and_the_next_request() -> None:
    with RouteSocket() as route:
        with pytest.raises(BPFNotFoundError) as raised:
            route.request("RTM_GETLINK", get_link(1 << 30))
        assert (raised.value.errno, raised.value.command) == (errno.ENODEV, "RTM_GETLINK")
        assert len(route.request("RTM_GETLINK", get_link(1))) == 1


def test_what_the_kernel_says_about_it() -> None:
    """A queue of a kind that is none: the kernel has words for it (Linux 4.12)."""
    body = struct.pack("=BxHiIII", 0, 0, 1, 0, n.TC_H_ROOT, 0) + struct.pack("=HH8s", 12, 1, b"nothing\0")
    flags = n.NLM_F_REQUEST | n.NLM_F_ACK | n.NLM_F_CREATE | n.NLM_F_EXCL
    message = struct.pack("=IHHII", 16 + len(body), n.RTM_NEWQDISC, flags, 0, 0) + body
    with RouteSocket() as route, pytest.raises(BPFError) as raised:
        route.request("RTM_NEWQDISC", message)
    if isinstance(raised.value, BPFPermissionError):
        pytest.skip("not allowed to change queues")
    assert "kind" in raised.value.hint


def test_observers_see_it_and_may_refuse() -> None:
    with RouteSocket() as route, Watch() as watch:
        route.request("RTM_GETLINK", get_link(1))
        (call,) = watch.calls
        assert (call.command, call.result) == ("RTM_GETLINK", 0)
        assert call.arguments["message"][:4] == struct.pack("=I", 32)
    with RouteSocket() as route, Watch(refusal=errno.EPERM), pytest.raises(BPFPermissionError, match="RTM_GETLINK"):
        route.request("RTM_GETLINK", get_link(1))
    with RouteSocket() as route, Watch(answer=0):
        assert route.request("RTM_GETLINK", get_link(1)) == []
    for refusal in ({"refusal": errno.EMFILE}, {"answer": 7}):
        with Watch(name="socket", **refusal), pytest.raises(BPFError, match="socket NETLINK_ROUTE") as raised:
            RouteSocket()
        assert raised.value.errno == refusal.get("refusal", errno.ENOSYS)


@pytest.mark.parametrize(
    "data", [b"", b"\x10", bytes(16), b"\x08\x00\x00\x00" + bytes(20), b"\xff\xff\xff\x7f" + bytes(30)]
)
def test_frames_that_lie_about_their_length(data: bytes) -> None:
    assert len(_frames(data)) <= 1


@pytest.mark.parametrize("tail", [b"", b"\x00\x00\x01\x00", b"\x03\x00\x01\x00abc", b"\xff\xff\x01\x00text\0"])
def test_words_that_lie_about_their_length(tail: bytes) -> None:
    answer = struct.pack("=IHHIIi", 0, n.NLMSG_ERROR, 0, 0, 0, -22) + struct.pack("=IHHII", 16, 0, 0, 0, 0) + tail
    assert _words(answer, n.NLM_F_ACK_TLVS) in ("", "text")
