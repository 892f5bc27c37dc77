"""`pybpf classic`, and captures, as a person uses them."""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "links"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asm"))

from classic_samples import compiled, ipv4, needs_tcpdump, packets, tcp, tcpdump, udp
from link_network import private_network

from pybpf.asm.classic import Filter
from pybpf.asm.classic.pcap import Captured, Reader, Writer
from pybpf.capture import Capture, attach
from pybpf.cli import main
from pybpf.errors import BPFNotFoundError, ClosedError, ObjectError

live = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="packet sockets need root")]
PAPER = "ldh [12]\njeq #ETHERTYPE_IP, L1, L2\nL1: ret #TRUE\nL2: ret #0\n"
UDP_9999 = """
        ldh [12]
        jne #ETH_P_IP, drop
        ldb [23]
        jne #IPPROTO_UDP, drop
        ldxb 4*([14]&0xf)
        ldh [x + 16]
        jne #PORT, drop
        ret #TRUE
drop:   ret #0
"""


@pytest.fixture
def paper(tmp_path: Path) -> str:
    path = tmp_path / "paper.bpf"
    path.write_text(PAPER)
    return str(path)


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["asm"], "6 0 0 0"),
        (["asm", "--form", "dd"], "{ 0x6, 0, 0, 0x00000000 },"),
        (["asm", "--form", "line"], "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0,"),
        (["disasm"], "(003) ret      #0"),
        (["disasm", "--form", "source"], "L2:     ret     #0"),
        (["disasm", "--form", "ebpf"], "   8: (95) exit"),
    ],
)
def test_every_form(words: list[str], last: str, paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *options = words
    assert main(["classic", verb, paper, *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last


@needs_tcpdump
def test_what_tcpdump_prints_is_read_from_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(compiled("tcp port 80", "-ddd")))
    assert main(["classic", "disasm", "-"]) == 0
    assert capsys.readouterr().out == compiled("tcp port 80", "-d")


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad"
    bad.write_text("ld [0]\n")
    assert main(["classic", "asm", str(bad)]) == 3
    assert "the last instruction is no ret" in capsys.readouterr().err
    assert main(["classic", "asm", str(bad), "--no-check"]) == 0
    assert main(["classic", "asm", str(tmp_path / "none")]) == 3
    assert main(["classic", "run", str(bad), "--packet", "xx"]) == 3


@pytest.mark.parametrize(
    ("definition", "words"), [("PORT", "it takes NAME=VALUE"), ("PORT=http", "'http' is no number")]
)
def test_definitions_that_are_none(definition: str, words: str, paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classic", "asm", paper, "--define", definition]) == 2
    assert f"--define {definition}: {words}" in capsys.readouterr().err


def test_run_over_one_packet(paper: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classic", "run", paper, "--trace", "--packet", ipv4(6, tcp(1, 2, 3)).hex()]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "(000) ldh      [12]                              A=0x800 X=0x0",
        "(001) jeq      #0x800           jt 2    jf 3     A=0x800 X=0x0",
        "(002) ret      #-1                               A=0x800 X=0x0 -> 4294967295",
        "packet 1: 54 bytes: pass 4294967295",
        "1 of 1 packets pass",
    ]


def test_run_over_a_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture, source = tmp_path / "x.pcap", tmp_path / "udp.bpf"
    source.write_text(UDP_9999)
    with capture.open("wb") as file:
        writer = Writer(file)
        for number, frame in enumerate([*packets(), ipv4(17, udp(1, 9999))]):
            writer.write(Captured(number, len(frame), frame))
    assert main(["classic", "run", str(source), "--define", "PORT=9999", "--pcap", str(capture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"1 of {len(packets()) + 1} packets pass"
    assert lines[-2].endswith("bytes: pass 4294967295")


class TestLive:
    pytestmark = live

    def test_capture(self) -> None:
        """Of what passes the loopback interface only what the filter keeps is seen, and in whole."""
        program = Filter.from_text(UDP_9999, {"PORT": 9999})
        with private_network(), Capture("lo", program) as capture:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for port, text in ((9998, b"no"), (9999, b"yes"), (9997, b"no"), (9999, b"again")):
                    sender.sendto(text, ("127.0.0.1", port))
            found = []
            while (packet := capture.receive(timeout=0.2)) is not None:
                assert packet.length == len(packet.data)
                found.append(packet.data[42:])
        # Every packet of the loopback interface is seen when it is sent and when it is received.
        assert sorted(set(found)) == [b"again", b"yes"]
        assert capture.closed
        with pytest.raises(ClosedError):
            capture.receive()

    def test_capture_without_a_filter_of_every_interface_cut_short(self) -> None:
        with private_network(), Capture(snapshot=20) as capture:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes(100), ("127.0.0.1", 9))
            packet = capture.receive(timeout=5)
        assert packet is not None
        assert (packet.length, len(packet.data)) == (142, 20)

    def test_what_is_wrong(self) -> None:
        with pytest.raises(BPFNotFoundError, match="interface 'nothing0'"):
            Capture("nothing0")
        with pytest.raises(ObjectError, match="the last instruction is no ret"):
            Capture("lo", Filter.from_text("ld [0]"))
        with socket.socket() as sock, pytest.raises(ObjectError):
            attach(sock, Filter([]))

    @needs_tcpdump
    def test_command_writes_what_tcpdump_reads(self, tmp_path: Path) -> None:
        source, target = tmp_path / "f", tmp_path / "out.pcap"
        source.write_text(UDP_9999)
        with private_network():
            child = os.fork()
            if child == 0:
                words = ["--interface", "lo", "--count", "2", "--write", str(target), "--define", "PORT=9999"]
                try:
                    os._exit(main(["classic", "capture", str(source), *words]))
                finally:
                    os._exit(99)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(500):
                    sender.sendto(b"hello", ("127.0.0.1", 9999))
                    done, status = os.waitpid(child, os.WNOHANG)
                    if done:
                        break
                    time.sleep(0.02)
            assert done == child
            assert os.waitstatus_to_exitcode(status) == 0
        assert tcpdump("-nr", str(target)).count("127.0.0.1.9999: UDP, length 5") == 2
        with target.open("rb") as file:
            assert [one.data[-5:] for one in Reader(file)] == [b"hello"] * 2
