"""A lazy reader of BTF: of an object, of the kernel (vmlinux), of a module.

Rules of this file:

* `from_bytes` checks the header and nothing else; the types are walked when somebody asks for one, a type is decoded
  when somebody asks for it. What is malformed raises `BTFError` then.
* Both byte orders. Split BTF (a module's) resolves ids and strings below its own in its base.
* A name that is not UTF-8 is decoded with backslash escapes, so it can always be printed.
"""

from __future__ import annotations

from itertools import chain

from pybpf.btf import kinds
from pybpf.btf.decode import decode
from pybpf.btf.layout import Header, Steps, host_words, info_kind, walk
from pybpf.btf.names import ENCODING_ERRORS, NameScan, NameTable, essential_name
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from mmap import mmap
    from typing import Any

    from pybpf.btf.index import NameIndex
    from pybpf.btf.layout import Buffer, Positions, Words

__all__ = ["BTF", "BTFNameError", "essential_name"]

_MAX_SIZE = 0xFFFFFFFF
_FIRST_STEP = 1 << 16
"""Words of the first step of a walk over a kernel's types."""


class BTFNameError(BTFError, KeyError):
    """No type has that name."""

    def __str__(self) -> str:
        return ValueError.__str__(self)


class BTF:
    """The types of one object, kernel or module.

    Attributes:
        data, header: the raw bytes and their checked header. byte_order: ``"little"`` or ``"big"``.
        name: what it describes, for messages.
        base: the BTF that ids below `first_id` belong to, or None.
        first_id: the first id of its own: 1, or the number of ids in the base.
        end_of_strings: one past the last string offset, those of the base included.
        cache: immutable facts that other modules derive from this BTF.
    """

    __slots__ = (
        "__weakref__",
        "_count",
        "_deduplicated",
        "_index",
        "_names",
        "_pointer_size",
        "_positions",
        "_steps",
        "_string_start",
        "_strings_before",
        "_tags",
        "_types",
        "_words",
        "base",
        "byte_order",
        "cache",
        "data",
        "end_of_strings",
        "first_id",
        "header",
        "name",
    )

    def __init__(
        self,
        data: bytes | mmap,
        base: BTF | None = None,
        name: str = "",
        *,
        index: NameIndex | None = None,
        deduplicated: bool = False,
    ) -> None:
        """`data` must not change. `index` is a stored index that fits it; `deduplicated` allows `NameScan`."""
        header = Header(data, split=base is not None)
        if base is not None and base.byte_order != header.byte_order:
            raise BTFError(f"BTF {name}: byte order differs from its base")
        self.data = data
        self.base = base
        self.name = name
        self.byte_order: str = header.byte_order
        self._pointer_size = 0
        self.first_id: int = 1 if base is None else len(base)
        self.cache: dict[Any, Any] = {}
        self.header = header
        self._strings_before = 0 if base is None else base.end_of_strings
        self._string_start = header.strings - self._strings_before
        self.end_of_strings: int = self._strings_before + header.strings_end - header.strings
        self._words: Words | None = None
        self._positions: Positions | None = None
        self._steps = Steps(bytes(data[header.layout : header.layout_end]))
        self._index = index
        self._count = -1 if index is None else index.count
        self._deduplicated = deduplicated
        self._names: NameTable | NameScan | None = None
        self._types: dict[int, kinds.Type] = {}
        self._tags: dict[int, list[kinds.DeclTag]] | None = None

    @classmethod
    def from_bytes(cls, data: Buffer, *, base: BTF | None = None, name: str = "") -> BTF:
        """Read raw BTF (a `.BTF` section, a file below /sys/kernel/btf). Raises BTFError for a bad header."""
        return cls(bytes(data), base, name)

    @classmethod
    def from_file(cls, path: str, *, base: BTF | None = None) -> BTF:
        """Read a file of raw BTF, or the `.BTF` section of an ELF file. Raises OSError, BTFError.

        A kernel module that was built outside of the kernel's tree brings a distilled base (``.BTF.base``). Without
        `base` that is the base of what is returned; with `base` the module's types are relocated to it.
        """
        distilled = b""
        with open(path, "rb") as file:
            data = file.read(4)
            if data == b"\x7fELF":
                data = elf_section(path, ".BTF")
                distilled = elf_section(path, ".BTF.base", optional=True)
            else:
                data += file.read()
        try:
            if not distilled:
                return cls(data, base, path)
            split = cls(data, cls(distilled, None, f"{path} .BTF.base"), path)
            if base is None:
                return split
            from pybpf.btf.distilled import relocate

            return relocate(split, base)
        except BTFError as error:
            raise BTFError(f"{path}: {error}") from None

    def __repr__(self) -> str:
        return f"<BTF {self.name or '(anon)'} {self.byte_order}-endian, {len(self.data)} bytes>"

    # ids and positions

    def __len__(self) -> int:
        """One past the last id."""
        if self._count < 0:
            self._walk()
        return self.first_id + self._count

    def __bool__(self) -> bool:
        return True

    def words(self) -> Words:
        """The type section as 32-bit words in host byte order."""
        if self._words is None:
            self._words = host_words(self.data, self.header.types, self.header.types_end, self.byte_order)
        return self._words

    def positions(self) -> Positions:
        """The word index of each own type, and of the end of the last one."""
        return self._walk()

    def own_name_offsets(self) -> tuple[int, ...]:
        """The string offset of each own type's name."""
        words = self.words()
        return tuple([words[position] for position in self.positions()[:-1]])

    def _walk(self, types: int = _MAX_SIZE, word: int = _MAX_SIZE) -> Positions:
        """The word indexes of types: at least so many types or so many words far, and of all when nothing is said.

        A kernel's BTF is walked in steps: what programs look into stands in the first tenth of it. Other BTF is not
        trusted, and walked to its end at once.
        """
        words = self.words()
        end = len(words)
        positions = self._positions or (0,)
        while positions[-1] < end and positions[-1] <= word and len(positions) <= types:
            stop = min(max(2 * positions[-1], _FIRST_STEP), end) if self._deduplicated else end
            positions = walk(words[1:stop], self._steps, positions)
            if positions[-1] > end or (stop == end and positions[-1] < end):
                raise BTFError(
                    f"BTF types: the last type, number {len(positions) - 1}, does not end where the section ends"
                )
        self._positions = positions
        if positions[-1] == end:
            self._count = len(positions) - 1
        return positions

    def _place(self, id: int) -> tuple[int, int]:
        """Where an own type starts and ends, in words. Raises BTFError for a bad id."""
        index = id - self.first_id
        if self._positions is None and self._index is not None and 0 <= index < self._count:
            place = self._index.place(index, self.words(), self._steps)
            if place is not None:
                return place
            self._drop_index()
        positions = self._positions
        if positions is None or index + 1 >= len(positions):
            positions = self._walk(types=index + 1)
        if index < 0 or index + 1 >= len(positions):
            raise BTFError(f"BTF {self.name}: type id {id} is out of range (1 to {len(self) - 1})")
        return positions[index], positions[index + 1]

    def id_at(self, word: int) -> int:
        """The id of the own type that starts at a word of the type section; 0 when none does."""
        from bisect import bisect_left

        positions = self._walk(word=word)
        index = bisect_left(positions, word)
        return self.first_id + index if word < positions[-1] and positions[index] == word else 0

    def _drop_index(self) -> None:
        """The stored index turned out to be damaged: do without it."""
        self._index = None
        self._walk()

    @property
    def is_indexed(self) -> bool:
        """True while a stored index is in use."""
        return self._index is not None

    @property
    def is_walked(self) -> bool:
        """True when types have been walked over, all or some."""
        return self._positions is not None

    def check(self) -> None:
        """Walk over all types and look at the name of each. Raises BTFError when one is malformed."""
        if self._names is None:
            self._names = NameTable(self)

    # types

    def type(self, id: int) -> kinds.Type:
        """The type with that id, decoded at the first call. Raises BTFError for a bad id or a bad name."""
        found = self._types.get(id)
        if found is None:
            if id < self.first_id and self.base is not None:
                return self.base.type(id)
            if id == 0:
                found = kinds.Void(self, 0, "void")
            else:
                start, end = self._place(id)
                found = decode(self, id, self.words(), start, end - start)
            self._types[id] = found
        return found

    def kind_of(self, id: int) -> int:
        """The kind of a type, without decoding it."""
        if id < self.first_id:
            return self.base.kind_of(id) if self.base is not None else self.type(id).kind
        return info_kind(self.words()[self._place(id)[0] + 1])

    def name_of(self, id: int) -> str:
        """The name of a type, without decoding it; empty for an anonymous one."""
        if id < self.first_id:
            return self.base.name_of(id) if self.base is not None else self.type(id).name
        return self.string(self.words()[self._place(id)[0]])

    def string(self, offset: int) -> str:
        """The string at an offset of the string section; 0 is the empty one. Raises BTFError when out of range."""
        if not offset:
            return ""
        if offset < self._strings_before and self.base is not None:
            return self.base.string(offset)
        if not 0 <= offset < self.end_of_strings:
            raise BTFError(f"BTF {self.name}: string offset {offset} is out of range (0 to {self.end_of_strings - 1})")
        start = self._string_start + offset
        return self.data[start : self.data.find(b"\0", start)].decode("utf-8", ENCODING_ERRORS)

    def strings(self, offsets: Sequence[int]) -> list[str]:
        """The strings at many offsets. Raises BTFError when one is out of range."""
        before = self._string_start
        if offsets and (min(offsets) < self._strings_before or max(offsets) >= self.end_of_strings):
            return [self.string(offset) for offset in offsets]
        data = self.data
        find = data.find
        return [
            data[(start := before + offset) : find(b"\0", start)].decode("utf-8", ENCODING_ERRORS) for offset in offsets
        ]

    def index_of_string(self, text: bytes, offsets: Sequence[int]) -> int:
        """The index of the first of these offsets where a string is; -1 when it is at none of them.

        Raises BTFError when an offset is out of range.
        """
        if offsets and (min(offsets) < self._strings_before or max(offsets) >= self.end_of_strings):
            names = [self.string(offset).encode("utf-8", ENCODING_ERRORS) for offset in offsets]
            return names.index(text) if text in names else -1
        data, before, length = self.data, self._string_start, len(text)
        for index, offset in enumerate(offsets):
            start = before + offset
            if data[start : start + length] == text and not data[start + length]:
                return index
        return -1

    def types(self) -> Iterator[kinds.Type]:
        """Every own type in order of id. It decodes them all: for a kernel that takes a second and much memory."""
        for id in range(self.first_id, len(self)):
            yield self.type(id)

    # names

    def get(self, name: str, kind: int | None = None) -> kinds.Type | None:
        """The first type with that name, and of that kind if one is given; the base is searched first."""
        if name == "void" and not kind:
            return self.type(0)
        if self.base is not None:
            found = self.base.get(name, kind)
            if found is not None:
                return found
        ids = self.own_ids(name, kind)
        return self.type(ids[0]) if ids else None

    def find(self, name: str, kind: int | None = None) -> kinds.Type:
        """Like `get`, but raises BTFNameError (a BTFError and a KeyError) when there is none."""
        found = self.get(name, kind)
        if found is None:
            what = "type" if kind is None else kinds.kind_name(kind)
            raise BTFNameError(f"BTF {self.name}: no {what} is named {name!r}")
        return found

    def own_ids(self, name: str, kind: int | None = None) -> list[int]:
        """The ids of the own types with that name, and of that kind if one is given, ascending."""
        wanted = None if kind is None else (kind,)
        if self._index is not None:
            ids = self._index.ids(name, wanted)
            if ids is not None:
                return ids
            self._drop_index()
        return self._name_lookup().ids(name, wanted)

    def candidates(self, essential_name: str, kinds: Collection[int]) -> list[int]:
        """The ids of the own types of these kinds whose name without its ___flavor is `essential_name`, ascending."""
        if self._index is not None:
            ids = self._index.candidates(essential_name, kinds)
            if ids is not None:
                return ids
            self._drop_index()
        return self._name_lookup().candidates(essential_name, kinds)

    def _name_lookup(self) -> NameTable | NameScan:
        if self._names is None:
            self._names = NameScan(self) if self._deduplicated else NameTable(self)
        return self._names

    # chains

    def skip_modifiers(self, id: int) -> int:
        """The id behind const, volatile, restrict and type tags. Raises BTFError after 32 hops."""
        return self._skip(id, kinds.MODIFIER_KINDS).id

    def resolve(self, id: int) -> kinds.Type:
        """The type behind modifiers and typedefs. Raises BTFError after 32 hops."""
        return self._skip(id, kinds.TRANSPARENT_KINDS)

    def _skip(self, id: int, through: frozenset[int]) -> kinds.Type:
        target = self.type(id)
        for _ in range(kinds.MAX_DEPTH):
            if target.kind not in through:
                return target
            assert isinstance(target, kinds.Reference)
            target = self.type(target.type_id)
        raise BTFError(f"BTF {self.name}: type id {id} is a chain of more than {kinds.MAX_DEPTH} types")

    @property
    def pointer_size(self) -> int:
        """The size of a pointer in bytes: that of C's long where one is described, else 8. It may be set."""
        if not self._pointer_size:
            self._pointer_size = self._long_size() if self.base is None else self.base.pointer_size
        return self._pointer_size

    @pointer_size.setter
    def pointer_size(self, size: int) -> None:
        self._pointer_size = size

    def _long_size(self) -> int:
        # A kernel's BTF begins with it, and a search through it takes milliseconds.
        first = [1] if self.words() and self.name_of(1) in _NAMES_OF_LONG else []
        for id in chain(first, (id for name in _NAMES_OF_LONG for id in self.own_ids(name, kinds.KIND_INT))):
            found = self.type(id)
            if isinstance(found, kinds.Int) and found.size in (4, 8):
                return found.size
        return 8

    def size_of(self, id: int) -> int:
        """The size of a type in bytes. Raises BTFError for a type without one (void, functions, forwards)."""
        factor = 1
        target = self.type(id)
        for _ in range(kinds.MAX_DEPTH):
            if isinstance(target, _SIZED):
                size = target.size
            elif isinstance(target, kinds.Ptr):
                size = self.pointer_size
            elif isinstance(target, _FOLLOWED):
                if isinstance(target, kinds.Array):
                    factor *= target.nelems
                target = self.type(target.type_id)
                continue
            else:
                raise BTFError(f"BTF {self.name}: type id {id} has no size ({kinds.kind_name(target.kind)})")
            if factor * size > _MAX_SIZE:
                raise BTFError(f"BTF {self.name}: type id {id} is larger than 4 GiB")
            return factor * size
        raise BTFError(f"BTF {self.name}: type id {id} is a chain of more than {kinds.MAX_DEPTH} types")

    def align_of(self, id: int) -> int:
        """The alignment of a type in bytes; 1 for a packed struct. Raises BTFError for a type without one."""
        return self._align_of(id, 0)

    def _align_of(self, id: int, depth: int) -> int:
        if depth > kinds.MAX_DEPTH:
            raise BTFError(f"BTF {self.name}: type id {id} is nested deeper than {kinds.MAX_DEPTH} types")
        target = self.resolve(id)
        if isinstance(target, kinds.Int | kinds.Enumeration | kinds.Float):
            return min(self.pointer_size, target.size) or 1
        if isinstance(target, kinds.Ptr):
            return self.pointer_size
        if isinstance(target, kinds.Array | kinds.Var | kinds.DeclTag):
            return self._align_of(target.type_id, depth + 1)
        if isinstance(target, kinds.Composite):
            key = ("align", target.id)
            known: int | None = self.cache.get(key)
            if known is None:
                known = self.cache[key] = self._composite_align(target, depth + 1)
            return known
        raise BTFError(f"BTF {self.name}: type id {id} has no alignment ({kinds.kind_name(target.kind)})")

    def _composite_align(self, composite: kinds.Composite, depth: int) -> int:
        largest = 1
        for member in composite.members:
            align = self._align_of(member.type_id, depth)
            if not member.bitfield_size and member.bit_offset % (align * 8):
                return 1
            largest = max(largest, align)
        return 1 if composite.size % largest else largest

    # tags

    def decl_tags(self, id: int) -> list[kinds.DeclTag]:
        """The declaration tags on a type, in order of id. Built at the first call by looking at every type's kind."""
        if self._tags is None:
            tags: dict[int, list[kinds.DeclTag]] = {}
            words = self.words()
            for own, position in enumerate(self.positions()[:-1], self.first_id):
                if info_kind(words[position + 1]) == kinds.KIND_DECL_TAG:
                    tag = self.type(own)
                    assert isinstance(tag, kinds.DeclTag)
                    tags.setdefault(tag.type_id, []).append(tag)
            self._tags = tags
        own_tags = self._tags.get(id, [])
        return own_tags if self.base is None else self.base.decl_tags(id) + own_tags


_NAMES_OF_LONG = (
    "long unsigned int",
    "unsigned long",
    "long int",
    "long",
    "unsigned long int",
    "int long",
    "long unsigned",
    "unsigned int long",
    "int unsigned long",
    "int long unsigned",
    "long int unsigned",
)
_SIZED = (kinds.Int, kinds.Composite, kinds.Enumeration, kinds.Datasec, kinds.Float)
_FOLLOWED = (
    kinds.Array,
    kinds.Typedef,
    kinds.Volatile,
    kinds.Const,
    kinds.Restrict,
    kinds.TypeTag,
    kinds.DeclTag,
    kinds.Var,
)


def elf_section(path: str, name: str, *, optional: bool = False) -> bytes:
    """The contents of a section of an ELF file; empty when it is not there and optional.

    Raises OSError; BTFError when it is not there or the file is bad.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        try:
            section = ELFFile(file).get_section_by_name(name)
            data = b"" if section is None else bytes(section.data())
        except (
            ELFError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            TypeError,
            OverflowError,
            MemoryError,
        ) as error:
            raise BTFError(f"{path}: not a readable ELF file: {error}") from error
    if not data and not optional:
        raise BTFError(f"{path}: no section {name}")
    return data
