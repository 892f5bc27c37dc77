"""What every map has: identity, information, pins, a life that ends.

Rules of this package:

* A map owns its descriptor. `close()` may be called twice, ``with`` calls it, a forgotten map warns (ResourceWarning).
* Keys and values are typed by codecs. Without type information they are `bytes`.
* What cannot be right (size, range, kind of value) is refused before the kernel is asked, and named.
* Making a map object costs next to nothing: what single operations need is prepared when the first one is made.
"""

from __future__ import annotations

import os
from _warnings import warn  # the built-in part of `warnings`, see pybpf.syscall.fd

from pybpf import syscall
from pybpf.constants import MAP_TYPE_NAMES
from pybpf.errors import ClosedError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self

    from pybpf.abi import MapType
    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.mapspec import MapSpec
    from pybpf.syscall import FD, FdLike, MapInfo


class Map:
    """A BPF map. `make_map`, `open_map`, `Map.open_pinned`, `Map.from_id` and `create` give the fitting subclass.

    Attributes:
        name: as the object file names it, or as the kernel does for maps that were opened.
        type_number: BPF_MAP_TYPE_...
        key_size, value_size: bytes; of a per-CPU map one CPU's value.
        max_entries: capacity in elements; bytes of a ring buffer, pages of an arena.
        flags: BPF_F_... of its creation. map_extra: what it means depends on the type.
        key_codec, value_codec: the types of keys and values; None when they are `bytes`.
        btf: the type information that the codecs come from, or None.
        spec: what it was made from when an object file was loaded, or None.
    """

    __slots__ = (
        "__weakref__",
        "_fd",
        "_id",
        "_pin_path",
        "btf",
        "flags",
        "key_codec",
        "key_size",
        "map_extra",
        "max_entries",
        "name",
        "spec",
        "type_number",
        "value_codec",
        "value_size",
    )

    default_type: ClassVar[int] = 0
    """What `create()` makes; 0: it has to be told."""
    is_array: ClassVar[bool] = False
    """The keys are 0 to max_entries - 1, and every element is always there."""
    required_flags: ClassVar[int] = 0
    """BPF_F_... without which the kernel makes no map of this type; `create()` adds them."""
    key_word: ClassVar[str] = ""
    """What the repr calls the keys, when that is not their type."""
    default_key_size: ClassVar[int] = 0
    default_value_size: ClassVar[int] = 0

    def __init__(
        self,
        fd: FD,
        *,
        name: str,
        type_number: int,
        key_size: int,
        value_size: int,
        max_entries: int,
        flags: int = 0,
        map_extra: int = 0,
        key_codec: Codec | None = None,
        value_codec: Codec | None = None,
        btf: BTF | None = None,
        spec: MapSpec | None = None,
    ) -> None:
        """Takes ownership of the descriptor. A codec whose size is not the map's is left aside."""
        self._fd = fd
        self._id = 0
        self._pin_path = ""
        self.name = name
        self.type_number = type_number
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.flags = flags
        self.map_extra = map_extra
        self.key_codec = key_codec if key_codec is not None and key_codec.size == key_size else None
        self.value_codec = value_codec if value_codec is not None and value_codec.size == value_size else None
        self.btf = btf
        self.spec = spec

    # --- getting one -----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        type_number: int | None = None,
        *,
        key_size: int | None = None,
        value_size: int | None = None,
        max_entries: int = 0,
        flags: int = 0,
        name: str = "",
        map_extra: int = 0,
        inner: FdLike | None = None,
        numa_node: int = 0,
        key_codec: Codec | None = None,
        value_codec: Codec | None = None,
    ) -> Self:
        """A new map without an object file.

        Args:
            type_number: BPF_MAP_TYPE_...; each class knows its own, so that ``HashMap.create`` does without.
            key_size, value_size: bytes; by default those of the codecs, or what the type prescribes.
            inner: a map like those that a map of maps will hold.
            key_codec, value_codec: types of keys and values; without they are `bytes`.

        Raises:
            BPFError: the kernel refused; see `pybpf.syscall.map_create`.
            TypeError: this class does not stand for one type, or the type is another class's.
        """
        from pybpf.maps import class_of, make_map

        type_number = type_number or cls.default_type
        if not type_number or not issubclass(class_of(type_number), cls):
            raise TypeError(f"{cls.__name__}.create cannot make maps of type {type_name(type_number or 0)}")
        made_class = class_of(type_number)
        if key_size is None:
            key_size = key_codec.size if key_codec is not None else made_class.default_key_size
        if value_size is None:
            value_size = value_codec.size if value_codec is not None else made_class.default_value_size
        flags |= made_class.required_flags
        fd = syscall.map_create(
            type_number,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            map_flags=flags,
            name=name,
            inner_map_fd=inner,
            numa_node=numa_node,
            map_extra=map_extra,
        )
        made = make_map(
            fd,
            name=name,
            type_number=type_number,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
            map_extra=map_extra,
            key_codec=key_codec,
            value_codec=value_codec,
        )
        assert isinstance(made, cls)
        return made

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str], *, flags: int = 0) -> Self:
        """The map that is pinned at a path of a BPF file system (Linux 4.4), typed by the BTF it was made with.

        Args:
            flags: BPF_F_RDONLY or BPF_F_WRONLY (Linux 4.15).

        Raises:
            BPFNotFoundError: nothing is there.
            ObjectError: what is pinned there is no map.
            TypeError: it is a map of another class.
        """
        text = os.fspath(path)
        fd = syscall.obj_get(text, flags=flags)
        try:
            if descriptor_kind(fd) != "bpf-map":
                raise ObjectError(f"{text}: what is pinned there is not a map")
            made = cls._open(fd)
        except BaseException:
            fd.close()
            raise
        made._pin_path = text
        return made

    @classmethod
    def from_id(cls, map_id: int, *, flags: int = 0) -> Self:
        """The map of this id. Needs CAP_SYS_ADMIN; since Linux 4.13.

        Raises:
            BPFNotFoundError: there is no such map.
            TypeError: it is a map of another class.
        """
        fd = syscall.map_get_fd_by_id(map_id, flags)
        try:
            return cls._open(fd)
        except BaseException:
            fd.close()
            raise

    @classmethod
    def _open(cls, fd: FD) -> Self:
        from pybpf.maps import open_map

        made = open_map(fd)
        if not isinstance(made, cls):
            raise TypeError(f"{made!r} is not a {cls.__name__}")
        return made

    # --- using it --------------------------------------------------------------------------------------------------

    @property
    def fd(self) -> FD:
        """The descriptor. Raises ClosedError."""
        if self._fd.closed:
            raise ClosedError(f"{self!r} is closed")
        return self._fd

    def fileno(self) -> int:
        """The descriptor's number. Raises ClosedError."""
        return self.fd.fileno()

    @property
    def type(self) -> MapType:
        """The type as an enum."""
        from pybpf.abi import MapType

        return MapType(self.type_number)

    @property
    def type_name(self) -> str:
        """The type as bpftool writes it: ``"hash"``."""
        return type_name(self.type_number)

    def info(self) -> MapInfo:
        """What the kernel knows of it (struct bpf_map_info): id, sizes, flags, BTF ids. Linux 4.13."""
        return syscall.map_info(self.fd)

    @property
    def id(self) -> int:
        """The kernel's id of the map. Linux 4.13."""
        if not self._id:
            self._id = self.info().id
        return self._id

    def freeze(self) -> None:
        """Let nobody write to the map through bpf(2) any more; programs still may. Linux 5.2.

        Raises:
            BPFError: EBUSY: it is mapped writable, or frozen already.
            NotSupportedError: the type does not allow it.
        """
        syscall.map_freeze(self.fd)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the map a name in a BPF file system: it lives on there. Linux 4.4.

        Raises:
            BPFExistsError: there is something of this name.
            BPFNotFoundError: there is no such directory.
            BPFPermissionError: it is not on a BPF file system, or the name has a dot.
        """
        text = os.fspath(path)
        syscall.obj_pin(text, self.fd)
        self._pin_path = text

    def unpin(self) -> None:
        """Remove the name that `pin()` gave or `open_pinned()` used. The map itself stays open.

        Raises:
            ValueError: this map object knows of no pin.
            FileNotFoundError: somebody else removed it.
        """
        if not self._pin_path:
            raise ValueError(f"{self!r} is not pinned")
        os.unlink(self._pin_path)
        self._pin_path = ""

    @property
    def pin_path(self) -> str:
        """Where `pin()` or `open_pinned()` has it, or an empty string."""
        return self._pin_path

    # --- the end ---------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._fd.closed

    def close(self) -> None:
        """Close the descriptor. The kernel keeps the map while programs, pins or others use it. May be called twice."""
        self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        fd = getattr(self, "_fd", None)  # absent when __init__ was given wrong arguments
        if fd is not None and not fd.closed:
            warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        if self._fd.closed:
            return f"<{type(self).__name__} {self.name!r} closed>"
        return f"<{type(self).__name__} {self.name!r} {self._shape()}max_entries={self.max_entries}>"

    def _shape(self) -> str:
        """The part of the repr that tells keys and values, with a comma behind it."""
        if not self.value_size:
            return ""
        key, value = size_name(self.key_codec, self.key_size), size_name(self.value_codec, self.value_size)
        return f"{self.key_word or key} -> {value}, " if self.key_size else f"{value}, "

    def _where(self, part: str) -> str:
        """How errors name a key or value of this map."""
        return f"{part} of map {self.name!r}" if self.name else part

    def _check_bytes(self, data: Any, size: int, part: str) -> bytes:
        """The bytes of an untyped key or value. Raises TypeError, ValueError."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"{self._where(part)} has no type information: it takes {size} bytes, not {data!r}")
        found = bytes(data)
        if len(found) != size:
            raise ValueError(f"{self._where(part)} takes {size} bytes, not {len(found)}")
        return found


def size_name(codec: Codec | None, size: int) -> str:
    """A type's name, or how many bytes there are."""
    return f"{size} bytes" if codec is None else codec.c_name


def type_name(number: int) -> str:
    """``"hash"`` for 1; digits for a type that this version does not know."""
    known = MAP_TYPE_NAMES[number] if 0 <= number < len(MAP_TYPE_NAMES) else None
    return known or str(number)


def descriptor_kind(fd: FdLike) -> str:
    """What a descriptor of an anonymous inode is: ``"bpf-map"``, ``"bpf-prog"``, ``"bpf_link"``."""
    target = os.readlink(f"/proc/self/fd/{syscall.fileno(fd)}")
    return target.removeprefix("anon_inode:").strip("[]")
