"""`pybpf sim` as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKET = "00" * 12 + "0800" + "11" * 20
ORDER = "el" if sys.byteorder == "little" else "eb"
STEPS = 40 if sys.byteorder == "little" else 39
"""Of the compiler: the big-endian object has no swap of bytes."""


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pybpf", "sim", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_a_packet_and_the_maps_afterwards() -> None:
    result = sim("xdp_count", "--packet", PACKET, "--dump-maps")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"returned 2 after {STEPS} instructions",
        "protocols: 1 entries",
        "  2048: [{packets=1 bytes=34}]",
    ]


def test_json() -> None:
    result = sim("xdp_count", "--packet", PACKET, "--dump-maps", "--coverage", "--json")
    run, entries, coverage = map(json.loads, result.stdout.splitlines())
    assert run == {"retval": 2, "steps": STEPS, "printed": []}
    assert entries["entries"] == [{"key": 2048, "value": [{"packets": 1, "bytes": 34}]}]
    assert set(next(iter(coverage["coverage"].values())).values()) == {1}


def test_trace(tmp_path: Path) -> None:
    source = tmp_path / "p.txt"
    source.write_text(".program p xdp\nr0 = 1\nr0 += 1\nexit\n")
    result = sim(str(source), "--asm", "--packet", PACKET, "--trace")
    lines = [line.split() for line in result.stdout.splitlines() if not line.startswith(";")]
    assert lines[0][-3:] == ["r0", "=", "1"]
    assert lines[1][-3:] == ["r0", "=", "2"]
    assert lines[-1] == ["returned", "2", "after", "3", "instructions"]


def test_capture_files(tmp_path: Path) -> None:
    from pybpf.asm.classic.pcap import Captured, Writer

    path = tmp_path / "x.pcap"
    with path.open("wb") as file:
        writer = Writer(file)
        for size in (20, 30):
            writer.write(Captured(0.0, 14 + size, bytes(12) + b"\x08\x00" + bytes(size)))
    result = sim("xdp_count", "--pcap", str(path), "--dump-maps", "--lcov", str(tmp_path / "x.info"))
    assert result.stdout.splitlines()[-1] == "  2048: [{packets=2 bytes=78}]"
    assert "end_of_record" in (tmp_path / "x.info").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nowhere.bpf.o",), 3, "No such file"),
        (("xdp_count", "--packet", "xyz"), 2, "hexadecimal"),
        (("xdp_count", "--packet", "00"), 2, "at least 14 bytes"),
        (("xdp_count", "other", "--packet", PACKET), 2, "there is no program 'other'"),
        (("opensnoop",), 2, "which program?"),
        (("xdp_count", "--set", "x=1", "--packet", PACKET), 2, "x"),
        ((f"tests/objects/built/load_arena.bpf{ORDER}.o",), 1, "variables in map 'arena' (arena) are not simulated"),
    ],
)
def test_errors_are_sentences(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = sim(*arguments)
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    assert result.returncode == code


def test_what_a_program_must_not_do_has_a_line(tmp_path: Path) -> None:
    source = tmp_path / "p.txt"
    source.write_text(".program p xdp\nr1 = 7\nr0 = *(u8 *)(r1 +0)\nexit\n")
    result = sim(str(source), "--asm", "--packet", PACKET)
    assert result.returncode == 1
    assert "instruction 1: an access to 0x7, where nothing is" in result.stderr
    assert "r0 = *(u8 *)(r1 +0)" in result.stderr
