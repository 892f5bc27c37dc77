"""Expressions of tcpdump, packets to run them over, and classic programs at random."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from io import BytesIO

import pytest

from pybpf.asm.classic import Filter, Instruction
from pybpf.asm.classic.instruction import ALLOWED
from pybpf.asm.classic.pcap import Captured, Writer

EXPRESSIONS = """
ip
ip6
arp
rarp
tcp
udp
icmp
icmp6
igmp
ah or esp
vlan
vlan 5
vlan and ip
vlan 5 and tcp port 80
vlan and vlan 7 and udp
mpls
pppoes
host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.2
host 10.0.0.1 or host 10.0.0.2
net 10.0.0.0/8
src net 192.168.1.0/24
not net 10.0.0.0/8
ip6 host 2001:db8::1
ip6 net 2001:db8::/32
port 53
tcp port 80
tcp src port 443
udp dst port 53
portrange 1000-2000
tcp portrange 21-25
not port 22
ether host 02:00:00:00:00:01
ether src 02:00:00:00:00:02
ether broadcast
ether multicast
ether proto 0x88cc
ip broadcast or ip multicast
ip6 multicast
ip proto 47
ip protochain 6
ip6 protochain 17
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
tcp[13] = 2
tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420
icmp[icmptype] = icmp-echo
icmp6[0] = 135
ip[6:2] & 0x1fff != 0
ip[8] < 5
ip[2:2] > 100
ip[2:2] / 3 = 20
ip[2:2] % 7 = 3
ip[2:2] * 2 + 1 - ip[8] = 57
ether[ip[0] & 0xf] = 3
ether[0] ^ 2 = 0
(ip[0] | 1) << 2 = 0x114
len > 100
len <= 64
less 60
greater 200
len - 14 = ip[2:2]
ip and not (tcp or udp)
tcp and (port 80 or port 443) and host 10.0.0.1
udp and len > 42 and udp[8:4] = 0x61626364
atalk
aarp
decnet host 10.15
iso
llc
stp
ipx
netbeui
ether[12:2] > 1500
len & 1 = 1 and not arp
"""[1:-1].splitlines()
"""One a line; the last ones are for other protocols than IP."""
KERNEL_EXPRESSIONS = [one for one in EXPRESSIONS if "protochain" not in one]
"""Those without loops, which only libpcap runs."""

TCPDUMP = shutil.which("tcpdump")
needs_tcpdump = pytest.mark.skipif(TCPDUMP is None, reason="tcpdump is not installed")


def tcpdump(*arguments: str) -> str:
    """What tcpdump prints."""
    assert TCPDUMP is not None
    return subprocess.run([TCPDUMP, *arguments], capture_output=True, text=True, check=True).stdout


def compiled(expression: str, form: str = "-ddd") -> str:
    """An expression in one of tcpdump's forms, for Ethernet."""
    return tcpdump("-y", "EN10MB", form, *expression.split())


ONE, TWO = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
BROADCAST = b"\xff" * 6


def ether(kind: int, payload: bytes, dst: bytes = ONE, src: bytes = TWO) -> bytes:
    return dst + src + struct.pack("!H", kind) + payload


def ipv4(protocol: int, payload: bytes, src: str = "10.0.0.1", dst: str = "10.0.0.2", **options: int) -> bytes:
    fragment, ttl, extra = options.get("fragment", 0), options.get("ttl", 64), bytes(options.get("extra", 0))
    addresses = b"".join(bytes(map(int, one.split("."))) for one in (src, dst))
    first = 0x45 + len(extra) // 4
    head = struct.pack("!BBHHHBBH", first, 0, 20 + len(extra) + len(payload), 7, fragment, ttl, protocol, 0)
    return ether(0x0800, head + addresses + extra + payload)


def ipv6(following: int, payload: bytes) -> bytes:
    one, two = (bytes.fromhex(f"20010db8{number:024x}") for number in (1, 2))
    return ether(0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + one + two + payload)


