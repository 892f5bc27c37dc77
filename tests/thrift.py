"""How much the costly tests do: everything, or little where the machine is emulated (PYBPF_EMULATED=1).

An emulated guest runs Python some twenty times slower. What a property test would find by its thousandth example the
host finds; in the guest the first few show that the code works on that kernel, that architecture and that Python.
"""

from __future__ import annotations

import os

EMULATED = bool(os.environ.get("PYBPF_EMULATED"))


def few(number: int) -> int:
    """The number, or a twentieth of it (at least two) where the machine is emulated."""
    return max(number // 20, 2) if EMULATED else number
