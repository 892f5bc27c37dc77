"""Listings: instructions with the source lines they come from, and with the names of what they refer to.

    ; int xdp_count(struct xdp_md *ctx) @ xdp_count.bpf.c:20
       0: (61) r2 = *(u32 *)(r1 +4)
       ...
       9: (18) r1 = map[packets]

Rules of this module:

* A line of source stands before the first of the instructions that come from it, as the verifier's log has it.
* Line information carries the text of the lines: the source file is not needed.
* What is printed for an object file can be assembled again (`pybpf.asm.text`).
"""

from __future__ import annotations

from struct import iter_unpack

from pybpf.asm import llvm
from pybpf.asm.disasm import disassemble
from pybpf.asm.slots import get_imm
from pybpf.btf.lines import line_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pybpf.asm.instruction import Instruction
    from pybpf.btf.reader import BTF
    from pybpf.elf.functions import Function
    from pybpf.spec import ObjectSpec


def source_lines(btf: BTF, rows: Iterable[tuple[int, ...]]) -> dict[int, str]:
    """The lines of source by the place where their instructions begin.

    Args:
        btf: what the strings are from.
        rows: place, file name, text, line and column, as struct bpf_line_info has them.
    """
    lines: dict[int, str] = {}
    last = None
    for row in rows:
        line = line_of(btf, row)
        text = f"; {line.text.strip()} @ {line.file.rpartition('/')[2]}:{line.number}"
        if text != last and line.text.strip():
            lines[row[0]] = text
        last = text
    return lines


def interleave(lines: Iterable[str], sources: Mapping[int, str]) -> Iterator[str]:
    """Put each source line before the instruction of its slot; the lines begin with the slot's number."""
    for line in lines:
        source = sources.get(int(line.partition(":")[0]))
        if source is not None:
            yield source
        yield line


def function_lines(spec: ObjectSpec, function: Function, *, syntax: str = "kernel") -> Iterator[str]:
    """The listing of a program or subprogram of an object file, before any relocation.

    Args:
        spec: the object.
        function: one of its functions.
        syntax: ``"kernel"`` or ``"llvm"``.
    """
    if syntax == "llvm":
        lines = llvm.disassemble(function.instructions, byte_order=spec.byte_order, name=function.name)
    else:
        words = _Words(spec, function)
        lines = disassemble(
            function.instructions, byte_order=spec.byte_order, calls=words.callee, constants=words.constant
        )
    return interleave(lines, _sources(spec, function))


def _sources(spec: ObjectSpec, function: Function) -> dict[int, str]:
    records = None if spec.ext is None else spec.ext.line_info.get(function.section)
    if spec.btf is None or records is None:
        return {}
    first = function.start * 8
    own = records.part(first, first + function.count * 8)
    size = own.record_size // 4
    rows = iter_unpack(f"={size}I", own.data)
    return source_lines(spec.btf, ((row[0] // 8 - function.start, *row[1:]) for row in rows))


class _Words:
    """What instructions refer to, by the function's relocations."""

    def __init__(self, spec: ObjectSpec, function: Function) -> None:
        self._spec = spec
        self._function = function
        self._relocations = {one.index: one for one in function.relocations}

    def callee(self, index: int, insn: Instruction) -> str | None:
        relocation = self._relocations.get(index)
        if relocation is None:
            if insn.src == 1 and not self._function.is_entry:
                return self._name_at(self._function.start + index + 1 + insn.imm)
            return None
        return relocation.name or self._name_at(relocation.target)

    def constant(self, index: int, _insn: Instruction) -> str | None:
        relocation = self._relocations.get(index)
        if relocation is None:
            return None
        if relocation.kind == "map":
            return f"map[{relocation.name}]"
        if relocation.kind == "data":
            addend = get_imm(self._function.instructions, index, self._spec.byte_order)
            return f"map[{relocation.name}][0]+{relocation.offset + addend}"
        if relocation.kind == "function":
            return f"subprog[{self._name_at(relocation.target)}]"
        return f"{'ksym' if relocation.kind == 'extern' else relocation.kind}[{relocation.name}]"

    def _name_at(self, start: int) -> str | None:
        for one in self._spec.subprograms:
            if one.start == start:
                return one.name
        return None
