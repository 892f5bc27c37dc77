"""Writing BTF: from nothing, or by changing BTF that was read.

Rules of this file:

* Types are kept as a list of 32-bit words, and packed in their byte order at the end.
* Ids never change: an editor changes types in place or appends.
* What is written tiles the data exactly (header, types, strings), as the kernel demands (kernel/bpf/btf.c).
"""

from __future__ import annotations

import struct
import sys

from pybpf.btf import kinds
from pybpf.btf.kinds import DatasecEntry, Member, Param
from pybpf.btf.layout import (
    ELEMENT_WORDS,
    HEADER_SIZE,
    HEADER_SIZE_WITH_LAYOUT,
    INFO_WORDS,
    MAGIC,
    TYPE_WORDS,
    VERSION,
    info_kind,
    info_vlen,
    pack_info,
)
from pybpf.btf.names import encode_name
from pybpf.btf.reader import BTF
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MAX_WORD = 0xFFFFFFFF
_MAX_BITFIELD_OFFSET = 0xFFFFFF
_LINKAGES = (kinds.LINKAGE_STATIC, kinds.LINKAGE_GLOBAL, kinds.LINKAGE_EXTERN)


def layout_section(byte_order: str) -> bytes:
    """The layout section of kernel 7.x: for each kind the bytes that follow a type, once and per element."""
    order = "<" if byte_order == "little" else ">"
    return b"".join(
        struct.pack(f"{order}BBH", INFO_WORDS[kind] * 4, ELEMENT_WORDS[kind] * 4, 0)
        for kind in range(kinds.KIND_MAX + 1)
    )


