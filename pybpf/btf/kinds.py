"""The model of BTF: one class for each kind of type.

Rules of this file:

* A type is immutable once decoded and belongs to one `BTF`; it refers to other types by id.
* Every type has `btf`, `id`, `name` (empty for an anonymous type) and the class attribute `kind`.
* Bits of an `info` word are those of kernel 7.x: kind 24..30, vlen 0..23, kind_flag 31. Older data decodes the same.

Source: include/uapi/linux/btf.h and Documentation/bpf/btf.rst of the kernel.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from pybpf.btf.reader import BTF

KIND_VOID = 0
KIND_INT = 1
KIND_PTR = 2
KIND_ARRAY = 3
KIND_STRUCT = 4
KIND_UNION = 5
KIND_ENUM = 6
KIND_FWD = 7
KIND_TYPEDEF = 8
KIND_VOLATILE = 9
KIND_CONST = 10
KIND_RESTRICT = 11
KIND_FUNC = 12
KIND_FUNC_PROTO = 13
KIND_VAR = 14
KIND_DATASEC = 15
KIND_FLOAT = 16
KIND_DECL_TAG = 17
KIND_TYPE_TAG = 18
KIND_ENUM64 = 19
KIND_MAX = KIND_ENUM64

KIND_NAMES = (
    "void",
    "int",
    "ptr",
    "array",
    "struct",
    "union",
    "enum",
    "fwd",
    "typedef",
    "volatile",
    "const",
    "restrict",
    "func",
    "func_proto",
    "var",
    "datasec",
    "float",
    "decl_tag",
    "type_tag",
    "enum64",
)

MODIFIER_KINDS = frozenset({KIND_VOLATILE, KIND_CONST, KIND_RESTRICT, KIND_TYPE_TAG})
"""Kinds that qualify a type without naming it."""
TRANSPARENT_KINDS = MODIFIER_KINDS | {KIND_TYPEDEF}
"""Modifiers and typedefs: what `BTF.resolve()` looks through."""
COMPOSITE_KINDS = frozenset({KIND_STRUCT, KIND_UNION})
ENUM_KINDS = frozenset({KIND_ENUM, KIND_ENUM64})

INT_SIGNED = 1
INT_CHAR = 2
INT_BOOL = 4

LINKAGE_STATIC = 0
LINKAGE_GLOBAL = 1
LINKAGE_EXTERN = 2

MAX_VLEN = 0xFFFFFF
MAX_DEPTH = 32
"""Longest chain of typedefs and modifiers that is followed, as in the kernel's resolver."""


def kind_name(kind: int) -> str:
    """The name of a kind as bpftool prints it in lower case; an unknown kind gives ``"kind 42"``."""
    return KIND_NAMES[kind] if 0 <= kind <= KIND_MAX else f"kind {kind}"


class Type:
    """What all kinds share."""

    __slots__ = ("btf", "id", "name")
    kind: ClassVar[int]

    def __init__(self, btf: BTF, id: int, name: str) -> None:
        self.btf = btf
        self.id = id
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or '(anon)'!s} id={self.id}{self._details()}>"

    def _details(self) -> str:
        return ""


class Void(Type):
    """Type id 0."""

    __slots__ = ()
    kind = KIND_VOID


class Unknown(Type):
    """A kind this reader does not know, skipped by means of the layout section (kernel 7.x).

    Attributes:
        kind: its number. words: the type as 32-bit words in host byte order, header included.
    """

    __slots__ = ("kind", "words")

    def __init__(self, btf: BTF, id: int, name: str, kind: int, words: tuple[int, ...]) -> None:
        super().__init__(btf, id, name)
        self.kind = kind  # type: ignore[misc]  # the one class whose kind differs from instance to instance
        self.words = words


class Int(Type):
    """An integer. `size` in bytes; `bits` and `bit_offset` describe a legacy bit field when they do not fill it."""

    __slots__ = ("bit_offset", "bits", "encoding", "size")
    kind = KIND_INT

    def __init__(self, btf: BTF, id: int, name: str, size: int, bits: int, bit_offset: int, encoding: int) -> None:
        super().__init__(btf, id, name)
        self.size = size
        self.bits = bits
        self.bit_offset = bit_offset
        self.encoding = encoding

    @property
    def is_signed(self) -> bool:
        return bool(self.encoding & INT_SIGNED)

    @property
    def is_char(self) -> bool:
        return bool(self.encoding & INT_CHAR)

    @property
    def is_bool(self) -> bool:
        return bool(self.encoding & INT_BOOL)

    def _details(self) -> str:
        return f" size={self.size} bits={self.bits} encoding={self.encoding}"


