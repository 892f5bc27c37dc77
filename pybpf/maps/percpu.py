"""`PerCPU`: the values that one element of a per-CPU map has, one for each possible CPU."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    _List = list[Any]
else:
    _List = list


class PerCPU(_List):
    """A list: its index is the CPU's number. There is one value for each possible CPU, online or not."""

    __slots__ = ()

    def sum(self) -> Any:
        """The sum over all CPUs: of numbers; of each item of arrays; of each field of records and objects.

        Raises:
            TypeError: there are values that have no sum in it: text, bytes, unions.
        """
        return total(self)


def total(values: Sequence[Any]) -> Any:
    """The sum of values of one type, of the same type."""
    first = values[0]
    if isinstance(first, (int, float)):
        return sum(values)
    if isinstance(first, tuple):  # a record, a NamedTuple
        return tuple.__new__(type(first), map(total, zip(*values, strict=True)))
    if isinstance(first, list):
        return [total(items) for items in zip(*values, strict=True)]
    if hasattr(first, "__dataclass_fields__"):
        from dataclasses import fields

        names = [field.name for field in fields(first)]
        return type(first)(**{name: total([getattr(value, name) for value in values]) for name in names})
    raise TypeError(f"values like {first!r} have no sum ({type(first).__name__})")
