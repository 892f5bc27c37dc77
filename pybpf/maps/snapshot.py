"""Snapshots: all elements of a map with their types, in memory, in a compact file, or as JSON.

    m.snapshot().save("flows.bpfmap")                 # or "flows.json"
    snapshot = Snapshot.load("flows.bpfmap")          # anywhere: no kernel, no privileges
    for key, value in snapshot.items(): ...
    snapshot.restore(m)                               # into a map that is there
    m = snapshot.create()                             # into a new one like the old one

Rules of this module:

* A snapshot says by itself what is in it. It is read from start to end, so it is as consistent as iteration is.
* Restoring into a map whose types have another layout goes by the names of the fields: fields that are new are zero, a
  field that is gone is an error. Where types are the same it goes by bytes.
* Files are written beside their place and moved there: a snapshot is whole or not there.

The compact file: 8 bytes ``89 42 50 46 4d 41 50 0a``; the length of the header (u32, little-endian); the header (JSON);
then compressed by zlib: type information (BTF), all keys, all values. The header has the lengths of these.
"""

from __future__ import annotations

import os
import sys
from struct import Struct

from pybpf.btf.describe import describe
from pybpf.btf.plain import convert, from_plain, to_plain
from pybpf.constants import BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH
from pybpf.errors import BTFError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Self

    from pybpf.btf.codec import Codec
    from pybpf.maps.face import Face
    from pybpf.maps.mapping import MappingMap

MAGIC = b"\x89BPFMAP\n"
FORMAT = "pybpf map"
VERSION = 1
MAX_HEADER = 1 << 20
MAX_BODY = 1 << 34
_LENGTH = Struct("<I")
_SHAPE = ("name", "type", "key_size", "value_size", "max_entries", "flags", "map_extra")


