"""LoadedMaps: the maps of one object by name, each made into a `Map` when it is first asked for.

A program uses some of its object's maps from Python, rarely all. Those it does not use cost a descriptor each, and
neither their types nor the modules of their families are looked at: that is 2 ms in a load of ten maps.
"""

from __future__ import annotations

from _collections_abc import Mapping

from pybpf.forks import ForkLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pybpf.links.usdt import UsdtSpecs
    from pybpf.maps.base import Map
    from pybpf.syscall.fd import FD

    _Mapping = Mapping[str, Any]
else:
    _Mapping = Mapping


class LoadedMaps(_Mapping):
    """A mapping of names to maps, in the order in which they were made.

    Which subclass of `Map` each one is, only the object file says; so type checkers are told Any.

    Attributes:
        fds: the descriptor of each, by name.
        lock: to be held while what is made on demand is made.
        usdt: which specs of USDT probes are in use; None before the first such attachment.
    """

    __slots__ = ("_made", "_makers", "fds", "lock", "usdt")

    def __init__(self) -> None:
        self.fds: dict[str, FD] = {}
        self._makers: dict[str, Callable[[], Map]] = {}
        self._made: dict[str, Map] = {}
        self.lock = ForkLock()
        self.usdt: UsdtSpecs | None = None

    def add(self, name: str, fd: FD, make: Callable[[], Map]) -> None:
        """Own a descriptor. `make` gives the map over it, which owns it from then on."""
        self.fds[name] = fd
        self._makers[name] = make

    def discard(self, name: str) -> None:
        """Close a map and forget it."""
        self.fds.pop(name).close()
        self._makers.pop(name, None)
        self._made.pop(name, None)

    def __getitem__(self, name: str) -> Any:
        """The map. Raises KeyError; BTFError when the types of its keys and values are malformed."""
        made = self._made.get(name)
        if made is None:
            with self.lock:
                made = self._made.get(name)
                if made is None:
                    made = self._made[name] = self._makers[name]()
                    del self._makers[name]
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self.fds)

    def __len__(self) -> int:
        return len(self.fds)

    def __contains__(self, name: object) -> bool:
        return name in self.fds

    def close(self) -> None:
        """Close every map, and the readers of those that carry events. May be called twice."""
        for made in list(self._made.values()):
            made.close()
        for fd in self.fds.values():
            fd.close()

    def __repr__(self) -> str:
        return f"<LoadedMaps {', '.join(self.fds) or 'none'}>"
