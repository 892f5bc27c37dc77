"""Collect: visit every section of an object file once and fill an `ObjectSpec` with what they say.

Rules of this module:

* Sections are recognised by name, type and flags, as libbpf does; what is not known is left out.
* The order matters: functions, BTF, externs, data sections, maps, then relocations, which refer to all of these.
* BTF that cannot be read is only a warning, unless maps or externs depend on it. So is a bad ``.BTF.ext``.

Source: tools/lib/bpf/libbpf.c, bpf_object__elf_collect() and bpf_object_open().
"""

from __future__ import annotations

from pybpf.btf.ext import BTFExt
from pybpf.btf.kinds import LINKAGE_GLOBAL, Func
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import CoreRelocations
from pybpf.constants import BPF_MAP_TYPE_ARENA
from pybpf.elf.container import SHF_EXECINSTR, SHT_PROGBITS, SHT_REL, SHT_RELA, Container
from pybpf.elf.data import data_kind, data_map, kconfig_map, read_variables
from pybpf.elf.datasec import read_datasecs, read_layouts
from pybpf.elf.externs import KCONFIG, kconfig_size, read_externs
from pybpf.elf.functions import INSTRUCTION_SIZE, TEXT, read_functions
from pybpf.elf.maps import LEGACY_MAPS, MAPS, read_legacy_maps, read_maps, read_values
from pybpf.elf.relocations import Targets, read_relocations
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.kinds import Datasec, DeclTag
    from pybpf.elf.container import Section
    from pybpf.elf.datasec import DatasecLayout
    from pybpf.elf.functions import FunctionTable
    from pybpf.mapspec import MapSpec
    from pybpf.spec import ObjectSpec

ARENA_DATA = ".addr_space.1"
STRUCT_OPS_SECTIONS = frozenset({".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link"})
JUMP_TABLES = ".jumptables"
LICENSE_LENGTH = 63

_EXCEPTION_CALLBACK = "exception_callback:"


class _Sections:
    """The sections of a file by what they are for.

    Attributes:
        code: index -> section with instructions.
        data: sections that become data maps.
        struct_ops: sections of struct_ops maps.
        relocations: REL sections.
        named: the sections of which there is one, by name.
    """

    __slots__ = ("code", "data", "named", "relocations", "struct_ops")

    def __init__(self, container: Container) -> None:
        self.code: dict[int, Section] = {}
        self.data: list[Section] = []
        self.struct_ops: list[Section] = []
        self.relocations: list[Section] = []
        self.named: dict[str, Section] = {}
        code_names: set[str] = set()
        for section in container.sections:
            name = section.name
            if section.type == SHT_REL:
                self.relocations.append(section)
            elif section.type == SHT_RELA and not _is_debug(name):
                raise container.error(f"section {name!r}: RELA relocations are not used in BPF objects")
            elif name in _ONE_OF_EACH:
                if name in self.named:
                    raise container.error(f"there are two sections {name!r}")
                self.named[name] = section
            elif section.type == SHT_PROGBITS and section.flags & SHF_EXECINSTR:
                if section.size:
                    if name in code_names:
                        raise container.error(f"there are two sections {name!r} with code")
                    code_names.add(name)
                    self.code[section.index] = section
            elif data_kind(section):
                if section.size:
                    self.data.append(section)
            elif name in STRUCT_OPS_SECTIONS and section.type == SHT_PROGBITS and section.size:
                self.struct_ops.append(section)


_ONE_OF_EACH = frozenset({"license", "version", LEGACY_MAPS, MAPS, ".BTF", ".BTF.ext", ARENA_DATA, JUMP_TABLES})


def _is_debug(name: str) -> bool:
    return name.startswith((".debug_", ".rela.debug_", ".rel.debug_"))


