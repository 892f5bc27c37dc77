"""Distilled BTF: what a module built outside of the kernel's tree needs to know of the kernel that it was built for.

Such a module has two sections. ``.BTF`` is split over ``.BTF.base``, which holds the named types of the kernel that the
module uses, without their insides: integers, floats, forward declarations, structs and unions with their sizes, enums
with theirs. Everything else that it uses is in the split part. Before it can be used beside another kernel's BTF, each
type of ``.BTF.base`` is looked up there by name, and the split part is renumbered.

Source: btf__distill_base() and btf__relocate() of libbpf, tools/lib/bpf/btf_relocate.c; Linux 6.11 does the same when
it loads such a module.
"""

from __future__ import annotations

from itertools import pairwise

from pybpf.btf import kinds
from pybpf.btf.layout import TYPE_WORDS, info_kind, info_vlen
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SECTION = ".BTF.base"

_DISTILLED = frozenset(
    {
        kinds.KIND_INT,
        kinds.KIND_FLOAT,
        kinds.KIND_FWD,
        kinds.KIND_STRUCT,
        kinds.KIND_UNION,
        kinds.KIND_ENUM,
        kinds.KIND_ENUM64,
    }
)
"""Kinds that a distilled base holds, if they have names."""

_REFERS = kinds.TRANSPARENT_KINDS | {
    kinds.KIND_PTR,
    kinds.KIND_FUNC,
    kinds.KIND_FUNC_PROTO,
    kinds.KIND_VAR,
    kinds.KIND_DECL_TAG,
}
"""Kinds whose third word is the id of a type."""

_ELEMENTS = {
    kinds.KIND_STRUCT: (3, 0, 1),
    kinds.KIND_UNION: (3, 0, 1),
    kinds.KIND_ENUM: (2, 0, -1),
    kinds.KIND_ENUM64: (3, 0, -1),
    kinds.KIND_FUNC_PROTO: (2, 0, 1),
    kinds.KIND_DATASEC: (3, -1, 0),
}
"""Kind -> the words of an element, and which of them are a name and a type's id; -1 for none."""


def name_places(words: Any, position: int) -> Iterator[int]:
    """Where the names of a type stand: its own and those of its elements, as indexes of words."""
    yield position
    width, name, _ = _ELEMENTS.get(info_kind(words[position + 1]), (0, -1, -1))
    if name >= 0:
        start = position + TYPE_WORDS
        yield from range(start + name, start + width * info_vlen(words[position + 1]), width)


def id_places(words: Any, position: int) -> Iterator[int]:
    """Where the ids stand that a type refers to, as indexes of words."""
    kind = info_kind(words[position + 1])
    if kind in _REFERS:
        yield position + 2
    if kind == kinds.KIND_ARRAY:
        yield position + 3
        yield position + 4
    width, _, id = _ELEMENTS.get(kind, (0, -1, -1))
    if id >= 0:
        start = position + TYPE_WORDS
        yield from range(start + id, start + width * info_vlen(words[position + 1]), width)


class _Copier(BTFBuilder):
    """A builder that takes types over from elsewhere, with other ids and names."""

    def copy(self, words: Any, position: int, end: int, id_of: Callable[[int], int], text: Callable[[int], str]) -> int:
        """Appends a type and gives its id."""
        made = list(words[position:end])
        for place in name_places(made, 0):
            made[place] = self.add_string(text(made[place]))
        for place in id_places(made, 0):
            made[place] = id_of(made[place])
        number = len(self)
        self._positions.append(len(self._words))
        self._words += made
        return number


def relocate(split: BTF, base: BTF) -> BTF:
    """The types of a module over another base than the distilled one that it came with.

    Args:
        split: read with the distilled base as its base.
        base: the BTF of a kernel.

    Raises:
        BTFError: the kernel has not all of the types that the module needs, or has several that fit; or the BTF is
            malformed.
    """
    distilled = split.base
    if distilled is None:
        raise BTFError(f"BTF {split.name}: it is not split, so there is nothing to relocate")
    ids = _matches(distilled, base, _embedded(split, len(distilled)))
    shift = len(base) - len(distilled)

    def id_of(id: int) -> int:
        return ids[id] if id < len(distilled) else id + shift

    builder = _Copier(split.byte_order, base)
    words, positions = split.words(), split.positions()
    for position, end in pairwise(positions):
        builder.copy(words, position, end, id_of, split.string)
    return BTF(builder.to_bytes(), base, split.name)


def _embedded(split: BTF, count: int) -> set[int]:
    """The structs and unions below id `count` that a type of the split part has inside of itself, by value."""
    found: set[int] = set()
    words, positions = split.words(), split.positions()
    for index in range(len(positions) - 1):
        position = positions[index]
        if info_kind(words[position + 1]) not in kinds.COMPOSITE_KINDS:
            continue
        for place in id_places(words, position):
            id = _inside(split, words[place])
            if id < count:
                found.add(id)
    return found


def _inside(btf: BTF, id: int) -> int:
    """The id behind modifiers, typedefs and arrays."""
    for _ in range(kinds.MAX_DEPTH):
        found = btf.type(id)
        if isinstance(found, kinds.Array) or found.kind in kinds.TRANSPARENT_KINDS:
            id = found.type_id  # type: ignore[attr-defined]  # references have it, which the test of the kind shows
        else:
            return id
    raise BTFError(f"BTF {btf.name}: the chain of type id {id} is too long")


