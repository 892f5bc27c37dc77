"""The machine of 1993: a classic filter run over one packet, step by step.

Rules of this module:

* It does what Linux does: registers of 32 bits; a load beyond the packet, or a division by zero, ends the filter with
  0; shifts count modulo 32.
* Packets are in network byte order, and nothing is shown of them but what the filter loads.
* What Linux knows of a packet beside its bytes (`Packet`) is what the caller says.

Source: McCanne and Jacobson, 1993; net/core/filter.c (bpf_convert_filter and the helpers that it calls).
"""

from __future__ import annotations

import sys

from pybpf import constants as c
from pybpf.asm.classic import instruction as i
from pybpf.asm.classic import names as n
from pybpf.asm.classic.disasm import text
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pybpf.asm.classic.instruction import Instruction

STEP_LIMIT = 1 << 16
"""Most steps of a run: filters of libpcap may loop (``ip protochain``), those of the kernel cannot."""
_WORD = 0xFFFFFFFF


class Packet:
    """A packet, and what Linux knows of it besides.

    Attributes:
        data: its bytes, from the link layer's header on.
        length: how long it was on the wire; `data` may be less.
        network_offset: where the network layer's header begins.
        ancillary: values of Linux's own loads by name, as in `disasm.ANCILLARY`: ``{"ifidx": 2}``; others are 0.
    """

    __slots__ = ("ancillary", "data", "length", "network_offset")

    def __init__(
        self,
        data: bytes,
        *,
        length: int | None = None,
        network_offset: int = 14,
        ancillary: dict[str, int] | None = None,
    ) -> None:
        self.data = data
        self.length = len(data) if length is None else length
        self.network_offset = network_offset
        self.ancillary = dict(ancillary or {})
        if "proto" not in self.ancillary and len(data) >= network_offset >= 2:
            self.ancillary["proto"] = int.from_bytes(data[network_offset - 2 : network_offset], "big")


class Step:
    """The state after one instruction.

    Attributes:
        index: the instruction's number. instruction: itself.
        a, x: the registers. memory: M[0] to M[15], None for what has not been stored.
        result: what the filter returned, or None while it goes on.
    """

    __slots__ = ("a", "index", "instruction", "memory", "result", "x")

    def __init__(
        self, index: int, instruction: Instruction, a: int, x: int, memory: tuple[int | None, ...], result: int | None
    ) -> None:
        self.index = index
        self.instruction = instruction
        self.a = a
        self.x = x
        self.memory = memory
        self.result = result

    def __str__(self) -> str:
        """``(000) ldh      [12]                             A=0x800 X=0x0``"""
        line = text(self.instruction, self.index).expandtabs(4)
        stored = "".join(f" M[{k}]=0x{value:x}" for k, value in enumerate(self.memory) if value is not None)
        end = "" if self.result is None else f" -> {self.result}"
        return f"{line:48} A=0x{self.a:x} X=0x{self.x:x}{stored}{end}"


class _Ended(Exception):
    """The filter ends with 0: a load failed, or something was divided by zero."""


def run(program: Sequence[Instruction], packet: bytes | Packet) -> int:
    """How many bytes of the packet the filter keeps: 0 for none, at most 2**32 - 1.

    Raises:
        ObjectError: the filter leaves its end, or has an instruction that there is not (see `check`).
    """
    result = 0
    for step in trace(program, packet):
        result = step.result or 0
    return result


def trace(program: Sequence[Instruction], packet: bytes | Packet) -> Iterator[Step]:
    """The same, with the state after each instruction. The last step has the result.

    Raises:
        ObjectError: as `run`.
    """
    machine = _Machine(packet if isinstance(packet, Packet) else Packet(packet))
    index = 0
    for _ in range(STEP_LIMIT):
        if not 0 <= index < len(program):
            raise ObjectError(f"classic filter: it goes on at {index}, beyond its {len(program)} instructions")
        insn = program[index]
        result: int | None = None
        try:
            following, result = machine.execute(insn, index)
        except _Ended:
            following, result = index + 1, 0
        yield Step(index, insn, machine.a, machine.x, tuple(machine.memory), result)
        if result is not None:
            return
        index = following
    raise ObjectError(f"classic filter: it has not ended after {STEP_LIMIT} steps")


