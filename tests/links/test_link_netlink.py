"""tc filters, XDP and LWT through netlink, in a network namespace of their own; tc(8) and ip(8) are the oracle."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_helpers import Refuse, eventually, has_enumerator
from link_network import add_pair, exchange, private_network, set_up
from link_programs import Counter, exit_with, load

from pybpf import constants as c
from pybpf import links, syscall
from pybpf.errors import (
    BPFError,
    BPFExistsError,
    BPFNotFoundError,
    BPFPermissionError,
    ClosedError,
    NotSupportedError,
    ObjectError,
)
from pybpf.links.xdp import has_xdp_link
from pybpf.probe.answer import forget
from pybpf.program import Program

pytest.importorskip("pyroute2", reason="the extra 'net' is not installed")

NEXT, SHOT, DROP, PASS = -1, 2, 1, 2


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture
def older_kernel() -> Iterator[Refuse]:
    """The kernel refuses links as one does that does not know them, and what a probe has found is forgotten."""
    forget()
    with Refuse("BPF_LINK_CREATE", errno.EINVAL) as refuse:
        yield refuse
    forget()


@pytest.fixture
def classifier(counting: Callable[..., Program]) -> Program:
    return counting(c.BPF_PROG_TYPE_SCHED_CLS, result=NEXT, everywhere=True)


@pytest.fixture
def clsact() -> None:
    """The kernel has clsact queues and BPF filters; stock kernels have them as modules."""
    try:
        links.add_clsact("lo")
    except BPFError as error:
        pytest.skip(f"the kernel has no clsact queues: {error}")
    links.remove_clsact("lo")


def oracle(*command: str) -> list[dict[str, object]]:
    """What ip(8) or tc(8) says, as they write it in JSON."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    run = subprocess.run([command[0], "-j", *command[1:]], capture_output=True, text=True, check=True)
    found: list[dict[str, object]] = json.loads(run.stdout or "[]")
    return found


def filters_by_tc(direction: str) -> list[tuple[int, int]]:
    """Priority and program of each filter, by tc(8)."""
    rows = oracle("tc", "filter", "show", "dev", "lo", direction)
    return [(row["pref"], row["options"]["prog"]["id"]) for row in rows if "options" in row]


# tc


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_tc(classifier: Program, counter: Counter, clsact: None, direction: str) -> None:
    exchange()
    assert counter.value == 0
    with links.attach_tc(classifier, "lo", direction) as link:
        assert (link.kind, link.target, link.id) == ("tc", f"lo {direction}", 0)
        exchange()
        assert counter.value > 0
        (info,) = links.tc_filters("lo")
        assert (info.direction, info.prog_id, info.direct_action) == (direction, classifier.id, True)
        assert (info.handle, info.priority, info.protocol) == (link.handle, link.priority, 3)
        assert info.name == f"probe:[{classifier.id}]"
        assert filters_by_tc(direction) == [(link.priority, classifier.id)]
        assert filters_by_tc({"ingress": "egress", "egress": "ingress"}[direction]) == []
    before = counter.value
    exchange()
    assert counter.value == before
    assert links.tc_filters("lo") == []
    assert links.has_clsact("lo")
    assert links.remove_clsact("lo")
    assert not links.remove_clsact("lo")


