"""A test for each section of networking and of cgroups: load it by its section, attach it, let it run and see what it
does, detach it and see that it does it no more.

The programs (tests/objects/load_network.bpf.c) count their runs and answer what the test wants.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from lacking import needs_checksums
from link_helpers import eventually, needs_attach_type
from link_infrared import decoded, loopback_receiver, sent
from link_network import add_pair, private_network, set_up
from link_programs import exit_with, load
from object_builder import ObjectBuilder

import pybpf
from pybpf import constants as c
from pybpf import links
from pybpf.btf.kernel import vmlinux
from pybpf.elf.sections import definitions
from pybpf.errors import BPFError, BPFExistsError, NotSupportedError
from pybpf.object import Object
from pybpf.program import Program

BY_LOOPBACK = ("127.0.0.1", "::1")
FAMILIES = {4: (socket.AF_INET, "127.0.0.1"), 6: (socket.AF_INET6, "::1")}


@pytest.fixture(scope="module")
def object_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("network"))("load_network.bpf.c", byte_order=sys.byteorder)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


class Row:
    """One section, loaded: its program, and the counter of its runs."""

    def __init__(self, obj: Object, name: str) -> None:
        self.obj = obj
        self.program: Program = obj.programs[name]

    @property
    def runs(self) -> int:
        return int(self.obj.globals["ran"])


@pytest.fixture
def row(object_path: Path) -> Iterator[Callable[..., Row]]:
    """A function that loads the program of a section with an answer; skips what this kernel does not have."""
    with ExitStack() as stack:

        def load(section: str, answer: int, *others: str) -> Row:
            spec = pybpf.ObjectSpec.from_file(str(object_path))
            spec.globals["answer"] = answer
            name = next(n for n, p in spec.programs.items() if p.section.lstrip("?") == section)
            for wanted in (name, *others):
                spec.programs[wanted].autoload = True
            try:
                return Row(stack.enter_context(spec.load()), name)
            except BPFError as error:
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                    pytest.skip(f"the kernel has no {section} programs: {error}")
                raise

        yield load


def shown(row: Row, attach: Callable[[Program], links.Link], fire: Callable[[], object]) -> object:
    """Fires before, while and after the program is attached; what the firing gave while it was."""
    before = fire()
    assert row.runs == 0
    try:
        link = attach(row.program)
    except NotSupportedError as error:
        pytest.skip(f"the kernel cannot attach it: {error}")
    with link:
        outcome = fire()
        assert row.runs > 0
        repr(link)

    def is_quiet() -> bool:
        runs = row.runs
        return fire() == before and row.runs == runs

    assert eventually(is_quiet)
    return outcome


# What fires the programs


def exchange_by(kind: int = socket.SOCK_DGRAM, version: int = 4) -> str:
    """Something is sent over the loopback interface: "arrived", "lost", or why it was refused."""
    family, address = FAMILIES[version]
    try:
        with socket.socket(family, kind) as server, socket.socket(family, kind) as client:
            server.bind((address, 0))
            server.settimeout(0.3)
            client.settimeout(0.3)
            if kind == socket.SOCK_STREAM:
                server.listen()
                client.connect(server.getsockname())
                server.accept()[0].close()
            else:
                client.sendto(b"x", server.getsockname())
                server.recv(1)
    except TimeoutError:
        return "lost"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "arrived"


def in_cgroup(cgroup: Path, do: Callable[[], object]) -> str:
    """A child process of the cgroup does something: "done", or the error it got."""
    child = os.fork()
    if not child:
        status = 255
        try:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            do()
            status = 0
        except TimeoutError:
            status = 254
        except OSError as error:
            status = error.errno or 255
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "done", 254: "lost", 255: "broken"}.get(status) or errno.errorcode[status]


# socket and sk_reuseport


def test_socket(row: Callable[..., Row]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)

        def fire() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"xyz", server.getsockname())
            try:
                return server.recv(16).decode()
            except TimeoutError:
                return "lost"

        def attach(program: Program) -> links.Link:
            return program.attach_socket_filter(server)

        assert shown(row("socket", 0), attach, fire) == "lost"
        assert shown(row("socket", 8 + 2), attach, fire) == "xy"  # the UDP header and two bytes of what it carries


@pytest.mark.parametrize("section", ["sk_reuseport", "sk_reuseport/migrate"])
def test_sk_reuseport(row: Callable[..., Row], section: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.2)

        def fire() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", server.getsockname())
            try:
                return server.recv(1).decode()
            except TimeoutError:
                return "lost"

        def attach(program: Program) -> links.Link:
            return program.attach_reuseport(server)

        for answer, expected in ((1, "x"), (0, "lost")):  # SK_PASS, SK_DROP
            made = row(section, answer)
            assert made.program.attach_type_number in (c.BPF_SK_REUSEPORT_SELECT, c.BPF_SK_REUSEPORT_SELECT_OR_MIGRATE)
            assert shown(made, attach, fire) == expected


# tc


def tcx_or_tc(direction: str) -> Callable[[Program], links.Link]:
    return lambda program: program.attach_tcx("lo", direction)


@pytest.mark.parametrize("section", ["tc/ingress", "tc/egress", "tcx/ingress", "tcx/egress"])
def test_tcx(row: Callable[..., Row], section: str) -> None:
    for answer, expected in ((c.TCX_PASS, "arrived"), (c.TCX_DROP, "lost")):
        assert shown(row(section, answer), lambda program: program.attach_tcx("lo"), exchange_by) == expected


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("section", ["tc", "classifier"])
def test_tc(row: Callable[..., Row], section: str, direction: str) -> None:
    pytest.importorskip("pyroute2", reason="the extra 'net' is not installed")

    def attach(program: Program) -> links.Link:
        return program.attach_tc("lo", direction)

    for answer, expected in ((0, "arrived"), (2, "lost")):  # TC_ACT_OK, TC_ACT_SHOT
        assert shown(row(section, answer), attach, exchange_by) == expected
        assert shown(row(section, answer), lambda program: program.attach_tcx("lo", direction), exchange_by) == expected


def test_action(row: Callable[..., Row]) -> None:
    """An action of a filter: tc(8) takes it from its pin, no link and no call of bpf(2) attaches it."""
    made = row("action", 2)  # TC_ACT_SHOT

    def tc(*arguments: str) -> None:
        run = subprocess.run(["tc", *arguments], capture_output=True, text=True)
        if run.returncode:
            pytest.skip(f"tc cannot do it here: {run.stderr}")

    with tempfile.TemporaryDirectory(dir="/sys/fs/bpf") as folder:
        pin = f"{folder}/action"
        made.program.pin(pin)
        try:
            tc("qdisc", "add", "dev", "lo", "clsact")
            tc("filter", "add", "dev", "lo", "egress", "matchall", "action", "bpf", "object-pinned", pin)
            assert exchange_by() == "lost"
            assert made.runs > 0
            tc("qdisc", "del", "dev", "lo", "clsact")
            assert exchange_by() == "arrived"
        finally:
            os.unlink(pin)


@pytest.mark.parametrize("section", ["netkit/primary", "netkit/peer"])
def test_netkit(row: Callable[..., Row], section: str) -> None:
    try:
        add_pair("netkit", "kit")
    except OSError as error:
        pytest.skip(f"the kernel makes no netkit devices: {error}")
    peer = next(name for _, name in socket.if_nameindex() if name not in ("lo", "kit"))
    for name in ("kit", peer):
        set_up(name)
    # What one side sends runs that side's program. The devices carry IP packets without Ethernet headers.
    sender, receiver = ("kit", peer) if section.endswith("primary") else (peer, "kit")
    subprocess.run(["ip", "addr", "add", "10.7.0.1/24", "dev", sender], check=True)

    def fire() -> str:
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)) as ear,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
        ):
            ear.bind((receiver, 0x0800))
            ear.settimeout(0.3)
            with suppress(OSError):  # a program that drops may be told to the sender
                mouth.sendto(b"for the other side", ("10.7.0.2", 9))
            try:
                while b"for the other side" not in ear.recv(100):
                    pass
            except TimeoutError:
                return "lost"
            return "arrived"

    for answer, expected in ((0, "arrived"), (2, "lost")):  # NETKIT_PASS, NETKIT_DROP
        assert shown(row(section, answer), lambda program: program.attach_netkit("kit"), fire) == expected


def test_syscall(row: Callable[..., Row]) -> None:
    made = row("syscall", 42)
    assert made.program.test_run(None, ctx_in=bytes(8)).retval == 42
    assert made.runs == 1


# XDP


@pytest.mark.parametrize("section", ["xdp", "xdp.frags"])
def test_xdp(row: Callable[..., Row], section: str) -> None:
    for answer, expected in ((c.XDP_PASS, "arrived"), (c.XDP_DROP, "lost")):
        assert shown(row(section, answer), lambda program: program.attach_xdp("lo"), exchange_by) == expected


@pytest.mark.parametrize("frags", [False, True])
def test_xdp_of_a_device_map(row: Callable[..., Row], frags: bool) -> None:
    """A packet is sent on to an interface, and the program of the map's entry has the last word."""
    try:
        add_pair("veth", "left")
        right = next(name for _, name in socket.if_nameindex() if name not in ("lo", "left"))
        add_pair("veth", "out")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    for _, name in socket.if_nameindex():
        set_up(name)
    out = next(name for _, name in socket.if_nameindex() if name not in ("lo", "left", right, "out"))
    made = row(
        "xdp.frags/devmap" if frags else "xdp/devmap", c.XDP_PASS, helper := f"{'frags_' if frags else ''}to_device"
    )
    devices = made.obj.maps["devices"]
    devices[0] = (socket.if_nametoindex("out"), made.program)
    assert devices[0] == (socket.if_nametoindex("out"), made.program.id)
    with (
        made.obj.programs[helper].attach_xdp("left", mode="native"),
        load(c.BPF_PROG_TYPE_XDP, exit_with(c.XDP_PASS)) as passing,
        passing.attach_xdp(out, mode="native"),  # a veth device takes redirected packets if its other end has a program
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as ear,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth,
    ):
        ear.bind((out, 0x88B5))
        ear.settimeout(0.1)
        mouth.bind((right, 0))

        def arrives() -> bool:
            mouth.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + b"x" * 50)
            with suppress(TimeoutError):
                return bool(ear.recv(100))
            return False

        assert eventually(arrives)
        assert made.runs > 0


