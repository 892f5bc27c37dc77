"""Which type of one kernel corresponds to which type of an object: the CO-RE rules of likeness.

There are four, from loose to strict: a field's type (`fields_compatible`), a whole type (`types_compatible`), a type
that must hold every member of the local one (`types_match`), and a path of members and elements (`match`).

Rules of this module:

* "local" is the object's BTF, "target" the kernel's, a module's or a custom one.
* Typedefs, const, volatile, restrict and type tags are looked through at every step.
* Sizes and signs of integers and the lengths of arrays matter to `types_match` alone.
* Types nested deeper than the loaders follow them are a `RelocationError`.

Source: tools/lib/bpf/relo_core.c of the Linux kernel.
"""

from __future__ import annotations

from pybpf.btf.corespec import FIELD_KINDS, MAX_LENGTH, TYPE_KINDS, Accessor, Spec, is_flexible
from pybpf.btf.kinds import (
    KIND_ENUM,
    KIND_ENUM64,
    KIND_FLOAT,
    KIND_FWD,
    KIND_PTR,
    Array,
    Composite,
    Enumeration,
    FuncProto,
    Fwd,
    Int,
    Ptr,
    Union,
    Void,
)
from pybpf.btf.names import encode_name
from pybpf.btf.reader import essential_name
from pybpf.constants import BPF_CORE_TYPE_MATCHES
from pybpf.errors import RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.kinds import Member
    from pybpf.btf.reader import BTF

MAX_DEPTH = 32
"""Most pointers and arrays in a row, and most function types within function types."""

NAMED_KINDS = frozenset({KIND_ENUM, KIND_ENUM64, KIND_FWD})


def kinds_compatible(local: int, target: int) -> bool:
    """Equal kinds, and ENUM with ENUM64."""
    return local == target or (local in (KIND_ENUM, KIND_ENUM64) and target in (KIND_ENUM, KIND_ENUM64))


def candidate_kinds(kind: int) -> frozenset[int]:
    """The kinds that a target type may have."""
    return frozenset({KIND_ENUM, KIND_ENUM64}) if kind in (KIND_ENUM, KIND_ENUM64) else frozenset({kind})


def fields_compatible(local: BTF, local_id: int, target: BTF, target_id: int) -> bool:
    """Whether a member of the target can stand for a member of the object.

    Raises:
        BTFError: the types are malformed.
        RelocationError: arrays nest deeper than 32 levels.
    """
    for _ in range(MAX_DEPTH):
        ours, theirs = local.resolve(local_id), target.resolve(target_id)
        if isinstance(ours, Composite) and isinstance(theirs, Composite):
            return True
        if not kinds_compatible(ours.kind, theirs.kind):
            return False
        if isinstance(ours, Array) and isinstance(theirs, Array):
            local_id, target_id = ours.type_id, theirs.type_id
            continue
        if ours.kind in NAMED_KINDS:
            name, other = essential_name(ours.name), essential_name(theirs.name)
            return not name or not other or name == other
        if isinstance(ours, Int) and isinstance(theirs, Int):
            return ours.bit_offset == 0 and theirs.bit_offset == 0
        return ours.kind in (KIND_PTR, KIND_FLOAT)
    raise RelocationError(f"arrays nest deeper than {MAX_DEPTH} levels")


def types_compatible(local: BTF, local_id: int, target: BTF, target_id: int) -> bool:
    """Whether a target type can stand for a type of the object, whose root names the caller has compared.

    Structs, unions and enums are compatible by kind alone; pointers and arrays go on with what they point at or hold;
    function types need as many parameters, each compatible, and a compatible result.

    Raises:
        BTFError: the types are malformed.
    """
    if not kinds_compatible(local.kind_of(local_id), target.kind_of(target_id)):
        return False
    pending = [(local_id, target_id)]
    visited: set[tuple[int, int]] = set()
    while pending:
        pair = pending.pop()
        if pair in visited:
            continue
        visited.add(pair)
        ours, theirs = local.resolve(pair[0]), target.resolve(pair[1])
        if not kinds_compatible(ours.kind, theirs.kind):
            return False
        if isinstance(ours, (Ptr, Array)) and isinstance(theirs, (Ptr, Array)):
            pending.append((ours.type_id, theirs.type_id))
        elif isinstance(ours, FuncProto) and isinstance(theirs, FuncProto):
            if len(ours.params) != len(theirs.params):
                return False
            pending += [(mine.type_id, other.type_id) for mine, other in zip(ours.params, theirs.params, strict=True)]
            pending.append((ours.type_id, theirs.type_id))
        elif isinstance(ours, Int) and isinstance(theirs, Int):
            if ours.bit_offset or theirs.bit_offset:
                return False
        elif not isinstance(ours, (Void, Composite, Enumeration, Fwd)):
            return False
    return True


