"""From a BTF type to its codec: ``codec(btf, type_id).decode(buffer)``.

Rules of this file:

* Pure and cached: one codec for each type id, kept in `BTF.cache`.
* Type information is not trusted: a type without a size, a member outside its struct, a type that contains itself or
  that would decode to millions of objects is a BTFError which names it.

What becomes what:

    int, enum of a value without a name, pointer    int
    _Bool                                           bool
    float, double                                   float (long double: bytes)
    enum, enum64                                    a member of an IntEnum
    char[N]                                         str, see `composites`
    unsigned char[N], __u8[N]                       bytes
    other arrays                                    list
    struct                                          Record, see `records`
    union                                           Overlay, see `records`
    a variable                                      the value of its type
    a section of variables                          Record with a field for each variable
"""

from __future__ import annotations

from pybpf.btf.composites import (
    ArrayCodec,
    BytesCodec,
    Field,
    FlexibleCodec,
    OverlayCodec,
    StructCodec,
    TextCodec,
    fields_overlap,
)
from pybpf.btf.kinds import (
    MAX_DEPTH,
    Array,
    Composite,
    Datasec,
    Enumeration,
    Float,
    Int,
    Member,
    Ptr,
    Struct,
    Typedef,
    Union,
    Var,
    kind_name,
    member_bits,
)
from pybpf.btf.scalars import (
    FLOAT_CODES,
    BitfieldCodec,
    BoolCodec,
    Codec,
    EnumCodec,
    EnumMembers,
    FloatCodec,
    IntCodec,
    OpaqueCodec,
)
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pybpf.btf.kinds import Type
    from pybpf.btf.reader import BTF

__all__ = ["Codec", "c_name", "codec"]

MAX_NESTING = 64
"""Structs and arrays inside one another. Deeper ones contain themselves."""
MAX_FIELDS = 1 << 16
"""Members of one struct, those of anonymous ones included."""
MAX_FIELDS_PER_BYTE = 4
"""The same of all structs together, beyond that: for each byte of the type information. A kernel has 1 in 80 bytes."""


def codec(btf: BTF, type_id: int) -> Codec:
    """The codec of a type. Raises BTFError when the type has no values (void, functions, forward declarations)."""
    return _codec(btf, type_id, 0)


def c_name(btf: BTF, type_id: int) -> str:
    """A type as C names it: ``"struct event"``, ``"u32"``, ``"char[16]"``, ``"struct sock *"``."""
    suffix = ""
    for _ in range(MAX_DEPTH):
        described = btf.type(btf.skip_modifiers(type_id))
        if isinstance(described, Array):
            suffix += f"[{described.nelems}]"
        elif isinstance(described, Ptr):
            suffix = f" *{suffix}" if not suffix.startswith(" *") else f" *{suffix[1:]}"
        else:
            if isinstance(described, Composite | Enumeration):
                word = "enum" if isinstance(described, Enumeration) else kind_name(described.kind)
                return f"{word} {described.name}{suffix}" if described.name else f"{word}{suffix}"
            return (described.name or kind_name(described.kind)) + suffix
        type_id = described.type_id
    return f"type {type_id}{suffix}"


def _codec(btf: BTF, type_id: int, depth: int) -> Codec:
    known: Codec | None = btf.cache.get(("codec", type_id))
    if known is None:
        if depth > MAX_NESTING:
            raise BTFError(f"type {type_id}: nested too deep, or it contains itself")
        known = btf.cache[("codec", type_id)] = _make(btf, type_id, depth + 1)
    return known


def _make(btf: BTF, type_id: int, depth: int) -> Codec:
    plain_id = btf.skip_modifiers(type_id)
    if plain_id != type_id:
        return _codec(btf, plain_id, depth)
    described = btf.type(type_id)
    if isinstance(described, Var):
        return _codec(btf, described.type_id, depth)
    name = c_name(btf, type_id)
    if isinstance(described, Typedef):
        target = btf.resolve(type_id)
        if target.name and isinstance(target, Composite | Enumeration):
            return _codec(btf, target.id, depth)
        return _make_plain(btf, target, name, described.name, depth)
    return _make_plain(btf, described, name, described.name, depth)


def _make_plain(btf: BTF, described: Type, name: str, label: str, depth: int) -> Codec:
    """The codec of a type that is neither typedef nor modifier. `label` names the class of its values."""
    if isinstance(described, Int):
        return _make_int(btf, described, name)
    if isinstance(described, Ptr):
        return IntCodec(btf.pointer_size, False, name, btf.byte_order)
    if isinstance(described, Enumeration):
        _check_size(described, described.size, name)
        members = EnumMembers(label or "enum", described.values)
        return EnumCodec(described.size, described.is_signed, members, name, btf.byte_order)
    if isinstance(described, Float):
        _check_size(described, described.size, name)
        make = FloatCodec if described.size in FLOAT_CODES else OpaqueCodec
        return make(described.size, name, btf.byte_order)
    if isinstance(described, Array):
        return _make_array(btf, described, name, depth)
    if isinstance(described, Composite | Datasec):
        return _make_composite(btf, described, name, label, depth)
    told = f"{kind_name(described.kind)} {described.name}".rstrip()
    raise BTFError(f"type {described.id}: {told} has no values")