@pytest.mark.parametrize("frags", [False, True])
def test_xdp_of_a_processor_map(row: Callable[..., Row], frags: bool) -> None:
    """A packet is handed on to a processor, and the program of the map's entry runs there."""
    helper = f"{'frags_' if frags else ''}to_processor"
    section = "xdp.frags/cpumap" if frags else "xdp/cpumap"
    passing, dropping = row(section, c.XDP_PASS, helper), row(section, c.XDP_DROP, helper)
    for made in (passing, dropping):
        made.obj.maps["processors"][0] = (128, made.program)
    try:
        link = passing.obj.programs[helper].attach_xdp("lo")
    except BPFError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip(f"generic XDP knows no processor maps before Linux 5.15: {error}")
    with link:
        # Linux 6.18 loses packets of programs with frags here, in its generic XDP of the loopback interface
        assert eventually(lambda: exchange_by() == "arrived" or (frags and passing.runs > 0))
        assert passing.runs > 0
    with dropping.obj.programs[helper].attach_xdp("lo"):
        assert exchange_by() == "lost"
        assert eventually(lambda: dropping.runs > 0)


# Sockets


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection over the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(0.3)
            yield client, accepted


def sent_over(sender: socket.socket, receiver: socket.socket) -> str:
    try:
        sender.send(b"x")
        return receiver.recv(1).decode()
    except TimeoutError:
        return "lost"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def sockmap() -> pybpf.Map:
    return pybpf.Map.create(c.BPF_MAP_TYPE_SOCKMAP, key_size=4, value_size=4, max_entries=2)


