"""What a CO-RE relocation comes to: the number its instruction carries, and the one it must carry.

Rules of this module:

* Both numbers come from the same computation, once on the object's types and once on the kernel's.
* A bit field is read as ``load(byte size) << lshift >> rshift``: the load is the smallest aligned one that holds all
  its bits.
* Numbers are unsigned 64 bits wide.

Source: tools/lib/bpf/relo_core.c of the Linux kernel.
"""

from __future__ import annotations

from pybpf.btf.corespec import FIELD_KINDS, RELOCATION_NAMES, VALUE_KINDS
from pybpf.btf.kinds import INT_SIGNED, MAX_DEPTH, Array, Composite, Enum, Enumeration, Int, Ptr, kind_name, member_bits
from pybpf.constants import (
    BPF_CORE_ENUMVAL_EXISTS,
    BPF_CORE_FIELD_BYTE_OFFSET,
    BPF_CORE_FIELD_BYTE_SIZE,
    BPF_CORE_FIELD_EXISTS,
    BPF_CORE_FIELD_RSHIFT_U64,
    BPF_CORE_FIELD_SIGNED,
    BPF_CORE_TYPE_EXISTS,
    BPF_CORE_TYPE_ID_LOCAL,
    BPF_CORE_TYPE_MATCHES,
    BPF_CORE_TYPE_SIZE,
)
from pybpf.errors import BTFError, RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.corespec import Spec
    from pybpf.btf.kinds import Type
    from pybpf.btf.reader import BTF

_MASK64 = (1 << 64) - 1
_EXISTENCE_KINDS = frozenset(
    {BPF_CORE_FIELD_EXISTS, BPF_CORE_ENUMVAL_EXISTS, BPF_CORE_TYPE_EXISTS, BPF_CORE_TYPE_MATCHES}
)


class Resolution:
    """What a relocation came to.

    Attributes:
        local: what the object means.
        target: where the kernel has it, or None.
        original: the number the instruction carries now, as unsigned 64 bits.
        value: the number it must carry, as unsigned 64 bits; meaningless when `poison`.
        poison: the instruction must not be reached.
        validate: `original` must be there before `value` may replace it.
        original_size, new_size: bytes that a load of the field takes, 0 where that has no meaning.
        bad_size: the sizes differ and a load or store cannot be adjusted without changing the number read.
    """

    __slots__ = ("bad_size", "local", "new_size", "original", "original_size", "poison", "target", "validate", "value")

    def __init__(
        self,
        local: Spec,
        target: Spec | None,
        original: int,
        value: int,
        *,
        poison: bool = False,
        validate: bool = True,
        original_size: int = 0,
        new_size: int = 0,
        bad_size: bool = False,
    ) -> None:
        self.local = local
        self.target = target
        self.original = original
        self.value = value
        self.poison = poison
        self.validate = validate
        self.original_size = original_size
        self.new_size = new_size
        self.bad_size = bad_size

    @property
    def kind(self) -> int:
        """The relocation's kind, a BPF_CORE_ number."""
        return self.local.kind

    @property
    def matched(self) -> bool:
        """Whether the kernel has it."""
        return self.target is not None

    @property
    def target_btf(self) -> BTF | None:
        """The BTF that has it: vmlinux, a module's or a custom one. A type id means something only there."""
        return self.target.btf if self.target is not None else None

    @property
    def description(self) -> str:
        """What the object means: ``<byte_off> [12] struct task_struct.pid (0:5 @ offset 1256)``."""
        return str(self.local)

    def __repr__(self) -> str:
        outcome = "poison" if self.poison else f"{self.original} -> {self.value}"
        return f"<Resolution {self.description}: {outcome}>"


def calculate(local: Spec, target: Spec | None) -> Resolution:
    """The numbers for one candidate, or for none.

    Raises:
        RelocationError: the relocation's kind has no meaning for what it points at.
        BTFError: the types are malformed.
    """
    kind = local.kind
    if kind in _EXISTENCE_KINDS:
        return Resolution(local, target, 1, int(target is not None))
    if kind in FIELD_KINDS:
        return _calculate_field(local, target)
    if kind in VALUE_KINDS:
        original = _enumerator_value(local)
        if target is None:
            return Resolution(local, None, original, 0, poison=True)
        return Resolution(local, target, original, _enumerator_value(target))
    if kind == BPF_CORE_TYPE_SIZE:
        size = target.btf.size_of(target.root_id) if target is not None else 0
        return Resolution(local, target, local.btf.size_of(local.root_id), size)
    if kind == BPF_CORE_TYPE_ID_LOCAL:
        return Resolution(local, local, local.root_id, local.root_id, validate=False)
    # TYPE_ID_TARGET. Linkers renumber types, so what the instruction carries is not checked.
    return Resolution(local, target, local.root_id, target.root_id if target is not None else 0, validate=False)


