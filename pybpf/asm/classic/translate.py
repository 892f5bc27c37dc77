"""A classic filter as an eBPF program: what the kernel makes of it, in instructions that anybody may load.

    A is r0, X is r7, the context is r6, M[k] is the word at r10 - 4 * (k + 1); r2 is scratch.

Rules of this module:

* Each classic instruction that can be reached becomes what bpf_convert_filter() makes of it, in the same registers and
  words of the stack.
* Loads from the packet stay the two instructions that eBPF kept for them; the verifier expands these as
  bpf_convert_filter() expands the classic ones. They end the program with 0 beyond the packet's end.
* Fields of the kernel's struct sk_buff become those of struct __sk_buff. What that has not (the hardware type, the
  payload's offset, netlink attributes) is an `ObjectError`.

Source: bpf_convert_filter() of net/core/filter.c.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.asm.assembler import Assembler
from pybpf.asm.classic import instruction as i
from pybpf.asm.classic import names as n
from pybpf.asm.classic.check import check
from pybpf.asm.classic.disasm import ANCILLARY
from pybpf.asm.instruction import Instruction as Ebpf
from pybpf.asm.operands import Memory, Register, r0, r1, r2, r6, r7, r10, u32, w0, w2, w7
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.asm.classic.instruction import Instruction

_FIELDS = {
    n.SKF_AD_PROTOCOL: "protocol",
    n.SKF_AD_PKTTYPE: "pkt_type",
    n.SKF_AD_IFINDEX: "ifindex",
    n.SKF_AD_MARK: "mark",
    n.SKF_AD_QUEUE: "queue_mapping",
    n.SKF_AD_RXHASH: "hash",
    n.SKF_AD_VLAN_TAG: "vlan_tci",
    n.SKF_AD_VLAN_TAG_PRESENT: "vlan_present",
    n.SKF_AD_VLAN_TPID: "vlan_proto",
}
_NETWORK_ORDER = (n.SKF_AD_PROTOCOL, n.SKF_AD_VLAN_TPID)
_HELPERS = {n.SKF_AD_CPU: "get_smp_processor_id", n.SKF_AD_RANDOM: "get_prandom_u32"}

_OPPOSITE = {c.BPF_JEQ: c.BPF_JNE, c.BPF_JGT: c.BPF_JLE, c.BPF_JGE: c.BPF_JLT}


def translate(program: Sequence[Instruction], *, name: str = "filter", section: str = "socket") -> Assembler:
    """The eBPF program of a classic filter: load it with `pybpf.Program.from_asm`.

    >>> from pybpf import Program
    >>> from pybpf.asm.classic import Filter
    >>> with Program.from_asm(Filter.from_text("ldb [0]\\nret a").translate()) as program: ...

    Raises:
        ObjectError: the filter is not valid (see `check`), or uses what eBPF programs cannot see.
    """
    check(program)
    return _Translator(name, section).translate(program)


class _Translator:
    def __init__(self, name: str, section: str) -> None:
        self._code = Assembler(name, section)

    def translate(self, program: Sequence[Instruction]) -> Assembler:
        code = self._code
        # The kernel clears A and X by `xor`, which the verifier does not take from registers that hold nothing yet.
        code.mov(w0, 0)
        code.mov(w7, 0)
        code.mov(r6, r1)
        reached = {0}  # the verifier takes no instruction that is not; jumps only lead forwards
        for index, insn in enumerate(program):
            if index not in reached:
                continue
            reached |= _following(insn, index)
            code.label(str(index))
            try:
                self._instruction(insn, index)
            except ObjectError as error:
                raise ObjectError(f"classic filter, instruction {index}: {error}") from None
        return code

    def _instruction(self, insn: Instruction, index: int) -> None:
        code, emit = insn.code, self._code
        if code in i.CONDITIONAL_JUMPS:
            self._jump(insn, index)
        elif code == i.JUMP:
            emit.goto(str(index + 1 + insn.k))
        elif code in i.PACKET_LOADS:
            if code & 0xE0 == c.BPF_ABS and n.SKF_AD_OFF <= insn.signed_k < 0:
                self._ancillary(insn.signed_k - n.SKF_AD_OFF)
            else:
                emit.append(Ebpf(code, 0, r7.number if code & 0xE0 == c.BPF_IND else 0, 0, insn.signed_k))
        elif code == i.LOAD_HEADER_LENGTH:
            emit.mov(r7, r0)
            emit.append(Ebpf(c.BPF_LD | c.BPF_ABS | c.BPF_B, imm=insn.signed_k))
            emit.and_(w0, 15)
            emit.lsh(w0, 2)
            emit.mov(r2, r7)
            emit.mov(r7, r0)
            emit.mov(r0, r2)
        elif code in (i.RETURN, i.RETURN_A):
            if code == i.RETURN:
                emit.mov(w0, insn.k)
            emit.exit()
        elif code in (i.STORE, i.STORE_X):
            emit.store(_memory(insn.k), w0 if code == i.STORE else w7)
        elif code in (i.LOAD_MEMORY, i.LOAD_MEMORY_X):
            emit.load(w0 if code == i.LOAD_MEMORY else w7, _memory(insn.k))
        elif code in (i.LOAD_NUMBER, i.LOAD_NUMBER_X):
            emit.mov(w0 if code == i.LOAD_NUMBER else w7, insn.k)
        elif code in (i.LOAD_LENGTH, i.LOAD_LENGTH_X):
            self._field("len", w0 if code == i.LOAD_LENGTH else w7)
        elif code == i.TAX:
            emit.mov(r7, r0)
        elif code == i.TXA:
            emit.mov(r0, r7)
        elif code == i.NEGATE:
            emit.neg(w0)
        else:
            self._arithmetic(insn)

    def _arithmetic(self, insn: Instruction) -> None:
        operation, emit = insn.code & 0xF0, self._code
        if not insn.code & c.BPF_X:
            emit.alu(operation, w0, insn.k)
            return
        if operation in (c.BPF_DIV, c.BPF_MOD):  # by zero ends the filter with 0
            emit.mov(w7, w7)
            emit.jne(r7, 0, 2)
            emit.xor(w0, w0)
            emit.exit()
        emit.alu(operation, w0, w7)

    def _jump(self, insn: Instruction, index: int) -> None:
        operation, emit = insn.code & 0xF0, self._code
        true, false = str(index + 1 + insn.jt), str(index + 1 + insn.jf)
        operand: Register | int = r7 if insn.code & c.BPF_X else insn.k
        if isinstance(operand, int) and insn.signed_k < 0:  # would be sign-extended to 64 bits
            emit.mov(w2, insn.k)
            operand = r2
        if insn.jf == 0:
            emit.jump(operation, r0, operand, true)
        elif insn.jt == 0 and operation in _OPPOSITE:
            emit.jump(_OPPOSITE[operation], r0, operand, false)
        else:
            emit.jump(operation, r0, operand, true)
            emit.goto(false)

    def _ancillary(self, number: int) -> None:
        emit = self._code
        if number == n.SKF_AD_ALU_XOR_X:
            emit.xor(w0, w7)
        elif number in _HELPERS:
            emit.call(_HELPERS[number])
            emit.mov(w0, w0)
        elif number in _FIELDS:
            self._field(_FIELDS[number], w0)
            if number in _NETWORK_ORDER:
                emit.to_be(r0, 16)
        else:
            raise ObjectError(f"eBPF programs cannot see {ANCILLARY[number]!r}")

    def _field(self, name: str, register: Register) -> None:
        self._code.load(register, u32[r6 + n.SK_BUFF[name]])


def _following(insn: Instruction, index: int) -> set[int]:
    """The numbers of the instructions that may come next."""
    if insn.code in i.CONDITIONAL_JUMPS:
        return {index + 1 + insn.jt, index + 1 + insn.jf}
    if insn.code in (i.RETURN, i.RETURN_A):
        return set()
    return {index + 1 + (insn.k if insn.code == i.JUMP else 0)}


def _memory(k: int) -> Memory:
    return u32[r10 - 4 * (k + 1)]
