"""What a forked child has anew.

Only the thread that forks lives on in the child. What others were in the middle of never ends there: a lock that one
of them held would stay held, and a descriptor that one had borrowed would never be given back.
"""

from __future__ import annotations

import os
from _thread import RLock
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Inherited(Protocol):
        """Anything that a child has to be told."""

        def forked(self) -> None:
            """This is a child, and this the thread that has forked."""


_INHERITED: dict[int, ref[Any]] = {}


def tell_children(one: Inherited) -> None:
    """Call its `forked` in each child that is forked, as long as it lives. It has to be weakly referable."""
    key = id(one)
    _INHERITED[key] = ref(one, lambda _: _INHERITED.pop(key, None))


def _tell() -> None:
    for known in list(_INHERITED.values()):
        one = known()
        if one is not None:
            one.forked()


os.register_at_fork(after_in_child=_tell)


class ForkLock(RLock):  # type: ignore[misc]  # it is not final
    """A reentrant lock that a forked child has free, unless the thread that forked holds it.

    It is for ``with``, and an interrupt (an exception that a signal handler raises) never leaves it held.
    """

    __slots__ = ()

    def __init__(self) -> None:
        tell_children(self)

    def __enter__(self) -> bool:  # type: ignore[override]
        # Python 3.14 looks for signals between the end of a built-in `__enter__` and the beginning of the block.
        try:
            return self.acquire()
        except BaseException:
            any(map(RLock.release, filter(RLock._is_owned, (self,))))  # type: ignore[attr-defined]
            raise

    def forked(self) -> None:
        if not self._is_owned():  # type: ignore[attr-defined]
            self._at_fork_reinit()  # type: ignore[attr-defined]