@pytest.mark.parametrize(("answer", "expected"), [(1, "x"), (0, "EACCES")])
def test_sk_msg(row: Callable[..., Row], answer: int, expected: str) -> None:
    made = row("sk_msg", answer)
    with sockmap() as sockets, connection() as (client, accepted):
        with made.program.attach_sockmap(sockets):
            sockets[0] = client
            assert sent_over(client, accepted) == expected
            assert made.runs == 1
            del sockets[0]
        assert sent_over(client, accepted) == "x"
        assert made.runs == 1


@pytest.mark.parametrize(("answer", "expected"), [(1, "x"), (0, "lost")])
@pytest.mark.parametrize("section", ["sk_skb/stream_verdict", "sk_skb/verdict", "sk_skb"])
def test_sk_skb(row: Callable[..., Row], section: str, answer: int, expected: str) -> None:
    if section == "sk_skb/verdict":
        needs_attach_type("BPF_SK_SKB_VERDICT")
    made = row(section, answer)
    hook = c.BPF_SK_SKB_STREAM_VERDICT if section == "sk_skb" else None
    with sockmap() as sockets, connection() as (client, accepted):
        with made.program.attach_sockmap(sockets, hook):
            sockets[0] = accepted
            assert sent_over(client, accepted) == expected
            assert made.runs == 1
            del sockets[0]
        assert sent_over(client, accepted) == "x"


