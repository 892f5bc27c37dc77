"""One classic instruction, and filters to and from bytes.

Rules of this module:

* An `Instruction` is struct sock_filter: opcode (u16), two jump distances (u8 each), a number (u32).
* Distances count instructions from the next one, and only forwards.

Source: include/uapi/linux/filter.h; McCanne and Jacobson, "The BSD Packet Filter", USENIX Winter 1993.
"""

from __future__ import annotations

import sys
from struct import Struct

from pybpf import constants as c
from pybpf.asm.classic.names import BPF_A, BPF_TAX, BPF_TXA
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.asm.slots import ByteOrder, Code

SIZE = 8
"""Bytes of one instruction."""
MAX_LENGTH = c.BPF_MAXINSNS

_LAYOUT = {"little": Struct("<HBBI"), "big": Struct(">HBBI")}

LOAD_WORD = c.BPF_LD | c.BPF_W | c.BPF_ABS
LOAD_LENGTH = c.BPF_LD | c.BPF_W | c.BPF_LEN
LOAD_LENGTH_X = c.BPF_LDX | c.BPF_W | c.BPF_LEN
LOAD_HEADER_LENGTH = c.BPF_LDX | c.BPF_B | c.BPF_MSH
LOAD_NUMBER = c.BPF_LD | c.BPF_IMM
LOAD_NUMBER_X = c.BPF_LDX | c.BPF_IMM
LOAD_MEMORY = c.BPF_LD | c.BPF_MEM
LOAD_MEMORY_X = c.BPF_LDX | c.BPF_MEM
STORE = c.BPF_ST
STORE_X = c.BPF_STX
JUMP = c.BPF_JMP | c.BPF_JA
RETURN = c.BPF_RET | c.BPF_K
RETURN_A = c.BPF_RET | BPF_A
TAX = c.BPF_MISC | BPF_TAX
TXA = c.BPF_MISC | BPF_TXA
NEGATE = c.BPF_ALU | c.BPF_NEG

SIZES = {c.BPF_W: 4, c.BPF_H: 2, c.BPF_B: 1}
"""Size bits of a load -> bytes."""
PACKET_LOADS = frozenset(c.BPF_LD | size | mode for size in SIZES for mode in (c.BPF_ABS, c.BPF_IND))
ARITHMETIC = {
    c.BPF_ADD: "add", c.BPF_SUB: "sub", c.BPF_MUL: "mul", c.BPF_DIV: "div", c.BPF_MOD: "mod", c.BPF_OR: "or",
    c.BPF_AND: "and", c.BPF_XOR: "xor", c.BPF_LSH: "lsh", c.BPF_RSH: "rsh",
}  # fmt: skip
"""Operation -> mnemonic."""
JUMPS = {c.BPF_JEQ: "jeq", c.BPF_JGT: "jgt", c.BPF_JGE: "jge", c.BPF_JSET: "jset"}
CONDITIONAL_JUMPS = frozenset(c.BPF_JMP | jump | source for jump in JUMPS for source in (c.BPF_K, c.BPF_X))
ALLOWED = frozenset(
    {
        *PACKET_LOADS, *CONDITIONAL_JUMPS, JUMP, RETURN, RETURN_A, TAX, TXA, NEGATE, STORE, STORE_X, LOAD_NUMBER,
        LOAD_NUMBER_X, LOAD_MEMORY, LOAD_MEMORY_X, LOAD_LENGTH, LOAD_LENGTH_X, LOAD_HEADER_LENGTH,
        *(c.BPF_ALU | operation | source for operation in ARITHMETIC for source in (c.BPF_K, c.BPF_X)),
    }
)  # fmt: skip
"""Every opcode there is."""


class Instruction:
    """One instruction. Attributes: code; jt and jf, where to go when a comparison holds and when not; k."""

    __slots__ = ("code", "jf", "jt", "k")

    def __init__(self, code: int, jt: int = 0, jf: int = 0, k: int = 0) -> None:
        """`k` may be given signed.

        Raises:
            ObjectError: a field does not fit.
        """
        for name, value, low, high in (
            ("code", code, 0, 0xFFFF),
            ("jt", jt, 0, 0xFF),
            ("jf", jf, 0, 0xFF),
            ("k", k, -0x80000000, 0xFFFFFFFF),
        ):
            if not low <= value <= high:
                raise ObjectError(f"classic instruction: {name} {value} is not in {low}..{high}")
        self.code = code
        self.jt = jt
        self.jf = jf
        self.k = k & 0xFFFFFFFF

    @property
    def signed_k(self) -> int:
        return (self.k ^ 0x80000000) - 0x80000000

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instruction):
            return NotImplemented
        return (self.code, self.jt, self.jf, self.k) == (other.code, other.jt, other.jf, other.k)

    def __hash__(self) -> int:
        return hash((self.code, self.jt, self.jf, self.k))

    def __repr__(self) -> str:
        return f"Instruction(0x{self.code:02x}, jt={self.jt}, jf={self.jf}, k=0x{self.k:x})"


def decode(data: Code, byte_order: ByteOrder = sys.byteorder) -> list[Instruction]:
    """The instructions of an array of struct sock_filter.

    Raises:
        ObjectError: the length is not a multiple of 8.
    """
    if len(data) % SIZE:
        raise ObjectError(f"classic filter: {len(data)} bytes are not a multiple of {SIZE}")
    return [Instruction(*fields) for fields in _LAYOUT[byte_order].iter_unpack(data)]


def encode(instructions: Iterable[Instruction], byte_order: ByteOrder = sys.byteorder) -> bytes:
    """An array of struct sock_filter."""
    pack = _LAYOUT[byte_order].pack
    return b"".join(pack(one.code, one.jt, one.jf, one.k) for one in instructions)
