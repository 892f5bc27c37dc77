"""XDP, tcx, netkit, network namespaces, netfilter and sockets, in a network namespace of their own."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from link_helpers import Refuse, eventually, has_enumerator, needs_attach_type
from link_network import add_pair, exchange, private_network, set_up, udp_pair
from link_programs import Counter, exit_with

from pybpf import constants as c
from pybpf import links, syscall
from pybpf.errors import BPFError, BPFExistsError, BPFNotFoundError, ClosedError, NotSupportedError, ObjectError
from pybpf.program import Program

PASS, DROP = 2, 1
ACCEPT = 1
NEXT = -1


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


def attach_and_fire(counter: Counter, attach: Callable[[], links.Link]) -> None:
    """The program sees packets on `lo` while it is attached, and not afterwards."""
    exchange()
    assert counter.value == 0
    with attach():
        exchange()
        assert counter.value > 0

    def is_quiet() -> bool:
        before = counter.value
        exchange()
        return counter.value == before

    assert eventually(is_quiet)


# XDP


@pytest.mark.parametrize("mode", ["auto", "generic"])
def test_xdp(counting: Callable[..., Program], counter: Counter, mode: str) -> None:
    program = counting(c.BPF_PROG_TYPE_XDP, result=PASS, everywhere=True)

    def attach() -> links.Link:
        link = links.attach_xdp(program, "lo", mode=mode)
        assert (link.kind, link.target) == ("xdp", "lo")
        assert link.info().ifindex == socket.if_nametoindex("lo")
        return link

    attach_and_fire(counter, attach)


def test_xdp_in_the_driver(counting: Callable[..., Program], counter: Counter) -> None:
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    program = counting(c.BPF_PROG_TYPE_XDP, result=PASS, everywhere=True)
    with links.attach_xdp(program, socket.if_nametoindex("left"), mode="native") as link:
        assert link.target == str(socket.if_nametoindex("left"))
        for _, name in socket.if_nameindex():
            set_up(name)
        assert eventually(lambda: counter.value > 0)  # the peer's neighbour discovery


def test_xdp_that_drops(loader: Callable[..., Program]) -> None:
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(DROP))
    with links.attach_xdp(program, "lo"), udp_pair() as (server, client):
        server.settimeout(0.1)
        client.send(b"x")
        with pytest.raises(TimeoutError):
            server.recv(16)
    exchange()


def test_xdp_refusals(loader: Callable[..., Program]) -> None:
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS))
    with pytest.raises(BPFNotFoundError, match="interface 'nope' does not exist"):
        links.attach_xdp(program, "nope")
    with pytest.raises(BPFNotFoundError, match="interface 4711 does not exist"):
        links.attach_xdp(program, 4711)
    with pytest.raises(ValueError, match="positive"):
        links.attach_xdp(program, 0)
    with pytest.raises(ValueError, match="mode is one of auto, native"):
        links.attach_xdp(program, "lo", mode="fast")
    with pytest.raises(BPFError, match="generic mode works on every interface"):
        links.attach_xdp(program, "lo", mode="native")
    with links.attach_xdp(program, "lo"), pytest.raises(BPFError, match="has an XDP program") as raised:
        links.attach_xdp(program, "lo")
    assert raised.value.errno == errno.EBUSY


# tcx and netkit


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_tcx(counting: Callable[..., Program], counter: Counter, direction: str) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    program = counting(c.BPF_PROG_TYPE_SCHED_CLS, result=NEXT, everywhere=True)

    def attach() -> links.Link:
        link = links.attach_tcx(program, "lo", direction)
        assert (link.kind, link.target) == ("tcx", f"lo {direction}")
        return link

    attach_and_fire(counter, attach)


def test_tcx_direction_from_the_section(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    program = loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_EGRESS)
    with links.attach_tcx(program, "lo") as link:
        assert link.info().attach_type == c.BPF_TCX_EGRESS
        with links.Link.from_id(link.id) as other:
            assert (other.kind, other.target) == ("tcx", "lo tcx_egress")


def order() -> list[int]:
    """The ids of the programs at lo's ingress, as they run."""
    return syscall.prog_query(socket.if_nametoindex("lo"), c.BPF_TCX_INGRESS).prog_ids


