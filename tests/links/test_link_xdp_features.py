"""What interfaces can do with XDP: the netdev family of generic netlink."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
from link_network import add_pair, private_network

from pybpf import links, syscall
from pybpf.abi import XDPFeatures, XDPMetadata, XSKFeatures
from pybpf.errors import BPFNotFoundError, NotSupportedError


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


def abilities(interface: str | int) -> links.XDPAbilities:
    try:
        return links.xdp_features(interface)
    except NotSupportedError as error:
        pytest.skip(str(error))


def test_an_interface_with_generic_xdp_only() -> None:
    found = abilities("lo")
    assert (found.features, found.metadata, found.xsk, found.zero_copy_segments) == (0, 0, 0, 0)
    assert repr(found) == "<XDPAbilities none>"


def test_veth() -> None:
    abilities("lo")
    try:
        add_pair("veth", "left")
    except OSError as error:
        pytest.skip(f"the kernel makes no veth pairs: {error}")
    found = abilities(socket.if_nametoindex("left"))
    assert isinstance(found.features, XDPFeatures)
    assert isinstance(found.metadata, XDPMetadata)
    assert isinstance(found.xsk, XSKFeatures)
    assert XDPFeatures.BASIC | XDPFeatures.REDIRECT | XDPFeatures.RX_SG in found.features
    if found.metadata:  # told since Linux 6.7
        assert XDPMetadata.TIMESTAMP | XDPMetadata.HASH in found.metadata
    assert XDPFeatures.HW_OFFLOAD not in found.features
    assert repr(found).startswith("<XDPAbilities basic redirect ")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BPFNotFoundError, match="'nope' does not exist"):
        links.xdp_features("nope")


class OldKernel:
    """An observer: a kernel without the family."""

    def before(self, call: syscall.Call) -> int | None:
        return errno.ENOENT if call.command == "CTRL_CMD_GETFAMILY" else None

    def after(self, call: syscall.Call) -> None:
        pass


def test_a_kernel_before_6_3() -> None:
    observer = OldKernel()
    syscall.add_observer(observer)
    try:
        with pytest.raises(NotSupportedError, match=r"interface lo: .*since Linux 6\.3"):
            links.xdp_features("lo")
    finally:
        syscall.remove_observer(observer)