def _check_size(described: Type, size: int, name: str) -> None:
    if not 1 <= size <= 16:
        raise BTFError(f"type {described.id}: {name} has {size} bytes")


def _make_int(btf: BTF, described: Int, name: str) -> Codec:
    _check_size(described, described.size, name)
    make = BoolCodec(described.size, name, btf.byte_order) if described.is_bool else None
    whole = make or IntCodec(described.size, described.is_signed, name, btf.byte_order)
    if not described.bit_offset and described.bits == described.size * 8:
        return whole
    if not 0 < described.bits <= described.size * 8 - described.bit_offset:
        raise BTFError(
            f"type {described.id}: {name} has bits {described.bit_offset} to {described.bit_offset + described.bits} "
            f"of {described.size} bytes"
        )
    return BitfieldCodec(whole, described.bit_offset, described.bits, described.size)


def _make_array(btf: BTF, described: Array, name: str, depth: int) -> Codec:
    element = btf.resolve(described.type_id)
    count = described.nelems
    if isinstance(element, Int) and element.size == 1 and element.bits == 8 and not element.is_bool:
        if element.name == "char":  # by name: gcc sets INT_CHAR for signed and unsigned char too, clang never
            return TextCodec(count, name, btf.byte_order)
        if not element.is_signed:
            return BytesCodec(count, name, btf.byte_order)
    return ArrayCodec(_codec(btf, described.type_id, depth), count, name)


def _make_flexible(btf: BTF, described: Array, depth: int) -> FlexibleCodec:
    element = _codec(btf, described.type_id, depth)
    return FlexibleCodec(element, type(_make_array(btf, described, element.c_name, depth)), f"{element.c_name}[]")


def _make_composite(btf: BTF, described: Composite | Datasec, name: str, label: str, depth: int) -> Codec:
    label = label or kind_name(described.kind)
    fields: list[Field] = []
    count = 0
    for count, (member, base) in enumerate(_flattened(btf, _members(btf, described), 0, depth), 1):
        if count > MAX_FIELDS:
            raise BTFError(f"type {described.id}: {name} has more than {MAX_FIELDS} members")
        if member.name:
            fields.append(_field(btf, member, base, depth))
    _count_fields(btf, count, name)
    if isinstance(described, Union) or fields_overlap(fields):
        return OverlayCodec(described.size, label, name, btf.byte_order, fields)
    tail = None
    if isinstance(described, Struct) and described.members and fields:
        last = described.members[-1]
        target = btf.resolve(last.type_id)
        if isinstance(target, Array) and not target.nelems and last.name:
            tail = _make_flexible(btf, target, depth)
            fields[-1] = Field(last.name, tail, last.bit_offset, 0)
    return StructCodec(described.size, label, name, btf.byte_order, fields, tail)


def _members(btf: BTF, described: Composite | Datasec) -> Iterable[Member]:
    if isinstance(described, Composite):
        return described.members
    return (Member(btf.name_of(entry.type_id), entry.type_id, entry.offset * 8) for entry in described.entries)


def _flattened(btf: BTF, members: Iterable[Member], base: int, depth: int) -> Iterator[tuple[Member, int]]:
    """Each member and the bit offset of what it is in; behind anonymous structs and unions their members."""
    for member in members:
        yield member, base
        inner = None if member.name else btf.resolve(member.type_id)
        if isinstance(inner, Composite):  # anything else without a name is padding
            if depth >= MAX_NESTING:
                raise BTFError(f"type {inner.id}: nested too deep, or it contains itself")
            yield from _flattened(btf, inner.members, base + member.bit_offset, depth + 1)


def _count_fields(btf: BTF, count: int, name: str) -> None:
    """A few lines of type information can stand for millions of members: of all structs together there is a limit."""
    total = btf.cache.get("fields", 0) + count
    limit = MAX_FIELDS + MAX_FIELDS_PER_BYTE * (len(btf.data) + (len(btf.base.data) if btf.base else 0))
    if total > limit:
        raise BTFError(f"{name}: the structs have more than {limit} members, those of anonymous ones included")
    btf.cache["fields"] = total


def _field(btf: BTF, member: Member, base: int, depth: int) -> Field:
    first, bits = member_bits(btf, member)
    first += base
    whole = _codec(btf, member.type_id, depth)
    if isinstance(whole, BitfieldCodec):  # a legacy bitfield type: its place is in `first` and `bits` already
        whole = whole.inner
    if not bits and not first % 8:
        return Field(member.name, whole, first, whole.size * 8)
    bits = bits or whole.size * 8
    if not isinstance(whole, IntCodec | BoolCodec) or bits > whole.size * 8:
        raise BTFError(f"member {member.name}: {whole.c_name} cannot be a bitfield of {bits} bits at bit {first}")
    size = (first % 8 + bits + 7) // 8
    return Field(member.name, BitfieldCodec(whole, first % 8, bits, size), first, bits)
