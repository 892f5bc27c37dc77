"""Instruction arrays: where programs may jump to."""

from __future__ import annotations

import struct

from pybpf.constants import BPF_MAP_TYPE_INSN_ARRAY
from pybpf.maps.array import IndexedMap
from pybpf.maps.face import Face, check_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_VALUE = struct.Struct("=III4x")


class InsnFace(Face):
    """Where an instruction is (struct bpf_insn_array_value): in the program as it was loaded, as it was changed by the
    verifier, and in machine code. Only the first is written, as a number.
    """

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return check_bytes(value, self.size, self.where)
        try:
            return _VALUE.pack(value[0] if isinstance(value, tuple) else value, 0, 0)
        except (struct.error, IndexError):
            raise ValueError(f"{self.where} takes the number of an instruction, not {value!r}") from None

    def decode(self, data: bytes) -> tuple[int, int, int]:
        original, translated, jitted = _VALUE.unpack(data)
        return original, translated, jitted

    def run(self, buffer: memoryview, count: int) -> Iterable[tuple[int, int, int]]:
        return map(self.decode, super().run(buffer, count))


class InsnArray(IndexedMap):
    """BPF_MAP_TYPE_INSN_ARRAY (Linux 6.19): a jump table.

    A value is (instruction, instruction after the verifier, offset in the machine code); it is written as the number of
    the instruction. The array has to be frozen before a program that uses it is loaded.

    Source: kernel/bpf/bpf_insn_array.c.
    """

    __slots__ = ()
    default_type = BPF_MAP_TYPE_INSN_ARRAY
    default_value_size = _VALUE.size
    is_array = True

    def _value_face(self) -> Face:
        return InsnFace(self.value_size, self._where("value")) if self.value_size == 16 else super()._value_face()
