"""MapSpec: what a map shall be, before the kernel has made it.

Rules of this module:

* A `MapSpec` is plain data and may be edited until the object is loaded; every number is checked when it is set.
* Sizes are bytes. `max_entries` of a ring buffer is bytes too, and is rounded up to what the kernel takes.
* Type information is a pair of type ids into `btf`, the object's own; id 0 means that there is none.

Sources: bpf(2); Linux, include/uapi/linux/bpf.h; tools/lib/bpf/libbpf.c (map definitions and their defaults).
"""

from __future__ import annotations

import os

from pybpf import constants
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.abi import MapType
    from pybpf.btf.kinds import Member
    from pybpf.btf.reader import BTF
    from pybpf.elf.datasec import DatasecLayout

U32_MAX = 0xFFFFFFFF
U64_MAX = 0xFFFFFFFFFFFFFFFF
KERNEL_NAME_LENGTH = 15
"""Characters the kernel keeps of a name (BPF_OBJ_NAME_LEN without its NUL)."""

PIN_NONE = 0
PIN_BY_NAME = 1
"""`pinning` of a map that is shared through the BPF file system under its own name (LIBBPF_PIN_BY_NAME)."""

RING_TYPES = (constants.BPF_MAP_TYPE_RINGBUF, constants.BPF_MAP_TYPE_USER_RINGBUF)


def kernel_name(name: str) -> str:
    """The name as the kernel takes it: 15 characters of letters, digits, ``_`` and ``.``, all else ``_``."""
    short = name[:KERNEL_NAME_LENGTH]
    if short.isidentifier() and short.isascii():
        return short
    return "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in short)