def test_sk_skb_stream_parser(row: Callable[..., Row]) -> None:
    if vmlinux().get("sk_psock_parser") is not None:
        pytest.skip("before Linux 5.13 a verdict that passes data on to its own socket stalls a processor for ever")
    made = row("sk_skb/stream_parser", 1, "sk_skb_stream_verdict")
    verdict = made.obj.programs["sk_skb_stream_verdict"]
    with (
        sockmap() as sockets,
        connection() as (client, accepted),
        made.program.attach_sockmap(sockets),
        verdict.attach_sockmap(sockets),
    ):
        sockets[0] = accepted
        assert sent_over(client, accepted) == "x"
        assert eventually(lambda: made.runs >= 2)  # the parser and the verdict
        del sockets[0]


def test_flow_dissector(row: Callable[..., Row]) -> None:
    """The kernel dissects what a packet socket sends without saying what it is."""
    made = row("flow_dissector", 0)

    def fire() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind(("lo", 0x0800))
            mouth.send(bytes(12) + b"\x08\x00" + bytes.fromhex("4500001c00004000401100007f0000017f000001") + bytes(8))

    shown(made, lambda program: program.attach_netns(), fire)


def test_sk_lookup(row: Callable[..., Row]) -> None:
    needs_checksums()
    for answer, expected in ((1, "arrived"), (0, "ECONNREFUSED")):  # SK_PASS, SK_DROP

        def fire() -> str:
            return exchange_by(socket.SOCK_STREAM)

        assert shown(row("sk_lookup", answer), lambda program: program.attach_netns(), fire) == expected


def test_netfilter(row: Callable[..., Row]) -> None:
    for answer, expected in ((1, "arrived"), (0, "lost")):  # NF_ACCEPT, NF_DROP
        made = row("netfilter", answer)
        assert shown(made, lambda program: program.attach_netfilter("local_in"), exchange_by) == expected


# LIRC: CONFIG_BPF_LIRC_MODE2 needs RC_CORE=y; Debian's kernels have it as a module, or not at all. The matrix builds a
# kernel for these tests. What is asked of the kernel is read at the door everywhere, in test_link_attached.py.


@pytest.fixture
def receiver() -> Iterator[Path]:
    with loopback_receiver() as device:
        if device is None:
            pytest.skip("the kernel has no rc-loopback, an infrared receiver that hears what is sent with it")
        yield device