def test_tc_filter_that_drops(loader: Callable[..., Program], clsact: None) -> None:
    with (
        links.attach_tc(loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(SHOT)), "lo", "egress"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        client.sendto(b"x", server.getsockname())
        with pytest.raises(TimeoutError):
            server.recv(1)
    exchange()


def test_tc_places_and_replacing(loader: Callable[..., Program], clsact: None) -> None:
    first, second, third = (loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT)) for _ in range(3))
    late = links.attach_tc(first, "lo", "ingress", priority=20)
    early = links.attach_tc(second, "lo", "ingress", priority=10, handle=0x7)
    assert [(info.priority, info.prog_id) for info in links.tc_filters("lo", "ingress")] == [
        (10, second.id),
        (20, first.id),
    ]
    assert filters_by_tc("ingress") == [(10, second.id), (20, first.id)]
    assert links.tc_filters("lo", "egress") == []
    with pytest.raises(BPFExistsError, match="attaching 'probe' to tc lo ingress"):
        links.attach_tc(third, "lo", "ingress", priority=10, handle=0x7)
    taken = links.attach_tc(third, "lo", "ingress", priority=10, handle=0x7, replace=True)
    early.close()  # its filter is another's by now
    assert [info.prog_id for info in links.tc_filters("lo", "ingress")] == [third.id, first.id]
    taken.update(second, old=third)
    with pytest.raises(BPFPermissionError, match="not the expected one"):
        taken.update(third, old=third)
    info = taken.filter_info()
    assert info is not None
    assert (info.prog_id, info.handle, info.priority) == (second.id, 0x7, 10)
    taken.close()
    with pytest.raises(ClosedError, match="tc lo ingress is closed"):
        taken.update(first)
    late.close()
    assert links.tc_filters("lo") == []


def test_tc_filter_whose_queue_or_interface_is_gone(classifier: Program, clsact: None) -> None:
    link = links.attach_tc(classifier, "lo", "ingress")
    links.clear_tc("lo", "ingress")
    assert link.filter_info() is None
    link.close()
    link = links.attach_tc(classifier, "lo", "ingress")
    links.remove_clsact("lo")
    link.close()
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    link = links.attach_tc(classifier, "left", "ingress")
    with load(c.BPF_PROG_TYPE_XDP, exit_with(PASS)) as program:
        xdp = links.attach_xdp(program, "left", netlink=True)
        oracle("ip", "link", "del", "left")
        link.close()
        xdp.close()


def test_tc_classful_queue(classifier: Program, counter: Counter, clsact: None) -> None:
    """A filter of another queue than clsact, found by its parent."""
    try:
        oracle("tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the kernel has no prio queues: {error.stderr}")
    with links.attach_tc(classifier, "lo", parent=0x10000, direct_action=False, class_id=0x10001) as link:
        assert link.target == "lo 0x10000"
        exchange()
        assert counter.value > 0
        (info,) = links.tc_filters("lo", parent=0x10000)
        assert (info.direction, info.direct_action, info.class_id) == ("", False, 0x10001)
    assert links.tc_filters("lo", parent=0x10000) == []


def test_tc_belongs_to_its_namespace(classifier: Program, clsact: None) -> None:
    """Closing removes the filter where it was made, not one of the same number in another namespace."""
    link = links.attach_tc(classifier, "lo", "ingress", priority=1, handle=1)
    with private_network():
        other = links.attach_tc(classifier, "lo", "ingress", priority=1, handle=1)
        link.close()
        assert len(links.tc_filters("lo")) == 1
        other.close()
    assert links.tc_filters("lo") == []


def test_tc_refusals(loader: Callable[..., Program], classifier: Program, clsact: None) -> None:
    with pytest.raises(BPFNotFoundError, match="interface 'nope' does not exist"):
        links.attach_tc(classifier, "nope", "ingress")
    with pytest.raises(ObjectError, match="its section gives no direction"):
        links.attach_tc(classifier, "lo")
    with pytest.raises(ValueError, match="direction is one of ingress, egress"):
        links.attach_tc(classifier, "lo", "up")
    with pytest.raises(ValueError, match="one of direction and parent"):
        links.attach_tc(classifier, "lo", "ingress", parent=1)
    with pytest.raises(ValueError, match="a priority is 0 to 65535"):
        links.attach_tc(classifier, "lo", "ingress", priority=65536)
    with pytest.raises(ValueError, match="a protocol is 0 to 65535, not -1"):
        links.attach_tc(classifier, "lo", "ingress", protocol=-1)
    with pytest.raises(ValueError, match="a number is too large.*handle 4294967296"):
        links.attach_tc(classifier, "lo", "ingress", handle=1 << 32)
    for ask in (links.clear_tc, links.tc_filters):
        with pytest.raises(ValueError, match="direction is one of ingress, egress, not 'up'"):
            ask("lo", "up")
    with pytest.raises(BPFError, match="attaching 'probe' to tc lo ingress"):
        links.attach_tc(loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)), "lo", "ingress")
    assert not links.has_clsact("lo")  # the queue that was made for it is gone
    with pytest.raises(BPFError, match="attaching 'probe' to tc lo 0x20000"):
        links.attach_tc(classifier, "lo", parent=0x20000)
    with pytest.raises(BPFPermissionError), Refuse("RTM_NEWTFILTER", errno.EPERM, name="netlink"):
        links.attach_tc(classifier, "lo", "ingress")


