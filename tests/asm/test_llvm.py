"""Our text of instructions is llvm-objdump's, on every object here and on instructions at random; llvm-mc reads it."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from object_builder import BUILT

from pybpf.asm import Instruction, decode, encode
from pybpf.asm.disasm import text as kernel_text
from pybpf.asm.llvm import UNKNOWN, disassemble, text
from pybpf.asm.text import parse_instruction
from pybpf.spec import ObjectSpec

VERSIONS = [version for version in range(30, 18, -1) if shutil.which(f"llvm-objdump-{version}")]
ROOT = Path(__file__).resolve().parent.parent.parent
OBJECTS = sorted((*ROOT.glob("kernels/*.bpf.o"), *BUILT.glob("*.o")))
needs_llvm = pytest.mark.skipif(not VERSIONS, reason="llvm-objdump 19 or newer is not installed")
LINE = re.compile(r"\s+(\d+):\t(.*)")


def objdump(path: Path, *options: str) -> str:
    command = [f"llvm-objdump-{VERSIONS[0]}", "-d", "--no-show-raw-insn", "--mcpu=v4", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def mc(source: str, folder: Path, order: str = "little") -> Path:
    """The object that llvm-mc makes of assembly."""
    triple = "bpfel" if order == "little" else "bpfeb"
    result = folder / "mc.o"
    command = [f"llvm-mc-{VERSIONS[0]}", "-triple", triple, "-mcpu=v4", "-filetype=obj", "-o", str(result)]
    subprocess.run(command, input=source, text=True, check=True)
    return result


@needs_llvm
@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_objects(path: Path) -> None:
    """Every function of every object here: our text is LLVM's, and it is read back to the same bytes."""
    spec = ObjectSpec.from_file(path)
    theirs: dict[str, list[str]] = {}
    for line in objdump(path).splitlines():
        if match := re.fullmatch(r"[0-9a-f]+ <(.*)>:", line):
            lines = theirs.setdefault(match[1], [])
        elif match := LINE.fullmatch(line):
            lines.append(match[2])
    assert spec.functions
    for function in spec.functions:
        ours = disassemble(function.instructions, byte_order=spec.byte_order, name=function.name)
        texts = [line.partition("\t")[2] for line in ours]
        if not any("gotox" in line for line in texts):  # which version 19 does not know
            assert list(map(_without_symbols, texts)) == list(map(_without_symbols, theirs[function.name]))
        for insn, line in zip(decode(function.instructions, spec.byte_order), texts, strict=True):
            if not insn.code:  # no instruction at all, for the verifier to refuse
                continue
            assert parse_instruction(kernel_text(insn)) == insn or insn.src, line
            assert parse_instruction(line) == insn or (insn.code in (0x85, 0x0D) and insn.src), line


def _without_symbols(line: str) -> str:
    """LLVM names the nearest symbol before a target, which may be a label within the function."""
    return re.sub(r" <[^>]*>$", "", line)


def random_instructions(count: int, seed: int) -> list[Instruction]:
    """Well-formed ones, of every opcode, with any registers, offsets and immediates."""
    chance = random.Random(seed)
    result = []
    while len(result) < count:
        code = chance.randrange(256)
        dst, src = chance.randrange(11), chance.randrange(11)
        off, imm = chance.randrange(-0x8000, 0x8000), chance.randrange(-(1 << 31), 1 << 31)
        kind = code & 7
        if kind in (4, 7):
            off = chance.choice([0, 0, 0, 1, 8, 16, 32])
            if code & 0xF0 == 0xD0:
                off, src, imm = 0, 0, chance.choice([16, 32, 64])
            elif code & 0xF0 == 0x80:
                off = src = imm = 0
            elif code & 8:
                imm = chance.choice([1, 0x10000]) if code == 0xBF and off == 1 else 0
            else:
                src = 0
                off = off if off < 2 and code & 0xF0 in (0x30, 0x90) else 0
        elif kind == 3 and code & 0xE0 == 0xC0:
            imm = chance.choice([0, 0x40, 0x50, 0xA0, 1, 0x41, 0x51, 0xA1, 0xE1, 0xF1])
        elif kind in (1, 3):
            imm = 0
        elif kind == 2:
            src = 0
        elif kind in (5, 6):
            if code in (0x05, 0x06, 0xE5):
                dst = src = 0
                off, imm = (0, imm) if code == 6 else (off, 0)
            elif code in (0x0D, 0x85, 0x8D, 0x95):
                dst, src, off, imm = (dst if code & 8 else 0), 0, 0, (imm if code == 0x85 else 0)
            elif code & 8:
                imm = 0
            else:
                src = 0
        elif code == 0x18:
            result.append(Instruction(code, dst, 0, 0, imm, chance.randrange(-(1 << 31), 1 << 31)))
            continue
        else:
            dst = off = 0
            src = src if code & 0x40 else 0
            imm = 0 if code & 0x40 else imm
        result.append(Instruction(code, dst, src, off, imm))
    return result