PULSES = [3000, 500, 600, 500, 900]


@pytest.mark.built("lirc")
def test_lirc_mode2(row: Callable[..., Row], receiver: Path) -> None:
    made = row("lirc_mode2", 0)
    outcome = shown(made, lambda program: program.attach_lirc(receiver), lambda: sent(receiver, PULSES))
    assert outcome == PULSES[::2]
    assert made.runs >= len(PULSES)
    assert made.program not in made.program.query(receiver)


@pytest.mark.built("lirc")
def test_lirc_decoder(row: Callable[..., Row], receiver: Path) -> None:
    """Two programs on one receiver: the first counts, the second knows a key when it hears one."""
    made = row("lirc_mode2", 0, "lirc_decoder")
    decoder = made.obj.programs["lirc_decoder"]
    assert decoded(receiver, PULSES) == []
    with made.program.attach_lirc(receiver), decoder.attach_lirc(receiver) as link:
        assert (link.kind, link.target, link.id) == ("lirc", str(receiver), 0)
        found = decoder.query(receiver)
        assert (found.hook, found.prog_ids) == ("lirc_mode2", [made.program.id, decoder.id])
        assert decoded(receiver, PULSES) == [(64, 3000 >> 8)]
        with pytest.raises(BPFExistsError, match="This program is attached there already"):
            decoder.attach_lirc(receiver)
    assert len(decoder.query(receiver)) == 0
    assert decoded(receiver, PULSES) == []


@pytest.mark.built("lirc")
def test_lirc_takes_no_more_than_64_programs(row: Callable[..., Row], receiver: Path) -> None:
    programs = [row("lirc_mode2", 0).program for _ in range(65)]
    with ExitStack() as stack:
        for program in programs[:64]:
            stack.enter_context(program.attach_lirc(receiver))
        assert programs[0].query(receiver).prog_ids == [program.id for program in programs[:64]]
        with pytest.raises(BPFError, match="The device has 64 programs"):
            programs[64].attach_lirc(receiver)


# LWT


@pytest.mark.parametrize("section", ["lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local"])
def test_lwt(row: Callable[..., Row], section: str) -> None:
    """That they fire is shown in test_link_netlink.py; here, that a section's program is taken for a route."""
    pytest.importorskip("pyroute2", reason="the extra 'net' is not installed")
    made = row(section, 0)
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    for _, name in socket.if_nameindex():
        set_up(name)
    ipv6 = section == "lwt_seg6local"
    try:
        link = made.program.attach_lwt("fc01::/64" if ipv6 else "10.9.0.0/24", "left")
    except NotSupportedError as error:
        pytest.skip(f"the kernel was built without it: {error}")
    with link, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if section in ("lwt_out", "lwt_xmit"):
            sock.sendto(b"x", ("10.9.0.1", 9))
            assert made.runs == 1


# cgroups


def udp(version: int, do: str = "sendto") -> Callable[[], None]:
    """What a process of the cgroup does with UDP: its server is there as well."""
    family, address = FAMILIES[version]

    def act() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
            server.bind((address, 0))
            server.settimeout(0.2)
            if do == "connect":
                client.connect(server.getsockname())
            elif do in ("getpeername", "getsockname"):
                client.connect(server.getsockname())
                getattr(client, do)()
            else:
                client.sendto(b"x", server.getsockname())
                server.recvfrom(1)

    return act


def unix(do: str) -> Callable[[], None]:
    def act() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        ):
            server.bind(f"{folder}/server")
            client.bind(f"{folder}/client")
            if do == "sendmsg":
                client.sendto(b"x", f"{folder}/server")
                server.recvfrom(1)
            else:
                client.connect(f"{folder}/server")
                client.getpeername()
                client.getsockname()

    return act


def socket_option(do: str) -> Callable[[], None]:
    def act() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            if do == "get":
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    return act


def tcp() -> None:
    with connection():
        pass