class _Machine:
    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.a = self.x = 0
        self.memory: list[int | None] = [None] * n.BPF_MEMWORDS

    def execute(self, insn: Instruction, index: int) -> tuple[int, int | None]:
        """Do one instruction: the next one's number, and the result when it ended."""
        code, k = insn.code, insn.k
        following = index + 1
        if code in i.CONDITIONAL_JUMPS:
            return following + (insn.jt if self._compare(code, self.x if code & c.BPF_X else k) else insn.jf), None
        if code == i.JUMP:
            return following + insn.signed_k, None
        if code == i.RETURN:
            return following, k
        if code == i.RETURN_A:
            return following, self.a
        if code in i.PACKET_LOADS:
            self.a = self._load(code, insn.signed_k)
        elif code == i.LOAD_NUMBER:
            self.a = k
        elif code == i.LOAD_NUMBER_X:
            self.x = k
        elif code == i.LOAD_LENGTH:
            self.a = self.packet.length
        elif code == i.LOAD_LENGTH_X:
            self.x = self.packet.length
        elif code == i.LOAD_HEADER_LENGTH:
            self.x = (self._bytes(insn.signed_k, 1) & 15) * 4
        elif code == i.LOAD_MEMORY:
            self.a = self._recall(k)
        elif code == i.LOAD_MEMORY_X:
            self.x = self._recall(k)
        elif code in (i.STORE, i.STORE_X):
            self._recall(k, check=False)
            self.memory[k] = self.a if code == i.STORE else self.x
        elif code == i.TAX:
            self.x = self.a
        elif code == i.TXA:
            self.a = self.x
        elif code == i.NEGATE:
            self.a = -self.a & _WORD
        elif code in i.ALLOWED:
            self.a = self._compute(code & 0xF0, self.x if code & c.BPF_X else k) & _WORD
        else:
            raise ObjectError(f"classic filter, instruction {index}: there is no opcode 0x{code:02x}")
        return following, None

    def _compare(self, code: int, value: int) -> bool:
        operation = code & 0xF0
        if operation == c.BPF_JEQ:
            return self.a == value
        if operation == c.BPF_JGT:
            return self.a > value
        if operation == c.BPF_JGE:
            return self.a >= value
        return bool(self.a & value)

    def _compute(self, operation: int, value: int) -> int:
        a = self.a
        if operation in (c.BPF_DIV, c.BPF_MOD):
            if value == 0:
                raise _Ended
            return a // value if operation == c.BPF_DIV else a % value
        if operation in (c.BPF_LSH, c.BPF_RSH):
            return a << (value & 31) if operation == c.BPF_LSH else a >> (value & 31)
        if operation == c.BPF_ADD:
            return a + value
        if operation == c.BPF_SUB:
            return a - value
        if operation == c.BPF_MUL:
            return a * value
        if operation == c.BPF_AND:
            return a & value
        return a | value if operation == c.BPF_OR else a ^ value

    def _recall(self, k: int, check: bool = True) -> int:
        if k >= n.BPF_MEMWORDS or (check and self.memory[k] is None):
            raise ObjectError(f"classic filter: M[{k}] {'has not been stored' if k < 16 else 'does not exist'}")
        return self.memory[k] or 0

    def _load(self, code: int, offset: int) -> int:
        if code & 0xE0 == c.BPF_IND:
            offset = ((self.x + offset & _WORD) ^ 0x80000000) - 0x80000000
        elif n.SKF_AD_OFF <= offset < 0:
            return self._ancillary(offset - n.SKF_AD_OFF)
        return self._bytes(offset, i.SIZES[code & 0x18])

    def _bytes(self, offset: int, size: int) -> int:
        """Bytes of the packet, or from its network or link layer's header on."""
        if offset < 0:
            if offset >= n.SKF_NET_OFF:
                offset += self.packet.network_offset - n.SKF_NET_OFF
            elif offset >= n.SKF_LL_OFF:
                offset -= n.SKF_LL_OFF
            else:
                raise _Ended
        if offset + size > len(self.packet.data):
            raise _Ended
        return int.from_bytes(self.packet.data[offset : offset + size], "big")

    def _ancillary(self, number: int) -> int:
        from pybpf.asm.classic.disasm import ANCILLARY

        if number == n.SKF_AD_ALU_XOR_X:
            return self.a ^ self.x
        if number in (n.SKF_AD_NLATTR, n.SKF_AD_NLATTR_NEST):
            return self._netlink_attribute(nested=number == n.SKF_AD_NLATTR_NEST)
        if number == n.SKF_AD_RANDOM and "random" not in self.packet.ancillary:
            from random import getrandbits

            return getrandbits(32)
        if number not in ANCILLARY:
            raise _Ended
        return self.packet.ancillary.get(ANCILLARY[number], 0) & _WORD

    def _netlink_attribute(self, nested: bool) -> int:
        """Where the netlink attribute of type X is, looked for from A on, or within the attribute at A; 0: nowhere."""
        data = self.packet.data
        start, end = self.a, len(data)
        if start + 4 > end:
            return 0
        if nested:
            length = int.from_bytes(data[start : start + 2], sys.byteorder)
            if start + length > end:
                return 0
            start, end = start + 4, start + length
        while start + 4 <= end:
            length = int.from_bytes(data[start : start + 2], sys.byteorder)
            kind = int.from_bytes(data[start + 2 : start + 4], sys.byteorder) & 0x3FFF
            if length < 4 or start + length > end:
                return 0
            if kind == self.x:
                return start
            start += length + 3 & ~3
        return 0