class BTFBuilder:
    """Builds BTF type by type. Each `add_` method returns the id of the type it added.

    Values are checked for what the format can hold; whether the types make sense is the kernel's to judge. A value
    that does not fit raises BTFError. Type ids may point forward. Members, parameters and entries of sections are given
    as `Member`, `Param`, `DatasecEntry` or as tuples of their fields.
    """

    def __init__(self, byte_order: str = sys.byteorder, base: BTF | None = None) -> None:
        """`byte_order` is ``"little"`` or ``"big"``; with a `base`, ids and strings continue those of the base."""
        if byte_order not in ("little", "big"):
            raise BTFError(f"byte order {byte_order!r} is neither 'little' nor 'big'")
        if base is not None and base.byte_order != byte_order:
            raise BTFError("the byte order differs from that of the base")
        self.byte_order = byte_order
        self.first_id = 1 if base is None else len(base)
        self._strings_before = 0 if base is None else base.end_of_strings
        self._strings = bytearray(b"" if base is not None else b"\0")
        self._string_offsets: dict[bytes, int] = {b"": 0}
        self._words: list[int] = []
        self._positions: list[int] = []
        self._layout = b""

    def __len__(self) -> int:
        """One past the last id."""
        return self.first_id + len(self._positions)

    def add_string(self, text: str) -> int:
        """The string's offset; a string that is there already is not stored again."""
        data = encode_name(text)
        offset = self._string_offsets.get(data)
        if offset is None:
            if b"\0" in data:
                raise BTFError(f"string {text!r} contains NUL")
            offset = self._strings_before + len(self._strings)
            self._strings += data + b"\0"
            self._string_offsets[data] = offset
        return offset

    def _add(
        self, kind: int, name: str, word: int, *, vlen: int = 0, flag: bool = False, extra: Sequence[int] = ()
    ) -> int:
        if vlen > kinds.MAX_VLEN:
            raise BTFError(f"{kinds.kind_name(kind)} {name!r}: {vlen} elements are too many")
        id = len(self)
        for number in (word, *extra):
            if not 0 <= number <= _MAX_WORD:
                raise BTFError(f"{kinds.kind_name(kind)} {name!r}: {number} does not fit 32 bits")
        position = len(self._words)
        self._words.extend((self.add_string(name), pack_info(kind, vlen, flag), word, *extra))
        self._positions.append(position)
        return id

    def add_int(self, name: str, size: int, bits: int | None = None, encoding: int = 0, bit_offset: int = 0) -> int:
        """An integer of `size` bytes; `bits` default to all of them; `encoding` is INT_SIGNED, INT_CHAR or INT_BOOL."""
        bits = size * 8 if bits is None else bits
        if not (0 <= bits <= 0xFF and 0 <= bit_offset <= 0xFF and 0 <= encoding <= 0xF):
            raise BTFError(f"int {name!r}: bits {bits}, bit offset {bit_offset} or encoding {encoding} out of range")
        return self._add(kinds.KIND_INT, name, size, extra=(encoding << 24 | bit_offset << 16 | bits,))

    def add_ptr(self, type_id: int) -> int:
        return self._add(kinds.KIND_PTR, "", type_id)

    def add_array(self, type_id: int, index_type_id: int, nelems: int) -> int:
        return self._add(kinds.KIND_ARRAY, "", 0, extra=(type_id, index_type_id, nelems))

    def add_struct(self, name: str, size: int, members: Iterable[Member | tuple[str, int, int]]) -> int:
        """A struct of `size` bytes. Bit-field sizes make it one with kind_flag (bit offsets below 2**24)."""
        return self._add_composite(kinds.KIND_STRUCT, name, size, members)

    def add_union(self, name: str, size: int, members: Iterable[Member | tuple[str, int, int]]) -> int:
        return self._add_composite(kinds.KIND_UNION, name, size, members)

    def _add_composite(self, kind: int, name: str, size: int, members: Iterable[Member | tuple[str, int, int]]) -> int:
        made = [member if isinstance(member, Member) else Member(*member) for member in members]
        flag = any(member.bitfield_size for member in made)
        extra: list[int] = []
        for member in made:
            bits = member.bit_offset
            if flag:
                if not (0 <= bits <= _MAX_BITFIELD_OFFSET and 0 <= member.bitfield_size <= 0xFF):
                    raise BTFError(
                        f"{kinds.kind_name(kind)} {name!r}: {member!r} does not fit a struct with bit fields"
                    )
                bits |= member.bitfield_size << 24
            extra += (self.add_string(member.name), member.type_id, bits)
        return self._add(kind, name, size, vlen=len(made), flag=flag, extra=extra)

    def add_enum(self, name: str, size: int, is_signed: bool, values: Iterable[tuple[str, int]]) -> int:
        """An enum of `size` bytes with 32-bit values."""
        return self._add_enumeration(kinds.KIND_ENUM, name, size, is_signed, values)

    def add_enum64(self, name: str, size: int, is_signed: bool, values: Iterable[tuple[str, int]]) -> int:
        """An enum of `size` bytes with 64-bit values (kernel 6.0)."""
        return self._add_enumeration(kinds.KIND_ENUM64, name, size, is_signed, values)

    def _add_enumeration(self, kind: int, name: str, size: int, flag: bool, values: Iterable[tuple[str, int]]) -> int:
        width = 32 if kind == kinds.KIND_ENUM else 64
        low, high = (-(1 << (width - 1)), 1 << (width - 1)) if flag else (0, 1 << width)
        extra: list[int] = []
        for text, number in values:
            if not low <= number < high:
                raise BTFError(f"{kinds.kind_name(kind)} {name!r}: {text} = {number} does not fit {width} bits")
            extra += (self.add_string(text), number & _MAX_WORD)
            if width == 64:
                extra.append(number >> 32 & _MAX_WORD)
        return self._add(kind, name, size, vlen=len(extra) // (2 if width == 32 else 3), flag=flag, extra=extra)

    def add_fwd(self, name: str, is_union: bool = False) -> int:
        return self._add(kinds.KIND_FWD, name, 0, flag=is_union)

    def add_typedef(self, name: str, type_id: int) -> int:
        return self._add(kinds.KIND_TYPEDEF, name, type_id)

    def add_volatile(self, type_id: int) -> int:
        return self._add(kinds.KIND_VOLATILE, "", type_id)

    def add_const(self, type_id: int) -> int:
        return self._add(kinds.KIND_CONST, "", type_id)

    def add_restrict(self, type_id: int) -> int:
        return self._add(kinds.KIND_RESTRICT, "", type_id)

    def add_func(self, name: str, type_id: int, linkage: int = kinds.LINKAGE_GLOBAL) -> int:
        """A function; `type_id` is its prototype. The kernel loads static and global linkage only."""
        return self._add(kinds.KIND_FUNC, name, type_id, vlen=_linkage(linkage, name))

    def add_func_proto(self, type_id: int, params: Iterable[Param | tuple[str, int]]) -> int:
        """A prototype that returns `type_id`; a last ``Param("", 0)`` stands for ``...``."""
        extra: list[int] = []
        for item in params:
            param = item if isinstance(item, Param) else Param(*item)
            extra += (self.add_string(param.name), param.type_id)
        return self._add(kinds.KIND_FUNC_PROTO, "", type_id, vlen=len(extra) // 2, extra=extra)

    def add_var(self, name: str, type_id: int, linkage: int = kinds.LINKAGE_GLOBAL) -> int:
        return self._add(kinds.KIND_VAR, name, type_id, extra=(_linkage(linkage, name),))

    def add_datasec(self, name: str, size: int, entries: Iterable[DatasecEntry | tuple[int, int, int]]) -> int:
        extra = _datasec_words(entries)
        return self._add(kinds.KIND_DATASEC, name, size, vlen=len(extra) // 3, extra=extra)

    def add_float(self, name: str, size: int) -> int:
        return self._add(kinds.KIND_FLOAT, name, size)

    def add_decl_tag(self, name: str, type_id: int, component_index: int = -1, is_attribute: bool = False) -> int:
        """A declaration tag on `type_id` (-1) or on one of its members or parameters."""
        if not -1 <= component_index <= _MAX_WORD >> 1:
            raise BTFError(f"decl_tag {name!r}: component {component_index} is out of range")
        extra = (component_index & _MAX_WORD,)
        return self._add(kinds.KIND_DECL_TAG, name, type_id, flag=is_attribute, extra=extra)

    def add_type_tag(self, name: str, type_id: int, is_attribute: bool = False) -> int:
        return self._add(kinds.KIND_TYPE_TAG, name, type_id, flag=is_attribute)

    def to_bytes(self, *, layout: bool = False) -> bytes:
        """Raw BTF. With `layout` the header is that of kernel 7.x, with a layout section; older kernels refuse it."""
        section = self._layout or (layout_section(self.byte_order) if layout else b"")
        order = "<" if self.byte_order == "little" else ">"
        types = struct.pack(f"{order}{len(self._words)}I", *self._words)
        length = HEADER_SIZE_WITH_LAYOUT if section else HEADER_SIZE
        sizes = [0, len(types), len(types) + len(section), len(self._strings)]
        if section:
            sizes += (len(types), len(section))
        header = struct.pack(f"{order}HBBI{len(sizes)}I", MAGIC, VERSION, 0, length, *sizes)
        return header + types + section + bytes(self._strings)


class BTFEditor(BTFBuilder):
    """Changes a copy of BTF that was read. Ids and string offsets stay, new types and strings are appended.

    Setters raise BTFError for an id that is not one of the BTF's own, or of a kind that has no such thing.
    """

    def __init__(self, btf: BTF) -> None:
        super().__init__(btf.byte_order, btf.base)
        if btf.header.extended:
            raise BTFError(f"BTF {btf.name}: its header has fields that are not known here, so it cannot be changed")
        header = btf.header
        self._btf = btf
        self._words = btf.words().tolist()
        self._positions = list(btf.positions()[:-1])
        self._strings = bytearray(btf.data[header.strings : header.strings_end])
        self._layout = bytes(btf.data[header.layout : header.layout_end])

    def add_string(self, text: str) -> int:
        data = encode_name(text)
        if data not in self._string_offsets and b"\0" not in data:
            found = self._strings.find(b"\0" + data + b"\0")
            if found >= 0:
                self._string_offsets[data] = self._strings_before + found + 1
        return super().add_string(text)

    def _place(self, id: int, wanted: frozenset[int]) -> int:
        """The word index of an own type that has to be of one of these kinds."""
        index = id - self.first_id
        if not 0 <= index < len(self._positions):
            raise BTFError(f"BTF {self._btf.name}: type id {id} cannot be changed")
        position = self._positions[index]
        kind = info_kind(self._words[position + 1])
        if kind not in wanted:
            raise BTFError(f"BTF {self._btf.name}: type id {id} is a {kinds.kind_name(kind)}")
        return position

    def set_size(self, id: int, size: int) -> None:
        """The size in bytes of an int, float, struct, union, enum or data section."""
        position = self._place(id, _KINDS_WITH_SIZE)
        self._words[position + 2] = _word(size)

    def set_type(self, id: int, type_id: int) -> None:
        """What a reference, function, variable or tag refers to, a prototype returns, an array holds."""
        position = self._place(id, _KINDS_WITH_TYPE)
        at = 3 if info_kind(self._words[position + 1]) == kinds.KIND_ARRAY else 2
        self._words[position + at] = _word(type_id)

    def set_name(self, id: int, name: str) -> None:
        self._words[self._place(id, _ALL_KINDS)] = self.add_string(name)

    def set_linkage(self, id: int, linkage: int) -> None:
        """The linkage of a function or a variable, one of the LINKAGE constants."""
        position = self._place(id, frozenset({kinds.KIND_FUNC, kinds.KIND_VAR}))
        _linkage(linkage, f"type id {id}")
        if info_kind(self._words[position + 1]) == kinds.KIND_FUNC:
            self._words[position + 1] = pack_info(kinds.KIND_FUNC, linkage)
        else:
            self._words[position + 3] = linkage

    def set_datasec(self, id: int, size: int, entries: Iterable[DatasecEntry | tuple[int, int, int]]) -> None:
        """The size of a data section in bytes and its variables, which may be more or fewer than before."""
        position = self._place(id, frozenset({kinds.KIND_DATASEC}))
        extra = [_word(number) for number in _datasec_words(entries)]
        self._words[position + 2] = _word(size)
        self._replace_elements(id, position, extra, 3)

    def set_param_name(self, id: int, index: int, name: str) -> None:
        """The name of a prototype's parameter."""
        position = self._place(id, frozenset({kinds.KIND_FUNC_PROTO}))
        if not 0 <= index < info_vlen(self._words[position + 1]):
            raise BTFError(f"BTF {self._btf.name}: type id {id} has no parameter {index}")
        self._words[position + TYPE_WORDS + 2 * index] = self.add_string(name)

    def _replace_elements(self, id: int, position: int, extra: list[int], width: int) -> None:
        info = self._words[position + 1]
        start = position + TYPE_WORDS
        end = start + info_vlen(info) * width
        self._words[start:end] = extra
        self._words[position + 1] = pack_info(info_kind(info), len(extra) // width, info >= 1 << 31)
        moved = len(extra) - (end - start)
        if moved:
            after = id - self.first_id + 1
            self._positions[after:] = [later + moved for later in self._positions[after:]]


_KINDS_WITH_SIZE = frozenset(
    {
        kinds.KIND_INT,
        kinds.KIND_FLOAT,
        kinds.KIND_STRUCT,
        kinds.KIND_UNION,
        kinds.KIND_ENUM,
        kinds.KIND_ENUM64,
        kinds.KIND_DATASEC,
    }
)
_KINDS_WITH_TYPE = kinds.TRANSPARENT_KINDS | {
    kinds.KIND_PTR,
    kinds.KIND_ARRAY,
    kinds.KIND_FUNC,
    kinds.KIND_FUNC_PROTO,
    kinds.KIND_VAR,
    kinds.KIND_DECL_TAG,
}
_ALL_KINDS = frozenset(range(1, kinds.KIND_MAX + 1))


def _word(number: int) -> int:
    if not 0 <= number <= _MAX_WORD:
        raise BTFError(f"{number} does not fit 32 bits")
    return number


def _linkage(linkage: int, name: str) -> int:
    if linkage not in _LINKAGES:
        raise BTFError(f"{name}: linkage {linkage} is none of static (0), global (1), extern (2)")
    return linkage


def _datasec_words(entries: Iterable[DatasecEntry | tuple[int, int, int]]) -> list[int]:
    words: list[int] = []
    for entry in entries:
        words += entry if isinstance(entry, tuple) else (entry.type_id, entry.offset, entry.size)
    return words


class _Sanitiser(BTFEditor):
    """Replaces kinds that a kernel lacks by older ones that take the same room."""

    def __init__(self, btf: BTF, missing: frozenset[str]) -> None:
        super().__init__(btf)
        self._placeholder = 0
        for position in self._positions[:]:
            for feature, replace in _REPLACEMENTS.get(info_kind(self._words[position + 1]), ()):
                if feature in missing:
                    replace(self, position)
                    break
        if "layout" in missing:
            self._layout = b""

    def _rewrite(self, position: int, kind: int, word: int) -> None:
        vlen = info_vlen(self._words[position + 1]) if ELEMENT_WORDS[kind] else 0
        self._words[position + 1] = pack_info(kind, vlen)
        self._words[position + 2] = word

    def _rename(self, position: int, name: str) -> None:
        self._words[position] = self.add_string(name)

    def _name(self, position: int) -> str:
        return self._btf.string(self._words[position])

    def byte(self, position: int) -> None:
        """VAR, DECL_TAG -> INT of one byte: a larger one might not fit the variable."""
        self._rewrite(position, kinds.KIND_INT, 1)
        self._words[position + 3] = 8

    def datasec_to_struct(self, position: int) -> None:
        """DATASEC -> STRUCT whose members are the variables."""
        self._rewrite(position, kinds.KIND_STRUCT, self._words[position + 2])
        self._rename(position, self._name(position).replace(".", "_").replace("?", "_"))
        for at in self._elements(position):
            var, offset = self._words[at], self._words[at + 1]
            name_offset = self._words[self._place(var, frozenset({kinds.KIND_VAR, kinds.KIND_INT}))]
            self._words[at : at + 3] = (name_offset, var, offset * 8 & _MAX_WORD)

    def datasec_name(self, position: int) -> None:
        """A leading ``?`` in the name of a DATASEC -> ``_``."""
        name = self._name(position)
        if name.startswith("?"):
            self._rename(position, "_" + name[1:])

    def func_proto_to_enum(self, position: int) -> None:
        self._rewrite(position, kinds.KIND_ENUM, 4)

    def func_to_typedef(self, position: int) -> None:
        self._rewrite(position, kinds.KIND_TYPEDEF, self._words[position + 2])

    def func_static(self, position: int) -> None:
        self._words[position + 1] = pack_info(kinds.KIND_FUNC, kinds.LINKAGE_STATIC)

    def float_to_struct(self, position: int) -> None:
        """FLOAT -> anonymous STRUCT without members, of the same size."""
        self._words[position : position + 2] = (0, pack_info(kinds.KIND_STRUCT))

    def type_tag_to_const(self, position: int) -> None:
        self._words[position : position + 2] = (0, pack_info(kinds.KIND_CONST))

    def enum_unsigned(self, position: int) -> None:
        """ENUM64 and the signed flag of ENUM came with the same kernel."""
        self._rewrite(position, kinds.KIND_ENUM, self._words[position + 2])

    def enum64_to_union(self, position: int) -> None:
        """ENUM64 -> UNION with a one-byte member for each value."""
        if not self._placeholder:
            self._placeholder = self.add_int("enum64_placeholder", 1)
        self._rewrite(position, kinds.KIND_UNION, self._words[position + 2])
        for at in self._elements(position):
            self._words[at + 1 : at + 3] = (self._placeholder, 0)

    def _elements(self, position: int) -> range:
        """The word indexes of the elements of a type that has three words for each."""
        start = position + TYPE_WORDS
        return range(start, start + info_vlen(self._words[position + 1]) * 3, 3)


_REPLACEMENTS: dict[int, tuple[tuple[str, Callable[[_Sanitiser, int], None]], ...]] = {
    kinds.KIND_VAR: (("datasec", _Sanitiser.byte),),
    kinds.KIND_DATASEC: (("datasec", _Sanitiser.datasec_to_struct), ("datasec_question", _Sanitiser.datasec_name)),
    kinds.KIND_DECL_TAG: (("decl_tag", _Sanitiser.byte),),
    kinds.KIND_FUNC_PROTO: (("func", _Sanitiser.func_proto_to_enum),),
    kinds.KIND_FUNC: (("func", _Sanitiser.func_to_typedef), ("func_global", _Sanitiser.func_static)),
    kinds.KIND_FLOAT: (("float", _Sanitiser.float_to_struct),),
    kinds.KIND_TYPE_TAG: (("type_tag", _Sanitiser.type_tag_to_const),),
    kinds.KIND_ENUM: (("enum64", _Sanitiser.enum_unsigned),),
    kinds.KIND_ENUM64: (("enum64", _Sanitiser.enum64_to_union),),
}
FEATURES = frozenset(feature for choices in _REPLACEMENTS.values() for feature, _ in choices) | {"layout"}
"""What `sanitise` can do without."""


def sanitise(data: bytes, missing: frozenset[str]) -> bytes:
    """BTF of a program, made fit for a kernel that lacks some features. Ids do not change.

    `missing` holds names of `FEATURES`; others are ignored. Raises BTFError for malformed BTF. The replacements are
    those of libbpf's bpf_object__sanitize_btf().
    """
    if not missing & FEATURES:
        return data
    return _Sanitiser(BTF.from_bytes(data), missing).to_bytes()
