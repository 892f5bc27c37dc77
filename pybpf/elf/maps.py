"""Maps: definitions of maps, as BTF in the section ``.maps`` or as plain numbers in the section ``maps``.

Rules of this module:

* In ``.maps`` each variable is a map, and the members of its struct say what it is: ``__uint(name, N)`` is a pointer to
  an array of N elements, ``__type(name, T)`` a pointer to T, ``__array(name, T)`` an array of pointers to T,
  ``__ulong(name, V)`` an enum with one enumerator.
* An unknown member is an error: it would be lost.
* In ``maps`` each symbol is a ``struct bpf_map_def``. What such a struct has beyond the five known fields must be zero.

Sources: tools/lib/bpf/libbpf.c, parse_btf_map_def() and, for the old form, libbpf before 1.0; bpf_helpers.h.
"""

from __future__ import annotations

from struct import unpack_from

from pybpf import constants
from pybpf.btf.kinds import LINKAGE_GLOBAL, Array, Enumeration, FuncProto, Ptr, Struct, Var
from pybpf.elf.container import STT_NOTYPE, STT_OBJECT
from pybpf.elf.functions import INSTRUCTION_SIZE
from pybpf.errors import ObjectError
from pybpf.mapspec import PIN_BY_NAME, PIN_NONE, U64_MAX, MapSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.btf.kinds import Member
    from pybpf.btf.reader import BTF
    from pybpf.elf.container import Container, Section
    from pybpf.elf.datasec import DatasecLayout
    from pybpf.elf.functions import FunctionTable

MAPS = ".maps"
LEGACY_MAPS = "maps"

_POINTER_SIZE = 8
_MAP_IN_MAP = (constants.BPF_MAP_TYPE_ARRAY_OF_MAPS, constants.BPF_MAP_TYPE_HASH_OF_MAPS)
_SLOTS = "values"
_LEGACY_FIELDS = 5
_LEGACY_SMALLEST = 16
_ANNOTATION = "____btf_map_"


def read_maps(container: Container, btf: BTF, layout: DatasecLayout, section: Section) -> list[tuple[int, MapSpec]]:
    """The maps of ``.maps`` as (offset of the variable, map), in the order of their offsets.

    Raises:
        ObjectError: a definition is malformed; the message names the map.
    """
    found = []
    for var_id, offset, size in layout.entries:
        var = btf.type(var_id)
        name = var.name
        if not isinstance(var, Var) or not name:
            raise container.error(f"section {MAPS!r}: type id {var_id} does not name a map")
        if var.linkage != LINKAGE_GLOBAL:
            raise container.error(f"map {name!r} must not be static")
        definition = btf.resolve(var.type_id)
        if not isinstance(definition, Struct):
            raise container.error(f"map {name!r} is not defined by a struct")
        if definition.size > size or offset + size > section.size:
            raise container.error(f"map {name!r} at offset {offset} with {size} bytes does not fit section {MAPS!r}")
        spec = MapSpec(name, section=MAPS, btf=btf)
        try:
            _Definition(btf, spec, inner=False).read(definition)
        except ValueError as error:
            raise container.error(str(error)) from error
        found.append((offset, spec))
    return found


