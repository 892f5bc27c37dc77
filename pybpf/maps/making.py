"""Making a map without an object file: sizes and types from what the caller gives, BTF for the kernel.

The kernel gets the types along with the map, so whoever opens it by id or by pin sees them. It refuses them for some
types of maps, and old kernels do for some kinds of types: then the map is made without, and only this map object knows
them (libbpf does the same).
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.errors import ENOTSUPP, BPFError
from pybpf.memlock import with_memlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.maps.base import Map
    from pybpf.maps.declared import Declared, DeclaredTypes
    from pybpf.syscall import FD, FdLike

_REFUSES_TYPES = (errno.EINVAL, errno.EPERM, errno.E2BIG, ENOTSUPP, errno.EOPNOTSUPP)


class Making:
    """One map that is being made.

    Attributes:
        key_size, value_size: bytes.
        key_codec, value_codec: None for `bytes`.
        btf: the types, if there are any that were declared.
    """

    def __init__(self, cls: type[Map], type_number: int, name: str) -> None:
        if not type_number:
            raise TypeError(f"{cls.__name__} does not stand for one type of map: use a subclass, or Map.create(number)")
        self.cls = cls
        self.type_number = type_number
        self.name = name
        self.key_size = cls.default_key_size
        self.value_size = cls.default_value_size
        self.key_codec: Codec | None = None
        self.value_codec: Codec | None = None
        self.btf: BTF | None = None
        self._types: DeclaredTypes | None = None
        self._ids = [0, 0]

    def choose_key(self, key: Declared | None, codec: Codec | None, size: int | None) -> None:
        """Take the first of these that is given, or the size that the type of map prescribes."""
        if key is None and codec is None and size is None and not self.cls.default_key_size:
            key = self.cls.default_key
        self.key_codec, self.key_size, self._ids[0] = self._choose(key, codec, size, self.key_size)

    def choose_value(self, value: Declared | None, codec: Codec | None, size: int | None) -> None:
        """The same for the value."""
        self.value_codec, self.value_size, self._ids[1] = self._choose(value, codec, size, self.value_size)

    def _choose(
        self, declared: Declared | None, codec: Codec | None, size: int | None, usual: int
    ) -> tuple[Codec | None, int, int]:
        if declared is None:
            if size is None:
                size = codec.size if codec is not None else usual
            return codec, size, 0
        if isinstance(declared, int):
            return None, declared, 0
        from pybpf.btf.scalars import Codec as AnyCodec
        from pybpf.maps.declared import DeclaredTypes

        if isinstance(declared, AnyCodec):
            return declared, declared.size, 0
        if self._types is None:
            self._types = DeclaredTypes()
        ctype = self._types.ctype(self.cls.declarations.get(declared, declared) if type(declared) is str else declared)
        return self._types.codec(ctype), ctype.size, ctype.id

    def create(self, max_entries: int, flags: int, map_extra: int, inner: FdLike | None, numa_node: int) -> FD:
        """The map. Raises BPFError, TypeError."""
        given = {"key": self.key_size, "value": self.value_size, "max_entries": max_entries, "inner": inner is not None}
        missing = [name for name in self.cls.required if not given[name]]
        if missing and self.cls.default_type:
            named = f" {self.name!r}" if self.name else ""
            raise TypeError(f"{self.cls.__name__}{named} needs {', '.join(missing)}")
        options = {
            "key_size": self.key_size,
            "value_size": self.value_size,
            "max_entries": max_entries,
            "map_flags": flags,
            "name": self.name,
            "inner_map_fd": inner,
            "numa_node": numa_node,
            "map_extra": map_extra,
        }
        if self._types is not None:
            self.btf = self._types.types.btf()
            made = self._create_typed(options)
            if made is not None:
                return made
        return with_memlock(syscall.map_create, self.type_number, **options)  # type: ignore[arg-type]

    def _create_typed(self, options: dict[str, object]) -> FD | None:
        """The map with its types, None if the kernel does not want them."""
        assert self._types is not None
        key_id, value_id = self._ids
        if not value_id:
            return None  # the kernel takes a key's type only along with a value's
        if self.key_size and not key_id:
            if self.key_size != 4 or not self.cls.default_key_size:
                return None
            key_id = self._types.ctype("u32").id  # an index
            self.btf = self._types.types.btf()
        try:
            with with_memlock(syscall.btf_load, self._types.types.builder.to_bytes()) as btf_fd:
                return with_memlock(
                    syscall.map_create,
                    self.type_number,
                    **options,  # type: ignore[arg-type]
                    btf_fd=btf_fd,
                    btf_key_type_id=key_id,
                    btf_value_type_id=value_id,
                )
        except BPFError as error:
            if error.errno not in _REFUSES_TYPES:
                raise
            return None
