"""Maps without keys: queue, stack, bloom filter."""

from __future__ import annotations

from pybpf import syscall
from pybpf.constants import (
    BPF_ANY,
    BPF_EXIST,
    BPF_MAP_TYPE_BLOOM_FILTER,
    BPF_MAP_TYPE_QUEUE,
    BPF_MAP_TYPE_STACK,
)
from pybpf.maps.base import PREPARING, Map
from pybpf.maps.face import Face, value_face

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.syscall import ElementCalls


class KeylessMap(Map):
    """What maps without keys share."""

    __slots__ = ("_calls", "_face")
    required = ("value", "max_entries")

    _calls: ElementCalls
    _face: Face

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in ("_calls", "_face"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with PREPARING:
                if not self._is_prepared():  # another thread may have been quicker
                    number = self.fileno()
                    self._face = value_face(self.value_codec, self.value_size, self._where("value"))
                    self._calls = syscall.ElementCalls(number, 0, self.value_size, explain=self._explainer())
            return object.__getattribute__(self, name)

    def _is_prepared(self) -> bool:
        try:
            object.__getattribute__(self, "_calls")
        except AttributeError:
            return False
        return True

    def _release(self) -> None:
        if self._is_prepared():
            self._calls.close(self._fd)

    def push(self, value: Any, *, flags: int = BPF_ANY) -> None:
        """Add a value.

        Raises:
            BPFError: E2BIG: the map is full.
            TypeError, ValueError, OverflowError: the value does not fit its type.
        """
        self._calls.update(None, self._face.encode(value), flags)


class Queue(KeylessMap):
    """BPF_MAP_TYPE_QUEUE (Linux 4.20): first in, first out."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_QUEUE

    def push(self, value: Any, *, replace: bool = False, flags: int = BPF_ANY) -> None:
        """Add a value.

        Args:
            replace: when the map is full, drop the oldest value (BPF_EXIST).

        Raises:
            BPFError: E2BIG: the map is full.
            TypeError, ValueError, OverflowError: the value does not fit its type.
        """
        super().push(value, flags=flags | BPF_EXIST if replace else flags)

    def peek(self) -> Any:
        """The value that `pop()` would give; it stays. Raises IndexError when the map is empty."""
        return self._decode(self._calls.lookup(None))

    def pop(self) -> Any:
        """Take the next value out. Raises IndexError when the map is empty."""
        return self._decode(self._calls.lookup_and_delete(None))

    def drain(self) -> list[Any]:
        """Take out all values, in the order in which they come."""
        values: list[Any] = []
        while len(values) < self.max_entries:
            data = self._calls.lookup_and_delete(None)
            if data is None:
                break
            values.append(self._face.decode(data))
        return values

    def _decode(self, data: bytes | None) -> Any:
        if data is None:
            raise IndexError(f"{self!r} is empty")
        return self._face.decode(data)


class Stack(Queue):
    """BPF_MAP_TYPE_STACK (Linux 4.20): last in, first out."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_STACK


class BloomFilter(KeylessMap):
    """BPF_MAP_TYPE_BLOOM_FILTER (Linux 5.16): ``value in m`` may be wrongly true, never wrongly false."""

    __slots__ = ()
    default_type = BPF_MAP_TYPE_BLOOM_FILTER

    def add(self, value: Any) -> None:
        """Add a value, as `push` does."""
        self.push(value)

    def __contains__(self, value: object) -> bool:
        return self._calls.contains(self._face.encode(value))