def test_tcx_places(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    made = [loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) for _ in range(6)]
    a, b, d, e, f, g = made
    with ExitStack() as stack:

        def attach(program: Program, **place: object) -> links.Link:
            return stack.enter_context(links.attach_tcx(program, "lo", **place))

        first = attach(a)
        attach(b)
        attach(d, before=first)
        attach(e, after=first)
        attach(f, first=True)
        assert order() == [f.id, d.id, a.id, e.id, b.id]
        revision = syscall.prog_query(socket.if_nametoindex("lo"), c.BPF_TCX_INGRESS).revision
        attach(g, last=True, expected_revision=revision)
        assert order() == [f.id, d.id, a.id, e.id, b.id, g.id]
        with loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) as h:
            (found,) = [known for known in h.query("lo") if known.prog_id == a.id]
            with links.attach_tcx(h, "lo", before=found):
                assert order() == [f.id, d.id, h.id, a.id, e.id, b.id, g.id]
        stale = loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS)
        with pytest.raises(BPFError, match="revision is not the expected one"):
            links.attach_tcx(stale, "lo", expected_revision=revision)
        with pytest.raises(BPFExistsError, match="in the list already"):
            links.attach_tcx(a, "lo")
        with pytest.raises(BPFNotFoundError, match="neighbour is not attached there"):
            links.attach_tcx(stale, "lo", before=stale)
        with pytest.raises(ValueError, match="one of before, after, first and last"):
            links.attach_tcx(stale, "lo", before=a, first=True)
    assert eventually(lambda: order() == [])


def test_tcx_next_to_a_program_without_link(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    old, new = (loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) for _ in range(2))
    index = socket.if_nametoindex("lo")
    syscall.prog_attach(index, old, c.BPF_TCX_INGRESS)
    try:
        with links.attach_tcx(new, "lo", before=old):
            assert order() == [new.id, old.id]
    finally:
        syscall.prog_detach(index, c.BPF_TCX_INGRESS, prog_fd=old)


def test_tcx_replacing(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    one, two, three = (
        loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) for _ in range(3)
    )
    syscall.prog_attach(socket.if_nametoindex("lo"), one, c.BPF_TCX_INGRESS)
    with links.attach_tcx(two, "lo", replace=one) as link:
        assert order() == [two.id]
        link.update(three, old=two)
        assert order() == [three.id]
        with links.attach_tcx(one, "lo", before=three):
            assert order() == [one.id, three.id]
        with links.attach_tcx(one, "lo", before=three.query("lo").programs[0]):  # which has no link
            assert order() == [one.id, three.id]
        with pytest.raises(ValueError, match="replace= says the place"):
            links.attach_tcx(one, "lo", replace=three, first=True)
        with pytest.raises(BPFNotFoundError, match="attaching 'probe' to tcx ingress of lo"):
            links.attach_tcx(one, "lo", replace=two)
    assert eventually(lambda: order() == [])
    with pytest.raises(ClosedError, match="tcx lo ingress is closed"):
        link.update(one)
    assert eventually(lambda: order() == [])


def test_tcx_link_updates_and_detaches(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    one, two = (loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) for _ in range(2))
    with links.attach_tcx(one, "lo") as link, links.Link.from_id(link.id):
        link.update(two, old=one)
        assert order() == [two.id]
        link.detach()
        assert eventually(lambda: order() == [])


def test_tcx_refusals(loader: Callable[..., Program]) -> None:
    program = loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT))
    with pytest.raises(ObjectError, match="its section gives no direction: say direction= ingress or egress"):
        links.attach_tcx(program, "lo")
    with pytest.raises(ValueError, match="direction is one of ingress, egress"):
        links.attach_tcx(program, "lo", "up")


def test_tcx_on_a_kernel_without_it(loader: Callable[..., Program]) -> None:
    if has_enumerator("bpf_attach_type", "BPF_TCX_INGRESS"):
        pytest.skip("this kernel has tcx")
    with pytest.raises(BPFError, match=r"'probe' to tcx ingress of lo.*Linux 6.6 brought tcx"):
        links.attach_tcx(loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT)), "lo", "ingress", first=True)


def test_netkit(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_NETKIT_PRIMARY")
    try:
        add_pair("netkit", "kit")
    except OSError as error:
        pytest.skip(f"the kernel makes no netkit devices: {error}")
    first, second = (loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT)) for _ in range(2))
    with (
        links.attach_netkit(first, "kit", "primary") as link,
        links.attach_netkit(second, "kit", "primary", before=link),
        links.attach_netkit(second, "kit", "peer") as peer,
    ):
        index = socket.if_nametoindex("kit")
        assert syscall.prog_query(index, c.BPF_NETKIT_PRIMARY).prog_ids == [second.id, first.id]
        assert syscall.prog_query(index, c.BPF_NETKIT_PEER).prog_ids == [second.id]
        assert peer.info().attach_type == c.BPF_NETKIT_PEER
        assert repr(peer) == f"<Link netkit kit peer id={peer.id}>"


# The namespace


@pytest.mark.parametrize("namespace", ["own", "process", "path", "file"])
def test_sk_lookup(counting: Callable[..., Program], counter: Counter, namespace: str) -> None:
    program = counting(c.BPF_PROG_TYPE_SK_LOOKUP, attach_type=c.BPF_SK_LOOKUP, result=1, everywhere=True)
    where: object = {"own": None, "process": os.getpid(), "path": "/proc/thread-self/ns/net"}.get(namespace)
    if namespace == "file":
        with open("/proc/thread-self/ns/net", "rb") as file:
            attach_and_fire(counter, lambda: links.attach_netns(program, file))
    else:
        attach_and_fire(counter, lambda: links.attach_netns(program, where))


