"""Classic instructions as text, as tcpdump -d prints them.

    (000) ldh      [12]
    (001) jeq      #0x800           jt 2	jf 3
    (002) ret      #262144
    (003) ret      #0

Rules of this module:

* Jump targets are numbers of instructions. Numbers are decimal where they count, hexadecimal where they are bits.
* Loads from offsets that Linux gives a meaning of its own show its name: ``ldb [vlan_tci]``.

Source: bpf_image() of libpcap 1.10, by what it prints.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.asm.classic import instruction as i
from pybpf.asm.classic import names as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.asm.classic.instruction import Instruction

ANCILLARY = {
    n.SKF_AD_PROTOCOL: "proto",
    n.SKF_AD_PKTTYPE: "type",
    n.SKF_AD_IFINDEX: "ifidx",
    n.SKF_AD_NLATTR: "nla",
    n.SKF_AD_NLATTR_NEST: "nlan",
    n.SKF_AD_MARK: "mark",
    n.SKF_AD_QUEUE: "queue",
    n.SKF_AD_HATYPE: "hatype",
    n.SKF_AD_RXHASH: "rxhash",
    n.SKF_AD_CPU: "cpu",
    n.SKF_AD_ALU_XOR_X: "xor_x",
    n.SKF_AD_VLAN_TAG: "vlan_tci",
    n.SKF_AD_VLAN_TAG_PRESENT: "vlanp",
    n.SKF_AD_PAY_OFFSET: "poff",
    n.SKF_AD_RANDOM: "random",
    n.SKF_AD_VLAN_TPID: "vlan_tpid",
}
"""Offset from SKF_AD_OFF -> what libpcap calls it."""

_LOADS = {c.BPF_W: "ld", c.BPF_H: "ldh", c.BPF_B: "ldb"}
_FIXED = {
    i.LOAD_NUMBER: ("ld", "#0x{k:x}"),
    i.LOAD_NUMBER_X: ("ldx", "#0x{k:x}"),
    i.LOAD_MEMORY: ("ld", "M[{s}]"),
    i.LOAD_MEMORY_X: ("ldx", "M[{s}]"),
    i.LOAD_LENGTH: ("ld", "#pktlen"),
    i.LOAD_LENGTH_X: ("ldx", "#pktlen"),
    i.LOAD_HEADER_LENGTH: ("ldxb", "4*([{s}]&0xf)"),
    i.STORE: ("st", "M[{s}]"),
    i.STORE_X: ("stx", "M[{s}]"),
    i.RETURN: ("ret", "#{s}"),
    i.RETURN_A: ("ret", ""),
    i.TAX: ("tax", ""),
    i.TXA: ("txa", ""),
    i.NEGATE: ("neg", ""),
}
_BITS = (c.BPF_AND, c.BPF_OR, c.BPF_XOR)


def mnemonic(insn: Instruction, index: int = 0) -> tuple[str, str]:
    """The operation and the operand of one instruction, without jump targets but that of ``ja``."""
    code, signed = insn.code, insn.signed_k
    if code in _FIXED:
        name, operand = _FIXED[code]
        return name, operand.format(k=insn.k, s=signed)
    if code in i.PACKET_LOADS:
        name = _LOADS[code & 0x18]
        if code & 0xE0 == c.BPF_IND:
            return name, f"[x + {signed}]"
        return name, f"[{ANCILLARY.get(signed - n.SKF_AD_OFF, signed)}]"
    if code == i.JUMP:
        return "ja", str(index + 1 + signed)
    if code in i.CONDITIONAL_JUMPS:
        return i.JUMPS[code & 0xF0], "x" if code & c.BPF_X else f"#0x{insn.k:x}"
    if code in i.ALLOWED:
        operation = code & 0xF0
        number = f"#0x{insn.k:x}" if operation in _BITS else f"#{signed}"
        return i.ARITHMETIC[operation], "x" if code & c.BPF_X else number
    return "unimp", f"0x{code:x}"


def text(insn: Instruction, index: int = 0) -> str:
    """One instruction, with its number before it."""
    name, operand = mnemonic(insn, index)
    if insn.code in i.CONDITIONAL_JUMPS:
        return f"({index:03d}) {name:8} {operand:16} jt {index + 1 + insn.jt}\tjf {index + 1 + insn.jf}"
    return f"({index:03d}) {name:8} {operand}"


def disassemble(instructions: Iterable[Instruction]) -> list[str]:
    """A filter as tcpdump -d prints it, a line for each instruction."""
    return [text(insn, index) for index, insn in enumerate(instructions)]


def source(instructions: Iterable[Instruction]) -> str:
    """A filter in the notation of the 1993 paper, with labels: what `assemble` reads and a person edits."""
    program = list(instructions)
    targets: set[int] = set()
    for index, insn in enumerate(program):
        if insn.code == i.JUMP:
            targets.add(index + 1 + insn.signed_k)
        elif insn.code in i.CONDITIONAL_JUMPS:
            targets |= {index + 1 + insn.jt, index + 1 + insn.jf}
    labels = {target: f"L{number}" for number, target in enumerate(sorted(targets), 1)}
    lines = []
    for index, insn in enumerate(program):
        name, operand = mnemonic(insn, index)
        if insn.code == i.JUMP:
            operand = labels[index + 1 + insn.signed_k]
        elif insn.code in i.CONDITIONAL_JUMPS:
            operand += f", {labels[index + 1 + insn.jt]}, {labels[index + 1 + insn.jf]}"
        label = f"{labels[index]}:" if index in labels else ""
        lines.append(f"{label:8}{name:8}{operand or ('a' if insn.code == i.RETURN_A else '')}".rstrip())
    return "\n".join(lines) + "\n"
