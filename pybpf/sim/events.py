"""Ring buffers and perf event arrays of the simulated kernel: what programs have sent."""

from __future__ import annotations

import errno

from pybpf.btf.codec import codec
from pybpf.errors import SimulationError
from pybpf.events.types import event_codec, named_type, value_type_of
from pybpf.sim.maps import SimMap
from pybpf.sim.memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf.reader import BTF
    from pybpf.mapspec import MapSpec
    from pybpf.sim.maps import World


class EventMap(SimMap):
    """Ring buffers and perf event arrays: what programs have sent.

    Attributes:
        records: the bytes of each, in order. Iterating gives them as values of the type that the map carries.
        lost: how many did not fit.
    """

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        super().__init__(world, spec, btf)
        self.records: list[bytes] = []
        self.lost = 0
        self._type = self._value
        if btf is not None and self._type is None:
            self._type, _ = event_codec(btf, spec.name, value_type=value_type_of(btf, spec))
        self._reserved: dict[int, Region] = {}
        self._used = 0
        self._is_ring = spec.is_ring

    def of(self, type_name: str) -> EventMap:
        """Take records from now on for values of the struct, union or typedef of that name. Gives the map itself."""
        if self._btf is None:
            raise SimulationError(f"map {self.name!r}: the object has no type information")
        self._type = codec(self._btf, named_type(self._btf, type_name))
        return self

    def output(self, data: bytes) -> int:
        if not self._room(len(data)):
            return -errno.EAGAIN
        self.records.append(data)
        return 0

    def reserve(self, size: int) -> int:
        """The address of a new record, or 0."""
        if not self._room(size):
            return 0
        region = self.world.memory.map(Region(f"record of {self.name!r}", bytearray(size)))
        self._reserved[region.base] = region
        return region.base

    def finish(self, address: int, submit: bool) -> None:
        """Raises SimulationError when no record was reserved there."""
        region = self._reserved.pop(address, None)
        if region is None:
            raise SimulationError(f"{address:#x} is no record that was reserved from {self.name!r}")
        self.world.memory.unmap(region)
        if submit:
            self.records.append(bytes(region.data))

    def owns(self, address: int) -> bool:
        return address in self._reserved

    @property
    def pending(self) -> int:
        """How many records are reserved and neither submitted nor discarded."""
        return len(self._reserved)

    def drop_pending(self) -> None:
        """Discard them, at the end of the run."""
        for address in list(self._reserved):
            self.finish(address, False)

    def _room(self, size: int) -> bool:
        needed = size + 15 & ~7
        if self._is_ring and self._used + needed >= self.max_entries:  # never full: it would look empty
            self.lost += 1
            return False
        self._used += needed
        return True

    def read(self) -> list[Any]:
        """Take the records out: as values where a type is known, else as bytes."""
        taken, self.records, self._used = self.records, [], 0
        made = self._type
        return [self._decode(made if made is None or len(one) >= made.size else None, one) for one in taken]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.read())

    def __len__(self) -> int:
        return len(self.records)
