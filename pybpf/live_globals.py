"""LiveGlobals: the global variables of a loaded object, by name."""

from __future__ import annotations

from pybpf import constants as c
from pybpf.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.maps import Map, PerCpuArrayMap
    from pybpf.object import Object
    from pybpf.spec import Variable


class LiveGlobals:
    """The global variables of a loaded object, by name: a mapping over the kernel's own memory.

    Reading and writing is a memory access where the kernel lets the data map be mapped (BPF_F_MMAPABLE, which needs
    one non-static variable in the section); else it is one system call. A variable of the program that changes while it
    is copied can be torn unless it is a naturally aligned word.

    A per-CPU variable (``SEC(".percpu")``, Linux 7.3) is a `PerCPU` list with a value for each possible CPU. Writing
    takes such a list, or one value for all of them; a list is always one value for each CPU, so give the value of an
    array as a tuple. It is written together with all others of its section: what programs change in them meanwhile is
    lost.

    Raises:
        KeyError: no such variable. TypeError: `.rodata` and `.kconfig` cannot be written after the load.
        OverflowError, TypeError: the value does not fit the variable's type.
        ValueError: there are more or fewer values than CPUs.
    """

    def __init__(self, owner: Object) -> None:
        self._owner = owner
        self._memory: dict[str, mmap] = {}

    def _find(self, name: str) -> tuple[Variable, Map]:
        variable = self._owner.spec.variables.get(name)
        if variable is None:
            from pybpf.variables import unknown_name

            raise unknown_name("global variable", name, self._owner.spec.variables)
        made = self._owner.maps.get(variable.map)
        if made is None:
            raise KeyError(f"{name}: its map {variable.map} was not created")
        return variable, made

    def _place(self, variable: Variable, made: Map) -> tuple[mmap | memoryview | None, int]:
        """The mapped memory that a variable is in, and where in it; None when the kernel does not map it."""
        if made.type_number == c.BPF_MAP_TYPE_ARENA:
            from pybpf.maps.arena import ArenaMap

            assert isinstance(made, ArenaMap)
            return made.memory, made.data_offset + variable.offset
        return self._view(made), variable.offset

    def _view(self, made: Map) -> mmap | None:
        """The mapped memory of a data map, or None when the kernel does not map it."""
        if not made.flags & c.BPF_F_MMAPABLE:
            return None
        memory = self._memory.get(made.name)
        if memory is None:
            from pybpf.syscall.memory import PAGE_SIZE, map_memory

            size = -(-made.value_size // PAGE_SIZE) * PAGE_SIZE
            writable = not made.flags & c.BPF_F_RDONLY_PROG
            with made.fd.lend() as number:
                memory = self._memory[made.name] = map_memory(number, size, writable=writable)
        return memory

    def __getitem__(self, name: str) -> Any:
        from pybpf.btf.codec import codec

        variable, made = self._find(name)
        if self._owner.closed:
            raise ClosedError(f"object {self._owner.name!r} is closed")
        assert self._owner.spec.btf is not None  # variables come from BTF
        values = codec(self._owner.spec.btf, variable.type_id)
        memory, offset = self._place(variable, made)
        return read_variable(variable, made, values) if memory is None else values.decode(memory, offset)

    def __setitem__(self, name: str, value: Any) -> None:
        from pybpf.btf.codec import codec

        variable, made = self._find(name)
        if self._owner.closed:
            raise ClosedError(f"object {self._owner.name!r} is closed")
        if made.flags & c.BPF_F_RDONLY_PROG:
            raise TypeError(f"{name} lies in {variable.map}, which is frozen: set it in spec.globals before the load")
        assert self._owner.spec.btf is not None
        values = codec(self._owner.spec.btf, variable.type_id)
        if made.type_number == c.BPF_MAP_TYPE_PERCPU_ARRAY:
            _put_on_cpus(variable, made, values, value)
            return
        data = values.encode(value)
        memory, offset = self._place(variable, made)
        if memory is not None:
            memory[offset : offset + len(data)] = data
            return
        whole = bytearray(_read(made))
        whole[variable.offset : variable.offset + len(data)] = data
        _write(made, whole)

    def __contains__(self, name: object) -> bool:
        return name in self._owner.spec.variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner.spec.variables)

    def __len__(self) -> int:
        return len(self._owner.spec.variables)

    def keys(self) -> list[str]:
        return list(self._owner.spec.variables)

    def values(self) -> list[Any]:
        return [self[name] for name in self]

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def close(self) -> None:
        # Another thread may be reading: it holds the memory, which is unmapped when the last one lets go of it.
        self._memory.clear()

    def __repr__(self) -> str:
        return f"<globals of {self._owner.name!r}: {', '.join(self) or 'none'}>"


def read_variable(variable: Variable, made: Map, codec: Codec) -> Any:
    """The value of a variable, read by a system call; of a per-CPU variable a `PerCPU`."""
    if made.type_number != c.BPF_MAP_TYPE_PERCPU_ARRAY:
        return codec.decode(_read(made), variable.offset)
    from pybpf.maps import PerCPU

    return PerCPU(codec.decode(one, variable.offset) for one in _on_cpus(made)[0])


def _read(made: Map) -> bytes:
    from pybpf.syscall import map_lookup_elem

    with made.fd.lend() as number:
        return map_lookup_elem(number, bytes(4), made.value_size)


def _on_cpus(made: Map) -> PerCpuArrayMap:
    from pybpf.maps import PerCpuArrayMap

    assert isinstance(made, PerCpuArrayMap)
    return made


def _put_on_cpus(variable: Variable, made: Map, codec: Codec, value: Any) -> None:
    """Write a per-CPU variable: a list has a value for each CPU, anything else is for all."""
    section = _on_cpus(made)
    copies = [bytearray(one) for one in section[0]]
    values = value if isinstance(value, list) else [value] * len(copies)
    if len(values) != len(copies):
        raise ValueError(f"{variable.name}: {len(values)} values for {len(copies)} CPUs")
    for copy, one in zip(copies, values, strict=True):
        codec.encode_into(copy, variable.offset, one)
    section[0] = [bytes(copy) for copy in copies]


def _write(made: Map, data: bytearray) -> None:
    from pybpf.syscall import map_update_elem

    with made.fd.lend() as number:
        map_update_elem(number, bytes(4), data)
