"""Jump tables: where the indirect jumps of a program can go.

Rules of this module:

* An entry of ``.jumptables`` is the byte offset, in its ELF section, of the instruction to jump to. What the kernel
  wants is the index of that instruction in the linked program.
* The table belongs to the function that loads its address; a subprogram is placed anew in each program that calls it,
  so each program needs tables of its own.

Source: create_jt_map() of libbpf.
"""

from __future__ import annotations

from struct import unpack_from

from pybpf.elf.functions import INSTRUCTION_SIZE
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.elf.functions import Function
    from pybpf.elf.linking import Image
    from pybpf.elf.relocations import Relocation
    from pybpf.spec import ObjectSpec

ENTRY_SIZE = 8
U32_MAX = 0xFFFFFFFF


def jump_targets(spec: ObjectSpec, image: Image, index: int, relocation: Relocation) -> list[int]:
    """The instructions of a linked program that the table can lead to which the instruction at `index` loads.

    Raises:
        ObjectError: the table is malformed, or not all of it is in the file; the message names the function.
    """
    owner, start = _owner(image, index)
    where = f"function {owner.name!r}, instruction {index - start}: jump table"
    data = spec.jump_tables or b""
    offset, size = relocation.offset, relocation.size
    if offset % ENTRY_SIZE or size % ENTRY_SIZE or size == 0:
        raise ObjectError(f"{where}: {size} bytes at offset {offset} are not entries of {ENTRY_SIZE} bytes")
    if offset + size > len(data):
        raise ObjectError(f"{where}: it reaches over the end of .jumptables ({len(data)} bytes)")
    order = "<" if spec.byte_order == "little" else ">"
    distance = start - owner.start
    targets = [entry // INSTRUCTION_SIZE + distance for entry in unpack_from(f"{order}{size // 8}Q", data, offset)]
    if not all(0 <= target <= U32_MAX for target in targets):
        raise ObjectError(f"{where}: it leads out of the program")
    return targets


def _owner(image: Image, index: int) -> tuple[Function, int]:
    """The function that an instruction of a linked program is in, and its first instruction."""
    return next((function, start) for function, start in reversed(image.parts) if start <= index)
