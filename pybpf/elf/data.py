"""Data: the maps that hold global variables, and the variables in them.

Rules of this module:

* Each data section (``.data``, ``.rodata``, ``.bss``, and those with a second dot) is one array map with one element.
* Such a map can be mapped into memory if BTF shows a variable in it that is not static.
* ``.percpu`` (and ``.percpu.*``) is a per-CPU array, which is never mapped: each CPU has its own variables (Linux 7.3).
* The settings that a program takes from the kernel's configuration are one more such map, ``.kconfig``.

Source: tools/lib/bpf/libbpf.c, bpf_object__init_internal_map(), internal_map_name().
"""

from __future__ import annotations

from pybpf.btf.kinds import LINKAGE_STATIC, Var
from pybpf.constants import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY
from pybpf.elf.container import SHT_NOBITS, SHT_PROGBITS
from pybpf.elf.externs import KCONFIG
from pybpf.mapspec import KERNEL_NAME_LENGTH, MapSpec, kernel_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.btf.reader import BTF
    from pybpf.elf.container import Container, Section
    from pybpf.elf.datasec import DatasecLayout

RODATA = ".rodata"
PER_CPU = ".percpu"

DATA_SIZE_LIMIT = 256 << 20
"""Bytes of the largest data section; a ``.bss`` of any size takes nothing in the file, but it does in memory."""

_SHORTEST_SUFFIX = 7


class Variable:
    """One global variable.

    Attributes:
        name: as in the source.
        map: name of the map that holds it, for example ``".bss"``.
        offset: byte offset in the map's value.
        size: bytes.
        type_id: its type in the object's BTF.
        is_static: not visible outside its source file.
        is_read_only: a ``const``: it can be set until the object is loaded.
    """

    __slots__ = ("is_read_only", "is_static", "map", "name", "offset", "size", "type_id")

    def __init__(
        self, name: str, map: str, offset: int, size: int, type_id: int, is_static: bool, is_read_only: bool
    ) -> None:
        self.name = name
        self.map = map
        self.offset = offset
        self.size = size
        self.type_id = type_id
        self.is_static = is_static
        self.is_read_only = is_read_only

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal variables."""
        return (self.name, self.map, self.offset, self.size, self.type_id, self.is_static, self.is_read_only)

    def __repr__(self) -> str:
        static = "static " if self.is_static else ""
        return f"<Variable {static}{self.name!r} in {self.map!r} at {self.offset}, {self.size} bytes>"


def data_kind(section: Section) -> str:
    """``".data"``, ``".rodata"``, ``".percpu"`` or ``".bss"`` if it is a section of that kind, else an empty string."""
    if section.type == SHT_PROGBITS:
        kinds: tuple[str, ...] = (".data", RODATA, PER_CPU)
    elif section.type == SHT_NOBITS:
        kinds = (".bss",)
    else:
        return ""
    for kind in kinds:
        if section.name == kind or section.name.startswith(kind + "."):
            return kind
    return ""


def data_map(container: Container, section: Section, object_name: str, layout: DatasecLayout | None) -> MapSpec:
    """The map of one data section.

    Raises:
        ObjectError: the section is malformed or too large.
    """
    if section.size > DATA_SIZE_LIMIT:
        raise container.error(
            f"section {section.name!r}: {section.size} bytes are more than a data section may have ({DATA_SIZE_LIMIT})"
        )
    content = bytearray(section.size) if section.type == SHT_NOBITS else bytearray(container.content(section))
    kind = data_kind(section)
    spec = _array(section.name, object_name, content, layout, kind == RODATA)
    if kind == PER_CPU:
        spec.type_number = BPF_MAP_TYPE_PERCPU_ARRAY
        spec.flags = 0  # the kernel maps no per-CPU array into memory
    return spec


def kconfig_map(size: int, object_name: str, btf: BTF | None, datasec_id: int) -> MapSpec:
    """The map of the settings, filled with zeros."""
    spec = _array(KCONFIG, object_name, bytearray(size), None, True)
    spec.flags |= BPF_F_MMAPABLE
    spec.btf = btf
    spec.value_type_id = datasec_id
    return spec


def _array(
    section: str, object_name: str, content: bytearray, layout: DatasecLayout | None, read_only: bool
) -> MapSpec:
    spec = MapSpec(section, BPF_MAP_TYPE_ARRAY, key_size=4, value_size=len(content), max_entries=1, section=section)
    spec.kernel_name = internal_name(object_name, section)
    spec.is_internal = True
    spec.data = content
    if read_only:
        spec.is_read_only = True
        spec.flags |= BPF_F_RDONLY_PROG
    if layout is not None:
        spec.datasec = layout
        spec.btf = layout.btf
        spec.value_type_id = layout.type_id
        if layout.has_global:
            spec.flags |= BPF_F_MMAPABLE
    return spec


def internal_name(object_name: str, section: str) -> str:
    """The kernel's name of a data map: ``my_objec.rodata``; ``.percpu`` and sections with a second dot give their own.

    >>> internal_name("my_object_name", ".rodata")
    'my_objec.rodata'
    """
    if "." in section[1:] or section == PER_CPU:
        prefix = ""
    else:
        prefix = object_name[: max(0, KERNEL_NAME_LENGTH - max(_SHORTEST_SUFFIX, len(section)))]
    return kernel_name(prefix + section)


def read_variables(
    container: Container, maps: Iterable[tuple[MapSpec, DatasecLayout]], variables: dict[str, Variable]
) -> None:
    """Add the variables of data maps to `variables`; static ones that share a name get their place appended.

    Raises:
        ObjectError: a variable lies outside its section.
    """
    found = [variable for spec, layout in maps for variable in _variables(container, spec, layout)]
    counts: dict[str, int] = {}
    for variable in found:
        counts[variable.name] = counts.get(variable.name, 0) + 1
    global_names = {variable.name for variable in found if not variable.is_static}
    for variable in found:
        name = variable.name
        if counts[name] > 1 and (variable.is_static or name not in global_names):
            name = f"{name}@{variable.map}+{variable.offset}"
        variables[name] = variable


def _variables(container: Container, spec: MapSpec, layout: DatasecLayout) -> list[Variable]:
    btf = layout.btf
    size = 0 if spec.data is None else len(spec.data)
    variables = []
    for var_id, offset, entry_size in layout.entries:
        var = btf.type(var_id)
        if not isinstance(var, Var):
            raise container.error(f"BTF: type id {var_id} in {layout.name!r} is no variable")
        if offset + max(entry_size, btf.size_of(var.type_id)) > size:
            raise container.error(
                f"section {layout.name!r}: variable {var.name!r} at offset {offset} with {entry_size} bytes "
                f"reaches over the end ({size} bytes)"
            )
        is_static = var.linkage == LINKAGE_STATIC or var_id in layout.hidden
        variables.append(Variable(var.name, spec.name, offset, entry_size, var.type_id, is_static, spec.is_read_only))
    return variables