def test_tc_inside_of_an_event_loop(classifier: Program, clsact: None) -> None:
    async def use() -> int:
        with links.attach_tc(classifier, "lo", "ingress"):
            return len(links.tc_filters("lo"))

    assert asyncio.run(use()) == 1


def test_a_forgotten_tc_filter_warns_and_goes(classifier: Program, clsact: None) -> None:
    with pytest.warns(ResourceWarning, match="unclosed link: tc lo ingress"):
        links.attach_tc(classifier, "lo", "ingress")
        gc.collect()
    assert links.tc_filters("lo") == []


def test_tcx_falls_back_to_tc(loader: Callable[..., Program], clsact: None, older_kernel: Refuse) -> None:
    program = loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=_tcx_or_none())
    with links.attach_tcx(program, "lo", "egress") as link:
        assert isinstance(link, links.TcFilter)
        assert older_kernel.refused == 2  # the attachment, and the probe that says why
        assert [info.prog_id for info in links.tc_filters("lo", "egress")] == [program.id]
    with pytest.raises(BPFError, match="Linux 6.6 brought tcx, and with it places"):
        links.attach_tcx(program, "lo", "egress", first=True)
    assert links.tc_filters("lo") == []


def test_tcx_does_not_fall_back_where_tcx_is(loader: Callable[..., Program]) -> None:
    if not _tcx_or_none():
        pytest.skip("the kernel has no tcx")
    with pytest.raises(BPFError, match="not of type sched_cls"):
        links.attach_tcx(loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)), "lo", "ingress")
    assert not links.has_clsact("lo")


def _tcx_or_none() -> int:
    return c.BPF_TCX_EGRESS if has_enumerator("bpf_attach_type", "BPF_TCX_INGRESS") else 0


# XDP


def xdp_by_ip(interface: str = "lo") -> int:
    """The id of an interface's XDP program, by ip(8)."""
    (row,) = oracle("ip", "link", "show", "dev", interface)
    found = row.get("xdp", {})
    return found.get("prog", {}).get("id", 0) if isinstance(found, dict) else 0


def test_xdp_through_netlink(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_XDP, result=PASS, everywhere=True)
    exchange()
    assert counter.value == 0
    with links.attach_xdp(program, "lo", netlink=True) as link:
        assert (link.kind, link.target, link.id) == ("xdp", "lo", 0)
        status = link.status()
        assert (status.mode, status.prog_id, status.in_mode(0)) == ("generic", program.id, program.id)
        assert xdp_by_ip() == program.id
        exchange()
        assert counter.value > 0
    before = counter.value
    exchange()
    assert counter.value == before
    assert (xdp_by_ip(), repr(links.xdp_status("lo"))) == (0, "<XDPStatus none>")


def test_xdp_modes_through_netlink(loader: Callable[..., Program]) -> None:
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS))
    for mode in ("generic", "native"):
        with links.attach_xdp(program, "left", netlink=True, mode=mode) as link:
            status = link.status()
            assert (status.mode, getattr(status, f"{mode}_id")) == (mode, program.id)
    with pytest.raises(BPFError, match="attaching 'probe' to interface left") as raised:
        links.attach_xdp(program, "left", netlink=True, mode="offload")
    assert raised.value.errno in (errno.EOPNOTSUPP, errno.EINVAL)
    assert links.xdp_status("left").prog_id == 0


