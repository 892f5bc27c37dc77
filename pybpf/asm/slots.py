"""Instruction fields read and written in place, without objects.

An eBPF program is an array of 8-byte slots: opcode (u8), registers (u8), offset (s16), immediate (s32).
``ldimm64`` takes two slots; the second one holds the upper half of its constant.

Rules of this module:

* `code` is a bytes-like object, `index` counts slots, `byte_order` is the object file's and defaults to the host's.
* The setters take signed and unsigned values alike and keep the low bits.
* Nothing is checked: the caller knows that `index` is less than `count(code)`.

Source: Linux, Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import sys
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    ByteOrder = str
    """``"little"`` or ``"big"``."""

    Code = bytes | bytearray | memoryview

SLOT_SIZE = 8
"""Bytes of one slot."""

LDIMM64 = 0x18
"""Opcode of the only instruction with two slots (BPF_LD | BPF_IMM | BPF_DW)."""

CALL = 0x85
"""Opcode of a call (BPF_JMP | BPF_CALL)."""

_S16 = {"little": Struct("<h"), "big": Struct(">h")}
_U16 = {"little": Struct("<H"), "big": Struct(">H")}
_S32 = {"little": Struct("<i"), "big": Struct(">i")}
_U32 = {"little": Struct("<I"), "big": Struct(">I")}
_FIELDS = {"little": Struct("<BBhi"), "big": Struct(">BBhi")}


def count(code: Code) -> int:
    """How many whole slots there are."""
    return len(code) >> 3


def opcodes(code: Code) -> bytes:
    """The first byte of every slot; the second slot of ``ldimm64`` shows as 0."""
    return bytes(code[::SLOT_SIZE])


def opcode(code: Code, index: int) -> int:
    """The opcode, 0 to 255."""
    return code[index << 3]


def dst_src(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> tuple[int, int]:
    """The destination and the source register."""
    registers = code[(index << 3) + 1]
    if byte_order == "little":
        return registers & 15, registers >> 4
    return registers >> 4, registers & 15


def get_src(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> int:
    """The source register, which for calls and ``ldimm64`` says what the immediate means."""
    registers = code[(index << 3) + 1]
    return registers >> 4 if byte_order == "little" else registers & 15


def get_off(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> int:
    """The offset, signed 16 bits."""
    value: int = _S16[byte_order].unpack_from(code, (index << 3) + 2)[0]
    return value


def get_imm(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> int:
    """The immediate, signed 32 bits."""
    value: int = _S32[byte_order].unpack_from(code, (index << 3) + 4)[0]
    return value


def get_imm64(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> int:
    """The constant of ``ldimm64``, unsigned 64 bits."""
    unpack = _U32[byte_order].unpack_from
    low: int = unpack(code, (index << 3) + 4)[0]
    high: int = unpack(code, (index << 3) + 12)[0]
    return high << 32 | low


def fields(code: Code, index: int, byte_order: ByteOrder = sys.byteorder) -> tuple[int, int, int, int, int]:
    """Opcode, destination, source, offset, immediate."""
    operation, registers, off, imm = _FIELDS[byte_order].unpack_from(code, index << 3)
    if byte_order == "little":
        return operation, registers & 15, registers >> 4, off, imm
    return operation, registers >> 4, registers & 15, off, imm


def set_opcode(code: bytearray, index: int, value: int) -> None:
    """Write the opcode."""
    code[index << 3] = value


def set_dst_src(code: bytearray, index: int, dst: int, src: int, byte_order: ByteOrder = sys.byteorder) -> None:
    """Write both registers."""
    code[(index << 3) + 1] = src << 4 | dst if byte_order == "little" else dst << 4 | src


def set_src(code: bytearray, index: int, src: int, byte_order: ByteOrder = sys.byteorder) -> None:
    """Write the source register, keep the destination."""
    position = (index << 3) + 1
    if byte_order == "little":
        code[position] = code[position] & 15 | src << 4
    else:
        code[position] = code[position] & 0xF0 | src


def set_off(code: bytearray, index: int, value: int, byte_order: ByteOrder = sys.byteorder) -> None:
    """Write the offset."""
    _U16[byte_order].pack_into(code, (index << 3) + 2, value & 0xFFFF)


def set_imm(code: bytearray, index: int, value: int, byte_order: ByteOrder = sys.byteorder) -> None:
    """Write the immediate."""
    _U32[byte_order].pack_into(code, (index << 3) + 4, value & 0xFFFFFFFF)


def set_imm64(code: bytearray, index: int, low: int, high: int, byte_order: ByteOrder = sys.byteorder) -> None:
    """Write both immediates of ``ldimm64``, for example a map's descriptor and an offset into its value."""
    pack = _U32[byte_order].pack_into
    pack(code, (index << 3) + 4, low & 0xFFFFFFFF)
    pack(code, (index << 3) + 12, high & 0xFFFFFFFF)


def set_call(code: bytearray, index: int, number: int, src: int = 0, byte_order: ByteOrder = sys.byteorder) -> None:
    """Make the slot a call of `number`, with every other field zero."""
    position = index << 3
    code[position : position + SLOT_SIZE] = bytes(SLOT_SIZE)
    code[position] = CALL
    set_src(code, index, src, byte_order)
    set_imm(code, index, number, byte_order)