class Snapshot:
    """The elements of a map at some time.

    Attributes:
        name, type, key_size, value_size, max_entries, flags, map_extra: of the map.
        cpus: of a per-CPU map how many values an element has, of others 0.
        byte_order: ``"little"`` or ``"big"``.
        key_codec, value_codec: the types; None for `bytes`.
        keys_data, values_data: all keys and all values side by side.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    map_extra: int

    def __init__(
        self,
        shape: dict[str, Any],
        keys_data: bytes | bytearray,
        values_data: bytes | bytearray,
        key_codec: Codec | None,
        value_codec: Codec | None,
        *,
        cpus: int = 0,
        byte_order: str = sys.byteorder,
    ) -> None:
        for field in _SHAPE:
            setattr(self, field, shape[field])
        self.cpus = cpus
        self.byte_order = byte_order
        self.key_codec = key_codec
        self.value_codec = value_codec
        self.keys_data = keys_data
        self.values_data = values_data

    # --- taking and reading ----------------------------------------------------------------------------------------

    @classmethod
    def of(cls, owner: MappingMap, flags: int = 0) -> Self:
        """All elements of a map. Raises BPFError; NotSupportedError if the kernel cannot list them."""
        from pybpf.maps.bulk import read_whole

        keys, values = read_whole(owner, flags)
        shape = {field: getattr(owner, field, None) for field in _SHAPE} | {"type": owner.type_number}
        cpus = owner.values_face.size // (owner.value_size + 7 & ~7) if owner.is_per_cpu else 0
        return cls(shape, keys, values, *_codecs(owner), cpus=cpus)

    @property
    def transfer_size(self) -> int:
        """Bytes of one element's value: of a per-CPU map those of all CPUs."""
        return (self.value_size + 7 & ~7) * self.cpus if self.cpus else self.value_size

    def __len__(self) -> int:
        return len(self.keys_data) // self.key_size

    def __repr__(self) -> str:
        return f"<Snapshot of {self.name!r}: {len(self)} elements>"

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """Each element as the bytes of its key and of its value."""
        key_size, value_size = self.key_size, self.transfer_size
        for number in range(len(self)):
            yield (
                bytes(self.keys_data[number * key_size : (number + 1) * key_size]),
                bytes(self.values_data[number * value_size : (number + 1) * value_size]),
            )

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Each element as key and value, as the map's own `items` gives them.

        What has been in a file has lost the classes of Python: their objects come as records. Of a machine of another
        byte order only what has a type is more than `bytes`.
        """
        keys, values = self._faces()
        decode_key, decode_value = keys.decoder(), values.decoder()
        for key, value in self.raw_items():
            yield decode_key(key), decode_value(value)

    def _faces(self) -> tuple[Face, Face]:
        """What keys and values are in Python: what the class of such maps makes of them."""
        from pybpf.maps import class_of
        from pybpf.maps.face import PerCPUFace, key_face, value_face
        from pybpf.maps.mapping import MappingMap

        keys, values = (
            key_face(self.key_codec, self.key_size, "key"),
            value_face(self.value_codec, self.value_size, "value"),
        )
        cls = class_of(self.type)
        if self.byte_order == sys.byteorder and issubclass(cls, MappingMap):
            blank: Any = cls.__new__(cls)  # there is no map behind it
            for field in ("name", "flags", "key_size", "value_size", "key_codec", "value_codec"):
                setattr(blank, field, getattr(self, field))
            keys = blank._key_face()
            if not cls.is_per_cpu:
                values = blank._value_face()
        return keys, PerCPUFace(values, self.cpus) if self.cpus else values

    def _parts(self, data: bytes) -> list[bytes]:
        """The values of all CPUs."""
        stride = self.value_size + 7 & ~7
        return [data[start : start + self.value_size] for start in range(0, stride * self.cpus, stride)]

    # --- giving back -----------------------------------------------------------------------------------------------

    def restore(self, owner: MappingMap, *, clear: bool = True) -> None:
        """Write all elements into a map.

        Args:
            clear: delete what is there first, as far as the type of map can.

        Raises:
            ValueError: the shape does not fit: another size of an untyped key or value, another number of CPUs, another
                byte order, a field that the map's type does not have; or the map has no room for all elements. The map
                is as it was then.
            TypeError: the map's values cannot be written back (maps of descriptors: ids come out of them). The map is
                as it was then too.
            BPFError: the kernel refused; the attribute `count` says how many elements were written.
        """
        cpus = owner.values_face.size // (owner.value_size + 7 & ~7) if owner.is_per_cpu else 0
        if cpus != self.cpus:
            raise ValueError(f"{owner!r} has {cpus} values for each element, the snapshot {self.cpus}")
        keys, values = self._as(owner)
        owner.check_restorable(values)
        _check_room(owner, keys)
        if clear:
            owner.clear()
        owner.update_array(keys, values)

    def create(self, **changes: Any) -> MappingMap:
        """A new map like the one that the snapshot is of, with the elements.

        Args:
            changes: options of the map that shall be different: ``max_entries=...``, ``name=...``.
        """
        from pybpf.maps import Map
        from pybpf.maps.mapping import MappingMap

        options: dict[str, Any] = {field: getattr(self, field) for field in _SHAPE if field != "type"}
        options |= {"key_codec": self.key_codec, "value_codec": self.value_codec, **changes}
        made = Map.create(self.type, **options)
        try:
            if not isinstance(made, MappingMap):
                raise TypeError(f"{made!r} is not restored from a snapshot")
            self.restore(made, clear=False)
        except BaseException:
            made.close()
            raise
        return made

    def _as(self, owner: MappingMap) -> tuple[bytes | bytearray, bytes | bytearray]:
        """The keys and values as this map has them."""
        keys, values = self.keys_data, self.values_data
        key_codec, value_codec = _codecs(owner)
        if not self._is_as(self.key_codec, self.key_size, key_codec, owner.key_size):
            keys = bytearray()
            for key, _ in self.raw_items():
                keys += _convert(self.key_codec, key_codec, key, owner.key_size, self.byte_order, "key")
        if not self._is_as(self.value_codec, self.value_size, value_codec, owner.value_size):
            values = bytearray()
            for _, value in self.raw_items():
                for part in self._parts(value) if self.cpus else [value]:
                    new = _convert(self.value_codec, value_codec, part, owner.value_size, self.byte_order, "value")
                    values += new.ljust(owner.value_size + 7 & ~7, b"\0") if self.cpus else new
        return keys, values

    def _is_as(self, ours: Codec | None, size: int, theirs: Codec | None, their_size: int) -> bool:
        """Whether our bytes are those of the other type."""
        if size != their_size or self.byte_order != sys.byteorder:
            return False
        return ours is None or theirs is None or _layout(ours) == _layout(theirs)

    # --- files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file: as JSON if its name ends in ``.json``, else in the compact form. Raises OSError."""
        text = os.fspath(path)
        data = self.to_json().encode() if text.endswith(".json") else self.to_bytes()
        beside = f"{text}.{os.getpid()}.new"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(beside, text)
        except BaseException:
            os.unlink(beside)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file of either form. Raises OSError; ObjectError if it is none, or damaged."""
        text = os.fspath(path)
        with open(text, "rb") as file:
            data = file.read()
        try:
            return cls.from_bytes(data) if data.startswith(MAGIC) else cls.from_json(data.decode())
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ObjectError(f"{text}: {error}") from None

    def _header(self) -> tuple[dict[str, Any], bytes]:
        btf, (key_id, value_id) = describe(self.key_codec, self.value_codec, byte_order=self.byte_order)
        header = {"format": FORMAT, "version": VERSION, **{field: getattr(self, field) for field in _SHAPE}}
        header |= {"cpus": self.cpus, "byte_order": self.byte_order, "key_type": key_id, "value_type": value_id}
        return header, btf

    def to_bytes(self) -> bytes:
        """The compact form."""
        import json
        import zlib

        header, btf = self._header()
        lengths = {"btf": len(btf), "keys": len(self.keys_data), "values": len(self.values_data)}
        text = json.dumps(header | {"lengths": lengths}, separators=(",", ":")).encode()
        return MAGIC + _LENGTH.pack(len(text)) + text + zlib.compress(btf + self.keys_data + self.values_data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the compact form. Raises ObjectError."""
        import json
        import zlib

        start = len(MAGIC) + _LENGTH.size
        if not data.startswith(MAGIC) or len(data) < start:
            raise ObjectError("this is no snapshot of a map")
        (length,) = _LENGTH.unpack_from(data, len(MAGIC))
        if length > min(MAX_HEADER, len(data) - start):
            raise ObjectError(f"the header is cut off: {length} bytes are not there")
        try:
            header = json.loads(data[start : start + length])
            lengths = [header["lengths"][part] for part in ("btf", "keys", "values")]
            total = sum(_natural(number, "length") for number in lengths)
            if total > MAX_BODY:
                raise ObjectError(f"it says that it has {total} bytes")
            inflate = zlib.decompressobj()
            body = inflate.decompress(data[start + length :], total + 1)
        except (ValueError, TypeError, KeyError, RecursionError, zlib.error) as error:
            raise ObjectError(f"the header or the data is damaged: {error!r}") from None
        if len(body) != total or not inflate.eof:
            raise ObjectError(f"the data is damaged: {len(body)} bytes, not {total}")
        keys_at, values_at = lengths[0], lengths[0] + lengths[1]
        return cls._from_header(header, body[:keys_at], body[keys_at:values_at], body[values_at:])

    def to_json(self) -> str:
        """As JSON: the header, the type information in hexadecimal, and each element typed."""
        import json

        header, btf = self._header()
        entries = []
        for key, value in self.raw_items():
            if self.cpus:
                plain: Any = [to_plain(self.value_codec, part) for part in self._parts(value)]
            else:
                plain = to_plain(self.value_codec, value)
            entries.append({"key": to_plain(self.key_codec, key), "value": plain})
        return json.dumps({**header, "btf": btf.hex(), "entries": entries}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read JSON. Raises ObjectError; ValueError, TypeError, OverflowError for an element that is wrong."""
        import json

        try:
            header = json.loads(text)
            entries, btf = list(header["entries"]), bytes.fromhex(header["btf"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ObjectError(f"this is no snapshot of a map: {error!r}") from None
        made = cls._from_header(header, btf, b"", b"")
        keys, values = bytearray(), bytearray()
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not {"key", "value"} <= entry.keys():
                raise ObjectError(f"entry {number} has no key or no value")
            keys += from_plain(made.key_codec, entry["key"], f"entry {number}: key")
            parts = entry["value"] if made.cpus else [entry["value"]]
            if made.cpus and (not isinstance(parts, list) or len(parts) != made.cpus):
                raise ObjectError(f"entry {number} has not one value for each of {made.cpus} CPUs")
            for part in parts:
                data = from_plain(made.value_codec, part, f"entry {number}: value")
                values += data.ljust(made.value_size + 7 & ~7, b"\0") if made.cpus else data
        made.keys_data, made.values_data = keys, values
        made._check()
        return made

    @classmethod
    def _from_header(cls, header: dict[str, Any], btf_data: bytes, keys: bytes, values: bytes) -> Self:
        """What a header and data say. Raises ObjectError."""
        from pybpf.btf.codec import codec
        from pybpf.btf.reader import BTF

        if header.get("format") != FORMAT or header.get("version") != VERSION:
            raise ObjectError(f"this is no snapshot of a map, or of another version than {VERSION}")
        if header.get("byte_order") not in ("little", "big") or not isinstance(header.get("name"), str):
            raise ObjectError("the header is damaged: byte_order, name")
        for field in (*_SHAPE[1:], "cpus", "key_type", "value_type"):
            _natural(header.get(field), field)
        try:
            btf = BTF.from_bytes(btf_data)
            codecs = [codec(btf, number) if number else None for number in (header["key_type"], header["value_type"])]
        except BTFError as error:
            raise ObjectError(f"the type information is damaged: {error}") from None
        if btf.byte_order != header["byte_order"]:
            raise ObjectError(
                f"the data is {header['byte_order']}-endian, its type information {btf.byte_order}-endian"
            )
        made = cls(header, keys, values, *codecs, cpus=header["cpus"], byte_order=header["byte_order"])
        made._check()
        return made

    def _check(self) -> None:
        """Raises ObjectError when sizes do not go together."""
        for part, size, found in (("key", self.key_size, self.key_codec), ("value", self.value_size, self.value_codec)):
            if not size or (found is not None and found.size != size):
                raise ObjectError(
                    f"the {part} has {size} bytes, its type {found.size if found is not None else 'none'}"
                )
        count, rest = divmod(len(self.keys_data), self.key_size)
        if rest or len(self.values_data) != count * self.transfer_size:
            raise ObjectError(f"{len(self.keys_data)} bytes of keys do not go with {len(self.values_data)} of values")


def _natural(number: Any, name: str) -> int:
    if type(number) is not int or not 0 <= number < 1 << 64:
        raise ObjectError(f"the header is damaged: {name} is {number!r}")
    return number


def _layout(codec: Codec) -> tuple[bytes, list[int]]:
    return describe(codec, byte_order=sys.byteorder)


def _codecs(owner: MappingMap) -> tuple[Codec | None, Codec | None]:
    """The types of keys and values. Indexes and other plain numbers have one even if nobody told it."""
    from pybpf.maps.face import NumberFace

    def known(face: Face, codec: Codec | None) -> Codec | None:
        if codec is not None or not isinstance(face, NumberFace):
            return codec
        from pybpf.maps.declared import codec_of

        return codec_of("u32")

    return known(owner.keys_face, owner.key_codec), known(owner.values_face, owner.value_codec)


def _check_room(owner: MappingMap, keys: bytes | bytearray) -> None:
    """Raises ValueError for more elements than the map takes. LRU maps take any number."""
    from pybpf.maps.array import IndexedMap

    count = len(keys) // owner.key_size
    if isinstance(owner, IndexedMap):
        count = max(memoryview(keys).cast("I"), default=-1) + 1
    is_bounded = owner.max_entries and owner.type_number not in (BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_LRU_PERCPU_HASH)
    if is_bounded and count > owner.max_entries:
        raise ValueError(f"{owner!r} has no room for what the snapshot has: it takes {count} elements")


def _convert(old: Codec | None, new: Codec | None, data: bytes, size: int, byte_order: str, part: str) -> bytes:
    """A value of one type as one of another, by the names of its fields."""
    if old is None or new is None:
        if len(data) != size or byte_order != sys.byteorder:
            raise ValueError(f"a {part} without a type cannot be converted ({len(data)} bytes, {byte_order}-endian)")
        return data
    return convert(old, new, data, part)