def types_match(local: BTF, local_id: int, target: BTF, target_id: int) -> bool:
    """Whether a target type holds everything that the local one says.

    At every level the names must be the same but for flavors. Integers need the same size and sign, enums all local
    enumerators, structs all local members, arrays the same length. Behind a pointer a struct's name is enough.

    Raises:
        BTFError: the types are malformed.
    """
    return _Matcher(local, target).match(local_id, target_id, False, MAX_DEPTH)


class _Matcher:
    """One question to `types_match`, with the answers found on the way."""

    def __init__(self, local: BTF, target: BTF) -> None:
        self.local = local
        self.target = target
        self.answers: dict[tuple[int, int, bool], bool] = {}

    def match(self, local_id: int, target_id: int, behind_pointer: bool, level: int) -> bool:
        key = (local_id, target_id, behind_pointer)
        answer = self.answers.get(key)
        if answer is None:
            self.answers[key] = False  # what contains itself by value matches nothing
            answer = self.answers[key] = level > 0 and self._match(local_id, target_id, behind_pointer, level - 1)
        return answer

    def _match(self, local_id: int, target_id: int, behind_pointer: bool, level: int) -> bool:
        ours, theirs = self.local.resolve(local_id), self.target.resolve(target_id)
        if essential_name(ours.name) != essential_name(theirs.name):
            return False
        if isinstance(ours, Enumeration):
            return isinstance(theirs, Enumeration) and _enums_match(ours, theirs)
        if behind_pointer and isinstance(ours, (Composite, Fwd)) and isinstance(theirs, (Composite, Fwd)):
            return _is_union(ours) == _is_union(theirs)
        if ours.kind != theirs.kind:
            return False
        if isinstance(ours, Composite) and isinstance(theirs, Composite):
            return self._members_match(ours, theirs, level)
        if isinstance(ours, Ptr) and isinstance(theirs, Ptr):
            return self.match(ours.type_id, theirs.type_id, True, level)
        if isinstance(ours, Array) and isinstance(theirs, Array):
            return ours.nelems == theirs.nelems and self.match(ours.type_id, theirs.type_id, behind_pointer, level)
        if isinstance(ours, FuncProto) and isinstance(theirs, FuncProto):
            return self._signatures_match(ours, theirs, behind_pointer, level)
        if isinstance(ours, Int) and isinstance(theirs, Int):
            return ours.size == theirs.size and ours.is_signed == theirs.is_signed
        if isinstance(ours, Fwd) and isinstance(theirs, Fwd):
            return ours.is_union == theirs.is_union
        return isinstance(ours, Void)

    def _signatures_match(self, ours: FuncProto, theirs: FuncProto, behind_pointer: bool, level: int) -> bool:
        if len(ours.params) != len(theirs.params):
            return False
        pairs = [(mine.type_id, other.type_id) for mine, other in zip(ours.params, theirs.params, strict=True)]
        pairs.append((ours.type_id, theirs.type_id))
        return all(self.match(mine, other, behind_pointer, level) for mine, other in pairs)

    def _members_match(self, ours: Composite, theirs: Composite, level: int) -> bool:
        by_name: dict[str, list[Member]] = {}
        for member in theirs.members:
            by_name.setdefault(essential_name(member.name), []).append(member)
        return len(ours.members) <= len(theirs.members) and all(
            any(
                self.match(member.type_id, other.type_id, False, level)
                for other in by_name.get(essential_name(member.name), ())
            )
            for member in ours.members
        )


def _enums_match(ours: Enumeration, theirs: Enumeration) -> bool:
    if ours.size != theirs.size or len(ours.values) > len(theirs.values):
        return False
    names = {essential_name(name) for name, _ in theirs.values}
    return all(essential_name(name) in names for name, _ in ours.values)


