"""Functions that were written by hand, put together into an `ObjectSpec`: what a compiler and its ELF file would give.

Rules of this module:

* Programs go into the section they name, subprograms into ``.text``; from there on nothing differs from a file.
* A call by a name that no function here has is a call of a kernel function.
* There is type information (BTF): the kernel wants some for functions that helpers call back. Every function takes and
  gives plain 64-bit numbers there. Instructions from text carry their line, so that the verifier's log shows it.
"""

from __future__ import annotations

import struct
import sys

from pybpf.asm.assembler import Assembler
from pybpf.asm.instruction import encode
from pybpf.btf.ext import FUNC_INFO_SIZE, LINE_INFO_SIZE, BTFExt
from pybpf.btf.kinds import INT_SIGNED, LINKAGE_GLOBAL, LINKAGE_STATIC
from pybpf.btf.layout import MAGIC, VERSION
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.elf.externs import KSYMS, Extern
from pybpf.elf.functions import TEXT, Function
from pybpf.elf.relocations import Relocation
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec, ProgramSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pybpf.asm.assembler import Reference
    from pybpf.mapspec import MapSpec

_ARGUMENTS = ("a", "b", "c", "d", "e")


def assemble(
    source: str | Assembler | Iterable[Assembler],
    section: str = "",
    *,
    maps: Mapping[str, MapSpec] | None = None,
    license: str = "GPL",
    name: str = "asm",
) -> ObjectSpec:
    """An object from instructions, without a compiler and for this machine.

    >>> from pybpf.asm import assemble
    >>> assemble("r0 = 2; exit", "xdp").load().programs["program"].test_run(bytes(14)).retval
    2

    Args:
        source: text (see `pybpf.asm.text`), or functions written in Python.
        section: of the first function, as in ``SEC("xdp")``, unless it has one.
        maps: what the instructions name; text may define maps of its own.
        license: the kernel keeps some helpers for programs whose license is compatible with the GPL. Text may say it.
        name: the object's.

    Raises:
        ObjectError: a line cannot be understood, there is no program, two functions share a name, or something is named
            that is not there. The message says where.
    """
    spec = ObjectSpec(name, sys.byteorder)
    spec.license = license
    spec.maps.update(maps or {})
    if isinstance(source, str):
        from pybpf.asm.text import parse

        routines = parse(source, spec)
    else:
        routines = [source] if isinstance(source, Assembler) else list(source)
    _put_together(spec, routines, section)
    return spec


def _put_together(spec: ObjectSpec, routines: list[Assembler], section: str) -> None:
    """Make functions, programs and their relocations."""
    name = spec.name
    sections = {one.name: one.section for one in routines}
    if section and routines and not routines[0].section:
        sections[routines[0].name] = section
    functions: dict[str, tuple[Assembler, Function]] = {}
    sizes: dict[str, int] = {}
    for routine in routines:
        if routine.name in functions:
            raise ObjectError(f"{name}: two functions are called {routine.name!r}")
        section = sections[routine.name] or TEXT
        start = sizes.setdefault(section, 0)
        function = Function(routine.name, section, list(sizes).index(section), start, encode(routine.assembled()))
        function.is_global = function.is_entry
        if function.count == 0:
            raise ObjectError(f"{name}: {routine.name!r} has no instructions")
        sizes[section] += function.count
        functions[routine.name] = routine, function
        spec.functions.append(function)
        if function.is_entry:
            spec.programs[function.name] = ProgramSpec(spec, function)
    if not spec.programs:
        raise ObjectError(f"{name}: no function has a section that makes it a program")
    spec.functions.sort(key=lambda one: (one.section_index, one.start))
    for routine, function in functions.values():
        slots = routine.slots()
        for position, reference in sorted(routine.references.items()):
            if reference.kind != "label":
                function.relocations.append(_relocation(spec, functions, slots[position], function, reference))
    _describe(spec, functions)


def _relocation(
    spec: ObjectSpec,
    functions: Mapping[str, tuple[Assembler, Function]],
    index: int,
    function: Function,
    reference: Reference,
) -> Relocation:
    """What the loader has to write into an instruction."""
    name = reference.name
    place = f"{function.name}: instruction {index}"
    if reference.kind in ("map", "value"):
        if name not in spec.maps:
            raise ObjectError(f"{place}: there is no map {name!r}; there are {', '.join(spec.maps) or 'none'}")
        return Relocation(index, "map" if reference.kind == "map" else "data", name, reference.offset)
    if reference.kind == "symbol":
        spec.externs.setdefault(name, Extern(name, KSYMS, 0, 0))
        return Relocation(index, "extern", name)
    if name in functions:
        target = functions[name][1]
        if target.is_entry:
            raise ObjectError(f"{place}: {name!r} is a program, and only functions without a section can be called")
        return Relocation(index, "call" if reference.kind == "call" else "function", target=target.start)
    if reference.kind == "function":
        raise ObjectError(f"{place}: there is no function {name!r}")
    extern = spec.externs.setdefault(name, Extern(name, KSYMS, 0, 0))
    extern.is_function = True
    return Relocation(index, "extern_call", name)


def _describe(spec: ObjectSpec, functions: Mapping[str, tuple[Assembler, Function]]) -> None:
    """Give the spec types for its functions, and lines for the instructions that came from text."""
    btf = BTFBuilder(spec.byte_order)
    number = btf.add_int("long long", 8, encoding=INT_SIGNED)
    status = btf.add_int("int", 4, encoding=INT_SIGNED)
    context = btf.add_ptr(0)
    program = btf.add_func_proto(status, [("ctx", context)])
    subprogram = btf.add_func_proto(number, [(letter, number) for letter in _ARGUMENTS])
    file_name = btf.add_string(f"{spec.name}.s")
    func_info: dict[str, list[int]] = {}
    line_info: dict[str, list[int]] = {}
    for function in spec.functions:
        routine = functions[function.name][0]
        if function.is_entry:
            type_id = btf.add_func(function.name, program, LINKAGE_GLOBAL)
        else:
            type_id = btf.add_func(function.name, subprogram, LINKAGE_STATIC)
        func_info.setdefault(function.section, []).extend((function.start * 8, type_id))
        slots = routine.slots()
        for position, (line, column, text) in sorted(routine.lines.items()):
            row = (function.start + slots[position]) * 8, file_name, btf.add_string(text), line << 10 | column & 0x3FF
            line_info.setdefault(function.section, []).extend(row)
    areas = [_area(btf, func_info, FUNC_INFO_SIZE), _area(btf, line_info, LINE_INFO_SIZE)]
    words = [24, 0, len(areas[0]) * 4, len(areas[0]) * 4, len(areas[1]) * 4, *areas[0], *areas[1]]
    order = "<" if spec.byte_order == "little" else ">"
    spec.btf = BTF.from_bytes(btf.to_bytes())
    spec.ext = BTFExt(struct.pack(f"{order}HBB{len(words)}I", MAGIC, VERSION, 0, *words), spec.btf)


def _area(btf: BTFBuilder, sections: Mapping[str, list[int]], size: int) -> list[int]:
    """One area of .BTF.ext in words; nothing when there are no records."""
    words: list[int] = []
    for section, rows in sections.items():
        words += [btf.add_string(section), len(rows) * 4 // size, *rows]
    return [size, *words] if words else []
