"""Assembly of classic BPF: the notation of the 1993 paper, of tcpdump -d and of the kernel's bpf_asm.

            ldh     [12]
            jeq     #ETHERTYPE_IP, L1, L2
    L1:     ret     #TRUE
    L2:     ret     #0

Rules of this module:

* Jumps name a label for "true" and one for "false"; the second may be left out and is the next instruction. As tcpdump
  writes it, ``jt 2 jf 5``, they name instructions by number.
* Constants may be named: ``ETH_P_IP`` and ``ETHERTYPE_IP``, ``IPPROTO_TCP``, ``TRUE`` (all of the packet), ``FALSE``,
  and what the caller defines.
* Linux's own loads go by bpf_asm's names (``ld vlan_tci``, ``ld #proto``) and libpcap's (``ldb [vlanp]``).
* Comments begin with ``;`` or ``//`` or stand in ``/* */``. Case does not matter but in names.

| instruction | operands |
|---|---|
| ld, ldh, ldb | ``[k]`` ``[x + k]``; ld also ``#k`` ``M[k]`` ``#len`` |
| ldi, ldxi | ``#k`` |
| ldx | ``#k`` ``M[k]`` ``#len`` ``4*([k]&0xf)`` |
| ldxb | ``4*([k]&0xf)`` |
| st, stx | ``M[k]`` |
| ja, jmp | ``L`` |
| jeq, jgt, jge, jset | ``#k, Lt, Lf`` ``x, Lt, Lf`` |
| jne, jneq, jlt, jle | ``#k, L`` ``x, L`` |
| add, sub, mul, div, mod, and, or, xor, lsh, rsh | ``#k`` ``x`` |
| neg, tax, txa | |
| ret | ``#k`` ``a`` |
"""

from __future__ import annotations

import re

from pybpf import constants as c
from pybpf.asm.classic import instruction as i
from pybpf.asm.classic import names as n
from pybpf.asm.classic.disasm import ANCILLARY
from pybpf.asm.classic.instruction import Instruction
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ANCILLARY_NAMES = {name: number for number, name in ANCILLARY.items()} | {
    "vlan_pr": n.SKF_AD_VLAN_TAG_PRESENT,
    "vlan_avail": n.SKF_AD_VLAN_TAG_PRESENT,
    "rand": n.SKF_AD_RANDOM,
}

_ALIASES = {"ETHERTYPE_REVARP": "ETH_P_RARP", "ETHERTYPE_VLAN": "ETH_P_8021Q", "ETHERTYPE_AT": "ETH_P_ATALK"}
"""Names of netinet/if_ether.h that differ by more than their beginning from those of linux/if_ether.h."""

_COMMENT = re.compile(r";.*|//.*|/\*.*?\*/")
_LINE = re.compile(r"(?:\(?\d+\)?:?\s+)?(?:([A-Za-z_]\w*):\s*)?(?:([A-Za-z]+)\b\s*(.*?))?\s*")
_TCPDUMP = re.compile(r"(.*?)\s+jt\s+(\d+)\s+jf\s+(\d+)")
_PACKET = re.compile(r"\[\s*(-?\w+)\s*\]")
_INDEXED = re.compile(r"\[?\s*%?x\s*\+\s*(-?\w+)\s*\]?", re.I)
_MEMORY = re.compile(r"M\[\s*(\w+)\s*\]", re.I)
_HEADER_LENGTH = re.compile(r"4\s*\*\s*\(\s*\[\s*(-?\w+)\s*\]\s*&\s*(?:0x)?0?f\s*\)", re.I)

_LOADS = {"ld": c.BPF_W, "ldh": c.BPF_H, "ldb": c.BPF_B}
_ALU = {name: operation for operation, name in i.ARITHMETIC.items()}
_JUMPS = {name: operation for operation, name in i.JUMPS.items()}
_OPPOSITE = {"jne": "jeq", "jneq": "jeq", "jlt": "jge", "jle": "jgt"}
_PLAIN = {"tax": i.TAX, "txa": i.TXA, "neg": i.NEGATE}


class _Unclear(Exception):
    """A line is not understood; caught where its number is known."""


def assemble(text: str, names: Mapping[str, int] | None = None) -> list[Instruction]:
    """The instructions of a filter.

    Args:
        text: as above.
        names: constants beside those that are known.

    Raises:
        ObjectError: a line cannot be understood, or jumps to nowhere, backwards or too far; the message has its number.
    """
    assembler = _Assembler(names or {})
    for number, line in enumerate(text.splitlines(), 1):
        assembler.line(number, line)
    return assembler.finish()


