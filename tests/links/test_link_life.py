"""The life of each kind of link of networks and cgroups: told about, updated, pinned, found again, detached."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_helpers import attached, eventually, has_enumerator, needs_attach_type
from link_network import add_pair, private_network, set_up
from link_programs import exit_with

from pybpf import constants as c
from pybpf import links, syscall, system
from pybpf.abi import LinkType
from pybpf.errors import BPFError, BPFPermissionError
from pybpf.program import Program

Loader = Callable[..., Program]
Attach = Callable[[Program], links.Link]


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


class Kind:
    """One kind of link: how its programs are made and attached, and what the kernel tells about the link."""

    def __init__(self, type: LinkType, program: tuple[int, int, int], target: str, told: dict[str, object]) -> None:
        self.type = type
        self.program = program
        self.target = target
        self.told = told


NFPROTO_IPV4 = 2
KINDS: dict[str, Kind] = {
    "xdp": Kind(LinkType.XDP, (c.BPF_PROG_TYPE_XDP, 0, 2), "lo", {"ifindex": 1}),
    "tcx": Kind(
        LinkType.TCX,
        (c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_INGRESS, -1),
        "lo tcx_ingress",
        {"ifindex": 1, "attach_type": c.BPF_TCX_INGRESS},
    ),
    "netkit": Kind(
        LinkType.NETKIT,
        (c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_NETKIT_PRIMARY, -1),
        "kit netkit_primary",
        {"attach_type": c.BPF_NETKIT_PRIMARY},
    ),
    "cgroup": Kind(
        LinkType.CGROUP,
        (c.BPF_PROG_TYPE_CGROUP_SKB, c.BPF_CGROUP_INET_EGRESS, 1),
        "cgroup_inet_egress of cgroup ",
        {"attach_type": c.BPF_CGROUP_INET_EGRESS},
    ),
    "sk_lookup": Kind(
        LinkType.NETNS,
        (c.BPF_PROG_TYPE_SK_LOOKUP, c.BPF_SK_LOOKUP, 1),
        "sk_lookup of netns:[",
        {"attach_type": c.BPF_SK_LOOKUP},
    ),
    "flow_dissector": Kind(
        LinkType.NETNS,
        (c.BPF_PROG_TYPE_FLOW_DISSECTOR, 0, 0),
        "flow_dissector of netns:[",
        {"attach_type": c.BPF_FLOW_DISSECTOR},
    ),
    "netfilter": Kind(
        LinkType.NETFILTER,
        (c.BPF_PROG_TYPE_NETFILTER, c.BPF_NETFILTER, 1),
        "ipv4 forward priority 3",
        {"pf": NFPROTO_IPV4, "hooknum": 2, "priority": 3},
    ),
    "sockmap": Kind(
        LinkType.SOCKMAP,
        (c.BPF_PROG_TYPE_SK_MSG, c.BPF_SK_MSG_VERDICT, 1),
        "map ",
        {"attach_type": c.BPF_SK_MSG_VERDICT},
    ),
}


@pytest.fixture
def attach(request: pytest.FixtureRequest, cgroup: Path) -> Iterator[Attach]:
    """The function that attaches programs of the kind that the test is for."""
    kind = request.node.callspec.params["kind"]
    if kind == "netkit":
        needs_attach_type("BPF_NETKIT_PRIMARY")
        try:
            add_pair("netkit", "kit")
        except OSError as error:
            pytest.skip(f"the kernel makes no netkit devices: {error}")
        set_up("kit")
    if kind == "tcx":
        needs_attach_type("BPF_TCX_INGRESS")
    if kind == "netfilter":
        needs_attach_type("BPF_NETFILTER")
    if kind == "sockmap" and not has_enumerator("bpf_link_type", "BPF_LINK_TYPE_SOCKMAP"):
        pytest.skip("the kernel has no links of socket maps (Linux 6.10)")
    assert socket.if_nametoindex("lo") == 1
    with syscall.map_create(c.BPF_MAP_TYPE_SOCKMAP, key_size=4, value_size=4, max_entries=1) as sockets:
        ways: dict[str, Attach] = {
            "xdp": lambda program: program.attach_xdp("lo"),
            "tcx": lambda program: program.attach_tcx("lo"),
            "netkit": lambda program: program.attach_netkit("kit"),
            "cgroup": lambda program: program.attach_cgroup(cgroup),
            "sk_lookup": lambda program: program.attach_netns(),
            "flow_dissector": lambda program: program.attach_netns(),
            "netfilter": lambda program: program.attach_netfilter("forward", priority=3),
            "sockmap": lambda program: program.attach_sockmap(sockets),
        }
        yield ways[kind]


def two_programs(loader: Loader, kind: str) -> tuple[Program, Program]:
    number, hook, result = KINDS[kind].program
    one, two = (loader(number, exit_with(result), attach_type=hook) for _ in range(2))
    return one, two


def without_numbers(target: str, pattern: str) -> bool:
    return target == pattern or (pattern.endswith((" ", "[")) and target.startswith(pattern))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_told(loader: Loader, attach: Attach, kind: str) -> None:
    program, _ = two_programs(loader, kind)
    wanted = KINDS[kind]
    with attach(program) as link:
        assert link.type is wanted.type
        info = link.info()
        assert (info.id, info.prog_id) == (link.id, program.id)
        assert {name: getattr(info, name) for name in wanted.told} == wanted.told
        (listed,) = [found for found in system.links() if found.id == link.id]
        assert vars(listed) == vars(info)
        with links.Link.from_id(link.id) as same:
            assert same.type is wanted.type
            assert without_numbers(same.target, wanted.target), same.target
            assert repr(same) == f"<Link {same.kind} {same.target} id={link.id}>"


@pytest.mark.parametrize("kind", KINDS)
def test_updating(loader: Loader, attach: Attach, kind: str) -> None:
    one, two = two_programs(loader, kind)
    with attach(one) as link:
        if kind == "netfilter":
            with pytest.raises(BPFError, match="netfilter links cannot be updated"):
                link.update(two)
            return
        link.update(two, old=one)
        assert link.info().prog_id == two.id
        with pytest.raises(BPFPermissionError, match="not the expected one"):
            link.update(one, old=one)
        link.update(one)
        assert link.info().prog_id == one.id
        with loader(c.BPF_PROG_TYPE_RAW_TRACEPOINT, exit_with(0)) as other, pytest.raises(BPFError, match="updating"):
            link.update(other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pin_keeps_it(loader: Loader, attach: Attach, kind: str) -> None:
    if not os.path.ismount("/sys/fs/bpf"):
        pytest.skip("no bpf file system at /sys/fs/bpf")
    program, _ = two_programs(loader, kind)
    with tempfile.TemporaryDirectory(dir="/sys/fs/bpf") as folder:
        path = f"{folder}/link"
        with attach(program) as link:
            number = link.id
            link.pin(path)
        assert number in attached()
        with links.Link.open_pinned(path) as again:
            assert (again.id, again.pin_path) == (number, path)
            assert again.info().prog_id == program.id
            again.unpin()
            assert number in attached()
        assert eventually(lambda: number not in attached())
        assert not os.path.exists(path)


@pytest.mark.parametrize("kind", KINDS)
def test_detaching_under_another_holder(loader: Loader, attach: Attach, kind: str) -> None:
    """`detach` ends the attachment although somebody else has the link open: it can be attached again at once."""
    one, two = two_programs(loader, kind)
    with attach(one) as link, links.Link.from_id(link.id) as holder:
        link.detach()
        assert (link.closed, holder.closed) == (True, False)
        if kind != "sk_lookup":  # of these a namespace takes several
            attach(two).close()
        holder.detach()