def test_sk_lookup_info(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_SK_LOOKUP, attach_type=c.BPF_SK_LOOKUP, result=1, everywhere=True)
    with links.attach_netns(program) as link:
        assert link.info().netns_ino == os.stat("/proc/thread-self/ns/net").st_ino


def test_flow_dissector(loader: Callable[..., Program]) -> None:
    program, other = (loader(c.BPF_PROG_TYPE_FLOW_DISSECTOR, exit_with(0)) for _ in range(2))
    with links.attach_netns(program) as link:
        assert link.info().attach_type == c.BPF_FLOW_DISSECTOR
        with pytest.raises(BPFError, match="attaching 'probe' to network namespace"):
            links.attach_netns(other)
    with links.attach_netns(other):
        pass


def test_netns_refusals(loader: Callable[..., Program]) -> None:
    with pytest.raises(ObjectError, match="neither a flow_dissector nor an sk_lookup"):
        links.attach_netns(loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS)))
    program = loader(c.BPF_PROG_TYPE_SK_LOOKUP, exit_with(1), attach_type=c.BPF_SK_LOOKUP)
    with pytest.raises(BPFNotFoundError, match="/run/netns/no_such_namespace"):
        links.attach_netns(program, "no_such_namespace")


def netfilter(counting: Callable[..., Program]) -> Program:
    needs_attach_type("BPF_NETFILTER")
    return counting(c.BPF_PROG_TYPE_NETFILTER, attach_type=c.BPF_NETFILTER, result=ACCEPT, everywhere=True)


@pytest.mark.parametrize("hook", ["pre_routing", "local_in", "local_out", "post_routing"])
def test_netfilter(counting: Callable[..., Program], counter: Counter, hook: str) -> None:
    program = netfilter(counting)
    attach_and_fire(counter, lambda: links.attach_netfilter(program, hook, priority=-5))


def test_netfilter_info_and_refusals(counting: Callable[..., Program]) -> None:
    program = netfilter(counting)
    with links.attach_netfilter(program, "forward", family="ipv6", priority=7) as link:
        info = link.info()
        assert (info.pf, info.hooknum, info.priority) == (10, 2, 7)
        with links.Link.from_id(link.id) as other:
            assert other.target == link.target == "ipv6 forward priority 7"
        with pytest.raises(BPFError, match="This priority is taken"):
            links.attach_netfilter(program, "forward", family="ipv6", priority=7)
    with pytest.raises(BPFError, match="are no priorities"):
        links.attach_netfilter(program, "forward", priority=-(1 << 31))
    with pytest.raises(ValueError, match="hook is one of"):
        links.attach_netfilter(program, "input")
    with pytest.raises(ValueError, match="family is one of"):
        links.attach_netfilter(program, "forward", family="ipx")


def test_netfilter_that_defragments(counting: Callable[..., Program]) -> None:
    program = netfilter(counting)
    if not has_enumerator("bpf_attach_type", "BPF_TCX_INGRESS"):
        pytest.skip("the kernel does not defragment for programs (Linux 6.6)")
    try:
        link = links.attach_netfilter(program, "pre_routing", defragment=True)
    except NotSupportedError as error:
        pytest.skip(f"the kernel was built without it: {error}")
    with link:
        assert link.info().flags == c.BPF_F_NETFILTER_IP_DEFRAG


# Sockets


def test_socket_filter(counting: Callable[..., Program], counter: Counter, loader: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_SOCKET_FILTER, result=0, everywhere=True)
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.settimeout(0.1)
        with links.attach_socket_filter(program, receiver) as link:
            assert (link.kind, link.target, link.id) == ("socket_filter", f"socket {receiver.fileno()}", 0)
            sender.send(b"dropped")
            with pytest.raises(TimeoutError):
                receiver.recv(16)
            assert counter.value == 1
        sender.send(b"kept")
        assert receiver.recv(16) == b"kept"
        assert counter.value == 1


def test_socket_filter_update(loader: Callable[..., Program]) -> None:
    refusing, taking = (loader(c.BPF_PROG_TYPE_SOCKET_FILTER, exit_with(result)) for result in (0, 16))
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender:
        receiver.settimeout(0.1)
        link = links.attach_socket_filter(refusing, receiver)
        link.update(taking)
        sender.send(b"kept")
        assert receiver.recv(16) == b"kept"
        with pytest.raises(ValueError, match="old= is not for programs of sockets"):
            link.update(refusing, old=taking)
        receiver.close()
        with pytest.raises(ClosedError, match="the socket was closed"):
            link.update(refusing)
        link.close()
        with pytest.raises(ClosedError, match="is closed"):
            link.update(refusing)


