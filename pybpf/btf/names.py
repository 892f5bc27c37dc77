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
    from collections.abc import Collection, Iterable

    from pybpf.btf.layout import Positions
    from pybpf.btf.reader import BTF

ENCODING_ERRORS = "backslashreplace"
"""How names that are not UTF-8 are shown: always printable."""


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

    __slots__ = ("_btf", "_data", "_end", "_flavors", "_parts", "_start")

    def __init__(self, btf: BTF) -> None:
        self._btf = btf
        self._data = btf.data
        self._start = btf.header.strings
        self._end = btf.header.strings_end
        self._parts: dict[frozenset[int] | None, tuple[Positions, bytes]] = {}
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
        headers, name_offsets = self._part(None if kinds is None else frozenset(kinds))
        found = (self._btf.id_at(headers[index]) for index in find_words(name_offsets, offset))
        return [id for id in found if id]

    def _part(self, kinds: frozenset[int] | None) -> tuple[Positions, bytes]:
        """Word indexes at which types of some kinds may start, and the words there: if types do, their name offsets.

        What looks like the info word of such a type, by its top byte, may be a number of something else. Looking at
        all of them takes 3 ms for a kernel, walking from type to type 9 and more.
        """
        part = self._parts.get(kinds)
        if part is None:
            from struct import pack

            headers = self._btf.positions()[:-1] if kinds is None else self._look_for(kinds)
            name_offsets = pack(f"={len(headers)}I", *map(self._btf.words().__getitem__, headers))
            part = self._parts[kinds] = headers, name_offsets
        return part

    def _look_for(self, kinds: frozenset[int]) -> list[int]:
        """The index of each word that stands before one with the top byte of such an info word."""
        from itertools import accumulate

        chosen = bytearray(256)
        for kind in kinds:
            chosen[kind] = chosen[kind | 0x80] = 1  # the top bit of the byte is kind_flag
        header = self._btf.header
        top = 7 if header.byte_order == "little" else 4
        marks = self._data[header.types + top : header.types_end : 4].translate(bytes(chosen))
        *gaps, _ = map(len, marks.split(b"\1"))
        return [index + distance for index, distance in enumerate(accumulate(gaps))]

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
