"""Which type the records of an event buffer have.

A ring or perf buffer carries bytes; nothing in the object file has to say what they mean. In this order:

1. What the user says: ``RingBuffer.of("event")``.
2. What the program's author says, with a tag on the map::

       struct {
           __uint(type, BPF_MAP_TYPE_RINGBUF);
           __uint(max_entries, 1 << 20);
       } events SEC(".maps") __attribute__((btf_decl_tag("event:exec_event")));

   Behind ``event:`` stands the name of a struct, union or typedef of the object's BTF; ``struct exec_event`` is the
   same. A name that is not there is an error.
3. The map's value type, when that is a struct or union (of a ring buffer: any type)::

       __type(value, struct exec_event);

   libbpf knows this of no event buffer, and the kernel wants neither size nor type: they are left out when the map is
   made. A tag that names another type than this is an error.
4. What the map's name suggests. A map ``execs`` has records of the first of these that is a struct, or a typedef of
   one, in the object's BTF: ``execs``, ``exec``, ``execs_event``, ``execs_t``, ``exec_t``, ``event``, ``event_t``,
   ``data_t``. When that name means two different structs, nothing is concluded. A record shorter than a type that
   was only suggested is delivered as `bytes`.
5. Otherwise records are `bytes`.

clang puts a struct into the BTF only when something refers to it. Where the program merely casts, this does::

    const struct exec_event *unused_exec_event __attribute__((unused));
"""

from __future__ import annotations

from pybpf.btf import kinds
from pybpf.constants import BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_RINGBUF
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.events.batch import Batch, Chosen, RecordCodec
    from pybpf.mapspec import MapSpec

TAG = "event:"
"""How a declaration tag that names a record's type begins."""

_MAYBE_STRUCTS = (kinds.KIND_STRUCT, kinds.KIND_TYPEDEF)
_ANY = (*_MAYBE_STRUCTS, kinds.KIND_UNION, kinds.KIND_INT, kinds.KIND_ENUM, kinds.KIND_ENUM64, kinds.KIND_FLOAT)
_KEYWORDS = {"struct": (kinds.KIND_STRUCT,), "union": (kinds.KIND_UNION,), "enum": (kinds.KIND_ENUM, kinds.KIND_ENUM64)}


def event_type(btf: BTF, map_name: str, tags: Iterable[str] | None = None, value_type: int = 0) -> int | None:
    """The type id of the records of a map: as declared, otherwise as suggested. None: unknown, they are `bytes`.

    Args:
        btf: the object's type information.
        map_name: the map's variable name.
        tags: the declaration tags of that variable; None looks them up in `btf`.
        value_type: the id of the map's value type when that is one of records (`value_type_of()`), otherwise 0.

    Raises:
        BTFError: a tag names a type that is not there, or tags name different ones.
    """
    declared = declared_type(btf, map_name, tags, value_type)
    return suggested_type(btf, map_name) if declared is None else declared


def event_codec(
    btf: BTF, map_name: str, tags: Iterable[str] | None = None, value_type: int = 0
) -> tuple[Codec | None, bool]:
    """What `RingBuffer` and `PerfBuffer` take as `decode` and `strict`: strict is only what was declared."""
    from pybpf.btf.codec import codec

    declared = declared_type(btf, map_name, tags, value_type)
    if declared is not None:
        return codec(btf, declared), True
    suggested = suggested_type(btf, map_name)
    return (None if suggested is None else codec(btf, suggested)), False


def declared_type(btf: BTF, map_name: str, tags: Iterable[str] | None = None, value_type: int = 0) -> int | None:
    """The type that a tag on the map, or the map's value type, names. Arguments and errors as in `event_type()`."""
    found = [
        named_type(btf, tag.removeprefix(TAG))
        for tag in (map_tags(btf, map_name) if tags is None else tags)
        if tag.startswith(TAG)
    ]
    if found and not _same(btf, found):
        raise BTFError(f"map {map_name!r} has several tags that begin with {TAG!r} and name different types")
    if found and value_type and not _same(btf, [found[0], value_type]):
        raise BTFError(f"map {map_name!r}: its tag and its value type name different types of records")
    return found[0] if found else value_type or None


def value_type_of(btf: BTF, spec: MapSpec) -> int:
    """The id of a map's value type if that is what its records are; 0 if not.

    A perf event array has descriptors for values, so that a number says nothing of its records.
    """
    if not spec.value_type_id or spec.type_number not in (BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_PERF_EVENT_ARRAY):
        return 0
    is_composite = btf.resolve(spec.value_type_id).kind in (kinds.KIND_STRUCT, kinds.KIND_UNION)
    return spec.value_type_id if is_composite or spec.type_number == BPF_MAP_TYPE_RINGBUF else 0


def suggested_type(btf: BTF, map_name: str) -> int | None:
    """The struct that the map's name suggests."""
    for name in suggestions(map_name):
        found = [id for id in _ids(btf, name, _MAYBE_STRUCTS) if btf.resolve(id).kind == kinds.KIND_STRUCT]
        if found:
            return found[0] if _same(btf, found) else None
    return None


