"""Names to type ids of one BTF's own types, without decoding them.

Two ways with one interface, both built at the first question:

* `NameTable` decodes each distinct name once: right for objects and modules, a millisecond for a thousand types.
* `NameScan` searches the string table for the name, then the types' name offsets for its offset: right for a kernel,
  where a table of everything costs more than the whole load. It relies on each string being stored once, which the
  kernel's build (pahole, btf__dedup) guarantees.

A third, the stored index of a kernel's names, is `pybpf.btf.index`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Collection, Iterable

    from pybpf.btf.layout import Positions
    from pybpf.btf.reader import BTF

ENCODING_ERRORS = "backslashreplace"
"""How names that are not UTF-8 are shown: always printable."""


_CHUNK = 4096


def essential_name(name: str) -> str:
    """The name without its ___flavor: ``task_struct___old`` gives ``task_struct``.

    The last place where exactly three underscores stand between two other characters is the cut, so ``a____b`` and
    ``___x`` are whole names and ``a___b___c`` gives ``a___b`` (libbpf's bpf_core_essential_name_len).
    """
    end = len(name)
    while (cut := name.rfind("___", 1, end)) > 0:
        after = cut + 3
        if after < len(name) and name[cut - 1] != "_" and name[after] != "_":
            return name[:cut]
        end = after - 1
    return name


def encode_name(name: str) -> bytes:
    return name.encode("utf-8", ENCODING_ERRORS)


class NameTable:
    """Every name of a BTF's own types in one dict."""

    __slots__ = ("_btf", "_essential", "_ids")

    def __init__(self, btf: BTF) -> None:
        self._btf = btf
        self._ids: dict[str, list[int]] = {}
        self._essential: dict[str, list[int]] = {}
        decoded: dict[int, str] = {0: ""}
        for id, offset in enumerate(btf.own_name_offsets(), btf.first_id):
            name = decoded.get(offset)
            if name is None:
                name = decoded[offset] = btf.string(offset)
            if not name:
                continue
            self._ids.setdefault(name, []).append(id)
            if "___" in name and (essential := essential_name(name)) != name:
                self._essential.setdefault(essential, []).append(id)

    def ids(self, name: str, kinds: Collection[int] | None) -> list[int]:
        return self._of_kinds(self._ids.get(name, ()), kinds)

    def candidates(self, essential: str, kinds: Collection[int] | None) -> list[int]:
        found = list(self._essential.get(essential, ()))
        if essential_name(essential) == essential:
            found += self._ids.get(essential, ())
        return self._of_kinds(sorted(found), kinds)

    def _of_kinds(self, ids: Iterable[int], kinds: Collection[int] | None) -> list[int]:
        if kinds is None:
            return list(ids)
        kind_of = self._btf.kind_of
        return [id for id in ids if kind_of(id) in kinds]


class NameScan:
    """Names of a kernel's types, found by searching."""

    __slots__ = ("_btf", "_data", "_end", "_flavors", "_kinds", "_parts", "_start")

    def __init__(self, btf: BTF) -> None:
        self._btf = btf
        self._data = btf.data
        self._start = btf.header.strings
        self._end = btf.header.strings_end
        self._kinds: bytes | None = None
        self._parts: dict[frozenset[int] | None, tuple[array[int], bytes]] = {}
        self._flavors: dict[str, list[int]] | None = None

    def ids(self, name: str, kinds: Collection[int] | None) -> list[int]:
        return self._at(self._offset_of(name), kinds)

    def candidates(self, essential: str, kinds: Collection[int] | None) -> list[int]:
        found = [id for offset in self._flavor_offsets().get(essential, ()) for id in self._at(offset, kinds)]
        if essential_name(essential) == essential:
            found += self._at(self._offset_of(essential), kinds)
        return sorted(found)

    def _offset_of(self, name: str) -> int:
        """The string offset of a name, 0 when it is not there."""
        text = encode_name(name)
        if not text or b"\0" in text:
            return 0
        found = self._data.find(b"\0" + text + b"\0", self._start, self._end)
        return found + 1 - self._start if found >= 0 else 0

    def _at(self, offset: int, kinds: Collection[int] | None) -> list[int]:
        """The ids of the types of some kinds whose name is at a string offset, ascending."""
        if not offset:
            return []
        from bisect import bisect_left

        positions, name_offsets = self._part(None if kinds is None else frozenset(kinds))
        every = self._btf.positions()
        first_id = self._btf.first_id
        return [first_id + bisect_left(every, positions[index]) for index in find_words(name_offsets, offset)]

    def _part(self, kinds: frozenset[int] | None) -> tuple[array[int], bytes]:
        """Where the types of some kinds are, and their name offsets."""
        part = self._parts.get(kinds)
        if part is None:
            from array import array
            from itertools import compress

            positions = array("I", self._btf.positions()[:-1])
            if kinds is not None:
                chosen = bytearray(256)
                for kind in kinds:
                    chosen[kind] = chosen[kind | 0x80] = 1  # the top bit of the byte is kind_flag
                positions = array("I", compress(positions, self._kind_bytes().translate(bytes(chosen))))
            name_offsets = array("I", map(self._btf.words().__getitem__, positions))
            part = self._parts[kinds] = positions, name_offsets.tobytes()
        return part

    def _kind_bytes(self) -> bytes:
        """The top byte of each type's info word."""
        if self._kinds is None:
            header = self._btf.header
            top = 7 if header.byte_order == "little" else 4
            tops = self._data[header.types + top : header.types_end : 4]
            self._kinds = _pick(tops, self._btf.positions()[:-1])
        return self._kinds

    def _flavor_offsets(self) -> dict[str, list[int]]:
        """Essential name -> string offsets of the names that have a flavor."""
        if self._flavors is None:
            flavors: dict[str, list[int]] = {}
            data, found = self._data, self._data.find(b"___", self._start, self._end)
            while found >= 0:
                start = data.rfind(b"\0", self._start, found) + 1
                end = data.find(b"\0", found, self._end)
                name = data[start:end].decode("utf-8", ENCODING_ERRORS)
                essential = essential_name(name)
                if essential != name:
                    flavors.setdefault(essential, []).append(start - self._start)
                found = data.find(b"___", end, self._end)
            self._flavors = flavors
        return self._flavors


def find_words(data: bytes, word: int) -> list[int]:
    """The indexes at which a 32-bit word in host order occurs."""
    pattern = word.to_bytes(4, sys.byteorder)
    found = []
    at = data.find(pattern)
    while at >= 0:
        if at % 4 == 0:
            found.append(at // 4)
        at = data.find(pattern, at + 1)
    return found


def _pick(source: bytes, positions: Positions) -> bytes:
    """The bytes at many positions: C's work, in chunks that keep the memory small."""
    from operator import itemgetter

    chunks = []
    for start in range(0, len(positions), _CHUNK):
        chunk = positions[start : start + _CHUNK]
        chunk.append(chunk[0])  # itemgetter of one position would not answer a tuple
        chunks.append(bytes(itemgetter(*chunk)(source)[:-1]))
    return b"".join(chunks)