def _enumerator_value(spec: Spec) -> int:
    """As instructions carry it: 32-bit values are sign-extended, whether the enum is signed or not."""
    _, value = spec.enumerator
    if isinstance(spec.btf.type(spec.accessors[0].type_id), Enum):
        value = (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
    return value & _MASK64


def _calculate_field(local: Spec, target: Spec | None) -> Resolution:
    original = _field_value(local)
    if target is None:
        return Resolution(local, None, original.value, 0, poison=True, validate=original.validate)
    new = _field_value(target)
    same_size = original.load_size == new.load_size
    return Resolution(
        local,
        target,
        original.value,
        new.value,
        validate=original.validate,
        original_size=original.load_size,
        new_size=new.load_size,
        bad_size=not (same_size or _is_adjustable(original.load_type, new.load_type)),
    )


def _is_adjustable(local: Type | None, target: Type | None) -> bool:
    """Whether a load of another width reads the same number, because the rest of the register is zeros."""
    if isinstance(local, Ptr) and isinstance(target, Ptr):
        return True
    return isinstance(local, Int) and isinstance(target, Int) and INT_SIGNED not in (local.encoding, target.encoding)


class _FieldValue:
    """The number that a relocation about a field asks for, on one side.

    Attributes:
        value: the number.
        validate: compilers agree on it, so that the instruction must carry it.
        load_size, load_type: what a load at that offset reads; 0 and None for bit fields and other relocation kinds.
    """

    __slots__ = ("load_size", "load_type", "validate", "value")

    def __init__(self, value: int, validate: bool = True, load_size: int = 0, load_type: Type | None = None) -> None:
        self.value = value & _MASK64
        self.validate = validate
        self.load_size = load_size
        self.load_type = load_type


def _field_value(spec: Spec) -> _FieldValue:
    btf, kind, bit_offset = spec.btf, spec.kind, spec.bit_offset
    last = spec.accessors[-1]
    type_id = last.type_id
    if last.name:
        owner = btf.type(last.type_id)
        assert isinstance(owner, Composite), "named accessors of fields are in structs and unions"
        member = owner.member(last.index)
        type_id = member.type_id
        own_offset, bits = member_bits(btf, member)
        if bits:
            return _bitfield_value(spec, btf.resolve(type_id), bit_offset + own_offset - member.bit_offset, bits)
    elif kind not in (BPF_CORE_FIELD_BYTE_OFFSET, BPF_CORE_FIELD_BYTE_SIZE):
        raise RelocationError(f"{RELOCATION_NAMES[kind]} has no meaning for an array element")
    if kind == BPF_CORE_FIELD_BYTE_OFFSET:
        load_type = _innermost(btf, type_id)
        return _FieldValue(bit_offset // 8, True, btf.size_of(load_type.id), load_type)
    if kind == BPF_CORE_FIELD_SIGNED:
        return _FieldValue(int(_is_signed(btf.resolve(type_id))))
    size = btf.size_of(type_id)
    if kind == BPF_CORE_FIELD_BYTE_SIZE:
        return _FieldValue(size)
    return _FieldValue(64 - 8 * size)  # both shifts: the field's highest bit to that of the register, and back


def _bitfield_value(spec: Spec, storage: Type, bit_offset: int, bits: int) -> _FieldValue:
    """Compilers choose the load of a bit field freely, so only its sign and its width are sure to agree."""
    if not isinstance(storage, (Int, Enumeration)):
        raise RelocationError(f"the type of a bit field is a {kind_name(storage.kind)}")
    kind = spec.kind
    if kind == BPF_CORE_FIELD_SIGNED:
        return _FieldValue(int(_is_signed(storage)))
    if kind == BPF_CORE_FIELD_RSHIFT_U64:
        return _FieldValue(64 - bits)
    byte_offset, byte_size = _smallest_load(bit_offset, bits, storage.size)
    if kind == BPF_CORE_FIELD_BYTE_OFFSET:
        return _FieldValue(byte_offset, validate=False)
    if kind == BPF_CORE_FIELD_BYTE_SIZE:
        return _FieldValue(byte_size, validate=False)
    within = bit_offset - 8 * byte_offset
    if spec.btf.byte_order == "little":
        return _FieldValue(64 - (within + bits), validate=False)
    return _FieldValue(8 * (8 - byte_size) + within, validate=False)


def _smallest_load(bit_offset: int, bits: int, byte_size: int) -> tuple[int, int]:
    """Offset and size, in bytes, of the smallest aligned load, no smaller than the declared type, with all the bits."""
    while byte_size in (1, 2, 4, 8):
        byte_offset = bit_offset // 8 // byte_size * byte_size
        if bit_offset + bits <= 8 * (byte_offset + byte_size):
            return byte_offset, byte_size
        byte_size *= 2
    raise RelocationError("the bit field cannot be read with one load of at most 8 bytes")


def _innermost(btf: BTF, type_id: int) -> Type:
    """The element type of an array of arrays, or the type itself."""
    for _ in range(MAX_DEPTH):
        innermost = btf.resolve(type_id)
        if not isinstance(innermost, Array):
            return innermost
        type_id = innermost.type_id
    raise BTFError(f"type {type_id}: arrays nest deeper than {MAX_DEPTH} levels")


def _is_signed(field: Type) -> bool:
    return isinstance(field, (Enumeration, Int)) and field.is_signed
