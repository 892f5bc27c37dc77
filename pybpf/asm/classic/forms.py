"""The numeric forms in which filters are handed around.

| form | example | who |
|---|---|---|
| ddd | ``2`` newline ``40 0 0 12`` newline ``6 0 0 0`` | tcpdump -ddd, Wireshark, dumpcap |
| dd | ``{ 0x28, 0, 0, 0x0000000c },`` a line | tcpdump -dd, C initialisers |
| line | ``2,40 0 0 12,6 0 0 0`` | bpf_asm, xt_bpf, cls_bpf's bytecode |
"""

from __future__ import annotations

import re

from pybpf.asm.classic.instruction import Instruction
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INITIALISER = re.compile(r"\{\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*,\s*(\w+)\s*\}")


def to_ddd(program: Sequence[Instruction]) -> str:
    """As tcpdump -ddd prints it: the count, then four decimal numbers a line."""
    return "".join(f"{row}\n" for row in (len(program), *map(_row, program)))


def to_line(program: Sequence[Instruction]) -> str:
    """As bpf_asm prints it, in one line."""
    return "".join(f"{row}," for row in (len(program), *map(_row, program)))


def to_dd(program: Sequence[Instruction]) -> str:
    """As tcpdump -dd prints it: initialisers of struct sock_filter."""
    return "".join(f"{{ 0x{one.code:x}, {one.jt}, {one.jf}, 0x{one.k:08x} }},\n" for one in program)


def _row(insn: Instruction) -> str:
    return f"{insn.code} {insn.jt} {insn.jf} {insn.k}"


def from_ddd(text: str) -> list[Instruction]:
    """Read a count and as many rows, separated by newlines (ddd) or commas (line).

    Raises:
        ObjectError: a row is no four numbers, or the count is another.
    """
    first, *rows = [row.strip() for row in text.replace(",", "\n").splitlines() if row.strip()] or [""]
    if not first.isdecimal():
        raise ObjectError(f"classic filter: it begins with {first!r}, not with the number of instructions")
    if int(first) != len(rows):
        raise ObjectError(f"classic filter: it has {len(rows)} instructions, and says {first}")
    return [_instruction(number, row.split()) for number, row in enumerate(rows)]


def from_dd(text: str) -> list[Instruction]:
    """Read initialisers of struct sock_filter; what stands around them does not matter.

    Raises:
        ObjectError: there is none, or one has other than four numbers.
    """
    rows = _INITIALISER.findall(text)
    if not rows or len(rows) != text.count("{") - text.count("{{"):
        raise ObjectError("classic filter: not every { } holds four numbers")
    return [_instruction(number, row) for number, row in enumerate(rows)]


def _instruction(index: int, row: Sequence[str]) -> Instruction:
    try:
        code, jt, jf, k = (int(word, 0) for word in row)
        return Instruction(code, jt, jf, k)
    except ValueError as error:  # ObjectError is one
        reason = error if isinstance(error, ObjectError) else "these are not four numbers"
        raise ObjectError(f"classic filter, instruction {index}: {' '.join(row)!r}: {reason}") from None
