"""System call numbers of this machine: bpf(2), perf_event_open(2), seccomp(2).

The table is generated (`numbers.py`); here is the choice of its row. What counts is the ABI of this process, not
that of the kernel: a 32-bit Python on a 64-bit kernel uses the 32-bit numbers.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from pybpf.syscall.numbers import SYSCALLS
from pybpf.syscall.numbers import UPROBE as X86_64_UPROBE

_NARROW = {
    "x86_64": "i386",
    "aarch64": "arm",
    "ppc64": "ppc",
    "sparc64": "sparc",
    "mips64": "mips",
    "parisc64": "parisc",
    "riscv64": "riscv32",
}
"""The ABI of 32-bit processes on machines whose kernel calls itself by a 64-bit name."""

_UNKNOWN = ("xtensa", "microblaze")
"""Machines with a table of their own that the generated table does not have."""


def abi_name(machine: str, pointer_size: int, multiarch: str = "") -> str:
    """The row of the table: ``("x86_64", 8)`` gives ``"x86_64"``, ``("armv7l", 4)`` gives ``"arm"``.

    Args:
        machine: as uname(2) gives it.
        pointer_size: 4 or 8 bytes, of this process.
        multiarch: the compiler's name of the ABI; it tells x32 from i386 and MIPS n32 from o32.
    """
    if multiarch.endswith("gnux32"):
        return "x32"
    if "abin32" in multiarch:
        return "mipsn32"
    if machine[0] == "i" and machine.endswith("86"):
        return "i386"
    for prefix in ("ppc64", "mips64", "aarch64", "arm", "sh"):
        if machine.startswith(prefix):
            machine = prefix
            break
    if pointer_size == 4:
        machine = _NARROW.get(machine, machine)
    if machine.startswith(_UNKNOWN):
        raise OSError(errno.ENOSYS, f"the system call numbers of {machine} are not known")
    return machine if machine in SYSCALLS else ""


MACHINE = abi_name(os.uname().machine, struct.calcsize("P"), getattr(sys.implementation, "_multiarch", ""))
"""The row of this process."""

BPF, PERF_EVENT_OPEN, SECCOMP = SYSCALLS[MACHINE]
UPROBE = X86_64_UPROBE if MACHINE == "x86_64" else None