def close_a_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def bind(version: int) -> Callable[[], None]:
    family, address = FAMILIES[version]

    def act() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))

    return act


CGROUP_ROWS: dict[str, tuple[Callable[[], None], str | None]] = {
    "cgroup_skb/ingress": (udp(4), "lost"),
    "cgroup_skb/egress": (udp(4), "EPERM"),
    "cgroup/skb": (udp(4), "lost"),
    "cgroup/sock_create": (close_a_socket, "EPERM"),
    "cgroup/sock_release": (close_a_socket, None),
    "cgroup/sock": (close_a_socket, "EPERM"),
    "cgroup/post_bind4": (bind(4), "EPERM"),
    "cgroup/post_bind6": (bind(6), "EPERM"),
    "cgroup/bind4": (bind(4), "EPERM"),
    "cgroup/bind6": (bind(6), "EPERM"),
    "cgroup/connect4": (udp(4, "connect"), "EPERM"),
    "cgroup/connect6": (udp(6, "connect"), "EPERM"),
    "cgroup/connect_unix": (unix("connect"), "EPERM"),
    "cgroup/sendmsg4": (udp(4), "EPERM"),
    "cgroup/sendmsg6": (udp(6), "EPERM"),
    "cgroup/sendmsg_unix": (unix("sendmsg"), "EPERM"),
    "cgroup/recvmsg4": (udp(4), None),
    "cgroup/recvmsg6": (udp(6), None),
    "cgroup/recvmsg_unix": (unix("sendmsg"), None),
    "cgroup/getpeername4": (udp(4, "getpeername"), None),
    "cgroup/getpeername6": (udp(6, "getpeername"), None),
    "cgroup/getpeername_unix": (unix("connect"), None),
    "cgroup/getsockname4": (udp(4, "getsockname"), None),
    "cgroup/getsockname6": (udp(6, "getsockname"), None),
    "cgroup/getsockname_unix": (unix("connect"), None),
    "cgroup/sysctl": (lambda: Path("/proc/sys/kernel/ostype").read_text() and None, "EPERM"),
    "cgroup/getsockopt": (socket_option("get"), "EPERM"),
    "cgroup/setsockopt": (socket_option("set"), "EPERM"),
    "cgroup/dev": (lambda: Path("/dev/zero").open("rb").close(), "EPERM"),
    "sockops": (tcp, None),
}
"""Section -> what a process of the cgroup does, and what comes of it when the program refuses; None: it must not."""


@pytest.mark.parametrize("section", CGROUP_ROWS)
def test_cgroup(row: Callable[..., Row], cgroup: Path, section: str) -> None:
    do, refusal = CGROUP_ROWS[section]

    def attach(program: Program) -> links.Link:
        hook = c.BPF_CGROUP_INET_INGRESS if section == "cgroup/skb" else None
        return program.attach_cgroup(cgroup, hook)

    def fire() -> str:
        return in_cgroup(cgroup, do)

    assert shown(row(section, 1), attach, fire) == "done"
    if refusal is not None:
        assert shown(row(section, 0), attach, fire) == refusal


# The table


ELSEWHERE = {
    "struct_ops+": "tests/test_struct_ops.py",
    "struct_ops.s+": "tests/test_struct_ops.py",
    "lsm_cgroup+": "tests/links/test_link_cgroup.py",
}


def test_every_section_of_this_half_is_here(object_path: Path) -> None:
    """The rows that attach nothing by themselves, and are not of tracing, each have a program above."""
    tracing = {c.BPF_PROG_TYPE_KPROBE, c.BPF_PROG_TYPE_TRACING, c.BPF_PROG_TYPE_PERF_EVENT, c.BPF_PROG_TYPE_EXT}
    wanted = {row.pattern for row in definitions() if row.attach is None and row.type not in tracing}
    sections = {
        program.section.lstrip("?") for program in pybpf.ObjectSpec.from_file(str(object_path)).programs.values()
    }
    assert wanted - sections - set(ELSEWHERE) == set()
