"""What instructions written in Python act on: registers and places in memory.

    >>> from pybpf.asm import r1, r10, u64, w0
    >>> u64[r10 - 8]
    *(u64 *)(r10 - 8)

Rules of this module:

* ``r0`` to ``r10`` are the whole registers, ``w0`` to ``w10`` their lower halves: writing to ``w`` clears the rest.
* ``u8[...]`` to ``u64[...]`` name memory; ``s8[...]``, ``s16[...]``, ``s32[...]`` can only be loaded from.
"""

from __future__ import annotations

from pybpf.asm.opcodes import SIGNED_SIZE, UNSIGNED_SIZE
from pybpf.errors import ObjectError


class Register:
    """A register. Attributes: number, 0 to 11; bits, 64 or 32."""

    __slots__ = ("bits", "number")

    def __init__(self, number: int, bits: int = 64) -> None:
        self.number = number
        self.bits = bits

    def __add__(self, distance: int) -> Address:
        if self.bits != 64:
            raise ObjectError(f"{self} is half a register, which holds no address")
        return Address(self, distance)

    def __sub__(self, distance: int) -> Address:
        return self + -distance

    def __repr__(self) -> str:
        return f"{'r' if self.bits == 64 else 'w'}{self.number}"


class Address:
    """A register and a distance from it in bytes, as ``r10 - 8`` gives."""

    __slots__ = ("distance", "register")

    def __init__(self, register: Register, distance: int) -> None:
        self.register = register
        self.distance = distance

    def __repr__(self) -> str:
        return f"{self.register} {'-' if self.distance < 0 else '+'} {abs(self.distance)}"


class Memory:
    """A place in memory: ``u32[r1 + 4]``. Attributes: width; base, the register's number; off, in bytes."""

    __slots__ = ("base", "off", "width")

    def __init__(self, width: Width, base: int, off: int) -> None:
        self.width = width
        self.base = base
        self.off = off

    def __repr__(self) -> str:
        return f"*({self.width} *)(r{self.base} {'-' if self.off < 0 else '+'} {abs(self.off)})"


class Width:
    """How wide a place in memory is, and whether it is signed. Indexing it gives the `Memory` there.

    Attributes: name, ``"u32"``; size, the bits of the opcode (BPF_W ...); signed.
    """

    __slots__ = ("name", "signed", "size")

    def __init__(self, name: str, size: int, signed: bool) -> None:
        self.name = name
        self.size = size
        self.signed = signed

    def __getitem__(self, place: Address | Register) -> Memory:
        address = place if isinstance(place, Address) else place + 0
        return Memory(self, address.register.number, address.distance)

    def __repr__(self) -> str:
        return self.name


_UNSIGNED = {name: Width(name, size, False) for size, name in UNSIGNED_SIZE.items()}
_SIGNED = {name: Width(name, size, True) for size, name in SIGNED_SIZE.items()}

WIDTHS = _UNSIGNED | _SIGNED
"""Name -> width."""
u8, u16, u32, u64 = (_UNSIGNED[name] for name in ("u8", "u16", "u32", "u64"))
s8, s16, s32 = (_SIGNED[name] for name in ("s8", "s16", "s32"))

WHOLE = tuple(Register(number) for number in range(12))
HALVES = tuple(Register(number, 32) for number in range(12))
"""Register 11 is no register of its own: with Linux 7 it stands for the arguments that are on the stack."""
r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11 = WHOLE
w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, _ = HALVES