def test_xdp_replacing_through_netlink(loader: Callable[..., Program]) -> None:
    first, second, third = (loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)) for _ in range(3))
    one = links.attach_xdp(first, "lo", netlink=True)
    with pytest.raises(BPFError) as raised:
        links.attach_xdp(second, "lo", netlink=True)
    assert raised.value.errno == errno.EBUSY
    with pytest.raises(BPFExistsError):
        links.attach_xdp(second, "lo", netlink=True, replace=third)
    two = links.attach_xdp(second, "lo", netlink=True, replace=first)
    one.close()  # another has its place
    assert links.xdp_status("lo").prog_id == second.id
    two.update(third)
    two.update(first, old=third)
    with pytest.raises(BPFExistsError):
        two.update(second, old=third)
    assert links.xdp_status("lo").prog_id == first.id
    two.close()
    with pytest.raises(ClosedError, match="xdp lo is closed"):
        two.update(first)
    assert links.xdp_status("lo").prog_id == 0
    with pytest.raises(ValueError, match="replace= is for netlink=True"):
        links.attach_xdp(first, "lo", replace=second)


def test_xdp_falls_back_to_netlink(loader: Callable[..., Program], older_kernel: Refuse) -> None:
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS))
    with links.attach_xdp(program, "lo") as link:
        assert isinstance(link, links.NetlinkXDP)
        assert older_kernel.refused == 2  # the attachment, and the probe that says why
        assert links.xdp_status("lo").prog_id == program.id
    assert links.xdp_status("lo").prog_id == 0


def test_xdp_does_not_fall_back_where_links_are(loader: Callable[..., Program]) -> None:
    if not has_xdp_link():
        pytest.skip("the kernel has no XDP links")
    with pytest.raises(BPFError, match="BPF_LINK_CREATE"):
        links.attach_xdp(loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(PASS)), "lo")


def test_removing_xdp_from_a_kernel_that_compares_nothing(loader: Callable[..., Program]) -> None:
    """Before Linux 5.7 the kernel knows no expected program: EINVAL, and pybpf looks itself."""
    first, second = (loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)) for _ in range(2))

    class Old(Refuse):
        def before(self, call: syscall.Call) -> int | None:
            if call.name != "netlink" or call.command != "RTM_SETLINK" or self.refused:
                return None
            self.refused += 1
            return self.errno

    link = links.attach_xdp(first, "lo", netlink=True)
    with Old("RTM_SETLINK", errno.EINVAL):
        link.close()
    assert links.xdp_status("lo").prog_id == 0
    link = links.attach_xdp(first, "lo", netlink=True)
    with links.attach_xdp(second, "lo", netlink=True, replace=first):
        with Old("RTM_SETLINK", errno.EINVAL):
            link.close()
        assert links.xdp_status("lo").prog_id == second.id


# LWT


@pytest.fixture
def pair() -> str:
    """A pair of connected interfaces that are up; the other's name."""
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    names = [name for _, name in socket.if_nameindex()]
    for name in names:
        set_up(name)
    return next(name for name in names if name not in ("lo", "left"))


def encapsulation(route: dict[str, object]) -> object:
    """The kind of a route's encapsulation: a word, or in newer versions of ip(8) a word among others."""
    found = route["encap"]
    return found["encap_type"] if isinstance(found, dict) else found


def send_over(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (address, 9))


def attach_lwt(program: Program, *arguments: object, **options: object) -> links.Attachment:
    try:
        return links.attach_lwt(program, *arguments, **options)
    except NotSupportedError as error:
        pytest.skip(f"the kernel was built without it: {error}")


@pytest.mark.parametrize("kind", ["LWT_OUT", "LWT_XMIT"])
def test_lwt_that_sees_what_leaves(counting: Callable[..., Program], counter: Counter, pair: str, kind: str) -> None:
    program = counting(getattr(c, f"BPF_PROG_TYPE_{kind}"), everywhere=True)
    with attach_lwt(program, "10.9.0.0/24", "left") as link:
        assert (link.kind, link.target) == ("lwt", "10.9.0.0/24 over left")
        send_over("10.9.0.1")
        assert counter.value == 1
        (route,) = oracle("ip", "route", "show", "10.9.0.0/24")
        assert (route["dev"], encapsulation(route)) == ("left", "bpf")
    assert oracle("ip", "route", "show", "10.9.0.0/24") == []


