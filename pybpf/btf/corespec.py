"""What one CO-RE relocation points at: its access string, followed through the type information.

A relocation names a root type and an access string of numbers, ``"0:5:2"``: array element 0 of the root, its member 5,
element 2 of that. A `Spec` is that path with names, so that the same place can be looked for in another kernel's types.

Rules of this module:

* The first number is a pointer index. Anonymous struct and union members leave a number but no accessor.
* Offsets are in bits from the start of the root.
* Whatever does not follow the types is a `RelocationError` that says what was wrong.

Source: clang's access strings as tools/lib/bpf/relo_core.c of the Linux kernel reads them.
"""

from __future__ import annotations

from pybpf.btf.kinds import Array, Composite, Enumeration, kind_name
from pybpf.constants import (
    BPF_CORE_ENUMVAL_EXISTS,
    BPF_CORE_ENUMVAL_VALUE,
    BPF_CORE_FIELD_BYTE_OFFSET,
    BPF_CORE_FIELD_BYTE_SIZE,
    BPF_CORE_FIELD_EXISTS,
    BPF_CORE_FIELD_LSHIFT_U64,
    BPF_CORE_FIELD_RSHIFT_U64,
    BPF_CORE_FIELD_SIGNED,
    BPF_CORE_TYPE_EXISTS,
    BPF_CORE_TYPE_ID_LOCAL,
    BPF_CORE_TYPE_ID_TARGET,
    BPF_CORE_TYPE_MATCHES,
    BPF_CORE_TYPE_SIZE,
)
from pybpf.errors import RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.kinds import Type
    from pybpf.btf.reader import BTF

FIELD_KINDS = frozenset(
    {
        BPF_CORE_FIELD_BYTE_OFFSET,
        BPF_CORE_FIELD_BYTE_SIZE,
        BPF_CORE_FIELD_EXISTS,
        BPF_CORE_FIELD_SIGNED,
        BPF_CORE_FIELD_LSHIFT_U64,
        BPF_CORE_FIELD_RSHIFT_U64,
    }
)
TYPE_KINDS = frozenset(
    {
        BPF_CORE_TYPE_ID_LOCAL,
        BPF_CORE_TYPE_ID_TARGET,
        BPF_CORE_TYPE_EXISTS,
        BPF_CORE_TYPE_SIZE,
        BPF_CORE_TYPE_MATCHES,
    }
)
VALUE_KINDS = frozenset({BPF_CORE_ENUMVAL_EXISTS, BPF_CORE_ENUMVAL_VALUE})

RELOCATION_NAMES = {
    BPF_CORE_FIELD_BYTE_OFFSET: "byte_off",
    BPF_CORE_FIELD_BYTE_SIZE: "byte_sz",
    BPF_CORE_FIELD_EXISTS: "field_exists",
    BPF_CORE_FIELD_SIGNED: "signed",
    BPF_CORE_FIELD_LSHIFT_U64: "lshift_u64",
    BPF_CORE_FIELD_RSHIFT_U64: "rshift_u64",
    BPF_CORE_TYPE_ID_LOCAL: "local_type_id",
    BPF_CORE_TYPE_ID_TARGET: "target_type_id",
    BPF_CORE_TYPE_EXISTS: "type_exists",
    BPF_CORE_TYPE_SIZE: "type_size",
    BPF_CORE_ENUMVAL_EXISTS: "enumval_exists",
    BPF_CORE_ENUMVAL_VALUE: "enumval_value",
    BPF_CORE_TYPE_MATCHES: "type_matches",
}
"""The short names that loaders print."""

MAX_LENGTH = 64
"""Most numbers in an access string, and deepest path in a target type (BPF_CORE_SPEC_MAX_LEN)."""

MAX_BITS = 1 << 35
"""Byte offsets are 32 bits wide."""


class Accessor:
    """One step of a path.

    Attributes:
        type_id: the struct or union with the member; of an array element, the element's type; of the first, the root.
        index: the member's or element's number; of an enumerator, its position.
        name: the member's or enumerator's name, empty for elements.
    """

    __slots__ = ("index", "name", "type_id")

    def __init__(self, type_id: int, index: int, name: str = "") -> None:
        self.type_id = type_id
        self.index = index
        self.name = name

    def __repr__(self) -> str:
        return f"Accessor([{self.type_id}], {self.index}, {self.name!r})"


