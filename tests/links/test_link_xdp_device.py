"""XDP programs that are loaded for one interface: bound to it, for what its driver tells; or offloaded to it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from lacking import jit_needed, needs_function
from link_helpers import eventually
from link_network import add_pair, private_network, set_up
from object_builder import ObjectBuilder

import pybpf
from pybpf import constants as c
from pybpf import links, syscall
from pybpf.asm.build import assemble
from pybpf.errors import BPFError, BPFNotFoundError, VerifierError

NETDEVSIM = Path("/sys/bus/netdevsim")


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


def network_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


# Bound: the program runs on this machine, in the driver of one interface


@pytest.fixture
def right() -> str:
    """The other end of the veth pair of `left`."""
    before = set(socket.if_nameindex())
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    return next(name for _, name in set(socket.if_nameindex()) - before if name != "left")


@pytest.fixture
def bound(tmp_path: Path, right: str) -> pybpf.ObjectSpec:
    """The program that asks for the hash of packets, for the interface `left` of a veth pair."""
    needs_function("bpf_xdp_metadata_rx_hash")
    for name in ("left", right):
        set_up(name)
    path = ObjectBuilder(tmp_path)("load_metadata.bpf.c", byte_order=sys.byteorder)
    spec = pybpf.ObjectSpec.from_file(str(path))
    spec.programs["ask_hash"].ifindex = socket.if_nametoindex("left")
    spec.programs["ask_hash"].flags |= c.BPF_F_XDP_DEV_BOUND_ONLY
    return spec


def test_a_bound_program_asks_the_driver(bound: pybpf.ObjectSpec, right: str) -> None:
    with jit_needed(), bound.load() as obj:
        program = obj.programs["ask_hash"]
        assert program.info().ifindex == 0  # the kernel tells it of offloaded programs only
        with pytest.raises(BPFError):
            program.attach_xdp(right, mode="native")
        with program.attach_xdp("left", mode="native"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as mouth:
            mouth.bind((right, 0))

            def fired() -> bool:
                mouth.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + b"x" * 50)
                return bool(obj.globals["ran"])

            assert eventually(fired)
            assert (int(obj.globals["outcome"]), bool(obj.globals["hash"])) == (0, True)


def test_the_driver_tells_only_bound_programs(bound: pybpf.ObjectSpec) -> None:
    bound.programs["ask_hash"].ifindex = 0
    bound.programs["ask_hash"].flags = 0
    with pytest.raises(VerifierError, match="device-bound"), jit_needed():
        bound.load()


def test_no_such_interface(bound: pybpf.ObjectSpec) -> None:
    bound.programs["ask_hash"].ifindex = 1 << 20
    with pytest.raises(BPFError) as raised, jit_needed():
        bound.load()
    assert raised.value.errno in (errno.EINVAL, errno.ENODEV)


# Offloaded: the program runs on the card


def for_interface(interface: str) -> pybpf.ObjectSpec:
    spec = assemble("r0 = 2; exit", "xdp")
    for program in spec.programs.values():
        program.ifindex = socket.if_nametoindex(interface)
    return spec


def test_an_interface_that_takes_no_offload() -> None:
    with pytest.raises(BPFError) as raised:
        for_interface("lo").load()
    assert raised.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)


@pytest.fixture
def card() -> Iterator[str]:
    """The interface of a simulated card (drivers/net/netdevsim)."""
    before = set(socket.if_nameindex())
    (NETDEVSIM / "new_device").write_text("71 1")
    try:
        assert eventually(lambda: len(set(socket.if_nameindex()) - before) == 1)
        ((_, name),) = set(socket.if_nameindex()) - before
        set_up(name)
        yield name
    finally:
        with suppress(OSError):
            (NETDEVSIM / "del_device").write_text("71")


def on_the_card() -> dict[int, str]:
    """The programs that netdevsim has, by id, and what it says of each."""
    folders = Path("/sys/kernel/debug/netdevsim/netdevsim71/bpf_bound_progs").iterdir()
    return {int((f / "id").read_text()): (f / "state").read_text().strip() for f in folders}


@pytest.mark.built("netdevsim")
def test_offload(card: str) -> None:
    index = socket.if_nametoindex(card)
    with for_interface(card).load() as obj:
        (program,) = obj.programs.values()
        info = program.info()
        assert (info.ifindex, info.netns_ino) == (index, network_inode())
        assert info.netns_dev
        assert on_the_card() == {program.id: "xlated"}
        with program.attach_xdp(card, mode="offload") as link:
            assert link.info().ifindex == index
            status = links.xdp_status(card)
            assert (status.mode, status.offload_id) == ("offload", program.id)
        assert links.xdp_status(card).mode == ""
        with program.attach_xdp(card, mode="offload", netlink=True) as attachment:
            assert isinstance(attachment, links.NetlinkXDP)
            assert attachment.status().offload_id == program.id
        assert links.xdp_status(card).offload_id == 0
        with pytest.raises(BPFError):  # it is no program for this machine's processor
            program.attach_xdp("lo", mode="generic")
    assert eventually(lambda: not on_the_card())


@pytest.mark.built("netdevsim")
def test_a_map_on_the_card(card: str) -> None:
    index = socket.if_nametoindex(card)
    fd = syscall.map_create(c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=2, ifindex=index)
    with fd:
        info = syscall.map_info(fd)
        assert (info.ifindex, info.netns_ino) == (index, network_inode())
        syscall.map_update_elem(fd, bytes(4), b"card")
        assert syscall.map_lookup_elem(fd, bytes(4), 4) == b"card"


@pytest.mark.built("netdevsim")
def test_a_card_that_goes(card: str) -> None:
    with for_interface(card).load() as obj:
        (program,) = obj.programs.values()
        (NETDEVSIM / "del_device").write_text("71")
        with pytest.raises(BPFNotFoundError):
            program.info()
