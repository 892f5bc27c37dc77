"""The printf of the kernel, as far as bpf_trace_printk() and bpf_snprintf() go.

Source: bpf_bprintf_prepare() in kernel/bpf/helpers.c; Documentation/core-api/printk-formats.rst.
"""

from __future__ import annotations

import re

from pybpf.errors import SimulationError
from pybpf.sim.cpu import MASK32, MASK64, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.sim.memory import Memory

_SPECIFIER = re.compile(
    rb"%(?:%|([-0 +]*)([1-9]\d*)?(?:(p(?:[iI][46]|ks|us|[KxBsS]|(?![A-Za-z0-9]))|[sc])|(ll?)?([diuxX]))|(?P<bad>))"
)


def format_text(text: bytes, values: Sequence[int | None], memory: Memory) -> bytes | None:
    """The text with its values; None where the kernel refuses it (EINVAL): more values are wanted than there are, or
    there is a specifier that it does not know, such as ``%#x``, ``%.3d`` or ``%hhd``.

    A value that is None, of a register that nobody has written to, is shown as ``?``.

    Raises:
        SimulationError: the bytes of an address are not there.
    """
    found = list(_SPECIFIER.finditer(text))
    if any(one["bad"] is not None for one in found) or sum(one[0] != b"%%" for one in found) > len(values):
        return None
    left = iter(values)

    def one(found: re.Match[bytes]) -> bytes:
        flags, width, pointer, length, number, _ = found.groups()
        kind = pointer or number
        if kind is None:
            return b"%"
        value = next(left)
        if value is None:
            return b"?"
        return _padded(_shown(kind, length, flags, value, memory), flags, width)

    return _SPECIFIER.sub(one, text)


def _shown(kind: bytes, length: bytes | None, flags: bytes, value: int, memory: Memory) -> bytes:
    if kind in (b"s", b"pks", b"pus"):
        try:
            return memory.read_text(value, 512)
        except SimulationError:  # the kernel reads it as bpf_probe_read_kernel_str() does
            return b""
    if kind == b"c":
        return bytes([value & 0xFF])
    if kind in (b"pI4", b"pi4"):
        form = "{}" if kind == b"pI4" else "{:03}"
        return ".".join(map(form.format, memory.read(value, 4))).encode()
    if kind in (b"pI6", b"pi6"):
        data = memory.read(value, 16).hex()
        separator = ":" if kind == b"pI6" else ""
        return separator.join(data[at : at + 4] for at in range(0, 32, 4)).encode()
    if kind.startswith(b"p"):
        return f"{value & MASK64:016x}".encode()
    bits, mask = (64, MASK64) if length else (32, MASK32)
    if kind in b"di":
        number = signed(value, bits)
        sign = "" if number < 0 else "+" if b"+" in flags else " " if b" " in flags else ""
        return f"{sign}{number}".encode()
    number = value & mask
    if kind == b"u":
        return str(number).encode()
    return (f"{number:x}" if kind == b"x" else f"{number:X}").encode()


def _padded(text: bytes, flags: bytes, width: bytes | None) -> bytes:
    size = int(width or 0)
    if b"-" in flags:
        return text.ljust(size)
    return text.zfill(size) if b"0" in flags else text.rjust(size)
