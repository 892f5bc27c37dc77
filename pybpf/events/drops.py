"""Losses of ring buffers, which only the program can count: its ``bpf_ringbuf_reserve()`` gave NULL.

The convention: a global variable ``dropped_MAP`` counts the records of the ring buffer ``MAP`` that found no room. It
is an unsigned integer, a per-CPU one, or an array; what there are several of is added up. In an object with one ring
buffer ``dropped_events`` counts for that one, whatever its name. ``kernels/bpf_helpers.h`` has macros for it, which
`docs/objects.md` shows: DROP_COUNTER_OF(), COUNT_DROP_OF(), RESERVE(), OUTPUT().
"""

from __future__ import annotations

from pybpf.constants import BPF_MAP_TYPE_RINGBUF
from pybpf.errors import BPFError, ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pybpf.elf.data import Variable
    from pybpf.maps.base import Map
    from pybpf.spec import ObjectSpec

GENERAL = "dropped_events"
"""The counter of the only ring buffer of an object."""


def counter_name(spec: ObjectSpec, ring: str) -> str:
    """The variable that counts the drops of a ring buffer, an empty string when there is none."""
    own = f"dropped_{ring}"
    if own in spec.variables:
        return own
    rings = [one for one in spec.maps.values() if one.type_number == BPF_MAP_TYPE_RINGBUF]
    return GENERAL if GENERAL in spec.variables and len(rings) == 1 else ""


def total(count: Any) -> int | None:
    """The value of a counter as one number; None when it is of no such type."""
    if not isinstance(count, list):
        return count if isinstance(count, int) else None
    numbers = [total(one) for one in count]
    return None if None in numbers else sum(number or 0 for number in numbers)


class DropCounter:
    """Reads the counter of one ring buffer of a loaded object. Calling it gives the count, None when there is none.

    The object's descriptors belong to the object: when it is closed, the last count that was read stays.
    """

    __slots__ = ("_last", "_maps", "_ring", "_spec", "_variable")

    def __init__(self, spec: ObjectSpec, maps: Mapping[str, Map], ring: str) -> None:
        self._spec = spec
        self._maps = maps
        self._ring = ring
        self._variable: Variable | None = None
        self._last: int | None = None

    def __call__(self) -> int | None:
        if self._variable is None:
            name = counter_name(self._spec, self._ring)
            if not name:
                return None
            self._variable = self._spec.variables[name]
        try:
            self._last = self._read(self._variable)
        except (BPFError, ClosedError, KeyError):  # the object is closed, or its data map was not made
            pass
        return self._last

    def _read(self, variable: Variable) -> int | None:
        from pybpf.btf.codec import codec
        from pybpf.live_globals import read_variable

        assert self._spec.btf is not None  # variables come from BTF
        return total(read_variable(variable, self._maps[variable.map], codec(self._spec.btf, variable.type_id)))