def tcp(src: int, dst: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", src, dst, 1, 2, 0x50, flags, 1000, 0, 0) + data


def udp(src: int, dst: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHHH", src, dst, 8 + len(data), 0) + data


def packets() -> list[bytes]:
    """Something for every expression, with packets that are cut off and ones that are noise."""
    chance = random.Random(1993)
    plain = [
        ether(0x0806, struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + bytes(20), BROADCAST),
        ether(0x8035, bytes(28)),
        ether(0x88CC, bytes(50)),
        ether(0x8847, bytes.fromhex("00001140") + bytes(40)),
        ether(0x8864, bytes.fromhex("110000010020") + bytes(40)),
        ether(0x80F3, bytes(30)),
        ipv4(6, tcp(1234, 80, 2)),
        ipv4(6, tcp(80, 1234, 0x12), "10.0.0.2", "10.0.0.1"),
        ipv4(6, tcp(1500, 80, 0x18, b"GET / HTTP/1.1\r\n\r\n")),
        ipv4(6, tcp(443, 22, 1), "192.168.1.9", ttl=3),
        ipv4(6, tcp(1234, 80, 2), extra=12),
        ipv4(17, udp(53, 5353, b"abcdefgh")),
        ipv4(17, udp(1024, 53, bytes(200)), "172.16.0.1", "224.0.0.251"),
        ipv4(17, udp(1024, 53), fragment=0x2000),
        ipv4(17, bytes(40), fragment=5),
        ipv4(17, udp(67, 68), "0.0.0.0", "255.255.255.255"),
        ipv4(1, bytes.fromhex("0800f7ff00000000") + bytes(8)),
        ipv4(2, bytes(8)),
        ipv4(47, bytes(8)),
        ipv4(51, bytes.fromhex("0604000000000001000000010000000000000000") + tcp(1, 80, 2)),
        ipv6(6, tcp(1234, 80, 2)),
        ipv6(17, udp(53, 53, bytes(30))),
        ipv6(58, bytes.fromhex("87000000") + bytes(20)),
        ipv6(0, bytes.fromhex("1100000000000000") + udp(53, 1)),
        ipv6(44, bytes.fromhex("1100000000000000") + udp(53, 1)),
        ether(0x003A, bytes.fromhex("424203") + bytes(55)),
        ether(0x0026, bytes.fromhex("e0e003ffff") + bytes(55)),
        ether(0x0026, bytes.fromhex("fefe03") + bytes(55)),
        ether(0x0026, bytes.fromhex("f0f003") + bytes(55)),
        ether(0x0026, bytes.fromhex("aaaa0308000780f3") + bytes(55)),
    ]
    tagged = [frame[:12] + struct.pack("!HH", 0x8100, tag) + frame[12:] for frame in plain[6:12] for tag in (5, 7)]
    double = [frame[:12] + struct.pack("!HH", 0x88A8, 9) + frame[12:] for frame in tagged[:8]]
    cut = [chance.choice(plain + tagged)[: chance.randrange(1, 60)] for _ in range(25)]
    noise = [chance.randbytes(chance.randrange(14, 90)) for _ in range(10)]
    return plain + tagged + double + cut + noise


def capture_file(frames: list[bytes]) -> bytes:
    file = BytesIO()
    writer = Writer(file)
    for number, frame in enumerate(frames):
        writer.write(Captured(1_000_000_000 + number, len(frame), frame))
    return file.getvalue()


_JUMPS = (0x05, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D, 0x45, 0x4D)
_LOADS = (0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xB1)
_NUMBERS = (0, 1, 2, 4, 12, 14, 31, 255, 0x800, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def random_program(chance: random.Random, *, wild: float = 0.0, seccomp: bool = False) -> Filter:
    """A program that is mostly valid; `wild` is how often an instruction has any fields at all."""
    count = chance.randrange(2, 24)
    codes = sorted(ALLOWED)
    program = []
    for index in range(count):
        left = count - index - 2
        code = chance.choice(codes)
        jt, jf, k = 0, 0, chance.choice(_NUMBERS)
        if code in _JUMPS:
            if left <= 0:
                code = 0x87
            else:
                jt, jf = chance.randrange(left), chance.randrange(left)
                k = chance.randrange(left) if code == 0x05 else k
        elif code in _LOADS:
            k = chance.choice([0, 1, 2, 9, 14, 23, 60, 0xFFFFF000 + 40, 0xFFF00000, 0xFFE00002, 0xFFFFFFFC])
            if seccomp:
                k = 4 * chance.randrange(17)
        elif code in (0x60, 0x61, 0x02, 0x03):
            k = chance.randrange(16) if chance.random() < 0.3 else 1
        elif code in (0x64, 0x74):
            k = chance.randrange(33)
        if chance.random() < wild:
            code, k = chance.choice([chance.randrange(256), code, 0x300]), chance.choice(_NUMBERS)
            jt, jf = chance.randrange(6), chance.randrange(6)
        program.append(Instruction(code, jt, jf, k))
    if chance.random() > wild / 2:
        program[-1] = Instruction(0x06, k=0x7FFF0000) if seccomp else chance.choice([Instruction(0x16), program[-1]])
    if not seccomp and program[-1].code not in (0x06, 0x16) and chance.random() > wild / 2:
        program[-1] = Instruction(0x06, k=chance.choice(_NUMBERS))
    return Filter(program)