class _Definition:
    """The members of one map's struct, read into its MapSpec."""

    __slots__ = ("_btf", "_inner", "_spec")

    def __init__(self, btf: BTF, spec: MapSpec, inner: bool) -> None:
        self._btf = btf
        self._spec = spec
        self._inner = inner

    def read(self, definition: Struct) -> None:
        last = len(definition.members) - 1
        for index, member in enumerate(definition.members):
            read = _FIELDS.get(member.name)
            if read is None:
                raise self._error(member, "there is no such field")
            if member.name == _SLOTS and index != last:
                raise self._error(member, "it must be the last field")
            read(self, member)
        if self._spec.type_number == constants.BPF_MAP_TYPE_UNSPEC:
            raise ObjectError(f"map {self._spec.name!r}: its type is not given")

    def _error(self, member: Member, text: str) -> ObjectError:
        return ObjectError(f"map {self._spec.name!r}: field {member.name!r}: {text}")

    def _uint(self, member: Member) -> int:
        pointer = self._btf.resolve(member.type_id)
        array = self._btf.type(pointer.type_id) if isinstance(pointer, Ptr) else None
        if not isinstance(array, Array):
            raise self._error(member, "not of the form __uint(name, value)")
        return array.nelems

    def _ulong(self, member: Member) -> int:
        target = self._btf.resolve(member.type_id)
        if isinstance(target, Ptr):
            return self._uint(member)
        if not isinstance(target, Enumeration) or len(target.values) != 1:
            raise self._error(member, "not of the form __ulong(name, value)")
        return target.values[0][1] & U64_MAX

    def _type(self, member: Member) -> tuple[int, int]:
        """The id and the size of the type that a member points to."""
        pointer = self._btf.resolve(member.type_id)
        if not isinstance(pointer, Ptr):
            raise self._error(member, "not of the form __type(name, type)")
        return pointer.type_id, self._btf.size_of(pointer.type_id)

    def read_type(self, member: Member) -> None:
        self._spec.type_number = self._uint(member)

    def read_max_entries(self, member: Member) -> None:
        self._spec.max_entries = self._uint(member)

    def read_flags(self, member: Member) -> None:
        self._spec.flags = self._uint(member)

    def read_numa_node(self, member: Member) -> None:
        self._spec.numa_node = self._uint(member)

    def read_map_extra(self, member: Member) -> None:
        self._spec.map_extra = self._ulong(member)

    def read_key_size(self, member: Member) -> None:
        self._spec.adopt_sizes(self._uint(member), None)

    def read_value_size(self, member: Member) -> None:
        self._spec.adopt_sizes(None, self._uint(member))

    def read_key(self, member: Member) -> None:
        type_id, size = self._type(member)
        self._spec.adopt_sizes(size, None)
        self._spec.key_type_id = type_id

    def read_value(self, member: Member) -> None:
        type_id, size = self._type(member)
        self._spec.adopt_sizes(None, size)
        self._spec.value_type_id = type_id

    def read_pinning(self, member: Member) -> None:
        if self._inner:
            raise self._error(member, "an inner map cannot be pinned")
        value = self._uint(member)
        if value not in (PIN_NONE, PIN_BY_NAME):
            raise self._error(member, f"{value} is neither {PIN_NONE} (none) nor {PIN_BY_NAME} (by name)")
        self._spec.pinning = value

    def read_values(self, member: Member) -> None:
        spec = self._spec
        if self._inner:
            raise self._error(member, "an inner map cannot have it")
        is_prog_array = spec.type_number == constants.BPF_MAP_TYPE_PROG_ARRAY
        if not is_prog_array and spec.type_number not in _MAP_IN_MAP:
            raise self._error(member, "only maps of maps and of programs have it, and `type` must come before it")
        spec.adopt_sizes(None, 4)
        array = self._btf.type(member.type_id)
        if not isinstance(array, Array) or array.nelems:
            raise self._error(member, "not of the form __array(values, type)")
        pointer = self._btf.resolve(array.type_id)
        target = self._btf.resolve(pointer.type_id) if isinstance(pointer, Ptr) else None
        if is_prog_array:
            if not isinstance(target, FuncProto):
                raise self._error(member, "the values of a map of programs are functions")
            return
        if not isinstance(target, Struct):
            raise self._error(member, "the values of a map of maps are structs that define a map")
        spec.inner = MapSpec(f"{spec.name}.inner", section=spec.section, btf=self._btf)
        _Definition(self._btf, spec.inner, inner=True).read(target)


_FIELDS: dict[str, Callable[[_Definition, Member], None]] = {
    "type": _Definition.read_type,
    "max_entries": _Definition.read_max_entries,
    "map_flags": _Definition.read_flags,
    "numa_node": _Definition.read_numa_node,
    "map_extra": _Definition.read_map_extra,
    "key_size": _Definition.read_key_size,
    "value_size": _Definition.read_value_size,
    "key": _Definition.read_key,
    "value": _Definition.read_value,
    "pinning": _Definition.read_pinning,
    _SLOTS: _Definition.read_values,
}