def test_lwt_that_drops(loader: Callable[..., Program], pair: str) -> None:
    program = loader(c.BPF_PROG_TYPE_LWT_XMIT, exit_with(2))  # BPF_DROP
    send_over("127.0.0.1")
    with attach_lwt(program, "10.9.0.0/24", "left"), pytest.raises(PermissionError):  # the sender is told
        send_over("10.9.0.1")


def frame(interface: str, kind: int, packet: bytes) -> bytes:
    """A packet in an Ethernet frame to an interface."""
    (row,) = oracle("ip", "link", "show", "dev", interface)
    return bytes.fromhex(str(row["address"]).replace(":", "")) + bytes(6) + kind.to_bytes(2, "big") + packet


def test_lwt_that_sees_what_arrives(counting: Callable[..., Program], counter: Counter, pair: str) -> None:
    """A packet that this machine is to forward goes through the input side of its route."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    for name in ("all", "left"):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
    subprocess.run(["ip", "addr", "add", "10.8.0.1/24", "dev", "left"], check=True)
    program = counting(c.BPF_PROG_TYPE_LWT_IN, everywhere=True)
    header = bytes.fromhex("4500001c00004000401100000a0800020a090001")
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    packet = header[:10] + total.to_bytes(2, "big") + header[12:] + bytes.fromhex("0009000900080000")
    sent = frame("left", 0x0800, packet)
    with attach_lwt(program, "10.9.0.0/24", "left"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((pair, 0))

        def arrives() -> bool:
            wire.send(sent)
            return counter.value > 0

        assert eventually(arrives)


def test_lwt_programs_of_all_kinds_on_one_route(loader: Callable[..., Program], pair: str) -> None:
    arriving, leaving, sent = (
        loader(kind, exit_with(0))
        for kind in (c.BPF_PROG_TYPE_LWT_IN, c.BPF_PROG_TYPE_LWT_OUT, c.BPF_PROG_TYPE_LWT_XMIT)
    )
    with attach_lwt(arriving, "fc01::/64", "left", others=[leaving, sent], headroom=16, metric=7):
        (route,) = oracle("ip", "-6", "route", "show", "fc01::/64")
        assert (encapsulation(route), route["metric"]) == ("bpf", 7)
        with pytest.raises(BPFExistsError):
            links.attach_lwt(leaving, "fc01::/64", "left", metric=7)
    assert oracle("ip", "-6", "route", "show", "fc01::/64") == []


def test_lwt_update(
    counting: Callable[..., Program], loader: Callable[..., Program], counter: Counter, pair: str
) -> None:
    program = counting(c.BPF_PROG_TYPE_LWT_XMIT, everywhere=True)
    with attach_lwt(loader(c.BPF_PROG_TYPE_LWT_OUT, exit_with(2)), "10.9.0.0/24", "left") as link:
        with pytest.raises(PermissionError):
            send_over("10.9.0.1")
        assert isinstance(link, links.RouteAttachment)
        link.update(program)
        send_over("10.9.0.1")
        assert counter.value == 1
        with pytest.raises(ValueError, match="old= is not for routes"):
            link.update(program, old=program)
    assert oracle("ip", "route", "show", "10.9.0.0/24") == []


def test_lwt_seg6local(loader: Callable[..., Program], pair: str) -> None:
    with attach_lwt(loader(c.BPF_PROG_TYPE_LWT_SEG6LOCAL, exit_with(0)), "fc02::/64", "left"):
        (route,) = oracle("ip", "-6", "route", "show", "fc02::/64")
        assert encapsulation(route) == "seg6local"
    assert oracle("ip", "-6", "route", "show", "fc02::/64") == []


def test_lwt_seg6local_sees_what_has_a_segment_routing_header(
    counting: Callable[..., Program], counter: Counter, pair: str
) -> None:
    """End.BPF: the header's next segment becomes the destination, and the program runs (RFC 8754)."""
    for name in ("all", "left"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/forwarding").write_text("1")
    program = counting(c.BPF_PROG_TYPE_LWT_SEG6LOCAL, everywhere=True)
    source, here, last = (socket.inet_pton(socket.AF_INET6, text) for text in ("fc00::1", "fc02::1", "fc03::1"))
    # next header 59: nothing; 4 * 8 bytes follow the first 8; type 4; one segment left, number 1 ends the list
    routing = bytes([59, 4, 4, 1, 1, 0, 0, 0]) + last + here
    packet = b"\x60\0\0\0" + len(routing).to_bytes(2, "big") + bytes([43, 64]) + source + here + routing
    sent = frame("left", 0x86DD, packet)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((pair, 0))

        def arrives() -> bool:
            wire.send(sent)
            return counter.value > 0

        with attach_lwt(program, "fc02::/64", "left"):
            assert eventually(arrives)
            fired = counter.value
        arrives()
        time.sleep(0.1)
        assert counter.value == fired


def test_a_route_that_is_gone(loader: Callable[..., Program], pair: str) -> None:
    link = attach_lwt(loader(c.BPF_PROG_TYPE_LWT_OUT, exit_with(0)), "10.9.0.0/24", "left")
    oracle("ip", "route", "del", "10.9.0.0/24")
    link.close()


def test_lwt_refusals(loader: Callable[..., Program], pair: str) -> None:
    one, two = (loader(c.BPF_PROG_TYPE_LWT_OUT, exit_with(0)) for _ in range(2))
    with pytest.raises(ValueError, match="10.9.0.1/24"):
        links.attach_lwt(one, "10.9.0.1/24", "left")
    with pytest.raises(BPFNotFoundError, match="'nope'"):
        links.attach_lwt(one, "10.9.0.0/24", "nope")
    with pytest.raises(ObjectError, match="one program of each of the types"):
        links.attach_lwt(one, "10.9.0.0/24", "left", others=[two])
    with pytest.raises(ObjectError, match="one program of each of the types"):
        links.attach_lwt(loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)), "10.9.0.0/24", "left")
    with pytest.raises(BPFError, match="attaching 'probe' to route 10.9.0.0/24 over left"):
        links.attach_lwt(one, "10.9.0.0/24", "left", gateway="10.77.0.1")
    for options in ({"gateway": "fc00::1"}, {"metric": -1}, {"table": 1 << 32}, {"headroom": -1}):
        with pytest.raises(ValueError, match="a number is too large, or an address is none: .*RTA_DST 10.9.0.0"):
            attach_lwt(one, "10.9.0.0/24", "left", **options)


# Without pyroute2


WITHOUT = """
import sys
sys.modules["pyroute2"] = None
from pybpf import links
try:
    links.xdp_status("lo")
except ModuleNotFoundError as error:
    print(error)
"""


def test_the_missing_extra_is_named() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert run.stdout == "Attaching through netlink: pyroute2 is needed for that: pip install 'pybpf[net]'\n"


def test_fallbacks_name_the_missing_extra(
    loader: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, older_kernel: Refuse
) -> None:
    xdp, classifier = (loader(kind, exit_with(PASS)) for kind in (c.BPF_PROG_TYPE_XDP, c.BPF_PROG_TYPE_SCHED_CLS))
    monkeypatch.setattr("pybpf.links.netlink.has_pyroute2", lambda: False)
    with pytest.raises(BPFError, match=r"Linux 5.9 brought XDP links.*pip install 'pybpf\[net\]'"):
        links.attach_xdp(xdp, "lo")
    with pytest.raises(BPFError, match=r"Linux 6.6 brought tcx.*pip install 'pybpf\[net\]'"):
        links.attach_tcx(classifier, "lo", "ingress")
