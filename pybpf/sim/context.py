"""What a program is given in r1: its context, and the packet behind it, as BPF_PROG_TEST_RUN makes them.

Rules of this module:

* Fields that are pointers give the whole pointer when they are loaded, although they have 32 bits in the C struct: the
  kernel rewrites such loads in the same way.
* Only the bytes between the packet's ends can be accessed; they may be moved by helpers.

Source: net/bpf/test_run.c; xdp_convert_ctx_access() and bpf_convert_ctx_access() in net/core/filter.c.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.errors import SimulationError
from pybpf.sim.layouts import CONTEXTS, SIZES
from pybpf.sim.memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.sim.memory import ByteOrder, Memory

HEADROOM = 256
"""Bytes free before a packet (XDP_PACKET_HEADROOM)."""
MAX_METADATA = 252
"""Bytes of metadata before a packet (xdp_metalen_invalid())."""
FRAME_SIZE = 4096 - 320
"""Bytes of headroom, packet and room behind it: a page without struct skb_shared_info. Longer packets cannot grow.

The structure fills whole cache lines, here of 64 bytes as on x86-64 and arm64. The 256 of s390x leave 192 bytes less.
"""
ETHERNET = 14
"""Bytes of an Ethernet header (ETH_HLEN)."""
LOOPBACK = 1
"""The interface that packets of a test run come from."""

_WITH_LINK_HEADER = frozenset({c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_PROG_TYPE_SCHED_ACT})
_OF_SOCKET_BUFFERS = _WITH_LINK_HEADER | {
    c.BPF_PROG_TYPE_SOCKET_FILTER,
    c.BPF_PROG_TYPE_CGROUP_SKB,
    c.BPF_PROG_TYPE_LWT_IN,
    c.BPF_PROG_TYPE_LWT_OUT,
    c.BPF_PROG_TYPE_LWT_XMIT,
    c.BPF_PROG_TYPE_LWT_SEG6LOCAL,
}

_WRITABLE = frozenset(
    {
        c.BPF_PROG_TYPE_SYSCALL,
        c.BPF_PROG_TYPE_CGROUP_SOCK,
        c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        c.BPF_PROG_TYPE_CGROUP_SOCKOPT,
        c.BPF_PROG_TYPE_CGROUP_SYSCTL,
        c.BPF_PROG_TYPE_SOCK_OPS,
    }
)
"""Types without a packet whose context has fields that programs may write to; which ones is not checked."""


class Packet(Region):
    """A packet with room around it. `start` and `end` are offsets in `data`; `meta` is where metadata begins."""

    __slots__ = ("end", "meta", "start")

    def __init__(self, content: bytes) -> None:
        super().__init__("packet", bytearray(bytes(HEADROOM) + content).ljust(FRAME_SIZE, b"\0"))
        self.start = self.meta = HEADROOM
        self.end = HEADROOM + len(content)

    def check(self, offset: int, size: int) -> None:
        if offset < self.meta or offset + size > self.end:
            place = offset - self.start
            raise SimulationError(f"{size} bytes at packet {place:+d}, which has {self.end - self.start} bytes")

    @property
    def origin(self) -> int:
        return self.start

    def shift(self, metadata: int) -> None:
        """Make the first bytes metadata, and put them into the headroom."""
        self.data[self.start - metadata :] = self.data[self.start :] + bytes(metadata)
        self.meta = self.start - metadata
        self.end -= metadata

    @property
    def content(self) -> bytes:
        return bytes(self.data[self.start : self.end])


class Context(Region):
    """The struct that r1 points to.

    Attributes:
        packet: the packet, or None.
        header: how many bytes of the packet the program does not see (the Ethernet header, for sockets).
    """

    __slots__ = ("_pointers", "header", "packet")

    def __init__(self, data: bytes, packet: Packet | None = None, name: str = "", header: int = 0) -> None:
        super().__init__("ctx", bytearray(data))
        self.packet = packet
        self.header = header
        layout = CONTEXTS.get(name, {})
        self._pointers = {layout[field][0]: field for field in ("data", "data_end", "data_meta") if field in layout}
        if packet is None:
            self._pointers.clear()

    def load(self, offset: int, size: int, byte_order: ByteOrder) -> int:
        place = self._pointer_at(offset, size)
        packet = self.packet
        if place is None or packet is None:
            return super().load(offset, size, byte_order)
        if size != 4 or place != offset:
            raise SimulationError(f"{size} bytes at ctx {offset:+d}: the pointer at {place:+d} is loaded with 4")
        field = self._pointers[place]
        return packet.base + {"data": packet.start, "data_end": packet.end, "data_meta": packet.meta}[field]

    def store(self, offset: int, size: int, value: int, byte_order: ByteOrder) -> None:
        place = self._pointer_at(offset, size)
        if place is not None:
            raise SimulationError(f"a write to the pointer at ctx {place:+d}")
        super().store(offset, size, value, byte_order)

    def _pointer_at(self, offset: int, size: int) -> int | None:
        """Where the pointer lies that an access touches, if it touches one."""
        return next((place for place in self._pointers if place < offset + size and offset < place + 4), None)


def make_context(type_number: int, data: bytes | None, ctx: bytes | None, memory: Memory) -> Context:
    """The context of a run, and the packet, in memory.

    Raises:
        ValueError: the packet or the context does not suit this type of program.
    """
    if type_number == c.BPF_PROG_TYPE_XDP:
        made = _xdp(data or b"", ctx, memory)
    elif type_number in _OF_SOCKET_BUFFERS:
        made = _socket_buffer(type_number, data or b"", ctx, memory)
    else:
        if data:
            raise ValueError("this type of program has no packet; give `ctx`")
        made = Context(ctx or b"")
        made.writable = type_number in _WRITABLE
    memory.map(made)
    return made


def _xdp(content: bytes, ctx: bytes | None, memory: Memory) -> Context:
    if len(content) < ETHERNET:
        raise ValueError(f"a packet has at least {ETHERNET} bytes, not {len(content)}")
    given = bytearray((ctx or b"").ljust(SIZES["xdp_md"], b"\0"))
    layout = CONTEXTS["xdp_md"]
    if ctx is None:
        _put(given, layout["ingress_ifindex"], LOOPBACK, memory.byte_order)
    packet = Packet(content)
    offset, size = layout["data"]
    metadata = int.from_bytes(given[offset : offset + size], memory.byte_order)
    if metadata % 4 or metadata > min(MAX_METADATA, len(content) - ETHERNET):
        raise ValueError(f"`data` of the context says that {metadata} bytes of {len(content)} are metadata")
    packet.shift(metadata)
    memory.map(packet)
    return Context(bytes(given), packet, "xdp_md")


def _socket_buffer(type_number: int, content: bytes, ctx: bytes | None, memory: Memory) -> Context:
    if len(content) < ETHERNET:
        raise ValueError(f"a packet has at least {ETHERNET} bytes, not {len(content)}")
    given = bytearray((ctx or b"").ljust(SIZES["__sk_buff"], b"\0"))
    layout = CONTEXTS["__sk_buff"]
    packet = Packet(content)
    header = 0 if type_number in _WITH_LINK_HEADER else ETHERNET
    packet.start += header
    packet.meta = packet.start
    order = memory.byte_order
    _put(given, layout["len"], packet.end - packet.start, order)
    # The field holds the number as it stands in the packet: in network byte order.
    given[layout["protocol"][0] : layout["protocol"][0] + 4] = content[12:14] + b"\0\0"
    if order == "big":
        given[layout["protocol"][0] : layout["protocol"][0] + 4] = b"\0\0" + content[12:14]
    place, size = layout["ifindex"]
    if not any(given[place : place + size]):
        _put(given, layout["ifindex"], LOOPBACK, order)
    memory.map(packet)
    return Context(bytes(given), packet, "__sk_buff", header)


def _put(data: bytearray, place: tuple[int, int], value: int, byte_order: ByteOrder) -> None:
    offset, size = place
    data[offset : offset + size] = value.to_bytes(size, byte_order)
