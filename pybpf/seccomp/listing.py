"""A filter for system calls as text, with what its numbers mean.

    (000) ld       [4]                               ; the architecture
    (001) jeq      #0xc000003e      jt 2	jf 8      ; x86_64
    (002) ld       [0]                               ; the call
    (005) jge      #0x53            jt 6	jf 7      ; mkdir
    (007) ret      #2147418112                       ; allow

Rules of this module:

* What stands behind ``;`` is a comment to the assembler of classic BPF: the text can be read back.
* What is compared, and for which architecture, is followed along the jumps, which only lead forwards.
"""

from __future__ import annotations

from pybpf.asm.classic.disasm import disassemble
from pybpf.asm.classic.instruction import CONDITIONAL_JUMPS, JUMP, LOAD_WORD, RETURN
from pybpf.seccomp.architectures import Architecture, audit_name
from pybpf.seccomp.numbers import ARCHITECTURES, X32_BIT
from pybpf.seccomp.rules import Action

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.classic import Filter, Instruction

    _State = tuple[int, str]
    """The offset that A was loaded from, or -1, and the architecture, if it is known."""

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_COLUMN = 52


def listing(program: Filter, byte_order: str) -> list[str]:
    """A line for each instruction.

    Args:
        program: the filter.
        byte_order: of the machines that it is for: it tells which half of an argument lies where.
    """
    states: dict[int, _State] = {0: (-1, "")}
    lines = []
    for index, (line, insn) in enumerate(zip(disassemble(program), program, strict=True)):
        state = states.get(index, (-1, ""))
        meaning = _meaning(insn, state, byte_order)
        for following, after in _following(insn, index, state):
            known = states.get(following, after)
            states[following] = known if known == after else (-1 if known[0] != after[0] else known[0], "")
        room = max(1, _COLUMN - len(line.expandtabs(8)))
        lines.append(f"{line.rstrip()}{' ' * room}; {meaning}" if meaning else line.rstrip())
    return lines


def _following(insn: Instruction, index: int, state: _State) -> list[tuple[int, _State]]:
    """The instructions that may come next, and what is known there."""
    loaded, architecture = state
    following = index + 1
    if insn.code in CONDITIONAL_JUMPS:
        found = audit_name(insn.k) if loaded == _ARCHITECTURE else architecture
        return [(following + insn.jt, (loaded, found)), (following + insn.jf, state)]
    if insn.code == JUMP:
        return [(following + insn.k, state)]
    if insn.code == LOAD_WORD:
        return [(following, (insn.k, architecture))]
    return [] if insn.code == RETURN else [(following, state)]


def _meaning(insn: Instruction, state: _State, byte_order: str) -> str:
    loaded, architecture = state
    if insn.code == RETURN:
        return repr(Action(insn.k))
    if insn.code == LOAD_WORD:
        return _field(insn.k, byte_order)
    if insn.code not in CONDITIONAL_JUMPS:
        return ""
    if loaded == _ARCHITECTURE:
        return audit_name(insn.k)
    if loaded != _NUMBER or architecture not in ARCHITECTURES:
        return ""
    if architecture == "x86_64" and insn.k & X32_BIT:
        architecture = "x32"
        if insn.k == X32_BIT:
            return architecture
    name = Architecture(architecture).call_name(insn.k)
    return "" if name.isdecimal() else name


def _field(offset: int, byte_order: str) -> str:
    if offset == _ARCHITECTURE:
        return "the architecture"
    if offset == _NUMBER:
        return "the call"
    if offset < _ARGUMENTS:
        return "the instruction pointer"
    index, half = divmod(offset - _ARGUMENTS, 8)
    return f"arg[{index}], {'upper' if (half == 4) == (byte_order == 'little') else 'lower'} half"
