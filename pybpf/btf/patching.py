"""Writing a resolved CO-RE relocation into its instruction.

Rules of this module:

* The number goes where the instruction's class keeps one: the immediate of arithmetic, the offset of a load or store,
  both halves of ``ldimm64``. No other class can be relocated.
* A number that the instruction should carry already is checked before it is replaced.
* A load or store of a field that has another size is given that size, where this reads the same number.

Source: tools/lib/bpf/relo_core.c of the Linux kernel.
"""

from __future__ import annotations

from pybpf.asm import slots
from pybpf.errors import RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.slots import ByteOrder
    from pybpf.btf.resolution import Resolution

POISON = 0xBAD2310
"""Number of the helper that poisoned instructions call; the verifier says ``invalid func unknown#195896080``."""

_MAX_OFFSET = 0x7FFF
_MASK64 = (1 << 64) - 1

# Parts of an opcode.
_CLASS = 0x07
_LD, _LDX, _ST, _STX, _ALU, _ALU64 = 0, 1, 2, 3, 4, 7
_REGISTER_SOURCE = 0x08
_SIZE = 0x18
_BYTES = {0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}
_SIZE_OF_BYTES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}


def patch(code: bytearray, index: int, resolution: Resolution, byte_order: ByteOrder) -> None:
    """Relocate the instruction at slot `index` in place.

    Raises:
        RelocationError: there is no such instruction, it is of a class that cannot be relocated, it does not carry the
            number expected, or the new one does not fit.
    """
    if not 0 <= index < slots.count(code):
        raise RelocationError(f"the function has only {slots.count(code)} instructions")
    opcode = code[index << 3]
    if opcode == slots.LDIMM64 and index + 1 >= slots.count(code):
        raise RelocationError("ldimm64 without its second slot")
    if resolution.poison:
        _poison(code, index, byte_order)
        return
    instruction_class = opcode & _CLASS
    if instruction_class in (_LDX, _ST, _STX):
        _patch_memory(code, index, resolution, byte_order)
    elif instruction_class in (_ALU, _ALU64):
        if opcode & _REGISTER_SOURCE:
            raise RelocationError("the instruction has a register where the number belongs")
        _expect(resolution, slots.get_imm(code, index, byte_order))
        slots.set_imm(code, index, resolution.value, byte_order)
    elif opcode == slots.LDIMM64:
        _patch_constant(code, index, resolution, byte_order)
    else:
        raise RelocationError(f"an instruction with opcode 0x{opcode:02x} cannot be relocated")


def _patch_memory(code: bytearray, index: int, resolution: Resolution, byte_order: ByteOrder) -> None:
    _expect(resolution, slots.get_off(code, index, byte_order))
    value = resolution.value
    if value > _MAX_OFFSET:
        raise RelocationError(f"offset {value} does not fit a load or store (at most {_MAX_OFFSET})")
    if resolution.bad_size:
        _poison(code, index, byte_order)
        return
    slots.set_off(code, index, value, byte_order)
    if resolution.original_size != resolution.new_size:
        opcode = slots.opcode(code, index)
        size = _BYTES[opcode & _SIZE]
        if size != resolution.original_size:
            raise RelocationError(f"the instruction takes {size} bytes, the field has {resolution.original_size}")
        new = _SIZE_OF_BYTES.get(resolution.new_size)
        if new is None:
            raise RelocationError(f"the kernel's field has {resolution.new_size} bytes, which no load takes")
        slots.set_opcode(code, index, opcode & ~_SIZE | new)


def _patch_constant(code: bytearray, index: int, resolution: Resolution, byte_order: ByteOrder) -> None:
    _, _, src, off, _ = slots.fields(code, index, byte_order)
    second = (index + 1) * slots.SLOT_SIZE
    if src or off or any(code[second : second + 4]):
        raise RelocationError("ldimm64 does not hold a plain number")
    _expect(resolution, slots.get_imm64(code, index, byte_order))
    slots.set_imm64(code, index, resolution.value, resolution.value >> 32, byte_order)


def _expect(resolution: Resolution, found: int) -> None:
    if resolution.validate and found & _MASK64 != resolution.original:
        raise RelocationError(f"the instruction holds {found}, not {resolution.original}")


def _poison(code: bytearray, index: int, byte_order: ByteOrder) -> None:
    if slots.opcode(code, index) == slots.LDIMM64:
        slots.set_call(code, index + 1, POISON, byte_order=byte_order)
    slots.set_call(code, index, POISON, byte_order=byte_order)
