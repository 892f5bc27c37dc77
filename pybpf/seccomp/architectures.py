"""Architectures and their system calls by name.

Rules of this module:

* An architecture is what seccomp calls one: AUDIT_ARCH_..., and for x32, which shares that of x86-64, a bit of the
  number.
* Names are the kernel's (asm/unistd.h). One that an architecture has not is no mistake if another one has it.
"""

from __future__ import annotations

import sys

from pybpf.seccomp.numbers import ARCHITECTURES, SYSTEM_CALLS, X32_BIT

_ALIASES = {"arm64": "aarch64", "amd64": "x86_64", "i486": "i386", "i586": "i386", "i686": "i386", "ppc64el": "ppc64le"}
_LITTLE_ENDIAN_BIT = 0x40000000
"""__AUDIT_ARCH_LE of linux/audit.h."""


class Architecture:
    """One architecture.

    Attributes:
        name: ``"x86_64"``, ``"aarch64"`` ...
        audit: AUDIT_ARCH_..., what struct seccomp_data says.
        byte_order: ``"little"`` or ``"big"``.
        numbers: name of a system call -> its number.
    """

    __slots__ = ("_names", "audit", "byte_order", "name", "numbers")

    def __init__(self, name: str) -> None:
        """
        Raises:
            ValueError: it is not known.
        """
        name = _ALIASES.get(name, name)
        if name not in ARCHITECTURES:
            raise ValueError(f"there is no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
        table, self.audit = ARCHITECTURES[name]
        self.name = name
        self.byte_order = "little" if self.audit & _LITTLE_ENDIAN_BIT else "big"
        self.numbers: dict[str, int] = {}
        following = 0
        for word in SYSTEM_CALLS[table].split():
            if word.isdecimal():
                following = int(word)
            else:
                self.numbers[word] = following
                following += 1
        self._names = {number: name for name, number in reversed(self.numbers.items())}

    def call_name(self, number: int) -> str:
        """The name of a system call; its number in digits when there is none."""
        return self._names.get(number, str(number))

    def __repr__(self) -> str:
        return f"<Architecture {self.name} {self.audit:#x} {len(self.numbers)} system calls>"


def native() -> str:
    """The name of this process's architecture.

    Raises:
        ValueError: it is not known.
    """
    from pybpf.syscall.sysno import MACHINE

    if sys.byteorder == "little" and MACHINE.startswith(("ppc64", "mips")):
        name = MACHINE + ("le" if MACHINE.startswith("ppc64") else "el")
    else:
        name = MACHINE
    return Architecture(name).name


def audit_name(audit: int, number: int = 0) -> str:
    """The name of an architecture by AUDIT_ARCH_... and the number of a call."""
    for name, (_, value) in ARCHITECTURES.items():
        if value == audit and (name == "x32") == bool(name in ("x32", "x86_64") and number & X32_BIT):
            return name
    return f"{audit:#x}"


def is_call(name: str) -> bool:
    """Whether any architecture has a system call of this name."""
    return any(name in table.split() for table in SYSTEM_CALLS.values())
