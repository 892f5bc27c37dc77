"""The stored index of a kernel's BTF: where types lie and which names they have, in a file that is mapped, not read.

Rules of this file:

* The index answers the questions of `reader.BTF` that would need a walk over all types: a type's place, the ids that
  have a name, the candidates of an essential name.
* It is believed only as far as it can be checked. The header and the sampled places are checked when it is opened, a
  bucket of names when it is read, a name against the string table when it is hit. What does not fit gives None, and
  the caller does without the index. It is never an error.
* Everything is in host byte order: the file belongs to one machine.

Format: header of 128 bytes; u32 word index of every 16th type; for each bucket u32 first entry and u32 checksum, and
one more pair that closes the last; u64 entries (string offset, type id << 32, kind << 56) ordered by bucket and id.
The bucket of a name is the CRC-32 of its essential name, modulo a power of two.
"""

from __future__ import annotations

import struct
from binascii import crc32

from pybpf.btf.layout import info_kind, numbers
from pybpf.btf.names import ENCODING_ERRORS, encode_name, essential_name
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from mmap import mmap

    from pybpf.btf.layout import Header, Steps, Words
    from pybpf.btf.reader import BTF

MAGIC = b"pybpfidx"
FORMAT = 1
FINGERPRINT_SIZE = 64

_HEADER = struct.Struct(f"=8sIIQ{FINGERPRINT_SIZE}sIIII")
"""Magic, format, byte order mark, file size, fingerprint, types, buckets, entries, checksum of the places."""
_CHECK = struct.Struct("=I")
"""The checksum of the header, which follows it."""
_HEADER_SIZE = 128
_ORDER_MARK = 0x01020304
_SAMPLE_SHIFT = 4
_SAMPLE_MASK = (1 << _SAMPLE_SHIFT) - 1
_NAMES_PER_BUCKET = 8
_MAX_COUNT = 0xFFFFFF
"""Ids have 24 bits in an entry."""


class NameIndex:
    """An opened index. `count` is the number of types; questions answer None when the index is damaged."""

    __slots__ = ("_buckets", "_data", "_entries", "_image", "_mask", "_samples", "_strings", "count")

    def __init__(self, image: bytes | mmap, data: bytes | mmap, header: Header, sizes: tuple[int, int, int]) -> None:
        self.count, buckets, entries = sizes
        samples_end, buckets_end, _ = _sections(self.count, buckets, entries)
        view = memoryview(image)
        self._image = image
        self._samples = view[_HEADER_SIZE:samples_end].cast("I")
        self._buckets = view[samples_end:buckets_end].cast("I")
        self._entries = buckets_end
        self._mask = buckets - 1
        self._data = data
        self._strings = header.strings

    @classmethod
    def open(cls, image: bytes | mmap, fingerprint: bytes, data: bytes | mmap, header: Header) -> NameIndex | None:
        """The index in `image` of the BTF `data`, or None when it does not fit."""
        if len(image) < _HEADER_SIZE:
            return None
        fields = _HEADER.unpack_from(image)
        magic, version, mark, size, stored, count, buckets, entries, places_check = fields
        (check,) = _CHECK.unpack_from(image, _HEADER.size)
        if (magic, version, mark, size) != (MAGIC, FORMAT, _ORDER_MARK, len(image)):
            return None
        if stored != fingerprint or check != crc32(image[: _HEADER.size]):
            return None
        samples_end, _, end = _sections(count, buckets, entries)
        if end != size or buckets & (buckets - 1) or places_check != crc32(image[_HEADER_SIZE:samples_end]):
            return None
        return cls(image, data, header, (count, buckets, entries))

    def place(self, index: int, words: Words, steps: Steps) -> tuple[int, int] | None:
        """Where the type number `index` (from 0) starts and ends, in words of the type section."""
        start = self._samples[index >> _SAMPLE_SHIFT]
        try:
            for _ in range(index & _SAMPLE_MASK):
                start += steps[words[start + 1]]
            end = start + steps[words[start + 1]]
        except (IndexError, BTFError):
            return None
        return (start, end) if end <= len(words) else None

    def ids(self, name: str, kinds: Collection[int] | None) -> list[int] | None:
        """The ids of the types with that name, ascending."""
        text = encode_name(name)
        if not text or b"\0" in text:
            return []
        essential = encode_name(essential_name(name)) if b"___" in text else text
        entries = self._bucket(essential)
        if entries is None:
            return None
        return [
            entry >> 32 & 0xFFFFFF
            for entry in entries
            if (kinds is None or entry >> 56 in kinds) and self._is_named(entry & 0xFFFFFFFF, text)
        ]

    def candidates(self, essential: str, kinds: Collection[int]) -> list[int] | None:
        """The ids of the types of these kinds that have that essential name, ascending."""
        text = encode_name(essential)
        if not text or b"\0" in text:
            return []
        entries = self._bucket(text)
        if entries is None:
            return None
        plain = b"___" not in text or essential_name(essential) == essential
        found = []
        for entry in entries:
            offset = entry & 0xFFFFFFFF
            if entry >> 56 in kinds and ((plain and self._is_named(offset, text)) or self._flavors(offset, text)):
                found.append(entry >> 32 & 0xFFFFFF)
        return found

    def _bucket(self, essential: bytes) -> list[int] | None:
        number = crc32(essential) & self._mask
        first, check, last = numbers(self._buckets, 2 * number, 2 * number + 3)
        raw = self._image[self._entries + 8 * first : self._entries + 8 * last]
        if crc32(raw, number + 1) != check:
            return None
        return memoryview(raw).cast("Q").tolist()

    def _is_named(self, offset: int, text: bytes) -> bool:
        start = self._strings + offset
        end = start + len(text)
        return self._data[start:end] == text and not self._data[end]

    def _flavors(self, offset: int, text: bytes) -> bool:
        start = self._strings + offset
        end = start + len(text)
        if self._data[start:end] != text or self._data[end : end + 3] != b"___":
            return False
        name = self._data[start : self._data.find(b"\0", end)].decode("utf-8", ENCODING_ERRORS)
        return encode_name(essential_name(name)) == text


