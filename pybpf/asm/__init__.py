"""eBPF instructions: encode, decode, disassemble. Pure: bytes in, values out."""

from __future__ import annotations

from pybpf.asm.instruction import Instruction, decode, encode, swap

__all__ = ["Instruction", "decode", "disassemble", "encode", "swap"]


def __getattr__(name: str) -> object:
    if name == "disassemble":  # not needed on the load path
        from pybpf.asm.disasm import disassemble

        return disassemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
