"""The maps of the simulated kernel: what programs see through helpers, and what Python sees.

Rules of this module:

* Programs' side: `lookup`, `update` and `delete` take bytes and give addresses or negated errno values, as the kernel's
  map operations do. Python's side: a mapping (hash kinds) or a sequence (array kinds) of typed values, as
  `pybpf.maps` has them.
* Each value lies in memory of its own. That of an element that was deleted stays readable until the run ends.
* An LRU map drops exactly its least recently used element, which the kernel does only roughly.
"""

from __future__ import annotations

import errno
from collections import OrderedDict

from pybpf import constants as c
from pybpf.btf.codec import codec
from pybpf.errors import SimulationError
from pybpf.sim.memory import Handle, Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.mapspec import MapSpec
    from pybpf.sim.memory import Memory


_FLAGS = frozenset({c.BPF_ANY, c.BPF_NOEXIST, c.BPF_EXIST})
"""Those of an update: BPF_F_LOCK needs a lock in the value, which is not simulated."""


class World:
    """What maps need of the simulated kernel: its memory, its number of CPUs, and on which of them programs run."""

    memory: Memory
    cpus: int
    _cpu = 0

    @property
    def cpu(self) -> int:
        """The CPU on which programs run. Setting it raises ValueError when there is none of that number."""
        return self._cpu

    @cpu.setter
    def cpu(self, number: int) -> None:
        if not 0 <= number < self.cpus:
            raise ValueError(f"there is no CPU {number}: the simulated kernel has {self.cpus}")
        self._cpu = number

    def forget(self, region: Region) -> None:
        """Take memory away when the run is over."""
        raise AssertionError("a subclass gives it")


class SimMap:
    """One map.

    Attributes:
        spec: what it was made from.
        handle: what a program's pointer to the map points to.
    """

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        self.world = world
        self.spec = spec
        self.name = spec.name
        self.key_size, self.value_size = spec.key_size, spec.value_size
        self.max_entries = spec.max_entries
        self.handle = Handle(f"map {spec.name!r}", self)
        world.memory.map(self.handle)
        self._btf = btf
        self._order = world.memory.byte_order
        self._key: Codec | None = None if btf is None or not spec.key_type_id else codec(btf, spec.key_type_id)
        typed = btf if spec.value_type_id and not spec.is_internal else None  # variables are read by name
        self._value: Codec | None = None if typed is None else codec(typed, spec.value_type_id)

    @property
    def type_number(self) -> int:
        """BPF_MAP_TYPE_..."""
        return self.spec.type_number

    def _title(self) -> str:
        return f"value of map {self.name!r}"

    def _new_value(self, data: bytes = b"") -> Region:
        return self.world.memory.map(Region(self._title(), bytearray(data.ljust(self.value_size, b"\0"))))

    # For programs

    def lookup(self, key: bytes) -> int:
        """The address of the value, or 0."""
        raise SimulationError(f"map {self.name!r} ({self.spec.type_name}) cannot be looked into by programs")

    def lookup_on(self, key: bytes, cpu: int) -> int:
        """Like `lookup` on another CPU."""
        if not 0 <= cpu < self.world.cpus:
            return 0
        before, self.world.cpu = self.world.cpu, cpu
        try:
            return self.lookup(key)
        finally:
            self.world.cpu = before

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        raise SimulationError(f"map {self.name!r} ({self.spec.type_name}) cannot be written to by programs")

    def delete(self, key: bytes) -> int:
        raise SimulationError(f"nothing can be deleted from map {self.name!r} ({self.spec.type_name})")

    def elements(self) -> Iterator[tuple[bytes, int]]:
        """The keys, and the addresses of their values, for bpf_for_each_map_elem()."""
        raise SimulationError(f"map {self.name!r} ({self.spec.type_name}) cannot be iterated over")

    # For Python

    def _encode(self, made: Codec | None, size: int, value: Any, what: str) -> bytes:
        if made is not None:
            return made.encode(value, f"{what} of map {self.name!r}")
        where = f"{what} of map {self.name!r}"
        if isinstance(value, int) and size in (1, 2, 4, 8):
            if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
                raise OverflowError(f"{where} has {size} bytes, {value} does not fit")
            return value.to_bytes(size, self._order, signed=value < 0)
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"{where} has no type information: it takes {size} bytes, not {value!r}")
        data = bytes(value)
        if len(data) != size:
            raise ValueError(f"{where} has {size} bytes, not {len(data)}")
        return data

    def _decode(self, made: Codec | None, data: bytes) -> Any:
        return data if made is None else made.decode(data)

    def __repr__(self) -> str:
        return f"<simulated {self.spec.type_name} {self.name!r}>"