def ring_size(size: int) -> int:
    """The size in bytes that a ring buffer gets: the next page size times a power of two.

    A size that has no such successor within 32 bits, or is not above 0, is kept, and the kernel refuses it.
    """
    if size <= 0:
        return size
    page = os.sysconf("SC_PAGE_SIZE")
    rounded: int = page << max(0, (size - 1) // page).bit_length()
    return rounded if rounded <= U32_MAX else size


def check_number(what: str, value: int, limit: int = U32_MAX) -> int:
    """`value` as a plain int in 0..limit.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is out of range.
    """
    if not isinstance(value, int):
        raise TypeError(f"{what} takes an integer, not {type(value).__name__}")
    if not 0 <= value <= limit:
        raise ValueError(f"{what}: {value} is not in 0..{limit}")
    return int(value)


class StructOpsSpec:
    """What a struct_ops map is filled with: the members of its struct by name.

    A function pointer's value is the name of the program that implements it, or None; what else there is has the value
    that its type gives (`pybpf.btf.codec`). Both may be set until the object is loaded.

    >>> spec.maps["mine"].struct_ops["name"] = "bpf_mine"

    Attributes:
        type_id: the local struct in the object's BTF, for example ``struct tcp_congestion_ops``.
        type_name: its name without a ``___flavor``; the kernel's value type is ``bpf_struct_ops_<type_name>``.
        programs: byte offset of a function pointer in the local struct -> name of the program, as the file has it.
        members: name of a function pointer -> name of the program that will be set.
    """

    __slots__ = ("_owner", "members", "programs", "type_id", "type_name")

    def __init__(self, owner: MapSpec, type_id: int, type_name: str) -> None:
        self._owner = owner
        self.type_id = type_id
        self.type_name = type_name
        self.programs: dict[int, str] = {}
        self.members: dict[str, str] = {}

    def _find(self, name: str) -> tuple[BTF, Member, bool]:
        """The object's BTF, the member, and whether it is a pointer. Raises KeyError."""
        from pybpf.btf.kinds import Ptr, Struct

        btf = self._owner.btf
        assert btf is not None  # such a map is made from BTF
        struct = btf.type(self.type_id)
        assert isinstance(struct, Struct)
        for member in struct.members:
            if member.name == name and not member.bitfield_size:
                return btf, member, isinstance(btf.resolve(member.type_id), Ptr)
        raise KeyError(f"struct {self.type_name} has no member {name!r} that can be set")

    def __getitem__(self, name: str) -> Any:
        """The program's name or None for a pointer, else the value."""
        from pybpf.btf.codec import codec

        btf, member, is_pointer = self._find(name)
        if is_pointer:
            return self.members.get(name)
        assert self._owner.data is not None
        return codec(btf, member.type_id).decode(self._owner.data, member.bit_offset // 8)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a value, or the program of a function pointer by its name; None for no program.

        Raises:
            KeyError: the struct has no such member.
            TypeError, ValueError, OverflowError: the value does not fit the member's type.
        """
        from pybpf.btf.codec import codec

        btf, member, is_pointer = self._find(name)
        if not is_pointer:
            assert self._owner.data is not None
            codec(btf, member.type_id).encode_into(self._owner.data, member.bit_offset // 8, value)
        elif value is None:
            self.members.pop(name, None)
        elif isinstance(value, str):
            self.members[name] = value
        else:
            raise TypeError(f"{name} of struct {self.type_name} takes the name of a program, not {value!r}")

    def __repr__(self) -> str:
        return f"<StructOpsSpec {self.type_name!r} {self.members}>"


class MapSpec:
    """What a map shall be.

    Attributes:
        name: the user-visible name: the variable's, or the ELF section's for data maps (``".rodata"``).
        kernel_name: the at most 15 characters that the kernel gets.
        section: the ELF section that it comes from, or an empty string.
        type_number: BPF_MAP_TYPE_...; `type` is the same as an enum.
        key_size, value_size: bytes. Setting a size that differs from the type's drops the type id.
        max_entries: elements, or bytes of a ring buffer, which are rounded up to a page size times a power of two.
        flags: BPF_F_... of map creation.
        map_extra: meaning depends on the type (BPF 5.16).
        numa_node: node for the memory, with BPF_F_NUMA_NODE in `flags`.
        ifindex: network interface that the map is offloaded to, or 0.
        pinning: 0, or 1 to share it through the BPF file system by name. `pin_path` overrides the path.
        inner: what the maps inside this map look like.
        values: slot -> name of the map or program to put there when the object is loaded.
        key_type_id, value_type_id: ids in `btf`, or 0.
        data: initial content of a data map (and of an arena), which may be changed in place; otherwise None.
        is_internal: made from a data section or from kconfig externs, not from a map definition.
        is_read_only: its content is frozen after it is filled (``.rodata``, ``.kconfig``).
        autocreate: whether it is created at load.
        exclusive_program: name of the one program of the object that may use the map (Linux 6.18), or None.
        autoattach: whether ``Object.attach()`` attaches it, if it is a struct_ops map.
        struct_ops: what a struct_ops map is filled with, else None.
        btf: the object's type information, or None.
        datasec: the layout of the data section behind it, or None.
    """

    __slots__ = (
        "_data",
        "_flags",
        "_key_size",
        "_map_extra",
        "_max_entries",
        "_type_number",
        "_value_size",
        "autoattach",
        "autocreate",
        "btf",
        "datasec",
        "exclusive_program",
        "ifindex",
        "inner",
        "is_internal",
        "is_read_only",
        "kernel_name",
        "key_type_id",
        "name",
        "numa_node",
        "pin_path",
        "pinning",
        "section",
        "struct_ops",
        "value_type_id",
        "values",
    )

    def __init__(
        self,
        name: str,
        type_number: int = 0,
        *,
        key_size: int = 0,
        value_size: int = 0,
        max_entries: int = 0,
        flags: int = 0,
        map_extra: int = 0,
        section: str = "",
        btf: BTF | None = None,
    ) -> None:
        self.name = name
        self.kernel_name = kernel_name(name)
        self.section = section
        self.btf = btf
        self.numa_node = 0
        self.ifindex = 0
        self.pinning = PIN_NONE
        self.pin_path: str | None = None
        self.inner: MapSpec | None = None
        self.values: dict[int, str] = {}
        self.key_type_id = 0
        self.value_type_id = 0
        self.is_internal = False
        self.is_read_only = False
        self.autocreate = True
        self.autoattach = True
        self.exclusive_program: str | None = None
        self.struct_ops: StructOpsSpec | None = None
        self.datasec: DatasecLayout | None = None
        self._data: bytearray | None = None
        self._key_size = check_number("key_size", key_size)
        self._value_size = check_number("value_size", value_size)
        self._max_entries = 0
        self.type_number = type_number
        self.max_entries = max_entries
        self.flags = flags
        self.map_extra = map_extra

    @property
    def type(self) -> MapType:
        """The type as an enum."""
        from pybpf.abi import MapType

        return MapType(self._type_number)

    @type.setter
    def type(self, value: int) -> None:
        self.type_number = value

    @property
    def type_name(self) -> str:
        """The type in words, as bpftool writes it: ``"hash"``; a number this version does not know as digits."""
        names = constants.MAP_TYPE_NAMES
        known = names[self._type_number] if self._type_number < len(names) else None
        return known or str(self._type_number)

    @property
    def type_number(self) -> int:
        """BPF_MAP_TYPE_..."""
        return self._type_number

    @type_number.setter
    def type_number(self, value: int) -> None:
        self._type_number = check_number(f"map {self.name!r}: type", value)
        if self.is_ring:
            self.max_entries = self._max_entries

    @property
    def is_ring(self) -> bool:
        """Whether `max_entries` counts the bytes of a ring buffer."""
        return self._type_number in RING_TYPES

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self._key_size

    @key_size.setter
    def key_size(self, value: int) -> None:
        value = check_number(f"map {self.name!r}: key_size", value)
        if value != self._key_size:
            if self.is_internal:
                raise ValueError(f"map {self.name!r}: the key size of a data map cannot be changed")
            self.key_type_id = 0
        self._key_size = value

    @property
    def value_size(self) -> int:
        """Bytes of a value. A data map can only be made larger, and is filled up with zeros."""
        return self._value_size

    @value_size.setter
    def value_size(self, value: int) -> None:
        value = check_number(f"map {self.name!r}: value_size", value)
        if value == self._value_size:
            return
        if self._data is None or not self.is_internal:
            self.value_type_id = 0
        else:
            if value < self._value_size:
                raise ValueError(f"map {self.name!r}: {value} bytes are less than its variables need")
            if self.datasec is None or not self.datasec.enlarge(value):
                self.value_type_id = 0
            self._data.extend(bytes(value - len(self._data)))
        self._value_size = value

    @property
    def max_entries(self) -> int:
        """Elements, or bytes of a ring buffer."""
        return self._max_entries

    @max_entries.setter
    def max_entries(self, value: int) -> None:
        value = check_number(f"map {self.name!r}: max_entries", value)
        if self.is_internal and value != self._max_entries:
            raise ValueError(f"map {self.name!r}: a data map has one element")
        self._max_entries = ring_size(value) if self.is_ring else value

    @property
    def flags(self) -> int:
        """BPF_F_... of map creation."""
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = check_number(f"map {self.name!r}: flags", value)

    @property
    def map_extra(self) -> int:
        """A 64-bit number whose meaning depends on the type."""
        return self._map_extra

    @map_extra.setter
    def map_extra(self, value: int) -> None:
        self._map_extra = check_number(f"map {self.name!r}: map_extra", value, U64_MAX)

    @property
    def data(self) -> bytearray | None:
        """Initial content, which may be changed in place."""
        return self._data

    @data.setter
    def data(self, value: bytes | bytearray | None) -> None:
        if value is None:
            self._data = None
            return
        if self.is_internal and len(value) != self._value_size:
            raise ValueError(f"map {self.name!r}: takes {self._value_size} bytes, not {len(value)}")
        self._data = bytearray(value)

    def adopt_sizes(self, key_size: int | None, value_size: int | None) -> None:
        """Set sizes that a definition spells out more than once.

        Raises:
            ObjectError: a size is known already and differs.
        """
        if key_size is not None:
            if self._key_size not in (0, key_size):
                raise ObjectError(f"map {self.name!r}: conflicting key sizes {self._key_size} and {key_size}")
            self._key_size = key_size
        if value_size is not None:
            if self._value_size not in (0, value_size):
                raise ObjectError(f"map {self.name!r}: conflicting value sizes {self._value_size} and {value_size}")
            self._value_size = value_size

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal maps; content is represented by its SHA-256."""
        from hashlib import sha256

        ops = self.struct_ops
        return (
            self.name,
            self.kernel_name,
            self.section,
            self._type_number,
            self._key_size,
            self._value_size,
            self._max_entries,
            self._flags,
            self._map_extra,
            self.numa_node,
            self.ifindex,
            self.pinning,
            self.pin_path,
            None if self.inner is None else self.inner.facts(),
            tuple(sorted(self.values.items())),
            self.key_type_id,
            self.value_type_id,
            None if self._data is None else sha256(self._data).hexdigest(),
            self.is_internal,
            self.is_read_only,
            self.autocreate,
            self.autoattach,
            self.exclusive_program,
            None
            if ops is None
            else (ops.type_id, ops.type_name, sorted(ops.programs.items()), sorted(ops.members.items())),
        )

    def __repr__(self) -> str:
        return (
            f"<MapSpec {self.name!r} {self.type_name} key={self._key_size} value={self._value_size} "
            f"max_entries={self._max_entries}{f' flags={self._flags:#x}' if self._flags else ''}>"
        )
