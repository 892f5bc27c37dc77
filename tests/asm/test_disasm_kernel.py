"""Our text of instructions is the text of the kernel and of bpftool."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from pybpf import syscall
from pybpf.asm import Instruction, disassemble, encode
from pybpf.asm.disasm import text
from pybpf.constants import BPF_MAP_TYPE_ARRAY, BPF_PROG_TYPE_SOCKET_FILTER
from pybpf.errors import BPFError

pytestmark = pytest.mark.kernel

I = Instruction  # noqa: E741  # a page of them follows
EXIT = I(0x95)
ALU = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xB0, 0xC0)
JUMPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
SCALARS = [I(0xB7, 0, imm=7), I(0xB7, 1, imm=3), I(0xB7, 2, imm=5)]
STACK = [I(0x7A, 10, off=-8, imm=9), I(0x7A, 10, off=-16, imm=1)]

ARITHMETIC = [
    *SCALARS,
    *(I(operation | width, 1, 2 * (width & 8 == 8), imm=4 if width & 8 == 0 else 0)
      for operation in ALU for width in (0x04, 0x0C, 0x07, 0x0F)),
    I(0x87, 1), I(0x84, 1), *(I(code, 1, imm=bits) for code in (0xD4, 0xDC) for bits in (16, 32, 64)),
    I(0x18, 1, imm=-1, high=0x1234), EXIT,
]  # fmt: skip

MEMORY = [
    *SCALARS, *STACK,
    *(I(code, 10, off=-8, imm=-2) for code in (0x62, 0x6A, 0x72, 0x7A)),
    *(I(code, 10, 2, -16) for code in (0x63, 0x6B, 0x73, 0x7B)),
    *(I(code, 3, 10, -16) for code in (0x61, 0x69, 0x71, 0x79)),
    *(I(code, 10, 2, -8) for code in (0xC3, 0xDB)), EXIT,
]  # fmt: skip

ATOMICS = [
    *SCALARS, *STACK,
    *(I(code, 10, 2, -8, operation)
      for code in (0xC3, 0xDB) for operation in (0x40, 0x50, 0xA0, 0x01, 0x41, 0x51, 0xA1, 0xE1, 0xF1)),
    EXIT,
]  # fmt: skip

NUMBER = [I(0x85, imm=7), I(0xBF, 7, 0)]
# A new number before each jump: when one is compared again and again, the verifier of Linux 6.18 learns what cannot be
# and warns of its own state (reg_bounds_sanity_check()).
CONTROL = [
    I(0xBF, 6, 1), *NUMBER, I(0xBF, 8, 0),
    *(insn for operation in JUMPS for width in (0x05, 0x0D, 0x06, 0x0E)
      for insn in (*NUMBER, I(operation | width, 7, 8 * (width & 8 == 8), 0, 0 if width & 8 else -3))),
    I(0x05), I(0xB7, 7, imm=1),
    *(I(code, imm=2) for code in (0x20, 0x28, 0x30)), *(I(code, src=7, imm=0) for code in (0x40, 0x48, 0x50)),
    I(0x85, src=1, imm=2), I(0xB7, 0), EXIT, I(0xB7, 0, imm=1), EXIT,
]  # fmt: skip

NEWER = [
    *SCALARS, *STACK,
    *(I(code, 1, 2, 1) for code in (0x3F, 0x3C, 0x9F, 0x9C)),
    *(I(code, 1, 0, 1, -3) for code in (0x37, 0x34, 0x97, 0x94)),
    *(I(0xBF, 1, 2, bits) for bits in (8, 16, 32)), *(I(0xBC, 1, 2, bits) for bits in (8, 16)),
    *(I(0xD7, 1, imm=bits) for bits in (16, 32, 64)), *(I(code, 3, 10, -8) for code in (0x81, 0x89, 0x91)),
    I(0x06), EXIT,
]  # fmt: skip

ORDERED = [
    *SCALARS, *STACK, *(I(code, 3, 10, -8, 0x100) for code in (0xD3, 0xCB, 0xC3, 0xDB)),
    *(I(code, 10, 2, -8, 0x110) for code in (0xD3, 0xCB, 0xC3, 0xDB)), EXIT,
]  # fmt: skip

MAY_GOTO = [*SCALARS, I(0xE5, off=1), I(0x05, off=-2), EXIT]


@pytest.mark.parametrize(
    "program",
    [
        ARITHMETIC,
        MEMORY,
        CONTROL,
        pytest.param(ATOMICS, id="Linux 5.12"),
        pytest.param(NEWER, id="Linux 6.6"),
        pytest.param(MAY_GOTO, id="Linux 6.9"),
        pytest.param(ORDERED, id="Linux 6.15"),
    ],
)
def test_the_text_of_the_verifier(program: list[Instruction]) -> None:
    log = syscall.LogBuffer(1 << 24)
    try:
        syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, encode(program), log_level=2, log_buffer=log).close()
    except BPFError:
        if program in (ATOMICS, NEWER, MAY_GOTO, ORDERED) and re.search(
            r"unknown|uses reserved|BUG_|invalid", log.text
        ):
            pytest.skip(f"this kernel says: {log.text.splitlines()[-2]}")
        pytest.fail(log.text[-2000:])
    said = {int(index): line.strip() for index, line in re.findall(r"^(\d+): (\(..\)[^;\n]*)", log.text, re.MULTILINE)}
    index = 0
    compared = 0
    for insn in program:
        if index in said:
            assert text(insn) == said[index]
            compared += 1
        index += insn.slots
    assert compared >= len(program) - 2, "nearly every instruction was explored"


def test_the_text_of_bpftool() -> None:
    if not shutil.which("bpftool"):
        pytest.skip("no bpftool")
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=64, max_entries=1) as fd:
        number = syscall.map_info(fd).id
        maps = [I(0x18, 1, 1, imm=fd.fileno()), I(0x18, 2, 2, imm=fd.fileno(), high=16)]
        program = encode([*maps, *ARITHMETIC[:-1], *MEMORY])
        with syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, program) as loaded:
            info = syscall.prog_info(loaded, xlated=True)
            command = ["bpftool", "prog", "dump", "xlated", "id", str(info.id)]
            theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = {1: f"map[id:{number}]", 2: f"map[id:{number}][0]+16"}
    ours = disassemble(bytes(info.xlated), constants=lambda _, insn: words.get(insn.src))
    assert ours == theirs.splitlines()
    assert len(ours) > 80