def _matches(distilled: BTF, base: BTF, embedded: set[int]) -> list[int]:
    """For each id of the distilled base the id of its type in the real one."""
    ids = [0]
    for wanted in distilled.types():
        if wanted.kind not in _DISTILLED or not wanted.name:
            raise BTFError(f"BTF {distilled.name}: {_words(wanted)} does not belong into a distilled base")
        found = [id for kind in _kinds_for(wanted) for id in base.own_ids(wanted.name, kind)]
        fitting = [id for id in found if _fits(wanted, base.type(id))]
        if wanted.kind in kinds.COMPOSITE_KINDS and (len(fitting) > 1 or wanted.id in embedded):
            fitting = [id for id in fitting if _size(base.type(id)) == _size(wanted)]
        if len(fitting) != 1:
            why = "has none like it" if not fitting else f"has {len(fitting)} like it"
            raise BTFError(f"BTF {base.name}: a module needs {_words(wanted)}, and the kernel {why}")
        ids.append(fitting[0])
    return ids


def _kinds_for(wanted: kinds.Type) -> tuple[int, ...]:
    """The kinds that can stand in the base for a distilled type."""
    if wanted.kind in kinds.ENUM_KINDS:
        return (kinds.KIND_ENUM, kinds.KIND_ENUM64)
    if isinstance(wanted, kinds.Fwd):
        return (kinds.KIND_FWD, kinds.KIND_UNION if wanted.is_union else kinds.KIND_STRUCT)
    return (wanted.kind,)


def _fits(wanted: kinds.Type, found: kinds.Type) -> bool:
    if isinstance(wanted, kinds.Int):
        assert isinstance(found, kinds.Int)
        return (wanted.size, wanted.encoding, wanted.bits) == (found.size, found.encoding, found.bits)
    if isinstance(wanted, kinds.Fwd):
        return not isinstance(found, kinds.Fwd) or found.is_union == wanted.is_union
    return wanted.kind in kinds.COMPOSITE_KINDS or _size(wanted) == _size(found)


def _size(type: kinds.Type) -> int:
    size: int = getattr(type, "size", 0)
    return size


def _words(type: kinds.Type) -> str:
    size = f" of {_size(type)} bytes" if _size(type) else ""
    return f"{kinds.kind_name(type.kind)} {type.name!r}{size}"


def distill(split: BTF) -> tuple[bytes, bytes]:
    """A module's BTF without its kernel's: the sections ``.BTF.base`` and ``.BTF``.

    Args:
        split: a module's BTF, split over the kernel's.

    Raises:
        BTFError: it is not split, or malformed.
    """
    base = split.base
    if base is None:
        raise BTFError(f"BTF {split.name}: it is not split, so it has no base to distill")
    used = _used(split, base)
    kept = [id for id in used if _is_distilled(base, id)]
    builder = BTFBuilder(split.byte_order)
    ids = {0: 0, **{id: _add_distilled(builder, base.type(id)) for id in kept}}
    distilled = BTF(builder.to_bytes(), None, f"{split.name} base")
    shift = len(distilled) - len(base)
    # what is not kept follows the module's own types
    after = len(split) + shift
    ids.update((id, after + index) for index, id in enumerate(id for id in used if id not in ids))

    def id_of(id: int) -> int:
        return ids[id] if id < len(base) else id + shift

    copier = _Copier(split.byte_order, distilled)
    words, positions = split.words(), split.positions()
    for position, end in pairwise(positions):
        copier.copy(words, position, end, id_of, split.string)
    words = base.words()
    for id in used:
        if not _is_distilled(base, id):
            copier.copy(words, *base._place(id), id_of, base.string)
    return bytes(distilled.data), copier.to_bytes()


def _is_distilled(base: BTF, id: int) -> bool:
    type = base.type(id)
    return type.kind in _DISTILLED and bool(type.name)


def _used(split: BTF, base: BTF) -> list[int]:
    """The ids of the base that a module refers to, and those that they need: named types stand for themselves."""
    words, positions = split.words(), split.positions()
    waiting = [words[place] for at in positions[:-1] for place in id_places(words, at) if words[place] < len(base)]
    used: set[int] = set()
    words = base.words()
    while waiting:
        id = waiting.pop()
        if id == 0 or id in used:
            continue
        used.add(id)
        if not _is_distilled(base, id):
            waiting += [words[place] for place in id_places(words, base._place(id)[0])]
    return sorted(used)


def _add_distilled(builder: BTFBuilder, type: kinds.Type) -> int:
    if isinstance(type, kinds.Int):
        return builder.add_int(type.name, type.size, type.bits, type.encoding, type.bit_offset)
    if isinstance(type, kinds.Fwd):
        return builder.add_fwd(type.name, type.is_union)
    if isinstance(type, kinds.Float):
        return builder.add_float(type.name, type.size)
    if isinstance(type, kinds.Struct):
        return builder.add_struct(type.name, type.size, ())
    if isinstance(type, kinds.Union):
        return builder.add_union(type.name, type.size, ())
    return builder.add_enum(type.name, _size(type), False, ())