def known(instructions: list[Instruction]) -> list[Instruction]:
    """Those that version 19 knows."""
    return [one for one in instructions if text(one) != UNKNOWN and one.code != 0x0D]


@needs_llvm
@pytest.mark.parametrize("order", ["little", "big"])
def test_random_instructions(tmp_path: Path, order: str) -> None:
    instructions = random_instructions(2500, seed=order == "little")
    data = encode(instructions, order)
    rows = ["\n.byte " + ",".join(map(str, data[at : at + 8])) for at in range(0, len(data), 8)]
    path = mc(".text\n.globl f\n.type f,@function\nf:" + "".join(rows) + "\n.size f,.-f\n", tmp_path, order)
    theirs = [match[2] for line in objdump(path).splitlines() if (match := LINE.fullmatch(line))]
    ours = [line.partition("\t")[2] for line in disassemble(data, byte_order=order, name="f")]
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if "gotox" not in a]
    assert [_places(a) for a, _ in pairs] == [_places(b) for _, b in pairs]
    assert len({insn.code for insn, line in zip(instructions, theirs, strict=True) if line != UNKNOWN}) > 100
    for insn, line in zip(instructions, ours, strict=True):
        if line == UNKNOWN:
            continue
        assert parse_instruction(line) == insn
        assert parse_instruction(kernel_text(insn)) == insn


def _places(line: str) -> str:
    """Without targets before the function's start, which LLVM writes as large numbers."""
    return re.sub(r" <f\+0x(-|fff).*>", "", line.replace("+-0x", "+0x-"))


@needs_llvm
@pytest.mark.parametrize("order", ["little", "big"])
def test_llvm_reads_our_text(tmp_path: Path, order: str) -> None:
    """Our text of instructions at random, assembled by llvm-mc, is the same bytes."""
    instructions = [one for one in known(random_instructions(1500, 7)) if one.code not in (0x85, 0x06)]
    lines = [text(one) for one in instructions]
    path = mc("\n".join([".text", *lines, ""]), tmp_path, order)
    dump = tmp_path / "text"
    command = [f"llvm-objcopy-{VERSIONS[0]}", "-O", "binary", "--only-section=.text", str(path), str(dump)]
    subprocess.run(command, check=True)
    assert decode(dump.read_bytes(), order) == instructions


NEWER = [
    (Instruction(0xD3, 1, 2, 8, 0x100), "w1 = load_acquire((u8 *)(r2 + 0x8))"),
    (Instruction(0xDB, 1, 2, -8, 0x100), "r1 = load_acquire((u64 *)(r2 - 0x8))"),
    (Instruction(0xCB, 1, 2, 0, 0x110), "store_release((u16 *)(r1 + 0x0), w2)"),
    (Instruction(0xDB, 1, 2, 0, 0x110), "store_release((u64 *)(r1 + 0x0), r2)"),
    (Instruction(0x0D, 1), "gotox r1"),
]


@pytest.mark.parametrize(("insn", "line"), NEWER, ids=[line for _, line in NEWER])
def test_what_version_19_does_not_know(insn: Instruction, line: str) -> None:
    assert text(insn) == line
    assert parse_instruction(line) == insn
