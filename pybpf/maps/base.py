"""What every map has: identity, information, pins, a life that ends.

Rules of this package:

* A map owns its descriptor. `close()` may be called twice, ``with`` calls it, a forgotten map warns (ResourceWarning).
* Keys and values are typed by codecs. Without type information they are `bytes`.
* What cannot be right (size, range, kind of value) is refused before the kernel is asked, and named.
* Making a map object costs next to nothing: what single operations need is prepared when the first one is made.
* Any number of threads may use one map. Closing it while others use it lets their calls end, and lets no later one
  begin: they raise ClosedError. A forked child has the same map, and buffers of its own.
"""

from __future__ import annotations

import errno
import os
from _warnings import warn  # the built-in part of `warnings`, see pybpf.syscall.fd

from pybpf import syscall
from pybpf.constants import BPF_OBJ_NAME_LEN, MAP_TYPE_NAMES
from pybpf.errors import ENOTSUPP, BPFNotFoundError, ClosedError, NotSupportedError, ObjectError
from pybpf.forks import ForkLock
from pybpf.syscall import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, NoReturn, Self

    from pybpf.abi import MapType
    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.errors import BPFError
    from pybpf.maps.declared import Declared
    from pybpf.mapspec import MapSpec
    from pybpf.syscall import FdLike, MapInfo


PREPARING = ForkLock()
"""Held while some map prepares itself or is closed: both are short, rare, and must not happen at once."""

_COPIED = (
    "name",
    "type_number",
    "key_size",
    "value_size",
    "max_entries",
    "flags",
    "map_extra",
    "key_codec",
    "value_codec",
    "btf",
    "spec",
)
"""What a copy takes over, as `Map` takes it."""


