"""What `keys`, `values` and `items` of a map give."""

from __future__ import annotations

from _collections_abc import Set

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any


class View:
    """The keys, values or items of a map. Each iteration reads the map anew.

    There is no length, which would be one more reading, and no order.
    """

    __slots__ = ("_iterate", "_options")

    def __init__(self, iterate: Callable[..., Iterator[Any]], **options: int) -> None:
        self._iterate = iterate
        self._options = options

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(**self._options)

    def __contains__(self, wanted: object) -> bool:
        return any(found == wanted for found in self)

    __reversed__ = None

    def __repr__(self) -> str:
        return f"<view of {self._iterate.__self__!r}>"  # type: ignore[attr-defined]  # a bound method has it


class SetView(View):
    """The keys or items of a map, which are like a set: ``==``, ``&``, ``|``, ``-``, ``^`` read the map once."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]  # as of a dict's views

    def __eq__(self, other: object) -> bool:
        return set(self) == set(other) if isinstance(other, Set | SetView) else NotImplemented

    def __and__(self, other: Iterable[Any]) -> set[Any]:
        return set(self).intersection(other)

    def __or__(self, other: Iterable[Any]) -> set[Any]:
        return set(self).union(other)

    def __sub__(self, other: Iterable[Any]) -> set[Any]:
        return set(self).difference(other)

    def __xor__(self, other: Iterable[Any]) -> set[Any]:
        return set(self).symmetric_difference(other)

    def __rsub__(self, other: Iterable[Any]) -> set[Any]:
        return set(other).difference(self)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__