def collect(spec: ObjectSpec, data: Any, name: str) -> None:
    """Fill an empty spec with what the file says; `name` is what errors call it.

    Raises:
        ObjectError, BTFError: the file is not a BPF object file, or a bad one.
    """
    container = Container(data, name)
    spec.byte_order = container.byte_order
    sections = _Sections(container)
    _read_texts(container, sections, spec)
    functions = read_functions(container, sections.code)
    spec.functions = functions.functions
    needs_btf = MAPS in sections.named or bool(sections.struct_ops)
    _read_btf(container, sections, spec, needs_btf)
    datasecs: list[Datasec] = []
    if spec.btf is not None:
        datasecs, tags = read_datasecs(spec.btf)
        _read_tags(spec, tags)
    targets = Targets()
    targets.externs = read_externs(container, spec.btf, datasecs)
    spec.externs = {extern.name: extern for extern in targets.externs.values()}
    if spec.btf is not None:
        spec.datasecs = read_layouts(container, spec.btf, datasecs)
    _Maps(container, sections, spec, targets, functions).read(datasecs)
    _relocate(container, sections, functions, targets)
    _read_core(container, sections, spec, functions)


def _read_texts(container: Container, sections: _Sections, spec: ObjectSpec) -> None:
    """License, version and jump tables."""
    named = sections.named
    if "license" in named:
        spec.license = container.text(named["license"])[:LICENSE_LENGTH]
    if "version" in named:
        content = container.content(named["version"])
        if len(content) != 4:
            raise container.error(f"section 'version': {len(content)} bytes instead of 4")
        spec.kernel_version = int.from_bytes(content, container.byte_order)
    if JUMP_TABLES in named:
        spec.jump_tables = bytes(container.content(named[JUMP_TABLES]))


def _read_btf(container: Container, sections: _Sections, spec: ObjectSpec, needed: bool) -> None:
    named = sections.named
    section = named.get(".BTF")
    if section is None or section.type != SHT_PROGBITS:
        if needed:
            raise container.error("no section .BTF, which the definitions of maps need (compile with -g)")
        return
    try:
        btf = BTF.from_bytes(container.content(section), name=container.name)
        len(btf)  # walks the types
        if btf.byte_order != container.byte_order:
            raise BTFError(f"BTF {container.name}: its byte order is not the file's")
    except BTFError as error:
        if needed:
            raise
        spec.warnings.append(f"section .BTF is ignored: {error}")
        return
    spec.btf = btf
    section = named.get(".BTF.ext")
    if section is not None and section.type == SHT_PROGBITS:
        try:
            spec.ext = BTFExt.from_bytes(container.content(section), btf)
        except BTFError as error:
            spec.warnings.append(f"section .BTF.ext is ignored: {error}")


def _read_tags(spec: ObjectSpec, tags: list[DeclTag]) -> None:
    for tag in tags:
        if tag.component_index == -1 and tag.name.startswith(_EXCEPTION_CALLBACK):
            func = tag.btf.type(tag.type_id)
            if isinstance(func, Func) and func.linkage == LINKAGE_GLOBAL:
                callback = tag.name.removeprefix(_EXCEPTION_CALLBACK)
                spec.exception_callbacks.setdefault(func.name, []).append(callback)


