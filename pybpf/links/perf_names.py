"""The names of perf events, as perf-list(1) has them, and their type and config in perf_event_attr.

| name | event |
|---|---|
| ``cpu-clock``, ``page-faults`` ... | software |
| ``cpu-cycles``, ``instructions`` ... | hardware, the same on every machine |
| ``L1-dcache-loads``, ``LLC-load-misses``, ``dTLB-store-misses`` ... | caches |
| ``r1a8`` | raw: the number in hexadecimal that the machine's manual gives |

Source: perf_event_open(2); tools/perf/util/parse-events.l and evsel.c of the kernel.
"""

from __future__ import annotations

from pybpf import constants as c

EVENTS = {
    "cpu-clock": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_CLOCK),
    "task-clock": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_TASK_CLOCK),
    "page-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS),
    "minor-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS_MIN),
    "major-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS_MAJ),
    "context-switches": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CONTEXT_SWITCHES),
    "cpu-migrations": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_MIGRATIONS),
    "alignment-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_ALIGNMENT_FAULTS),
    "emulation-faults": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_EMULATION_FAULTS),
    "cgroup-switches": (c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CGROUP_SWITCHES),
    "cpu-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CPU_CYCLES),
    "instructions": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_INSTRUCTIONS),
    "cache-references": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CACHE_REFERENCES),
    "cache-misses": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_CACHE_MISSES),
    "branch-instructions": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    "branch-misses": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BRANCH_MISSES),
    "bus-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_BUS_CYCLES),
    "stalled-cycles-frontend": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_STALLED_CYCLES_FRONTEND),
    "stalled-cycles-backend": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_STALLED_CYCLES_BACKEND),
    "ref-cycles": (c.PERF_TYPE_HARDWARE, c.PERF_COUNT_HW_REF_CPU_CYCLES),
}
"""Event name: type and config of perf_event_attr."""

CACHES = {
    "L1-dcache": c.PERF_COUNT_HW_CACHE_L1D,
    "L1-icache": c.PERF_COUNT_HW_CACHE_L1I,
    "LLC": c.PERF_COUNT_HW_CACHE_LL,
    "dTLB": c.PERF_COUNT_HW_CACHE_DTLB,
    "iTLB": c.PERF_COUNT_HW_CACHE_ITLB,
    "branch": c.PERF_COUNT_HW_CACHE_BPU,
    "node": c.PERF_COUNT_HW_CACHE_NODE,
}
OPERATIONS = {
    "load": c.PERF_COUNT_HW_CACHE_OP_READ,
    "store": c.PERF_COUNT_HW_CACHE_OP_WRITE,
    "prefetch": c.PERF_COUNT_HW_CACHE_OP_PREFETCH,
}
PLURALS = {"loads": "load", "stores": "store", "prefetches": "prefetch"}

ACCESS = {"r": c.HW_BREAKPOINT_R, "w": c.HW_BREAKPOINT_W, "rw": c.HW_BREAKPOINT_RW, "x": c.HW_BREAKPOINT_X}
"""What a breakpoint waits for: reading, writing, either, execution."""


def event_numbers(name: str) -> tuple[int, int]:
    """Type and config of the event of this name.

    >>> event_numbers("LLC-load-misses")
    (3, 65538)

    Raises:
        ValueError: there is no such name.
    """
    if name in EVENTS:
        return EVENTS[name]
    if name[:1] == "r" and name[1:]:
        try:
            return c.PERF_TYPE_RAW, int(name[1:], 16)
        except ValueError:
            pass
    for cache, number in CACHES.items():
        if name.startswith(f"{cache}-"):
            operation, _, result = name[len(cache) + 1 :].partition("-")
            if not result and operation in PLURALS:
                return _cache(number, PLURALS[operation], c.PERF_COUNT_HW_CACHE_RESULT_ACCESS)
            if result == "misses" and operation in OPERATIONS:
                return _cache(number, operation, c.PERF_COUNT_HW_CACHE_RESULT_MISS)
    forms = f"{', '.join(CACHES)} with -loads, -load-misses, -stores ... behind it; r and a number in hexadecimal"
    raise ValueError(f"unknown event {name!r}; known are {', '.join(EVENTS)}; {forms}")


def _cache(cache: int, operation: str, result: int) -> tuple[int, int]:
    return c.PERF_TYPE_HW_CACHE, cache | OPERATIONS[operation] << 8 | result << 16
