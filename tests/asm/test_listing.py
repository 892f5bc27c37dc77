"""Listings of object files, and of programs in the kernel: the lines of C, names, and bpftool's text."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from object_builder import BUILT, built_path

import pybpf
from pybpf import Program, dump
from pybpf.asm import assemble
from pybpf.asm.listing import function_lines
from pybpf.cli import main
from pybpf.errors import BPFError, NotSupportedError
from pybpf.spec import ObjectSpec

ROOT = Path(__file__).resolve().parent.parent.parent
EVERYTHING = built_path("load_everything.bpf.c", sys.byteorder)
live = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


def test_lines_of_c_and_names_of_maps() -> None:
    spec = ObjectSpec.from_file(ROOT / "kernels" / "xdp_count.bpf.o")
    lines = list(function_lines(spec, spec.programs["xdp_count"].function))
    at = lines.index("; struct total *total = bpf_map_lookup_elem(&protocols, &protocol); @ xdp_count.bpf.c:28")
    assert lines[at + 1 : at + 3] == ["  13: (18) r1 = map[protocols]", "  15: (85) call bpf_map_lookup_elem#1"]
    ours = list(function_lines(spec, spec.programs["xdp_count"].function, syntax="llvm"))
    assert "       4:\tif r1 > r7 goto +0x24 <xdp_count+0x148>" in ours


@pytest.mark.parametrize(
    "path", sorted((*ROOT.glob("kernels/*.bpf.o"), *BUILT.glob("*.o"))), ids=lambda path: path.name
)
def test_listings_can_be_assembled_again(path: Path) -> None:
    """All that an object's listing says, put through the assembler, is the same instructions."""
    spec = ObjectSpec.from_file(path)
    if spec.byte_order != sys.byteorder or "jump_table" in path.name:
        return
    source = []
    for function in spec.functions:
        section = f".program {function.name} {function.section}" if function.is_entry else f".function {function.name}"
        source += [section, *function_lines(spec, function)]
    again = assemble("\n".join(source), maps=spec.maps)
    assert len(again.functions) == len(spec.functions)
    for function in spec.functions:
        (copy,) = [one for one in again.functions if one.name == function.name]
        assert copy.count == function.count
        ours = [_without_number(line) for line in function_lines(again, copy) if not line.startswith(";")]
        theirs = [_without_number(line) for line in function_lines(spec, function) if not line.startswith(";")]
        assert ours == theirs


def _without_number(line: str) -> str:
    return line.partition(": ")[2]


def bpftool(*words: object) -> list[str]:
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool")
    done = subprocess.run(["bpftool", *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class TestLoaded:
    pytestmark = live

    def test_the_text_of_bpftool(self) -> None:
        with pybpf.load(EVERYTHING) as loaded:
            program = loaded.programs["main_program"]
            ours = program.disassemble()
            theirs = bpftool("prog", "dump", "xlated", "id", program.id)
        code = [line for line in theirs if re.match(r" *\d+: ", line)]
        assert [line for line in ours if re.match(r" *\d+: ", line)] == code
        assert len(code) > 80
        assert any("#bpf_prog_" in line for line in code)
        texts = [line for number, line in enumerate(theirs) if line.startswith(";")]
        said = [line.partition(" @ ")[0] for line in ours if line.startswith(";")]
        assert set(said) == set(texts)
        assert [line for line in ours if line.endswith(":")] == ["main_program:", "twice:", "add:"]
        assert ours[:3] == ["main_program:", "; counter += setting; @ load_everything.bpf.c:87", ours[2]]

    def test_machine_code(self) -> None:
        pytest.importorskip("capstone", reason="capstone is not installed")
        with pybpf.load(EVERYTHING) as loaded:
            program = loaded.programs["main_program"]
            if not program.info().jited_prog_len:
                pytest.skip("the JIT is off")
            lines = program.disassemble(jited=True)
            names = [line for line in lines if line.endswith(":") and line.startswith("bpf_prog_")]
            assert [name.rpartition("_")[2] for name in names] == ["program:", "twice:", "add:"]
            assert any(line.startswith("; own_section += 1; @ load_everything.bpf.c:90") for line in lines)
            addresses = [int(line.partition(":")[0], 16) for line in lines if re.match(r" *[0-9a-f]+:\t", line)]
            assert len(addresses) > 50
            try:
                found = json.loads("\n".join(bpftool("-j", "prog", "dump", "jited", "id", program.id)))
            except subprocess.CalledProcessError:
                return
            theirs = [int(row["pc"], 16) for function in found for row in function["insns"]]
            assert addresses == theirs

    def test_without_capstone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "capstone", None)
        with Program.from_asm("r0 = 0; exit", "xdp") as program:
            if program.info().jited_prog_len:
                with pytest.raises(NotSupportedError, match=r"pip install pybpf\[capstone\]"):
                    dump.jited(program)

    def test_from_id_name_and_pin(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        name = f"dump{os.getpid()}"
        with Program.from_asm(f".program {name} xdp\nr0 = 2\nexit") as program:
            targets = [str(program.id), name]
            path = f"/sys/fs/bpf/{name}"
            try:
                program.pin(path)
                targets.append(path)
            except BPFError:
                path = ""
            try:
                for target in targets:
                    assert main(["prog", "dump", target]) == 0
                    assert capsys.readouterr().out.splitlines() == [
                        f"{name}:", "; r0 = 2 @ asm.s:2", "   0: (b7) r0 = 2", "; exit @ asm.s:3", "   1: (95) exit",
                    ]  # fmt: skip
            finally:
                if path:
                    os.unlink(path)
            with Program.from_asm(f".program {name} xdp\nr0 = 1\nexit"):
                with pytest.raises(ValueError, match=f"several programs are called '{name}': "):
                    Program.from_name(name)
                assert main(["prog", "dump", name]) == 2
        assert main(["prog", "dump", name]) == 1
        assert "No program that is loaded now has this name" in capsys.readouterr().err


def test_command_disasm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prog", "disasm", "xdp_count", "nothing"]) == 3
    assert "it has xdp_count" in capsys.readouterr().err
    assert main(["prog", "disasm", "--llvm", "xdp_count", "xdp_count"]) == 0
    assert "\tw7 = *(u32 *)(r1 + 0x4)" in capsys.readouterr().out


@pytest.mark.parametrize("load", [False, pytest.param(True, marks=live)])
def test_command_asm(load: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "x.s"
    source.write_text("r0 = XDP_PASS\nexit\n")
    assert main(["prog", "asm", str(source), "--section", "xdp", *(["--load"] if load else [])]) == 0
    expected = [
        "program: SEC('xdp')",
        "     0: (b7) r0 = 2",
        "     1: (95) exit",
        *(["loaded: program"] if load else []),
    ]
    assert capsys.readouterr().out.splitlines() == expected
    source.write_text("r0 == 1\n")
    assert main(["prog", "asm", str(source), "--section", "xdp"]) == 3
    assert "asm: line 1: 'r0 == 1': no such instruction" in capsys.readouterr().err