class _Mapping(SimMap):
    """Python's side of maps with keys."""

    def _find(self, key: Any) -> bytes:
        return self._encode(self._key, self.key_size, key, "a key")

    def peek(self, key: bytes) -> int:
        """What `lookup` gives, without being a use of the element: so the system call finds it."""
        raise AssertionError("a subclass gives it")

    def _read(self, key: bytes) -> Any:
        """The value of a key that is there. Raises KeyError."""
        address = self.peek(key)
        if not address:
            raise KeyError
        return self._decode(self._value, self.world.memory.read(address, self.value_size))

    def keys_of(self) -> list[bytes]:
        raise AssertionError("a subclass gives it")

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._read(self._find(key))
        except KeyError:
            raise KeyError(key) from None

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        """Write with flags: BPF_NOEXIST, BPF_EXIST. Raises OSError as the kernel would refuse."""
        result = self.update(self._find(key), self._encode(self._value, self.value_size, value, "a value"), flags)
        if result < 0:
            raise OSError(-result, f"map {self.name!r}: {errno.errorcode.get(-result, str(result))}")

    def __delitem__(self, key: Any) -> None:
        if self.delete(self._find(key)) < 0:
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        return bool(self.peek(self._find(key)))

    def __iter__(self) -> Iterator[Any]:
        return iter([self._decode(self._key, key) for key in self.keys_of()])

    def __len__(self) -> int:
        return len(self.keys_of())

    def keys(self) -> list[Any]:
        return list(self)

    def values(self) -> list[Any]:
        return [self._read(key) for key in self.keys_of()]

    def items(self) -> list[tuple[Any, Any]]:
        return [(self._decode(self._key, key), self._read(key)) for key in self.keys_of()]

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def update_many(self, items: dict[Any, Any]) -> None:
        for key, value in items.items():
            self[key] = value


class HashMap(_Mapping):
    """Hash maps, plain and LRU."""

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        super().__init__(world, spec, btf)
        self._is_lru = spec.type_number in (c.BPF_MAP_TYPE_LRU_HASH, c.BPF_MAP_TYPE_LRU_PERCPU_HASH)
        self._slots: OrderedDict[bytes, list[Region]] = OrderedDict()

    def _slot(self, slot: list[Region]) -> Region:
        return slot[0]

    def _make(self, value: bytes) -> list[Region]:
        return [self._new_value(value)]

    def lookup(self, key: bytes) -> int:
        address = self.peek(key)
        if address and self._is_lru:
            self._slots.move_to_end(key)
        return address

    def peek(self, key: bytes) -> int:
        slot = self._slots.get(key)
        return 0 if slot is None else self._slot(slot).base

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        slot = self._slots.get(key)
        if flags not in _FLAGS:
            return -errno.EINVAL
        if flags == c.BPF_NOEXIST and slot is not None:
            return -errno.EEXIST
        if flags == c.BPF_EXIST and slot is None:
            return -errno.ENOENT
        if slot is not None:
            self._slot(slot).data[:] = value
            if self._is_lru:
                self._slots.move_to_end(key)
            return 0
        if len(self._slots) >= self.max_entries:
            if not self._is_lru:
                return -errno.E2BIG
            self.delete(next(iter(self._slots)))
        self._slots[key] = self._make(value)
        return 0

    def delete(self, key: bytes) -> int:
        slot = self._slots.pop(key, None)
        if slot is None:
            return -errno.ENOENT
        for region in slot:
            self.world.forget(region)
        return 0

    def elements(self) -> Iterator[tuple[bytes, int]]:
        for key, slot in list(self._slots.items()):
            if self._slots.get(key) is slot:  # it may have been deleted in the meantime
                yield key, self._slot(slot).base

    def keys_of(self) -> list[bytes]:
        return list(self._slots)


class PerCPUHashMap(HashMap):
    """Hash maps with a value for each CPU, which Python sees as a list."""

    def _slot(self, slot: list[Region]) -> Region:
        return slot[self.world.cpu]

    def _make(self, value: bytes) -> list[Region]:
        return [self._new_value(value if cpu == self.world.cpu else b"") for cpu in range(self.world.cpus)]

    def _read(self, key: bytes) -> Any:
        return [self._decode(self._value, bytes(one.data)) for one in self._slots[key]]

    def put(self, key: Any, value: Any, flags: int = 0) -> None:
        values = _for_cpus(value, self.world.cpus, self.name)
        data = [self._encode(self._value, self.value_size, one, "a value") for one in values]
        raw = self._find(key)
        result = self.update(raw, data[self.world.cpu], flags)
        if result < 0:
            raise OSError(-result, f"map {self.name!r}: {errno.errorcode.get(-result, str(result))}")
        for region, one in zip(self._slots[raw], data, strict=True):
            region.data[:] = one