class Spec:
    """A path through types.

    Attributes:
        btf: where the types are.
        root_id: the root type as the relocation names it (typedefs not skipped).
        kind: the relocation's kind, a BPF_CORE_ number.
        raw: the numbers of the access string, anonymous members included.
        accessors: the steps with a meaning; empty for relocations about a type.
        bit_offset: offset from the start of the root.
    """

    __slots__ = ("accessors", "bit_offset", "btf", "kind", "raw", "root_id")

    def __init__(
        self, btf: BTF, root_id: int, kind: int, raw: tuple[int, ...], accessors: list[Accessor], bit_offset: int = 0
    ) -> None:
        self.btf = btf
        self.root_id = root_id
        self.kind = kind
        self.raw = raw
        self.accessors = accessors
        self.bit_offset = bit_offset

    def __str__(self) -> str:
        """The text that loaders print: ``<byte_off> [12] struct task_struct.pid (0:5 @ offset 1256)``."""
        text = f"<{RELOCATION_NAMES[self.kind]}> {type_label(self.btf, self.root_id)}"
        if self.kind in VALUE_KINDS:
            name, value = self.enumerator
            return f"{text}::{name} = {value}"
        if self.kind in FIELD_KINDS:
            numbers = ":".join(map(str, self.raw))
            byte, bit = divmod(self.bit_offset, 8)
            return f"{text}{self.path} ({numbers} @ offset {byte}{f'.{bit}' if bit else ''})"
        return text

    @property
    def enumerator(self) -> tuple[str, int]:
        """Name and value, of a relocation about an enumerator."""
        accessor = self.accessors[0]
        enum = self.btf.type(accessor.type_id)
        assert isinstance(enum, Enumeration), "accessors of enumerators name enums"
        return enum.values[accessor.index]

    @property
    def path(self) -> str:
        """The field as C writes it after the type: ``.sighand.count[2]``."""
        first, *rest = self.accessors
        text = f"[{first.index}]" if first.index else ""
        for accessor in rest:
            text += f".{accessor.name}" if accessor.name else f"[{accessor.index}]"
        return text


def type_label(btf: BTF, type_id: int) -> str:
    """A type in messages: ``[12] struct task_struct``."""
    return f"[{type_id}] {kind_name(btf.kind_of(type_id))} {btf.name_of(type_id) or '<anon>'}"


def parse_access(text: str) -> tuple[int, ...]:
    """The numbers of an access string.

    Raises:
        RelocationError: it is not one to 64 decimal numbers below 2**31, separated by colons.
    """
    parts = text.split(":")
    if len(parts) > MAX_LENGTH:
        raise RelocationError(f"access string has {len(parts)} numbers, more than {MAX_LENGTH}")
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) <= 10 and int(part) < 1 << 31):
            raise RelocationError(f"access string {text[:80]!r} is malformed")
    return tuple(map(int, parts))


def parse(btf: BTF, type_id: int, access: str, kind: int) -> Spec:
    """The spec of a relocation in the object's own types.

    Raises:
        RelocationError: the kind is unknown, or the access string does not fit the type.
        BTFError: the types are malformed.
    """
    if kind in TYPE_KINDS:
        if access != "0":
            raise RelocationError(f"access string {access[:80]!r} of a relocation about a type is not '0'")
        btf.kind_of(type_id)  # a wrong id is a BTFError
        return Spec(btf, type_id, kind, (0,), [])
    raw = parse_access(access)
    root = btf.resolve(type_id)
    if kind in VALUE_KINDS:
        return Spec(btf, type_id, kind, raw, [_enumerator(root, raw)])
    if kind in FIELD_KINDS:
        return _parse_field(btf, type_id, root, raw, kind)
    raise RelocationError(f"relocation kind {kind} is unknown")


def _enumerator(root: Type, raw: tuple[int, ...]) -> Accessor:
    if not isinstance(root, Enumeration):
        raise RelocationError(f"{kind_name(root.kind)} {root.name or '<anon>'} is not an enum")
    if len(raw) != 1 or raw[0] >= len(root.values):
        raise RelocationError(f"enum {root.name or '<anon>'} has no enumerator {':'.join(map(str, raw))}")
    return Accessor(root.id, raw[0], root.values[raw[0]][0])


def _parse_field(btf: BTF, type_id: int, root: Type, raw: tuple[int, ...], kind: int) -> Spec:
    index = raw[0]
    bit_offset = index * btf.size_of(root.id) * 8 if index else 0
    accessors = [Accessor(root.id, index)]
    current = root
    for index in raw[1:]:
        if isinstance(current, Composite):
            if index >= current.member_count:
                raise RelocationError(
                    f"{kind_name(current.kind)} {current.name or '<anon>'} has {current.member_count} members, "
                    f"no member {index}"
                )
            member = current.member(index)
            bit_offset += member.bit_offset
            if member.name:
                accessors.append(Accessor(current.id, index, member.name))
            current = btf.resolve(member.type_id)
        elif isinstance(current, Array):
            if index >= current.nelems and not is_flexible(btf, accessors[-1], current):
                raise RelocationError(f"element {index} is outside an array of {current.nelems}")
            current = btf.resolve(current.type_id)
            accessors.append(Accessor(current.id, index))
            bit_offset += index * btf.size_of(current.id) * 8
        else:
            raise RelocationError(
                f"access string {':'.join(map(str, raw))} goes into a {kind_name(current.kind)}, "
                "which has neither members nor elements"
            )
    if bit_offset >= MAX_BITS:
        raise RelocationError(f"offset {bit_offset // 8} does not fit 32 bits")
    return Spec(btf, type_id, kind, raw, accessors, bit_offset)


def is_flexible(btf: BTF, owner: Accessor, array: Array) -> bool:
    """Whether an array is a flexible one: no elements, and the last member of the struct that `owner` looks into."""
    if array.nelems or not owner.name:
        return False
    composite = btf.type(owner.type_id)
    return isinstance(composite, Composite) and owner.index == composite.member_count - 1
