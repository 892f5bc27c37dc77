"""eBPF instructions: encode, decode, disassemble. Pure: bytes in, values out.

The loader needs only `pybpf.asm.slots`, so the rest is imported when it is first used.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.disasm import disassemble
    from pybpf.asm.instruction import Instruction, decode, encode, swap

__all__ = ["Instruction", "decode", "disassemble", "encode", "swap"]

_MODULES = {
    "Instruction": "instruction",
    "decode": "instruction",
    "disassemble": "disasm",
    "encode": "instruction",
    "swap": "instruction",
}


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _MODULES)