def read_values(
    container: Container,
    relocations: Section,
    layout: DatasecLayout,
    maps: dict[int, MapSpec],
    functions: FunctionTable,
) -> None:
    """Fill `values` of the maps of ``.maps`` (offset -> map) from the relocations of their initialisers.

    Raises:
        ObjectError: an initial value is not what the map can hold.
    """
    section_index = relocations.info
    for place, symbol_index in container.relocations(relocations):
        where = f"section {relocations.name!r}: relocation at offset {place:#x}"
        symbol = container.symbol(symbol_index, where)
        entry = next(
            (one for one in layout.entries if one[1] <= place and place + _POINTER_SIZE <= one[1] + one[2]), None
        )
        spec = None if entry is None else maps.get(entry[1])
        if entry is None or spec is None:
            raise container.error(f"{where} is in no map")
        slot = _slot(layout.btf, entry, place)
        if slot is None:
            raise container.error(f"{where} is not in the values of map {spec.name!r}")
        target = f"map {spec.name!r}: value {slot}: {symbol.name!r}"
        if spec.type_number in _MAP_IN_MAP:
            known = maps.get(symbol.value) if symbol.section == section_index else None
            if known is None or known.name != symbol.name:
                raise container.error(f"{target} is no map of this object")
            if spec.type_number == constants.BPF_MAP_TYPE_HASH_OF_MAPS and spec.key_size != 4:
                raise container.error(f"{target}: initial values need a key of 4 bytes")
        elif spec.type_number == constants.BPF_MAP_TYPE_PROG_ARRAY:
            function = functions.at(symbol.section, symbol.value // INSTRUCTION_SIZE)
            at_start = function is not None and function.start * INSTRUCTION_SIZE == symbol.value
            if function is None or not at_start or not function.is_entry or function.name != symbol.name:
                raise container.error(f"{target} is no program of this object")
        else:
            raise container.error(f"{target}: such a map cannot have initial values")
        spec.values[slot] = symbol.name


def _slot(btf: BTF, entry: tuple[int, int, int], place: int) -> int | None:
    """The slot that a place in a map's initialiser belongs to, None if it is not one of its values."""
    var_id, offset, _ = entry
    var = btf.type(var_id)
    definition = btf.resolve(var.type_id) if isinstance(var, Var) else None
    if not isinstance(definition, Struct) or not definition.members or definition.members[-1].name != _SLOTS:
        return None
    distance = place - offset - definition.members[-1].bit_offset // 8
    return None if distance < 0 or distance % _POINTER_SIZE else distance // _POINTER_SIZE


def read_legacy_maps(container: Container, btf: BTF | None, section: Section) -> list[tuple[int, MapSpec]]:
    """The maps of the old section ``maps`` as (offset, map), in the order of their offsets.

    Raises:
        ObjectError: a definition is malformed or has fields that are not known; the message names the map.
    """
    content = bytes(container.content(section))
    symbols = [
        symbol
        for symbol in container.symbols(STT_OBJECT, STT_NOTYPE)
        if symbol.section == section.index and symbol.name
    ]
    symbols.sort(key=lambda symbol: symbol.value)
    if not symbols:
        raise container.error(f"section {section.name!r}: no symbol names a map in it")
    size = section.size // len(symbols)
    if section.size % len(symbols) or size % 4 or size < _LEGACY_SMALLEST:
        raise container.error(f"section {section.name!r}: {section.size} bytes are no {len(symbols)} map definitions")
    order = "<" if container.byte_order == "little" else ">"
    found = []
    for symbol in symbols:
        if symbol.value % size or symbol.value + size > section.size:
            raise container.error(f"map {symbol.name!r}: offset {symbol.value} is not at a map definition")
        fields = unpack_from(f"{order}{size // 4}I", content, symbol.value)
        if any(fields[_LEGACY_FIELDS:]):
            raise container.error(
                f"map {symbol.name!r}: its definition has fields beyond map_flags, which are not known"
            )
        type_number, key_size, value_size, max_entries, flags = (*fields, 0)[:_LEGACY_FIELDS]
        spec = MapSpec(
            symbol.name,
            type_number,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            flags=flags,
            section=section.name,
            btf=btf,
        )
        if btf is not None:
            _annotate(btf, spec)
        found.append((symbol.value, spec))
    return found


def _annotate(btf: BTF, spec: MapSpec) -> None:
    """Take key and value type from ``struct ____btf_map_<name> { key; value; }`` if there is one that fits."""
    annotation = btf.get(_ANNOTATION + spec.name)
    if not isinstance(annotation, Struct) or [member.name for member in annotation.members] != ["key", "value"]:
        return
    key, value = annotation.members
    if btf.size_of(key.type_id) == spec.key_size and btf.size_of(value.type_id) == spec.value_size:
        spec.key_type_id = key.type_id
        spec.value_type_id = value.type_id