class Reference(Type):
    """A type that is another type with something said about it: pointer, typedef, qualifier or type tag."""

    __slots__ = ("type_id",)

    def __init__(self, btf: BTF, id: int, name: str, type_id: int) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id

    def _details(self) -> str:
        return f" type_id={self.type_id}"


class Ptr(Reference):
    __slots__ = ()
    kind = KIND_PTR


class Typedef(Reference):
    __slots__ = ()
    kind = KIND_TYPEDEF


class Volatile(Reference):
    __slots__ = ()
    kind = KIND_VOLATILE


class Const(Reference):
    __slots__ = ()
    kind = KIND_CONST


class Restrict(Reference):
    __slots__ = ()
    kind = KIND_RESTRICT


class TypeTag(Reference):
    """``__attribute__((btf_type_tag("name")))``; with `is_attribute` the name is a whole attribute (kernel 6.15)."""

    __slots__ = ("is_attribute",)
    kind = KIND_TYPE_TAG

    def __init__(self, btf: BTF, id: int, name: str, type_id: int, is_attribute: bool = False) -> None:
        super().__init__(btf, id, name, type_id)
        self.is_attribute = is_attribute


class Array(Type):
    __slots__ = ("index_type_id", "nelems", "type_id")
    kind = KIND_ARRAY

    def __init__(self, btf: BTF, id: int, name: str, type_id: int, index_type_id: int, nelems: int) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id
        self.index_type_id = index_type_id
        self.nelems = nelems

    def _details(self) -> str:
        return f" type_id={self.type_id} nelems={self.nelems}"


class Member:
    """One member of a struct or union.

    Attributes:
        name: empty for an anonymous struct or union.
        bit_offset: in bits from the start of the struct.
        bitfield_size: in bits, 0 for an ordinary member. For legacy bit fields see `member_bits()`.
    """

    __slots__ = ("bit_offset", "bitfield_size", "name", "type_id")

    def __init__(self, name: str, type_id: int, bit_offset: int, bitfield_size: int = 0) -> None:
        self.name = name
        self.type_id = type_id
        self.bit_offset = bit_offset
        self.bitfield_size = bitfield_size

    def __repr__(self) -> str:
        bits = f":{self.bitfield_size}" if self.bitfield_size else ""
        return f"Member({self.name or '(anon)'}{bits} type_id={self.type_id} bit_offset={self.bit_offset})"


class Composite(Type):
    """A struct or a union: `size` in bytes, `members` in order, `kind_flag` as stored.

    A kernel's structs have hundreds of members, of which programs name a few: they are decoded when they are asked for.
    """

    __slots__ = ("_made", "_members", "_words", "kind_flag", "size")

    def __init__(self, btf: BTF, id: int, name: str, size: int, words: tuple[int, ...], kind_flag: bool) -> None:
        """`words` are three for each member: the offset of its name, its type, its place."""
        super().__init__(btf, id, name)
        self.size = size
        self.kind_flag = kind_flag
        self._words = words
        self._members: tuple[Member, ...] | None = None
        self._made: dict[int, Member] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """All, in order. Raises BTFError for a bad name."""
        if self._members is None:
            words = self._words
            names = self.btf.strings(words[::3])
            self._members = tuple(map(self._member, names, words[1::3], words[2::3]))
        return self._members

    @property
    def member_count(self) -> int:
        return len(self._words) // 3

    @property
    def name_offsets(self) -> tuple[int, ...]:
        """Where the name of each member is among the strings: 0 for an anonymous one."""
        return self._words[::3]

    def member(self, index: int) -> Member:
        """One of `members`, without decoding the others. Raises BTFError for a bad name."""
        made = self._made.get(index)
        if made is None:
            name, type_id, place = self._words[3 * index : 3 * index + 3]
            made = self._made[index] = self._member(self.btf.string(name), type_id, place)
        return made

    def _member(self, name: str, type_id: int, place: int) -> Member:
        return Member(name, type_id, place & 0xFFFFFF, place >> 24) if self.kind_flag else Member(name, type_id, place)

    def _details(self) -> str:
        return f" size={self.size} members={self.member_count}"


class Struct(Composite):
    __slots__ = ()
    kind = KIND_STRUCT


class Union(Composite):
    __slots__ = ()
    kind = KIND_UNION


class Enumeration(Type):
    """An enum of either width: `size` in bytes, `values` as (name, number) in order."""

    __slots__ = ("is_signed", "size", "values")

    def __init__(
        self, btf: BTF, id: int, name: str, size: int, is_signed: bool, values: tuple[tuple[str, int], ...]
    ) -> None:
        super().__init__(btf, id, name)
        self.size = size
        self.is_signed = is_signed
        self.values = values

    def _details(self) -> str:
        return f" size={self.size} values={len(self.values)}"