def _is_union(composite: Composite | Fwd) -> bool:
    return composite.is_union if isinstance(composite, Fwd) else isinstance(composite, Union)


def match(local: Spec, target: BTF, target_id: int) -> Spec | None:
    """What `local` points at, looked for in one candidate; None when it is not there.

    Raises:
        BTFError: the types are malformed.
        RelocationError: the path goes deeper than 64 members.
    """
    if local.kind in FIELD_KINDS:
        return _match_field(local, target, target_id)
    if local.kind in TYPE_KINDS:
        alike = types_match if local.kind == BPF_CORE_TYPE_MATCHES else types_compatible
        if alike(local.btf, local.root_id, target, target_id):
            return Spec(target, target_id, local.kind, (0,), [])
        return None
    return _match_enumerator(local, target, target_id)


def _match_enumerator(local: Spec, target: BTF, target_id: int) -> Spec | None:
    enum = target.resolve(target_id)
    if isinstance(enum, Enumeration):
        wanted = essential_name(local.accessors[0].name)
        for index, (name, _) in enumerate(enum.values):
            if name.startswith(wanted) and essential_name(name) == wanted:
                return Spec(target, target_id, local.kind, (index,), [Accessor(enum.id, index, name)])
    return None


def _match_field(local: Spec, target: BTF, target_id: int) -> Spec | None:
    first, *steps = local.accessors
    root = current = target.resolve(target_id)
    bit_offset = first.index * target.size_of(root.id) * 8 if first.index else 0
    raw = [first.index]
    accessors = [Accessor(root.id, first.index)]
    for step in steps:
        if step.name:
            if not isinstance(current, Composite):
                return None
            found = _find_member(_Wanted(local.btf, step, target), current, 1)
            if found is None:
                return None
            owner, path, offset = found
            raw += path
            accessors.append(Accessor(owner.id, path[-1], step.name))
            bit_offset += offset
            current = target.resolve(owner.member(path[-1]).type_id)
        else:
            if not isinstance(current, Array):
                return None
            if step.index >= current.nelems and not is_flexible(target, accessors[-1], current):
                return None
            current = target.resolve(current.type_id)
            raw.append(step.index)
            accessors.append(Accessor(current.id, step.index))
            bit_offset += step.index * target.size_of(current.id) * 8
        if len(raw) > MAX_LENGTH:
            raise RelocationError(f"the field lies deeper than {MAX_LENGTH} members")
    return Spec(target, target_id, local.kind, tuple(raw), accessors, bit_offset)


class _Wanted:
    """A member to look for in target structs."""

    __slots__ = ("local", "name", "target", "type_id", "visited")

    def __init__(self, local: BTF, accessor: Accessor, target: BTF) -> None:
        composite = local.type(accessor.type_id)
        assert isinstance(composite, Composite), "named accessors of fields are in structs and unions"
        self.local = local
        self.type_id = composite.member(accessor.index).type_id
        self.name = encode_name(accessor.name)
        self.target = target
        self.visited: set[int] = set()  # anonymous members searched in vain


def _find_member(wanted: _Wanted, composite: Composite, depth: int) -> tuple[Composite, list[int], int] | None:
    """Where the member is: its struct, the member numbers that lead to it, the bit offset.

    Members are searched in order, an anonymous one wholly before the next. The first of that name decides.
    """
    if depth > MAX_LENGTH:
        raise RelocationError(f"anonymous members nest deeper than {MAX_LENGTH} levels")
    target = wanted.target
    names = composite.name_offsets
    place = target.index_of_string(wanted.name, names)
    before = names if place < 0 else names[:place]
    if 0 in before:
        for index in [index for index, name in enumerate(before) if not name]:
            member = composite.member(index)
            inner = target.resolve(member.type_id)
            if isinstance(inner, Composite) and inner.id not in wanted.visited:
                wanted.visited.add(inner.id)
                found = _find_member(wanted, inner, depth + 1)
                if found is not None:
                    owner, path, offset = found
                    return owner, [index, *path], offset + member.bit_offset
    if place < 0:
        return None
    member = composite.member(place)
    alike = fields_compatible(wanted.local, wanted.type_id, target, member.type_id)
    return (composite, [place], member.bit_offset) if alike else None
