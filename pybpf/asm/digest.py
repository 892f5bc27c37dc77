"""The digest by which an exclusive map knows the program that may use it.

Source: bpf_prog_compute_hash() of libbpf; bpf_prog_calc_tag() of kernel/bpf/core.c, which must come to the same.
"""

from __future__ import annotations

import sys

from pybpf.asm.slots import LDIMM64, SLOT_SIZE, get_src, opcodes, set_imm
from pybpf.constants import BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.slots import ByteOrder, Code


class AnyMap:
    """Stands for a map whose descriptor does not matter."""

    def fileno(self) -> int:
        return 0


ANY_MAP = AnyMap()


def program_digest(code: Code, byte_order: ByteOrder = sys.byteorder) -> bytes:
    """The SHA-256 of a program's final instructions, 32 bytes, with every reference to a map left out.

    Descriptors of maps, and offsets into their values, count as zero: they differ from load to load.
    """
    from hashlib import sha256

    purged = bytearray(code)
    operations = opcodes(purged)
    index = operations.find(LDIMM64)
    while index >= 0:
        if get_src(purged, index, byte_order) in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE):
            set_imm(purged, index, 0, byte_order)
            if (index + 2) * SLOT_SIZE <= len(purged):
                set_imm(purged, index + 1, 0, byte_order)
        index = operations.find(LDIMM64, index + 2)
    return sha256(purged).digest()
