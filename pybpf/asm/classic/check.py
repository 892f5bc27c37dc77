"""What the kernel demands of a classic filter before it takes it.

Source: bpf_check_classic(), check_load_and_stores() of net/core/filter.c; seccomp_check_filter() of kernel/seccomp.c.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.asm.classic import instruction as i
from pybpf.asm.classic import names as n
from pybpf.asm.classic.disasm import ANCILLARY, text
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.asm.classic.instruction import Instruction

SECCOMP_DATA_SIZE = 64
_BY_ZERO = tuple(c.BPF_ALU | operation for operation in (c.BPF_DIV, c.BPF_MOD))
_SHIFTS = tuple(c.BPF_ALU | operation for operation in (c.BPF_LSH, c.BPF_RSH))
_MEMORY_LOADS = (i.LOAD_MEMORY, i.LOAD_MEMORY_X)
_STORES = (i.STORE, i.STORE_X)
_NOT_IN_SECCOMP = frozenset(
    {
        *(i.PACKET_LOADS - {i.LOAD_WORD}),
        i.LOAD_HEADER_LENGTH,
        c.BPF_ALU | c.BPF_MOD | c.BPF_K,
        c.BPF_ALU | c.BPF_MOD | c.BPF_X,
    }
)


def check(program: Sequence[Instruction]) -> None:
    """See that the kernel would take it for a socket.

    Raises:
        ObjectError: it would not; the message has the instruction and the reason.
    """
    _check_each(program)
    for index, insn in enumerate(program):
        is_absolute = insn.code in i.PACKET_LOADS and insn.code & 0xE0 == c.BPF_ABS
        if is_absolute and n.SKF_AD_OFF <= insn.signed_k < 0 and insn.signed_k - n.SKF_AD_OFF not in ANCILLARY:
            raise _error(program, index, "there is nothing at this negative offset")
    _check_memory(program)


def check_seccomp(program: Sequence[Instruction]) -> None:
    """See that the kernel would take it for seccomp.

    Raises:
        ObjectError: it would not; the message has the instruction and the reason.
    """
    _check_each(program)
    for index, insn in enumerate(program):
        if insn.code in _NOT_IN_SECCOMP:
            raise _error(program, index, "seccomp does not know this instruction")
        if insn.code == i.LOAD_WORD and (insn.k >= SECCOMP_DATA_SIZE or insn.k % 4):
            raise _error(program, index, "seccomp loads from multiples of 4 below 64")
    _check_memory(program)


def _check_each(program: Sequence[Instruction]) -> None:
    count = len(program)
    if not 0 < count <= i.MAX_LENGTH:
        raise ObjectError(f"classic filter: it has {count} instructions, which must be 1 to {i.MAX_LENGTH}")
    for index, insn in enumerate(program):
        code, left = insn.code, count - index - 1
        if code not in i.ALLOWED:
            raise _error(program, index, f"there is no opcode 0x{code:02x}")
        if code in _BY_ZERO and insn.k == 0:
            raise _error(program, index, "it divides by zero")
        if code in _SHIFTS and insn.k >= 32:
            raise _error(program, index, "it shifts by 32 bits or more")
        if code in (*_MEMORY_LOADS, *_STORES) and insn.k >= n.BPF_MEMWORDS:
            raise _error(program, index, f"there are {n.BPF_MEMWORDS} words of memory")
        if (code == i.JUMP and insn.k >= left) or (
            code in i.CONDITIONAL_JUMPS and (insn.jt >= left or insn.jf >= left)
        ):
            raise _error(program, index, "it jumps beyond the end")
    if program[-1].code not in (i.RETURN, i.RETURN_A):
        raise _error(program, count - 1, "the last instruction is no ret")


def _check_memory(program: Sequence[Instruction]) -> None:
    """See that every word of memory is stored before it is loaded, on every way."""
    stored = [(1 << n.BPF_MEMWORDS) - 1] * len(program)  # what is certainly stored, one bit a word
    now = 0
    for index, insn in enumerate(program):
        now &= stored[index]
        if insn.code in _STORES:
            now |= 1 << insn.k
        elif insn.code in _MEMORY_LOADS and not now & 1 << insn.k:
            raise _error(program, index, f"M[{insn.k}] may not have been stored before")
        elif insn.code == i.JUMP:
            stored[index + 1 + insn.k] &= now
            now = -1
        elif insn.code in i.CONDITIONAL_JUMPS:
            stored[index + 1 + insn.jt] &= now
            stored[index + 1 + insn.jf] &= now
            now = -1


def _error(program: Sequence[Instruction], index: int, reason: str) -> ObjectError:
    line = " ".join(text(program[index], index).split())
    return ObjectError(f"classic filter: {line}: {reason}")