class _Maps:
    """All maps of a file, in the order in which they are created."""

    __slots__ = ("_container", "_defined", "_functions", "_layouts", "_sections", "_spec", "_struct_ops", "_targets")

    def __init__(
        self, container: Container, sections: _Sections, spec: ObjectSpec, targets: Targets, functions: FunctionTable
    ) -> None:
        self._container = container
        self._sections = sections
        self._spec = spec
        self._targets = targets
        self._functions = functions
        self._layouts = {layout.name: layout for layout in spec.datasecs.values()}
        self._defined: dict[int, MapSpec] = {}
        self._struct_ops: dict[int, list[tuple[int, MapSpec]]] = {}

    def read(self, datasecs: list[Datasec]) -> None:
        container, spec, named = self._container, self._spec, self._sections.named
        if LEGACY_MAPS in named:
            section = named[LEGACY_MAPS]
            self._add_defined(section, read_legacy_maps(container, spec.btf, section))
        if MAPS in named:
            self._read_defined(named[MAPS])
        with_variables = []
        for section in self._sections.data:
            layout = self._layouts.get(section.name)
            one = data_map(container, section, spec.name, layout)
            self._add(one, section)
            self._targets.data_maps[section.index] = one.name
            if layout is not None:
                with_variables.append((one, layout))
        if ARENA_DATA in named:
            with_variables += self._read_arena(named[ARENA_DATA])
        size = kconfig_size(spec.externs)
        if size:
            datasec_id = next((one.id for one in datasecs if one.name == KCONFIG), 0)
            self._add(kconfig_map(size, spec.name, spec.btf, datasec_id), None)
        for section in self._sections.struct_ops:
            from pybpf.elf.struct_ops import read_struct_ops

            found = read_struct_ops(container, section, self._layout(section))
            self._struct_ops[section.index] = found
            for _, one in found:
                self._add(one, section)
        read_variables(container, with_variables, spec.variables)
        self._read_initialisers()

    def _layout(self, section: Section) -> DatasecLayout:
        layout = self._layouts.get(section.name)
        if layout is None:
            raise self._container.error(f"section {section.name!r} is not described in BTF")
        return layout

    def _add(self, one: MapSpec, section: Section | None) -> None:
        maps = self._spec.maps
        if one.name in maps:
            if section is None or not one.is_internal:
                raise self._container.error(f"two maps are called {one.name!r}")
            one.name = f"{one.name}#{section.index}"
        maps[one.name] = one

    def _add_defined(self, section: Section, found: list[tuple[int, MapSpec]]) -> None:
        self._targets.map_sections.add(section.index)
        for offset, one in found:
            self._add(one, section)
            self._targets.map_definitions[section.index, offset] = one.name

    def _read_defined(self, section: Section) -> None:
        assert self._spec.btf is not None
        found = read_maps(self._container, self._spec.btf, self._layout(section), section)
        self._defined = dict(found)
        self._add_defined(section, found)
        arenas = [one.name for _, one in found if one.type_number == BPF_MAP_TYPE_ARENA]
        if len(arenas) > 1:
            raise self._container.error(f"only one arena is possible, there are {', '.join(arenas)}")

    def _read_arena(self, section: Section) -> list[tuple[MapSpec, DatasecLayout]]:
        """The arena's map takes its initial content from a section of its own."""
        arena = next((one for one in self._defined.values() if one.type_number == BPF_MAP_TYPE_ARENA), None)
        if arena is None:
            raise self._container.error(f"section {section.name!r} holds data of an arena, but no map is an arena")
        arena.data = bytes(self._container.content(section))
        self._targets.data_maps[section.index] = arena.name
        layout = self._layouts.get(section.name)
        return [] if layout is None else [(arena, layout)]

    def _read_initialisers(self) -> None:
        maps_section = self._sections.named.get(MAPS)
        for section in self._sections.relocations:
            if maps_section is not None and section.info == maps_section.index:
                read_values(self._container, section, self._layout(maps_section), self._defined, self._functions)
            elif section.info in self._struct_ops:
                from pybpf.elf.struct_ops import read_programs

                read_programs(self._container, section, self._struct_ops[section.info], self._functions)


def _relocate(container: Container, sections: _Sections, functions: FunctionTable, targets: Targets) -> None:
    for section in sections.code.values():
        if section.name == TEXT:
            targets.text = section.index
    if JUMP_TABLES in sections.named:
        targets.jump_tables = sections.named[JUMP_TABLES].index
    for section in sections.relocations:
        if _is_debug(section.name) or section.name in (".rel.BTF", ".rel.BTF.ext"):
            continue
        target = container.target(section)
        if target.index in sections.code:
            read_relocations(container, section, functions.sections[target.index], targets)


def _read_core(container: Container, sections: _Sections, spec: ObjectSpec, functions: FunctionTable) -> None:
    """Give the functions their CO-RE records."""
    if spec.ext is None or spec.btf is None or not spec.ext.core:
        return
    indexes = {section.name: index for index, section in sections.code.items()}
    accesses: dict[int, str] = {}
    for name, records in spec.ext.core.items():
        index = indexes.get(name)
        if index is None:
            raise container.error(f"section .BTF.ext: CO-RE relocations for {name!r}, which has no code")
        for offset in records.offsets:
            if offset % INSTRUCTION_SIZE:
                raise container.error(
                    f"section .BTF.ext: CO-RE relocation at offset {offset} in {name!r}: no instruction"
                )
        records = records.in_order()
        for function in functions.sections[index]:
            start = function.start * INSTRUCTION_SIZE
            own = records.part(start, start + function.count * INSTRUCTION_SIZE)
            if own:
                for offset in set(own.column(2)) - accesses.keys():
                    accesses[offset] = spec.btf.string(offset)
                function.core_relocations = CoreRelocations(own, start, accesses)
