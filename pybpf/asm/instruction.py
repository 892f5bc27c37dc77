"""One eBPF instruction as an object, and programs to and from bytes.

Rules of this module:

* An `Instruction` holds the fields as they are encoded. ``ldimm64`` is one instruction of two slots.
* `decode()` and `encode()` are inverse to each other in both byte orders. What they cannot represent is an
  `ObjectError`.
* Nothing here knows what a program may do: that is the verifier's matter.

Source: Linux, Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import sys
from struct import Struct

from pybpf.asm.slots import LDIMM64, SLOT_SIZE
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.asm.slots import ByteOrder, Code

_SLOT = {"little": Struct("<BBhi"), "big": Struct(">BBhi")}
_SWAP_NIBBLES = bytes(value >> 4 | (value & 15) << 4 for value in range(256))


class Instruction:
    """One instruction.

    Attributes:
        code: the opcode, 0 to 255.
        dst: destination register, 0 to 15.
        src: source register, or what kind of call or constant it is.
        off: signed 16-bit offset.
        imm: signed 32-bit immediate; of ``ldimm64`` the lower half.
        high: signed 32-bit upper half of the constant of ``ldimm64``, otherwise 0.
    """

    __slots__ = ("code", "dst", "high", "imm", "off", "src")
    __hash__ = None  # type: ignore[assignment]  # instructions can be changed

    code: int
    dst: int
    src: int
    off: int
    imm: int
    high: int

    def __init__(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0, high: int = 0) -> None:
        self.code = code
        self.dst = dst
        self.src = src
        self.off = off
        self.imm = imm
        self.high = high

    @property
    def slots(self) -> int:
        """How many 8-byte slots it takes: 1, or 2 for ``ldimm64``."""
        return 2 if self.code == LDIMM64 else 1

    @property
    def imm64(self) -> int:
        """The constant of ``ldimm64`` as an unsigned 64-bit number."""
        return (self.high & 0xFFFFFFFF) << 32 | self.imm & 0xFFFFFFFF

    @imm64.setter
    def imm64(self, value: int) -> None:
        self.imm = _signed32(value)
        self.high = _signed32(value >> 32)

    def check(self, what: str) -> None:
        """See that every field can be encoded.

        Raises:
            ObjectError: one cannot; the message begins with `what`.
        """
        for field, value, low, high in (
            ("code", self.code, 0, 0xFF),
            ("dst", self.dst, 0, 15),
            ("src", self.src, 0, 15),
            ("off", self.off, -0x8000, 0x7FFF),
            ("imm", self.imm, -0x80000000, 0xFFFFFFFF),
            ("high", self.high, -0x80000000, 0xFFFFFFFF),
        ):
            if not low <= value <= high:
                raise ObjectError(f"{what}: {field} {value} is not in {low}..{high}")
        if self.high and self.code != LDIMM64:
            raise ObjectError(f"{what}: opcode 0x{self.code:02x} has no upper half of a constant")

    def copy(self) -> Instruction:
        return Instruction(*self._fields())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instruction):
            return NotImplemented
        return self._fields() == other._fields()

    def _fields(self) -> tuple[int, ...]:
        return self.code, self.dst, self.src, self.off, self.imm, self.high

    def __repr__(self) -> str:
        high = f", high={self.high}" if self.code == LDIMM64 else ""
        return f"Instruction(0x{self.code:02x}, dst={self.dst}, src={self.src}, off={self.off}, imm={self.imm}{high})"

    def __str__(self) -> str:
        """The kernel's text of it."""
        from pybpf.asm.disasm import text

        return text(self)


def decode(data: Code, byte_order: ByteOrder = sys.byteorder) -> list[Instruction]:
    """The instructions of a program.

    Raises:
        ObjectError: the length is not a multiple of 8, or an ``ldimm64`` has no or no clean second slot.
    """
    if len(data) % SLOT_SIZE:
        raise ObjectError(f"instructions: {len(data)} bytes are not a multiple of {SLOT_SIZE}")
    little = byte_order == "little"
    result: list[Instruction] = []
    slots = enumerate(_SLOT[byte_order].iter_unpack(data))
    for index, (code, registers, off, imm) in slots:
        high = 0
        if code == LDIMM64:
            following = next(slots, None)
            if following is None:
                raise ObjectError(f"instruction {index}: ldimm64 without its second slot")
            *rest, high = following[1]
            if any(rest):
                raise ObjectError(
                    f"instruction {index}: the second slot of ldimm64 has an opcode, a register or an offset"
                )
        first, second = registers & 15, registers >> 4
        dst, src = (first, second) if little else (second, first)
        result.append(Instruction(code, dst, src, off, imm, high))
    return result


def encode(instructions: Iterable[Instruction], byte_order: ByteOrder = sys.byteorder) -> bytes:
    """The bytes of a program. Immediates may be given signed or unsigned.

    Raises:
        ObjectError: a field does not fit.
    """
    little = byte_order == "little"
    pack = _SLOT[byte_order].pack
    result = bytearray()
    for index, insn in enumerate(instructions):
        insn.check(f"instruction {index}")
        registers = insn.src << 4 | insn.dst if little else insn.dst << 4 | insn.src
        result += pack(insn.code, registers, insn.off, _signed32(insn.imm))
        if insn.code == LDIMM64:
            result += pack(0, 0, 0, _signed32(insn.high))
    return bytes(result)


def swap(data: Code) -> bytes:
    """The same program in the other byte order.

    Raises:
        ObjectError: the length is not a multiple of 8.
    """
    if len(data) % SLOT_SIZE:
        raise ObjectError(f"instructions: {len(data)} bytes are not a multiple of {SLOT_SIZE}")
    result = bytearray(data)
    result[1::8] = bytes(data[1::8]).translate(_SWAP_NIBBLES)
    for ours, theirs in ((2, 3), (3, 2), (4, 7), (5, 6), (6, 5), (7, 4)):
        result[ours::8] = data[theirs::8]
    return bytes(result)


def _signed32(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
