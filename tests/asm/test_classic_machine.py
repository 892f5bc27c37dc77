"""The interpreter, the checks and the translation agree with tcpdump and with the kernel."""

from __future__ import annotations

import io
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from classic_samples import (
    EXPRESSIONS,
    KERNEL_EXPRESSIONS,
    capture_file,
    compiled,
    ipv4,
    needs_tcpdump,
    packets,
    random_program,
    tcp,
    tcpdump,
)
from thrift import few

from pybpf import Program, syscall
from pybpf.asm.classic import Filter, Instruction, Packet
from pybpf.asm.classic.pcap import Captured, Reader, Writer
from pybpf.errors import BPFError, ObjectError

live = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]
PACKETS = packets()


@contextmanager
def socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setblocking(False)
        yield sender, receiver


def kept(pair: tuple[socket.socket, socket.socket], packet: bytes) -> int | None:
    """How many bytes of a packet come through the filter of a socket; None when it is dropped."""
    try:
        pair[0].send(packet)
        return len(pair[1].recv(1 << 16))
    except BlockingIOError:
        return None


def expected(result: int, packet: bytes) -> int | None:
    return min(result, len(packet)) if result else None


@needs_tcpdump
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_tcpdump_selects_the_same_packets(expression: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    source.write_bytes(capture_file(PACKETS))
    tcpdump("-r", str(source), "-w", str(target), *expression.split())
    program = Filter.from_ddd(compiled(expression))
    with source.open("rb") as file:
        ours = [one.time for one in Reader(file) if program.run(Packet(one.data, length=one.length))]
    with target.open("rb") as file:
        assert ours == [one.time for one in Reader(file)]


@pytest.fixture(scope="module")
def runnable() -> list[bytes]:
    """The packets that the kernel takes for test runs: it wants whole headers of the protocols it knows."""
    found = []
    with Program.from_asm("r0 = 0\nexit", "tc") as program:
        for packet in PACKETS:
            try:
                program.test_run(packet)
                found.append(packet)
            except BPFError:
                continue
    assert len(found) > 60
    return found


class TestKernel:
    pytestmark = live

    @needs_tcpdump
    @pytest.mark.parametrize("expression", KERNEL_EXPRESSIONS)
    def test_expressions(self, expression: str, runnable: list[bytes]) -> None:
        """The filter on a socket, and its translation, keep what the interpreter keeps."""
        program = Filter.from_ddd(compiled(expression))
        results = [program.run(packet) for packet in PACKETS]
        with socket_pair() as pair:
            syscall.attach_classic_filter(pair[1], program.to_bytes())
            assert [kept(pair, one) for one in PACKETS] == [
                expected(result, one) for result, one in zip(results, PACKETS, strict=True)
            ]
        with Program.from_asm(program.translate(section="tc")) as translated:
            assert [translated.test_run(one).retval for one in runnable] == [program.run(one) for one in runnable]

    def test_random_programs(self, runnable: list[bytes]) -> None:
        chance = random.Random(1993)
        compared = 0
        with socket_pair() as pair:
            for _ in range(few(400)):
                program = random_program(chance)
                try:
                    program.check()
                except ObjectError:
                    continue
                some = chance.choices(runnable, k=4)
                # A socket of the family AF_UNIX gives its packets no link layer.
                plain = [packet for packet in some if not any(map(_loads_headers, program))]
                syscall.attach_classic_filter(pair[1], program.to_bytes())
                for packet in plain:
                    assert kept(pair, packet) == expected(program.run(packet), packet), f"{program}\n{packet.hex()}"
                with Program.from_asm(program.translate(section="tc")) as translated:
                    for packet in some:
                        result = translated.test_run(packet).retval
                        assert result == program.run(packet), f"{program}\n{packet.hex()}"
                        compared += 1
        assert compared > few(300)

    def test_what_the_kernel_refuses_is_refused(self) -> None:
        """Of programs at random that are mostly wrong, the kernel takes those that `check` takes, and no other."""
        chance = random.Random(5)
        verdicts = []
        with socket_pair() as (_, receiver):
            for _ in range(few(3000)):
                program = random_program(chance, wild=chance.choice([0.01, 0.05, 0.3]))
                try:
                    program.check()
                    ours = True
                except ObjectError:
                    ours = False
                try:
                    syscall.attach_classic_filter(receiver, program.to_bytes())
                    theirs = True
                except BPFError:
                    theirs = False
                assert ours == theirs, f"{program}"
                verdicts.append(ours)
        assert few(3000) // 10 < sum(verdicts) < few(3000) * 9 // 10

    def test_every_opcode(self) -> None:
        with socket_pair() as (_, receiver):
            for code in range(0x200):
                program = Filter.from_ddd(f"3\n{code} 0 0 1\n6 0 0 0\n6 0 0 0\n")
                try:
                    program.check()
                    ours = True
                except ObjectError:
                    ours = False
                try:
                    syscall.attach_classic_filter(receiver, program.to_bytes())
                    theirs = True
                except BPFError:
                    theirs = False
                assert ours == theirs, hex(code)

    def test_get_lock_and_detach(self) -> None:
        program = Filter.from_text("ldb [0]\nret a")
        with socket_pair() as (_, receiver):
            assert syscall.get_classic_filter(receiver) == b""
            syscall.attach_classic_filter(receiver, program.to_bytes())
            assert Filter.from_bytes(syscall.get_classic_filter(receiver)) == program
            syscall.detach_socket_filter(receiver)
            assert syscall.get_classic_filter(receiver) == b""
            with pytest.raises(ValueError, match="has 1 to 65535 instructions"):
                syscall.attach_classic_filter(receiver, b"")
            syscall.lock_filter(receiver)
            with pytest.raises(PermissionError):
                syscall.attach_classic_filter(receiver, program.to_bytes())

    def test_reuseport(self) -> None:
        """A classic filter chooses among the sockets of a port by the first byte of the datagram."""
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            for sock in (one, two):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.settimeout(5)
                sock.bind(one.getsockname() if sock is two else ("127.0.0.1", 0))
            syscall.attach_reuseport_classic(one, Filter.from_text("ldb [0]\nret a").to_bytes())
            client.connect(one.getsockname())
            for number, sock in ((0, one), (1, two), (1, two), (0, one)):
                client.send(bytes([number]) + b"x")
                assert sock.recv(10)[0] == number

    def test_translation_of_linux_s_own_loads(self) -> None:
        """Those that a test run can tell; the others are compared by what they load from."""
        values = {"proto": 0x0800, "ifidx": 1, "type": 3, "mark": 0, "queue": 0, "vlanp": 0, "cpu": None}
        packet = ipv4(6, tcp(1, 2, 3))
        for name, value in values.items():
            with Program.from_asm(Filter.from_text(f"ld {name}\nret a").translate(section="tc")) as program:
                result = program.test_run(packet).retval
                assert result == value or (value is None and result < os.cpu_count())  # type: ignore[operator]
        with Program.from_asm(Filter.from_text("ld rand\nret a").translate()) as program:
            assert len({program.test_run(packet).retval for _ in range(8)}) > 1


def _loads_headers(insn: Instruction) -> bool:
    """Whether a load may be from where the network or link layer's header is."""
    return insn.code in (0x40, 0x48, 0x50) or (insn.code in (0x20, 0x28, 0x30, 0xB1) and insn.signed_k < 0)


def test_translation_is_the_kernel_s() -> None:
    from pybpf.asm.disasm import text

    program = Filter.from_text(
        """
        ldxb 4*([14]&0xf)
        st M[0]
        ld M[0]
        jeq #0x80000000, a, b
    a:  jset #1, b, c
    b:  jgt x, c, d
    c:  div x
    d:  ret #0xffffffff
        """
    )
    assert [text(one).partition(") ")[2] for one in program.translate().assembled()] == [
        "w0 = 0", "w7 = 0", "r6 = r1",
        "r7 = r0", "r0 = *(u8 *)skb[14]", "w0 &= 15", "w0 <<= 2", "r2 = r7", "r7 = r0", "r0 = r2",
        "*(u32 *)(r10 -4) = r0", "r0 = *(u32 *)(r10 -4)",
        "w2 = -2147483648", "if r0 != r2 goto pc+2",
        "if r0 & 0x1 goto pc+1", "goto pc+1",
        "if r0 <= r7 goto pc+5",
        "w7 = w7", "if r7 != 0x0 goto pc+2", "w0 ^= w0", "exit", "w0 /= w7",
        "w0 = -1", "exit",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hatype", "poff", "nla", "nlan"])
def test_what_ebpf_cannot_see(name: str) -> None:
    with pytest.raises(ObjectError, match=f"instruction 0: eBPF programs cannot see '{name}'"):
        Filter.from_text(f"ld {name}\nret a").translate()


def test_steps() -> None:
    program = Filter.from_text("ld #len\nst M[2]\nldx M[2]\nsub #1\nret a")
    steps = list(program.trace(Packet(b"abc", length=9)))
    assert [str(step) for step in steps] == [
        "(000) ld       #pktlen                           A=0x9 X=0x0",
        "(001) st       M[2]                              A=0x9 X=0x0 M[2]=0x9",
        "(002) ldx      M[2]                              A=0x9 X=0x9 M[2]=0x9",
        "(003) sub      #1                                A=0x8 X=0x9 M[2]=0x9",
        "(004) ret                                        A=0x8 X=0x9 M[2]=0x9 -> 8",
    ]
    assert steps[-1].result == 8


RUNS = [
    ("ld [0]\nret a", bytes.fromhex("01020304"), 0x01020304),
    ("ld [1]\nret a", bytes.fromhex("01020304"), 0),
    ("ldx #1\nldh [x+1]\nret a", bytes.fromhex("01020304"), 0x0304),
    ("ldx #-1\nldh [x+1]\nret a", bytes.fromhex("01020304"), 0x0102),
    ("ldx #-1\nldh [x+0]\nret a", bytes.fromhex("01020304"), 0),
    ("ld #7\ndiv x\nret a", b"", 0),
    ("ld #7\nmod x\nret #1", b"", 0),
    ("ld #-7\nret a", b"", 0xFFFFFFF9),
    ("ld #1\nneg\nret a", b"", 0xFFFFFFFF),
    ("ldx #33\nld #1\nlsh x\nret a", b"", 2),
    ("ldx #3\nld #5\nld xor_x\nret a", b"", 6),
    ("ld ifidx\nret a", b"", 0),
    ("ldb [-1048576]\nret a", bytes(14) + b"\x45", 0x45),
    ("ldb [-2097152]\nret a", b"\x07", 7),
    ("ld proto\nret a", bytes(12) + b"\x08\x06", 0x806),
    ("ld [-3000000]\nret #1", b"abcd", 0),
]


@pytest.mark.parametrize(("source", "packet", "result"), RUNS)
def test_runs(source: str, packet: bytes, result: int) -> None:
    assert Filter.from_text(source).run(packet) == result


def test_linux_s_own_values() -> None:
    program = Filter.from_text("ld mark\nret a")
    assert program.run(Packet(b"", ancillary={"mark": 77})) == 77


def test_netlink_attributes() -> None:
    import struct

    inner = struct.pack("=HHI", 8, 5, 99) + struct.pack("=HHI", 8, 6, 98)
    message = struct.pack("=HHI", 8, 1, 42) + struct.pack("=HH", 4 + len(inner), 2) + inner
    assert Filter.from_text("ldx #2\nld #0\nld nla\nret a").run(message) == 8
    assert Filter.from_text("ldx #7\nld #0\nld nla\nret a").run(message) == 0
    assert Filter.from_text("ldx #6\nld #8\nld nlan\nret a").run(message) == 20
    assert Filter.from_text("ldx #6\nld #90\nld nlan\nret a").run(message) == 0


def test_programs_that_are_not_valid_are_named() -> None:
    for source, message in (
        ("1\n255 0 0 0\n", r"\(000\) unimp 0xff: there is no opcode 0xff"),
        ("1\n0 0 0 0\n", r"\(000\) ld #0x0: the last instruction is no ret"),
        ("2\n52 0 0 0\n6 0 0 0\n", "it divides by zero"),
        ("2\n100 0 0 32\n6 0 0 0\n", "shifts by 32"),
        ("2\n96 0 0 16\n6 0 0 0\n", "16 words of memory"),
        ("2\n96 0 0 3\n6 0 0 0\n", r"M\[3\] may not have been stored"),
        ("2\n21 0 1 0\n6 0 0 0\n", "jumps beyond the end"),
        ("2\n32 0 0 4294963201\n6 0 0 0\n", "nothing at this negative offset"),
    ):
        with pytest.raises(ObjectError, match=message):
            Filter.from_ddd(source).check()
    with pytest.raises(ObjectError, match="it has 0 instructions"):
        Filter([]).check()
    with pytest.raises(ObjectError, match="beyond its 1 instructions"):
        Filter.from_ddd("1\n0 0 0 0").run(b"")
    with pytest.raises(ObjectError, match="not ended after"):
        Filter.from_text("a: ja a\nret #0").run(b"")
    with pytest.raises(ObjectError, match=r"M\[3\] has not been stored"):
        Filter.from_ddd("1\n96 0 0 3").run(b"")


def test_capture_files() -> None:
    file = BytesIO(capture_file([b"abc", b"defgh"]))
    reader = Reader(file)
    assert reader.link_type == 1
    assert [(one.data, one.length, one.time) for one in reader] == [
        (b"abc", 3, 1_000_000_000.0),
        (b"defgh", 5, 1_000_000_001.0),
    ]
    cut = BytesIO()
    Writer(cut).write(Captured(1.9999996, 1500, b"abc"))
    cut.seek(0)
    (packet,) = Reader(cut)
    assert (packet.time, packet.length, len(packet.data)) == (2.0, 1500, 3)


@pytest.mark.parametrize("magic", ["a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1"])
def test_capture_files_of_either_order_and_unit(magic: str) -> None:
    order = "big" if magic.startswith("a1") else "little"
    words = [0x00020004 if order == "big" else 0x00040002, 0, 0, 65535, 1, 10, 500, 2, 9]
    data = bytes.fromhex(magic) + b"".join(word.to_bytes(4, order) for word in words) + b"hi"
    (packet,) = Reader(BytesIO(data))
    assert packet.time == pytest.approx(10 + 500 * (1e-9 if "3c" in magic else 1e-6))
    assert (packet.data, packet.length) == (b"hi", 9)


def test_files_that_are_no_captures() -> None:
    whole = capture_file([b"abc"])
    for data, message in (
        (b"", "begins with nothing"),
        (b"\x0a\x0d\x0d\x0a" + bytes(30), "a pcapng file"),
        (whole[:20], "no capture file"),
        (whole[:30], "packet 0 is cut off in its header"),
        (whole[:-1], "packet 0 is cut off: 2 of 3 bytes"),
        (whole[:32] + b"\xff\xff\xff\x7f" + whole[36:], "packet 0 has"),
    ):
        with pytest.raises(ObjectError, match=message):
            list(Reader(BytesIO(data)))


@pytest.mark.parametrize("time", [-1.0, 1e12, float("nan"), float("inf")])
def test_a_time_that_the_format_cannot_hold(time: float) -> None:
    with pytest.raises(ObjectError, match="does not fit"):
        Writer(io.BytesIO()).write(Captured(time, 4, b"abcd"))


def test_a_packet_longer_than_any_that_is_read() -> None:
    with pytest.raises(ObjectError, match="more than 262144"):
        Writer(io.BytesIO()).write(Captured(0, 262145, bytes(262145)))


@pytest.mark.parametrize("line", ["ja {}", "jeq #1 jt {} jf 3", "ret #{}"])
def test_numbers_of_thousands_of_digits(line: str) -> None:
    with pytest.raises(ObjectError, match="line 1"):
        Filter.from_text(line.format("9" * 5000))