def _sections(count: int, buckets: int, entries: int) -> tuple[int, int, int]:
    """Where the samples, the buckets and the entries end, in bytes."""
    samples = (count + _SAMPLE_MASK) >> _SAMPLE_SHIFT
    samples_end = _HEADER_SIZE + (samples + samples % 2) * 4
    buckets_end = samples_end + (buckets + 1) * 8
    return samples_end, buckets_end, buckets_end + entries * 8


def build(btf: BTF, fingerprint: bytes) -> bytes:
    """The image of an index of the BTF's own types. It takes some 100 ms for a kernel. Raises BTFError."""
    from array import array

    positions = btf.positions()
    words = btf.words()
    count = len(positions) - 1
    if count > _MAX_COUNT:
        raise BTFError(f"BTF {btf.name}: {count} types are too many for an index")
    hashes = _hashes(btf)
    mask = (1 << max(count // _NAMES_PER_BUCKET, 1).bit_length()) - 1
    buckets: list[list[int]] = [[] for _ in range(mask + 1)]
    id = btf.first_id
    for position in positions[:-1]:
        offset = words[position]
        if offset:
            buckets[hashes[offset] & mask].append(offset | id << 32 | info_kind(words[position + 1]) << 56)
        id += 1

    table = array("I")
    parts = []
    entries = 0
    for number, bucket in enumerate(buckets):
        raw = array("Q", bucket).tobytes()
        table.extend((entries, crc32(raw, number + 1)))
        entries += len(bucket)
        parts.append(raw)
    table.extend((entries, 0))

    samples = array("I", positions[: count : 1 << _SAMPLE_SHIFT])
    if len(samples) % 2:
        samples.append(0)
    places = samples.tobytes()
    _, _, size = _sections(count, len(buckets), entries)
    head = _HEADER.pack(MAGIC, FORMAT, _ORDER_MARK, size, fingerprint, count, len(buckets), entries, crc32(places))
    head += _CHECK.pack(crc32(head))
    return b"".join((head.ljust(_HEADER_SIZE, b"\0"), places, table.tobytes(), *parts))


def _hashes(btf: BTF) -> dict[int, int]:
    """The hash of the essential name at each string offset that is the name of a type."""
    header = btf.header
    strings = btf.data[header.strings : header.strings_end]
    hashes = {}
    for offset in set(btf.own_name_offsets()):
        if offset >= len(strings):
            raise BTFError(f"BTF {btf.name}: string offset {offset} is out of range (0 to {len(strings) - 1})")
        name = strings[offset : strings.index(b"\0", offset)]
        if b"___" in name:
            name = encode_name(essential_name(name.decode("utf-8", ENCODING_ERRORS)))
        hashes[offset] = crc32(name)
    return hashes