class TrieMap(HashMap):
    """Longest-prefix-match tries. A lookup finds the longest prefix that covers the key."""

    def _covering(self, key: bytes) -> tuple[bytes, int]:
        """The longest prefix that covers a key, and how long it is; -1 when none does."""
        bits = self._bits(key)
        best, longest = key, -1
        wanted = int.from_bytes(key[4:], "big")
        width = 8 * (self.key_size - 4)
        for known in self._slots if bits <= width else ():
            prefix = self._bits(known)
            if longest < prefix <= bits and not (wanted ^ int.from_bytes(known[4:], "big")) >> (width - prefix):
                best, longest = known, prefix
        return best, longest

    def _bits(self, key: bytes) -> int:
        return int.from_bytes(key[:4], self._order)

    def _same(self, key: bytes) -> bytes:
        """The key that is there and has the same prefix: what is beyond it does not count."""
        known, bits = self._covering(key)
        return known if bits == self._bits(key) else key

    def peek(self, key: bytes) -> int:
        known, bits = self._covering(key)
        return self._slots[known][0].base if bits >= 0 else 0

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        if self._bits(key) > 8 * (self.key_size - 4):
            return -errno.EINVAL
        known = self._same(key)
        result = super().update(known, value, flags)
        if not result and known != key:  # the kernel keeps the key that was written last
            self._slots[key] = self._slots.pop(known)
        return -errno.ENOSPC if result == -errno.E2BIG else result

    def delete(self, key: bytes) -> int:
        if self._bits(key) > 8 * (self.key_size - 4):
            return -errno.EINVAL
        return super().delete(self._same(key))


class ArrayMap(SimMap):
    """Arrays, and the maps behind global variables. Python sees a sequence."""

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        super().__init__(world, spec, btf)
        stride = self.value_size if spec.is_internal else self.value_size + 7 & ~7
        self._stride = stride
        self._tables = [self._table(cpu) for cpu in range(self._copies())]
        if spec.data is not None:
            self._tables[0].data[: len(spec.data)] = spec.data
        self._tables[0].writable = not spec.is_read_only

    def _copies(self) -> int:
        return 1

    def _table(self, cpu: int) -> Region:
        title = self.name if self.spec.is_internal else self._title()
        data = bytearray(self._stride * self.max_entries)
        region = Region(title, data, stride=0 if self.spec.is_internal else self._stride, element=self.value_size)
        return self.world.memory.map(region)

    @property
    def _here(self) -> Region:
        return self._tables[0]

    @property
    def region(self) -> Region:
        """All its memory; of per-CPU arrays that of the CPU on which programs run."""
        return self._here

    def lookup(self, key: bytes) -> int:
        index = int.from_bytes(key, self._order)
        return self._here.base + index * self._stride if index < self.max_entries else 0

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        index = int.from_bytes(key, self._order)
        if flags not in _FLAGS:
            return -errno.EINVAL
        if index >= self.max_entries:
            return -errno.E2BIG
        if flags == c.BPF_NOEXIST:
            return -errno.EEXIST
        start = index * self._stride
        self._here.data[start : start + self.value_size] = value
        return 0

    def delete(self, key: bytes) -> int:
        return -errno.EINVAL

    def elements(self) -> Iterator[tuple[bytes, int]]:
        for index in range(self.max_entries):
            yield index.to_bytes(4, self._order), self._here.base + index * self._stride

    def _index(self, index: int) -> int:
        place = index + self.max_entries if index < 0 else index
        if not 0 <= place < self.max_entries:
            raise IndexError(f"map {self.name!r} has {self.max_entries} elements, no element {index}")
        return place * self._stride

    def _at(self, table: Region, start: int) -> Any:
        return self._decode(self._value, bytes(table.data[start : start + self.value_size]))

    def __getitem__(self, index: int) -> Any:
        return self._at(self._here, self._index(index))

    def __setitem__(self, index: int, value: Any) -> None:
        start = self._index(index)
        self._here.data[start : start + self.value_size] = self._encode(self._value, self.value_size, value, "a value")

    def __len__(self) -> int:
        return self.max_entries

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(self.max_entries)])

    def items(self) -> list[tuple[int, Any]]:
        return list(enumerate(self))


class PerCPUArrayMap(ArrayMap):
    """Arrays with a value for each CPU, which Python sees as a list."""

    def _copies(self) -> int:
        return self.world.cpus

    @property
    def _here(self) -> Region:
        return self._tables[self.world.cpu]

    def __getitem__(self, index: int) -> Any:
        start = self._index(index)
        return [self._at(table, start) for table in self._tables]

    def __setitem__(self, index: int, value: Any) -> None:
        start = self._index(index)
        values = _for_cpus(value, self.world.cpus, self.name)
        data = [self._encode(self._value, self.value_size, one, "a value") for one in values]
        for table, one in zip(self._tables, data, strict=True):
            table.data[start : start + self.value_size] = one