def test_socket_filter_of_a_closed_socket(counting: Callable[..., Program]) -> None:
    """Closing the link leaves alone whoever got the descriptor's number."""
    program = counting(c.BPF_PROG_TYPE_SOCKET_FILTER, everywhere=True)
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    number = one.fileno()
    link = links.attach_socket_filter(program, one)
    one.close()
    with two, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        assert other.fileno() == number
        with links.attach_socket_filter(program, other):
            link.close()
            syscall.detach_socket_filter(other)
            syscall.attach_socket_filter(other, program)


def test_socket_refusals(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_SOCKET_FILTER, everywhere=True)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BPFError, match="is not a socket"):
        links.attach_socket_filter(program, counter)
    assert len(os.listdir("/proc/self/fd")) == before
    wrong = counting(c.BPF_PROG_TYPE_XDP, result=PASS, everywhere=True)
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, two, pytest.raises(BPFError, match="attaching 'probe' to socket"):
        links.attach_socket_filter(wrong, one)
    with pytest.raises(BPFError, match="attaching 'probe' to socket -1"):
        links.attach_socket_filter(program, one)


def test_reuseport(loader: Callable[..., Program]) -> None:
    """The program always takes the second socket of the group."""
    program = loader(c.BPF_PROG_TYPE_SOCKET_FILTER, exit_with(1))
    with ExitStack() as stack:
        first, second, client = (
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)
        )
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", first.getsockname()[1]))
            sock.settimeout(5)
        with links.attach_reuseport(program, first):
            for number in range(8):
                client.sendto(bytes([number]), first.getsockname())
                assert second.recv(16) == bytes([number])
            first.setblocking(False)
            with pytest.raises(BlockingIOError):
                first.recv(16)


@pytest.mark.parametrize("with_link", [True, False])
def test_sockmap(counting: Callable[..., Program], counter: Counter, with_link: bool) -> None:
    program = counting(c.BPF_PROG_TYPE_SK_MSG, attach_type=c.BPF_SK_MSG_VERDICT, result=1, everywhere=True)
    with ExitStack() as stack:
        sockets = stack.enter_context(
            syscall.map_create(c.BPF_MAP_TYPE_SOCKMAP, key_size=4, value_size=4, max_entries=1)
        )
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted = stack.enter_context(server.accept()[0])
        accepted.settimeout(5)
        if not with_link:
            stack.enter_context(Refuse("BPF_LINK_CREATE", errno.EINVAL))
        with links.attach_sockmap(program, sockets) as link:
            assert bool(link.id) == (with_link and has_enumerator("bpf_link_type", "BPF_LINK_TYPE_SOCKMAP"))
            syscall.map_update_elem(sockets, bytes(4), client.fileno().to_bytes(4, sys.byteorder))
            client.send(b"x")
            assert accepted.recv(16) == b"x"
            assert counter.value == 1
        with pytest.raises(BPFError):
            syscall.prog_detach(sockets, c.BPF_SK_MSG_VERDICT, prog_fd=program)


@pytest.mark.parametrize("with_link", [True, False])
def test_sockmap_update(counting: Callable[..., Program], with_link: bool) -> None:
    one, two = (
        counting(c.BPF_PROG_TYPE_SK_MSG, attach_type=c.BPF_SK_MSG_VERDICT, result=1, everywhere=True) for _ in range(2)
    )
    if with_link and not has_enumerator("bpf_link_type", "BPF_LINK_TYPE_SOCKMAP"):
        pytest.skip("the kernel has no links of socket maps (Linux 6.10)")
    with (
        ExitStack() as stack,
        syscall.map_create(c.BPF_MAP_TYPE_SOCKMAP, key_size=4, value_size=4, max_entries=1) as sockets,
    ):
        if not with_link:
            stack.enter_context(Refuse("BPF_LINK_CREATE", errno.EINVAL))
        with links.attach_sockmap(one, sockets) as link:
            link.update(two, old=one)
            if not has_enumerator("bpf_link_type", "BPF_LINK_TYPE_SOCKMAP"):
                return  # such kernels do not tell what is attached
            assert one.query(sockets).prog_ids == [two.id]
        assert eventually(lambda: one.query(sockets).prog_ids == [])


def test_sockmap_refusals(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_SK_MSG, attach_type=c.BPF_SK_MSG_VERDICT, result=1, everywhere=True)
    with pytest.raises(BPFError, match="attaching 'probe' to map"):
        links.attach_sockmap(program, counter)
    with pytest.raises(ObjectError, match="loaded for no hook"):
        links.attach_sockmap(counting(c.BPF_PROG_TYPE_SK_SKB, result=1, everywhere=True), counter)
