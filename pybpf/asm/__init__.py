"""eBPF instructions: encode, decode, disassemble. Pure: bytes in, values out.

The loader needs only `pybpf.asm.slots`, so the rest is imported when it is first used.
"""

from __future__ import annotations

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


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # importlib.import_module() would do, but importing importlib costs 0.3 ms.
    value = getattr(__import__(f"{__name__}.{_MODULES[name]}", fromlist=(name,)), name)
    globals()[name] = value
    return value