class _Assembler:
    def __init__(self, names: Mapping[str, int]) -> None:
        self._names = {"TRUE": 0xFFFFFFFF, "FALSE": 0, **names}
        self._labels: dict[str, int] = {}
        self._code: list[tuple[int, str, int, int, str | int, str | int]] = []  # line, text, code, k, targets

    def line(self, number: int, line: str) -> None:
        stripped = _COMMENT.sub("", line).strip()
        if not stripped or stripped.startswith("#"):
            return
        match = _LINE.fullmatch(stripped)
        try:
            if match is None:
                raise _Unclear("this is no instruction")
            label, operation, operand = match.groups()
            if label:
                if label in self._labels:
                    raise _Unclear(f"the label {label!r} is there twice")
                self._labels[label] = len(self._code)
            if operation:
                self._code.append((number, stripped, *self._instruction(operation.lower(), operand)))
        except (_Unclear, ValueError) as error:  # ValueError: a number of thousands of digits
            raise ObjectError(f"line {number}: {stripped!r}: {error}") from None

    def finish(self) -> list[Instruction]:
        """The instructions, now that all labels are known."""
        result = []
        for index, (number, text, code, k, true, false) in enumerate(self._code):
            try:
                jt, jf = self._distance(index, code, true), self._distance(index, code, false)
                if code == i.JUMP:
                    k, jt = jt, 0
                result.append(Instruction(code, jt, jf, k))
            except (_Unclear, ObjectError) as error:
                raise ObjectError(f"line {number}: {text!r}: {error}") from None
        return result

    def _distance(self, index: int, code: int, target: str | int) -> int:
        if target == "":
            return 0
        place = target if isinstance(target, int) else self._labels.get(target)
        if place is None:
            raise _Unclear(f"there is no label {target!r}")
        # Backwards only an unconditional jump can lead, which libpcap runs and the kernel refuses (`check`).
        if not (0 if code == i.JUMP else index + 1) <= place < len(self._code):
            raise _Unclear(f"it cannot jump to {target}: there is no such instruction, or it comes before")
        return place - index - 1

    # One instruction: code, k, target when true, target when false

    def _instruction(self, name: str, operand: str) -> tuple[int, int, str | int, str | int]:
        if name in _JUMPS or name in _OPPOSITE:
            return self._jump(name, operand)
        if name in ("ja", "jmp"):
            return i.JUMP, 0, int(operand) if operand.isdecimal() else operand, ""
        code, k = self._straight(name, operand)
        return code, k, "", ""

    def _jump(self, name: str, operand: str) -> tuple[int, int, str | int, str | int]:
        true: str | int
        false: str | int
        numbered = _TCPDUMP.fullmatch(operand)
        if numbered is not None:
            what, true, false = numbered[1], int(numbered[2]), int(numbered[3])
        else:
            what, *targets = [part.strip() for part in operand.split(",")]
            if not 1 <= len(targets) <= 2 or "" in targets:
                raise _Unclear("a jump takes what to compare with and one or two labels")
            true, false = (*targets, "")[:2]
        if name in _OPPOSITE:
            if false != "":
                raise _Unclear(f"{name} takes one label")
            name, true, false = _OPPOSITE[name], "", true
        code = c.BPF_JMP | _JUMPS[name]
        if what.lower().lstrip("%") == "x":
            return code | c.BPF_X, 0, true, false
        return code, self._constant(what), true, false

    def _straight(self, name: str, operand: str) -> tuple[int, int]:
        if name in _PLAIN:
            if operand:
                raise _Unclear(f"{name} takes no operand")
            return _PLAIN[name], 0
        if name in _ALU:
            code = c.BPF_ALU | _ALU[name]
            if operand.lower().lstrip("%") == "x":
                return code | c.BPF_X, 0
            return code, self._constant(operand)
        if name == "ret":
            if operand.lower().lstrip("%") in ("a", ""):
                return i.RETURN_A, 0
            return i.RETURN, self._constant(operand)
        if name in ("st", "stx"):
            return (i.STORE if name == "st" else i.STORE_X), self._memory(operand)
        if name in _LOADS:
            return self._load(name, operand)
        if name in ("ldx", "ldxb"):
            return self._load_x(name, operand)
        if name in ("ldi", "ldxi"):
            return (i.LOAD_NUMBER if name == "ldi" else i.LOAD_NUMBER_X), self._constant("#" + operand.lstrip("#"))
        raise _Unclear(f"there is no instruction {name!r}")

    def _load(self, name: str, operand: str) -> tuple[int, int]:
        code = c.BPF_LD | _LOADS[name]
        word = operand.strip("[]#").strip().lower()
        if word in ANCILLARY_NAMES:
            return code | c.BPF_ABS, n.SKF_AD_OFF + ANCILLARY_NAMES[word]
        if match := _INDEXED.fullmatch(operand):
            return code | c.BPF_IND, self._number(match[1])
        if match := _PACKET.fullmatch(operand):
            return code | c.BPF_ABS, self._number(match[1])
        if name == "ld":
            if word in ("len", "pktlen"):
                return i.LOAD_LENGTH, 0
            if _MEMORY.fullmatch(operand):
                return i.LOAD_MEMORY, self._memory(operand)
            return i.LOAD_NUMBER, self._constant(operand)
        raise _Unclear(f"{name} takes [k] or [x + k]")

    def _load_x(self, name: str, operand: str) -> tuple[int, int]:
        if match := _HEADER_LENGTH.fullmatch(operand):
            return i.LOAD_HEADER_LENGTH, self._number(match[1])
        if name == "ldxb":
            raise _Unclear("ldxb takes 4*([k]&0xf)")
        if operand.strip("#").lower() in ("len", "pktlen"):
            return i.LOAD_LENGTH_X, 0
        if _MEMORY.fullmatch(operand):
            return i.LOAD_MEMORY_X, self._memory(operand)
        return i.LOAD_NUMBER_X, self._constant(operand)

    def _memory(self, operand: str) -> int:
        match = _MEMORY.fullmatch(operand)
        if match is None:
            raise _Unclear("this needs M[k]")
        return self._number(match[1])

    def _constant(self, operand: str) -> int:
        if not operand.startswith("#"):
            raise _Unclear(f"{operand!r} is not what it takes; constants begin with #")
        return self._number(operand[1:].strip())

    def _number(self, text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            pass
        name = _ALIASES.get(text, text.replace("ETHERTYPE_", "ETH_P_"))
        for table in (self._names, n.ETHERNET, n.PROTOCOLS):
            if text in table:
                return table[text]
            if name in table:
                return table[name]
        raise _Unclear(f"{text!r} is no number, and no name of one")