class Map:
    """A BPF map. `make_map`, `open_map`, `Map.open_pinned`, `Map.from_id` and `create` give the fitting subclass.

    A subclass that stands for one type also makes new maps:

        HashMap(key="u32", value="struct stats { u64 packets; u64 bytes; }", max_entries=1024)

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
    required: ClassVar[tuple[str, ...]] = ("max_entries",)
    """The options without which the kernel makes no map of this type, and which have no default."""
    required_flags: ClassVar[int] = 0
    """BPF_F_... without which the kernel makes no map of this type; `create()` adds them."""
    key_word: ClassVar[str] = ""
    """What the repr calls the keys, when that is not their type."""
    default_key_size: ClassVar[int] = 0
    default_value_size: ClassVar[int] = 0
    default_key: ClassVar[str | None] = None
    """The C type of keys, when none is given and the size is not prescribed."""
    declarations: ClassVar[dict[str, str]] = {}
    """Short names for C declarations that this class takes as types."""

    def __init__(
        self,
        fd: FD | None = None,
        *,
        key: Declared | None = None,
        value: Declared | None = None,
        max_entries: int = 0,
        name: str = "",
        flags: int = 0,
        map_extra: int = 0,
        inner: FdLike | None = None,
        numa_node: int = 0,
        type_number: int = 0,
        key_size: int | None = None,
        value_size: int | None = None,
        key_codec: Codec | None = None,
        value_codec: Codec | None = None,
        btf: BTF | None = None,
        spec: MapSpec | None = None,
    ) -> None:
        """A new map, or with a descriptor the object over one that exists (`open_map` and `make_map` do that).

        Args:
            key, value: the types: C (``"u32"``, ``"char[16]"``, ``"struct a { u32 b; }"``, see
                `pybpf.btf.declarations`), a Python type or dataclass (see `pybpf.maps.declared`), a codec, or a number
                of bytes. By default what the type of map prescribes.
            max_entries: capacity in elements; bytes of a ring buffer, rounded up as those of objects are (a page size
                times a power of two); pages of an arena.
            name: at most 15 of A-Z a-z 0-9 _ and .
            flags: BPF_F_...; those that the type demands are added.
            inner: a map like those that a map of maps will hold.
            fd: taken over; then the sizes have to be given, and a codec whose size is not the map's is left aside.

        Raises:
            BPFError: the kernel refused; see `pybpf.syscall.map_create`.
            BTFError: a type is not understood.
            TypeError: this class does not stand for one type, or an option is missing (`required`).
        """
        type_number = type_number or type(self).default_type
        if fd is None:
            from pybpf.maps.making import Making
            from pybpf.mapspec import RING_TYPES, ring_size

            making = Making(type(self), type_number, name)
            making.choose_key(key, key_codec, key_size)
            making.choose_value(value, value_codec, value_size)
            flags |= type(self).required_flags
            if type_number in RING_TYPES and isinstance(max_entries, int):
                max_entries = ring_size(max_entries)
            fd = making.create(max_entries, flags, map_extra, inner, numa_node)
            key_size, value_size, btf = making.key_size, making.value_size, making.btf
            key_codec, value_codec = making.key_codec, making.value_codec
        if key_size is None or value_size is None:
            fd.close()
            raise TypeError("a map over a descriptor needs key_size and value_size")
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
    def create(cls, type_number: int | None = None, **options: Any) -> Self:
        """A new map without an object file, of a type that is given by its number.

        Args:
            type_number: BPF_MAP_TYPE_...; by default the class's own.
            options: as those of the class.

        Raises:
            TypeError: this class does not stand for one type, the type is another class's, or an option is missing.
        """
        from pybpf.maps import class_of

        number = type_number or cls.default_type
        if not isinstance(number, int):
            raise TypeError(f"{cls.__name__}.create takes a number, BPF_MAP_TYPE_..., not {number!r}")
        if not number or not issubclass(class_of(number), cls):
            raise TypeError(f"{cls.__name__}.create cannot make maps of type {type_name(number)}")
        made = class_of(number)(type_number=number, **options)
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
    def from_name(cls, name: str, *, flags: int = 0) -> Self:
        """The one map of this name in the whole system, whoever made it. Needs CAP_SYS_ADMIN; since Linux 4.15.

        Maps of other classes do not count: ``HashMap.from_name("counts")``. The kernel keeps 15 characters of a name.

        Raises:
            BPFNotFoundError: there is none.
            ValueError: there are several; it tells their ids.
        """
        from pybpf.maps import class_of
        from pybpf.system import maps

        kept = name[: BPF_OBJ_NAME_LEN - 1]
        found = [info.id for info in maps() if info.name == kept and issubclass(class_of(info.type), cls)]
        if not found:
            raise BPFNotFoundError(errno.ENOENT, "BPF_MAP_GET_NEXT_ID", f"map {name!r}")
        if len(found) > 1:
            ids = ", ".join(map(str, found))
            raise ValueError(f"{len(found)} maps are named {kept!r}: ids {ids}; open one of them with from_id()")
        return cls.from_id(found[0], flags=flags)

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
        with self.fd.lend() as number:
            return syscall.map_info(number)

    @property
    def id(self) -> int:
        """The kernel's id of the map. Linux 4.13."""
        if not self._id:
            self._id = self.info().id
        return self._id

    @property
    def frozen(self) -> bool:
        """Whether `freeze()` was called, here or elsewhere. Linux 5.2. Raises NotSupportedError."""
        return bool(self._told("frozen"))

    @property
    def memlock(self) -> int:
        """Bytes of memory that the kernel says it takes (an estimate since Linux 5.11). Raises NotSupportedError."""
        return self._told("memlock")

    def _told(self, field: str) -> int:
        """A number that the kernel tells in /proc (bpf_map_show_fdinfo() in kernel/bpf/syscall.c)."""
        with self.fd.lend() as number, open(f"/proc/self/fdinfo/{number}") as file:
            for line in file:
                name, _, text = line.partition(":")
                if name == field:
                    return int(text)
        raise NotSupportedError(ENOTSUPP, "/proc/self/fdinfo", self._where(field), "This kernel does not tell it")

    def freeze(self) -> None:
        """Let nobody write to the map through bpf(2) any more; programs still may. Linux 5.2.

        Raises:
            BPFError: EBUSY: it is mapped writable.
            BPFPermissionError: it is frozen already (EPERM), or opened with BPF_F_RDONLY.
            NotSupportedError: the type does not allow it.
        """
        with self.fd.lend() as number:
            syscall.map_freeze(number)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the map a name in a BPF file system: it lives on there. Linux 4.4.

        Raises:
            BPFExistsError: there is something of this name.
            BPFNotFoundError: there is no such directory.
            BPFPermissionError: it is not on a BPF file system, or the name has a dot.
        """
        text = os.fspath(path)
        with self.fd.lend() as number:
            syscall.obj_pin(text, number)
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

    # --- copies ----------------------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        """Another object of the same map with a descriptor of its own, so that each can be closed alone.

        It knows of no pin. Raises ClosedError.
        """
        with self.fd.lend() as number:
            fd = FD(syscall.duplicate(number))
        plain: Any = getattr(self, "_plain_class", type(self))  # see `MappingMap._class_with`
        try:
            made: Self = plain(fd, **{field: getattr(self, field) for field in _COPIED})
        except BaseException:
            fd.close()
            raise
        return made

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be pickled or copied deeply: it is a descriptor. Map.open_pinned() and Map.from_id() open"
            " the same map elsewhere, copy.copy() here, snapshot() has what is in it"
        )

    # --- the end ---------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._fd.closed

    def close(self) -> None:
        """Close the descriptor. The kernel keeps the map while programs, pins or others use it. May be called twice.

        Other threads may be using the map: the descriptor's number goes back to the kernel when their calls are over.
        """
        with PREPARING:
            self._release()
            self._fd.close()

    def _release(self) -> None:
        """Let go of what was prepared: the map is about to be closed, or was closed already."""

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

    def _explainer(self) -> Callable[[BPFError], BPFError]:
        """What says of an error which map it was, and what would help. It does not hold this object."""
        from pybpf.maps.refusals import explainer

        return explainer(self.name, self.max_entries)

    def _where(self, part: str) -> str:
        """How errors name a key or value of this map."""
        return f"{part} of map {self.name!r}" if self.name else part


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