class QueueMap(SimMap):
    """Queues and stacks: push, pop, peek."""

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        super().__init__(world, spec, btf)
        self._is_stack = spec.type_number == c.BPF_MAP_TYPE_STACK
        self.values: list[bytes] = []

    def push_bytes(self, value: bytes, flags: int) -> int:
        if flags not in (c.BPF_ANY, c.BPF_EXIST):
            return -errno.EINVAL
        if len(self.values) >= self.max_entries:
            if flags != c.BPF_EXIST:
                return -errno.E2BIG
            del self.values[0]
        self.values.append(value)
        return 0

    def peek_bytes(self, remove: bool) -> bytes | None:
        if not self.values:
            return None
        place = -1 if self._is_stack else 0
        return self.values.pop(place) if remove else self.values[place]

    def push(self, value: Any) -> None:
        """Raises OSError when it is full."""
        if self.push_bytes(self._encode(self._value, self.value_size, value, "a value"), 0):
            raise OSError(errno.E2BIG, f"map {self.name!r} is full")

    def pop(self) -> Any:
        """Raises IndexError when it is empty."""
        return self._take(True)

    def peek(self) -> Any:
        """Raises IndexError when it is empty."""
        return self._take(False)

    def _take(self, remove: bool) -> Any:
        data = self.peek_bytes(remove)
        if data is None:
            raise IndexError(f"map {self.name!r} is empty")
        return self._decode(self._value, data)

    def __len__(self) -> int:
        return len(self.values)


class BloomMap(QueueMap):
    """Bloom filters, here without false positives."""

    def push_bytes(self, value: bytes, flags: int) -> int:
        if flags:
            return -errno.EINVAL
        self.values.append(value)
        return 0

    def contains(self, value: bytes) -> bool:
        return value in self.values

    def __contains__(self, value: Any) -> bool:
        return self.contains(self._encode(self._value, self.value_size, value, "a value"))


_OF_MAPS = frozenset({c.BPF_MAP_TYPE_ARRAY_OF_MAPS, c.BPF_MAP_TYPE_HASH_OF_MAPS})


class ThingMap(SimMap):
    """Maps of what has an identity: programs, other maps, devices. Python puts it in and takes it out."""

    def __init__(self, world: World, spec: MapSpec, btf: BTF | None) -> None:
        super().__init__(world, spec, btf)
        self._is_array = self.key_size == 4 and spec.type_number != c.BPF_MAP_TYPE_HASH_OF_MAPS
        self.things: dict[bytes, Any] = {}

    def _find(self, key: Any) -> bytes:
        raw = self._encode(self._key, self.key_size, key, "a key")
        if self._is_array and not 0 <= int.from_bytes(raw, self._order) < self.max_entries:
            raise IndexError(f"map {self.name!r} has {self.max_entries} elements, no element {key}")
        return raw

    def thing(self, key: bytes) -> Any:
        return self.things.get(key)

    def lookup(self, key: bytes) -> int:
        """A program that looks into a map of maps gets the map that is there."""
        found = self.things.get(key)
        return found.handle.base if isinstance(found, SimMap) else 0

    def delete(self, key: bytes) -> int:
        return 0 if self.things.pop(key, None) is not None else -errno.ENOENT

    def __getitem__(self, key: Any) -> Any:
        found = self.things.get(self._find(key))
        if found is None:
            raise KeyError(key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        """Raises TypeError when it is not of the kind that belongs here."""
        if self.type_number == c.BPF_MAP_TYPE_PROG_ARRAY and not hasattr(value, "code"):
            raise TypeError(f"map {self.name!r} takes programs of the simulated kernel, not {value!r}")
        if self.type_number in _OF_MAPS and not isinstance(value, SimMap):
            raise TypeError(f"map {self.name!r} takes maps of the simulated kernel, not {value!r}")
        self.things[self._find(key)] = value

    def __delitem__(self, key: Any) -> None:
        if self.delete(self._find(key)) < 0:
            raise KeyError(key)

    def __contains__(self, key: Any) -> bool:
        return self._find(key) in self.things

    def __len__(self) -> int:
        return len(self.things)


def _for_cpus(value: Any, cpus: int, name: str) -> list[Any]:
    """A value for each CPU: as they are given, or the same for all. Raises ValueError."""
    values = value if isinstance(value, list) else [value] * cpus
    if len(values) != cpus:
        raise ValueError(f"map {name!r} has a value for each of {cpus} CPUs, not {len(values)}")
    return values
