"""The printf of the kernel, as far as bpf_trace_printk() and bpf_snprintf() go.

Source: bpf_bprintf_prepare() in kernel/bpf/helpers.c; Documentation/core-api/printk-formats.rst.
"""

from __future__ import annotations

import re

from pybpf.sim.cpu import MASK32, MASK64, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.sim.memory import Memory

_SPECIFIER = re.compile(rb"%(?:%|([-0 +#]*)(\d*)(?:\.\d+)?(hh|h|ll|l)?(p(?:I4|I6|i4|i6|K|x|B|s|S)?|[diuxXsc]))")
_WIDTHS = {b"hh": 8, b"h": 16, b"l": 64, b"ll": 64, None: 32}


def format_text(text: bytes, values: Sequence[int | None], memory: Memory) -> bytes:
    """The text with its values. One that is missing is shown as ``?``.

    Raises:
        SimulationError: a string or an address is not there.
    """
    left = iter(values)

    def one(found: re.Match[bytes]) -> bytes:
        flags, width, length, kind = found.groups()
        if kind is None:
            return b"%"
        value = next(left, None)
        if value is None:
            return b"?"
        return _padded(_shown(kind, length, flags, value, memory), flags, width)

    return _SPECIFIER.sub(one, text)


def _shown(kind: bytes, length: bytes | None, flags: bytes, value: int, memory: Memory) -> bytes:
    if kind == b"s":
        return memory.read_text(value, 512) if value else b"(null)"
    if kind == b"c":
        return bytes([value & 0xFF])
    if kind in (b"pI4", b"pi4"):
        return ".".join(map(str, memory.read(value, 4))).encode()
    if kind in (b"pI6", b"pi6"):
        data = memory.read(value, 16).hex()
        separator = ":" if kind == b"pI6" else ""
        return separator.join(data[at : at + 4] for at in range(0, 32, 4)).encode()
    if kind.startswith(b"p"):
        return f"{value & MASK64:016x}".encode()
    bits = _WIDTHS[length]
    mask = MASK32 if bits == 32 else (1 << bits) - 1
    if kind in b"di":
        return str(signed(value, bits)).encode()
    number = value & mask
    if kind == b"u":
        return str(number).encode()
    prefix = "0x" if b"#" in flags else ""
    return (prefix + (f"{number:x}" if kind == b"x" else f"{number:X}")).encode()


def _padded(text: bytes, flags: bytes, width: bytes) -> bytes:
    size = int(width or 0)
    if b"-" in flags:
        return text.ljust(size)
    return text.zfill(size) if b"0" in flags else text.rjust(size)
