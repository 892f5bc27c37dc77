"""What `keys`, `values` and `items` of a map give."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class View:
    """The keys, values or items of a map: an iterable without a length. Each iteration reads the map anew."""

    __slots__ = ("_iterate", "_options")

    def __init__(self, iterate: Callable[..., Iterator[Any]], **options: int) -> None:
        self._iterate = iterate
        self._options = options

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(**self._options)

    def __contains__(self, wanted: object) -> bool:
        return any(found == wanted for found in self)

    def __repr__(self) -> str:
        return f"<view of {self._iterate.__self__!r}>"  # type: ignore[attr-defined]  # a bound method has it