class Enum(Enumeration):
    """An enum whose values fit 32 bits. They are read as signed or unsigned by `is_signed`."""

    __slots__ = ()
    kind = KIND_ENUM


class Enum64(Enumeration):
    """An enum with 64-bit values (kernel 6.0)."""

    __slots__ = ()
    kind = KIND_ENUM64


class Fwd(Type):
    """A forward declaration of a struct or, with `is_union`, of a union."""

    __slots__ = ("is_union",)
    kind = KIND_FWD

    def __init__(self, btf: BTF, id: int, name: str, is_union: bool) -> None:
        super().__init__(btf, id, name)
        self.is_union = is_union


class Func(Type):
    """A function; `type_id` is its FuncProto, `linkage` one of the LINKAGE constants."""

    __slots__ = ("linkage", "type_id")
    kind = KIND_FUNC

    def __init__(self, btf: BTF, id: int, name: str, type_id: int, linkage: int) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id
        self.linkage = linkage

    def _details(self) -> str:
        return f" type_id={self.type_id} linkage={self.linkage}"


class Param:
    """One parameter of a function. The last one with neither name nor type stands for ``...``."""

    __slots__ = ("name", "type_id")

    def __init__(self, name: str, type_id: int) -> None:
        self.name = name
        self.type_id = type_id

    def __repr__(self) -> str:
        return f"Param({self.name!r} type_id={self.type_id})"


class FuncProto(Type):
    """A function's type; `type_id` is what it returns."""

    __slots__ = ("params", "type_id")
    kind = KIND_FUNC_PROTO

    def __init__(self, btf: BTF, id: int, name: str, type_id: int, params: tuple[Param, ...]) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id
        self.params = params

    def _details(self) -> str:
        return f" type_id={self.type_id} params={len(self.params)}"


class Var(Type):
    """A global variable; `linkage` is one of the LINKAGE constants."""

    __slots__ = ("linkage", "type_id")
    kind = KIND_VAR

    def __init__(self, btf: BTF, id: int, name: str, type_id: int, linkage: int) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id
        self.linkage = linkage

    def _details(self) -> str:
        return f" type_id={self.type_id} linkage={self.linkage}"


class DatasecEntry:
    """A variable of a section: `type_id` of the Var, `offset` and `size` in bytes."""

    __slots__ = ("offset", "size", "type_id")

    def __init__(self, type_id: int, offset: int, size: int) -> None:
        self.type_id = type_id
        self.offset = offset
        self.size = size

    def __repr__(self) -> str:
        return f"DatasecEntry(type_id={self.type_id} offset={self.offset} size={self.size})"


class Datasec(Type):
    """A section of variables. Compilers leave `size` and the offsets 0; the loader fills them from the ELF file."""

    __slots__ = ("entries", "size")
    kind = KIND_DATASEC

    def __init__(self, btf: BTF, id: int, name: str, size: int, entries: tuple[DatasecEntry, ...]) -> None:
        super().__init__(btf, id, name)
        self.size = size
        self.entries = entries

    def _details(self) -> str:
        return f" size={self.size} entries={len(self.entries)}"


class Float(Type):
    """A floating-point number of `size` bytes (kernel 5.13)."""

    __slots__ = ("size",)
    kind = KIND_FLOAT

    def __init__(self, btf: BTF, id: int, name: str, size: int) -> None:
        super().__init__(btf, id, name)
        self.size = size

    def _details(self) -> str:
        return f" size={self.size}"


class DeclTag(Type):
    """``__attribute__((btf_decl_tag("name")))`` on `type_id`.

    `component_index` is -1 for the whole declaration, else the member or parameter. With `is_attribute` the name is a
    whole attribute (kernel 6.15).
    """

    __slots__ = ("component_index", "is_attribute", "type_id")
    kind = KIND_DECL_TAG

    def __init__(
        self, btf: BTF, id: int, name: str, type_id: int, component_index: int, is_attribute: bool = False
    ) -> None:
        super().__init__(btf, id, name)
        self.type_id = type_id
        self.component_index = component_index
        self.is_attribute = is_attribute

    def _details(self) -> str:
        return f" type_id={self.type_id} component_index={self.component_index}"


def member_bits(btf: BTF, member: Member) -> tuple[int, int]:
    """Where a member lies: (bit offset, bit-field size or 0), both in bits.

    Old compilers say it with an Int that does not fill its bytes; its offset and width are folded in here.
    """
    if not member.bitfield_size:
        target = btf.resolve(member.type_id)
        if isinstance(target, Int) and (target.bit_offset or target.bits != target.size * 8):
            return member.bit_offset + target.bit_offset, target.bits
    return member.bit_offset, member.bitfield_size
