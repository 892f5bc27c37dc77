"""The machine's CPUs, as the kernel counts them for per-CPU values (Documentation/admin-guide/cputopology.rst)."""

from __future__ import annotations

import os

_possible = 0


def cpu_list(kind: str) -> tuple[int, ...]:
    """The CPUs that are "possible", "present" or "online"."""
    with open(f"/sys/devices/system/cpu/{kind}") as file:
        return parse_cpu_list(file.read())


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """``"0-2,5"`` gives ``(0, 1, 2, 5)``."""
    found: list[int] = []
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return tuple(found)


def possible_cpus() -> int:
    """How many CPUs this machine may ever have: how many values a per-CPU element has. Not os.cpu_count()."""
    global _possible
    if not _possible:
        try:
            _possible = len(cpu_list("possible"))
        except FileNotFoundError:  # no /sys
            _possible = os.sysconf("SC_NPROCESSORS_CONF")
    return _possible