def suggestions(map_name: str) -> list[str]:
    """The names a record's struct may have, best first."""
    singular = map_name.removesuffix("s") or map_name
    names = (map_name, singular, f"{map_name}_event", f"{map_name}_t", f"{singular}_t", "event", "event_t", "data_t")
    return list(dict.fromkeys(names))


def map_tags(btf: BTF, map_name: str) -> list[str]:
    """The declaration tags of the variable that defines a map."""
    return [
        tag.name
        for id in btf.own_ids(map_name, kinds.KIND_VAR)
        for tag in btf.decl_tags(id)
        if tag.component_index == -1
    ]


def named_type(btf: BTF, name: str) -> int:
    """The id of the type of that name, which may begin with ``struct``, ``union`` or ``enum``.

    Raises BTFError when there is none, or when the name means different types; TypeError when it is no str.
    """
    if not isinstance(name, str):
        raise TypeError(f"a type is named by its name, such as 'struct event', not by {name!r}")
    keyword, _, rest = name.partition(" ")
    found = _ids(btf, rest.strip(), _KEYWORDS[keyword]) if keyword in _KEYWORDS else _ids(btf, name, _ANY)
    if not found:
        raise BTFError(
            f"there is no type {name!r} in the type information of {btf.name or 'the object'}. "
            "(clang leaves a type out to which nothing refers.)"
        )
    if not _same(btf, found):
        raise BTFError(f"{name!r} means {len(found)} different types in {btf.name or 'the object'}")
    return found[0]


def codec_of(btf: BTF | None, type_name: str) -> Codec:
    """The codec of the type of that name. Raises BTFError."""
    from pybpf.btf.codec import codec

    if btf is None:
        raise BTFError(f"there is no type information to find {type_name!r} in")
    return codec(btf, named_type(btf, type_name))


def type_id_of(btf: BTF, codec: RecordCodec) -> int:
    """The id of the type that a codec of this type information is of; 0 when it is of another."""
    return next((key[1] for key, known in btf.cache.items() if known is codec and key[0] == "codec"), 0)


class Mixture:
    """A decode function for buffers that carry several types.

    Args:
        btf: where names are looked up.
        choose: gets a record as `memoryview`; gives the name of its type, a codec, or None for `bytes`.
    """

    __slots__ = ("_btf", "_choose", "_codecs")

    def __init__(self, btf: BTF | None, choose: Callable[[memoryview], str | RecordCodec | None]) -> None:
        if btf is None:
            raise BTFError("there is no type information to find the types of records in")
        if not callable(choose):
            raise TypeError(f"of_several() takes a function that gives the type of a record, not {choose!r}")
        self._btf = btf
        self._choose = choose
        self._codecs: dict[str, Codec] = {}

    def __call__(self, record: memoryview) -> Any:
        """The record's value. Raises BTFError for a name that is not there, ValueError for a record too short."""
        chosen = self._chosen(record)
        return bytes(record) if chosen is None else chosen.decode(record, 0, len(record))

    def values(self, batch: Batch, first: int) -> Iterator[Any]:
        """The values of a batch from a record number on, as a decoder of `pybpf.events.batch` gives them."""
        if batch.chosen is None:
            return map(self, batch.views(first))
        return map(_value, batch.views(first), batch.chosen[first:])

    def _chosen(self, record: memoryview) -> RecordCodec | None:
        chosen = self._choose(record)
        if isinstance(chosen, str):
            known = self._codecs.get(chosen)
            if known is None:
                known = self._codecs[chosen] = codec_of(self._btf, chosen)
            return known
        if chosen is not None and not hasattr(chosen, "decode_run"):
            raise TypeError(f"of_several(): the function must give a type's name, a codec or None, not {chosen!r}")
        return chosen

    def types_of(self, batch: Batch) -> list[int]:
        """The type id of each record, for a recording; 0 where no type of this type information was chosen.

        Whoever decodes the batch later gets what is chosen now, because the function may remember and count.
        """
        batch.chosen = [self._chosen_or_error(record) for record in batch.views()]
        ids = {
            id(codec): type_id_of(self._btf, codec)
            for codec in {id(chosen): chosen for chosen in batch.chosen}.values()
            if codec is not None and not isinstance(codec, Exception)
        }
        return [ids.get(id(chosen), 0) for chosen in batch.chosen]

    def _chosen_or_error(self, record: memoryview) -> Chosen:
        try:
            return self._chosen(record)
        except Exception as error:  # who reads the record gets it
            return error


def _value(record: memoryview, chosen: Chosen) -> Any:
    """The value of a record whose type was chosen before."""
    if chosen is None:
        return bytes(record)
    if isinstance(chosen, Exception):
        raise chosen
    return chosen.decode(record, 0, len(record))


def _ids(btf: BTF, name: str, wanted: Iterable[int]) -> list[int]:
    return [id for kind in wanted for id in btf.own_ids(name, kind)]


def _same(btf: BTF, ids: list[int]) -> bool:
    """Whether all of these are one type, behind typedefs."""
    return len({btf.resolve(id).id for id in ids}) == 1
