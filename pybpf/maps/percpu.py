"""`PerCPU`: the values that one element of a per-CPU map has, one for each possible CPU."""

from __future__ import annotations

from pybpf.btf.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _List = list[Any]
else:
    _List = list


class PerCPU(_List):
    """A list: its index is the CPU's number. There is one value for each possible CPU, online or not."""

    __slots__ = ()

    def sum(self) -> Any:
        """The sum over all CPUs: of numbers, or of each field of records.

        Raises:
            TypeError: the values are neither (text, bytes, records with other fields in them).
        """
        first = self[0]
        if isinstance(first, Record):
            return tuple.__new__(type(first), map(sum, zip(*self, strict=True)))
        return sum(self)
