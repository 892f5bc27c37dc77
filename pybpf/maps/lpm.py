"""Longest-prefix-match tries: routes and access lists.

Rules of this module:

* A key is a prefix: its length in bits, and the bytes it is taken of. In Python it is any of

      ipaddress.ip_network("10.0.0.0/8")      a network
      ipaddress.ip_address("10.1.2.3")        an address: all its bits
      "10.0.0.0/8", "10.1.2.3"                the same as text
      (8, b"\\x0a\\0\\0\\0")                    bits and bytes; missing bytes are zero
      what the key's codec takes

* Keys that come out are networks of `ipaddress` when the key's type is ``struct ipv4_prefix`` or ``struct
  ipv6_prefix``, which ``LpmTrie(key="ipv4")`` makes; the codec's records when it has another type; else `Prefix`
  (bits, bytes), whose `network` may be asked for. `LpmTrie.network` makes a network of a key of any of these types.
* **Lookup finds the longest prefix that covers the key**, so ``m["10.1.2.3"]`` finds ``10.0.0.0/8``; so does
  ``in``. Writing and deleting are exact.

Source: struct bpf_lpm_trie_key_u8; kernel/bpf/lpm_trie.c (Linux 4.11).
"""

from __future__ import annotations

import sys

from pybpf.btf.scalars import check_range, to_integer
from pybpf.constants import BPF_F_NO_PREALLOC, BPF_MAP_TYPE_LPM_TRIE
from pybpf.maps.face import CodecFace, Face
from pybpf.maps.mapping import MappingMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network
    from typing import Any, Self

    from pybpf.btf.codec import Codec

    _Pair = tuple[int, bytes]
else:
    _Pair = tuple


class Prefix(_Pair):
    """A prefix: ``(bits, data)``. The bytes are as many as the map's keys have."""

    __slots__ = ()

    def __new__(cls, bits: int, data: bytes) -> Self:
        return tuple.__new__(cls, (bits, data))

    def __getnewargs__(self) -> tuple[int, bytes]:
        return self[0], self[1]

    @property
    def bits(self) -> int:
        """How many leading bits count."""
        return self[0]

    @property
    def data(self) -> bytes:
        """The bytes, most significant first."""
        return self[1]

    @property
    def network(self) -> IPv4Network | IPv6Network:
        """The prefix as an IP network, if there are 4 or 16 bytes. Raises ValueError."""
        from ipaddress import IPv4Network, IPv6Network

        if len(self.data) not in (4, 16):
            raise ValueError(f"{len(self.data)} bytes are no IP address")
        kind = IPv4Network if len(self.data) == 4 else IPv6Network
        return kind((self.data, self.bits), strict=False)

    def __repr__(self) -> str:
        return f"Prefix({self})"

    def __str__(self) -> str:
        try:
            return str(self.network)
        except ValueError:
            return f"{self.data.hex()}/{self.bits}"


class PrefixFace(Face):
    """Keys of a trie."""

    __slots__ = ("codec",)

    def __init__(self, codec: Codec | None, size: int, where: str) -> None:
        super().__init__(size, where)
        self.codec = codec

    def encode(self, value: Any) -> bytes:
        if isinstance(value, str):
            from ipaddress import ip_network

            try:
                value = ip_network(value)
            except ValueError as error:
                raise ValueError(f"{self.where}: {error}") from None
        network = getattr(value, "network_address", value)
        packed = getattr(network, "packed", None)
        if packed is not None:
            if hasattr(value, "ip"):
                raise TypeError(f"{self.where}: {value!r} is an address and a network: give its `ip` or its `network`")
            bits = getattr(value, "prefixlen", len(packed) * 8)
            if len(packed) != self.size - 4:
                raise ValueError(f"{self.where} has {self.size - 4} bytes of address, not {len(packed)}")
            return self._join(bits, packed)
        is_pair = isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[1], bytes | bytearray)
        if is_pair and (self.codec is None or len(value[1]) <= self.size - 4):
            return self._join(value[0], bytes(value[1]))
        if self.codec is not None:
            return self.codec.encode(value, self.where)
        return super().encode(value)

    def _join(self, given: Any, data: bytes) -> bytes:
        room = self.size - 4
        if len(data) > room:
            raise ValueError(f"{self.where} has {room} bytes of address, not {len(data)}")
        bits = check_range(to_integer(given, self.where, "a prefix length"), 0, room * 8, self.where, "a prefix length")
        return bits.to_bytes(4, sys.byteorder) + data.ljust(room, b"\0")

    def decode(self, data: bytes) -> Any:
        if self.codec is not None:
            return self.codec.decode(data)
        return Prefix(int.from_bytes(data[:4], sys.byteorder), data[4:])

    def run(self, buffer: memoryview, count: int) -> Iterable[Any]:
        if self.codec is not None:
            return CodecFace(self.codec, self.where).run(buffer, count)
        return map(self.decode, super().run(buffer, count))


class NetworkFace(PrefixFace):
    """Keys of a trie that are known to be IP networks."""

    __slots__ = ()

    def decode(self, data: bytes) -> IPv4Network | IPv6Network:
        return Prefix(int.from_bytes(data[:4], sys.byteorder), data[4:]).network

    def run(self, buffer: memoryview, count: int) -> Iterable[Any]:
        return map(self.decode, Face.run(self, buffer, count))


_NETWORKS = {
    "ipv4": "struct ipv4_prefix { u32 prefixlen; u8 addr[4]; }",
    "ipv6": "struct ipv6_prefix { u32 prefixlen; u8 addr[16]; }",
}
_NETWORK_TYPES = tuple(text.partition(" {")[0] for text in _NETWORKS.values())


class LpmTrie(MappingMap):
    """BPF_MAP_TYPE_LPM_TRIE (Linux 4.11): finds the longest prefix that covers a key. See the module's text."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_LPM_TRIE
    required_flags = BPF_F_NO_PREALLOC
    helper_reads = True
    declarations = _NETWORKS

    def network(self, key: Any) -> IPv4Network | IPv6Network:
        """A key as an IP network, whatever its type: ``{routes.network(key): value for key, value in routes.items()}``.

        The kernel takes the bytes behind the length most significant first, so those of a key are an address as they
        lie there: of ``struct { u32 prefixlen; __be32 addr; }`` as of ``u8 addr[4]`` or ``struct in6_addr``.

        Args:
            key: as it came out, or anything that the map takes as key.

        Raises:
            ValueError: keys of this map have not 4 or 16 bytes of address.
            TypeError, ValueError, OverflowError: the key does not fit its type.
        """
        data = self.keys_face.encode(key)
        return Prefix(int.from_bytes(data[:4], sys.byteorder), data[4:]).network

    def _key_face(self) -> Face:
        is_network = self.key_codec is not None and self.key_codec.c_name in _NETWORK_TYPES
        face = NetworkFace if is_network and self.key_size in (8, 20) else PrefixFace
        return face(self.key_codec, self.key_size, self._where("key"))
