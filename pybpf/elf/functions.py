"""Functions: the pieces of code of an object file, as its symbols cut them out.

Rules of this module:

* Every STT_FUNC symbol in an executable section is one function. Code that no symbol covers is not read: a weak
  function that lost against a stronger one leaves such gaps.
* A function outside ``.text`` is an entry program and must not be static; in ``.text`` it is a subprogram.
* Instructions are kept in the byte order of the file, before any relocation.

Source: tools/lib/bpf/libbpf.c, bpf_object__add_programs().
"""

from __future__ import annotations

from _bisect import bisect_right  # the built-in part of `bisect`

from pybpf.elf.container import STB_LOCAL, STB_WEAK, STT_FUNC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.relocation import CoreRelocation, CoreRelocations
    from pybpf.elf.container import Container, Section
    from pybpf.elf.relocations import Relocation

TEXT = ".text"
"""The section of subprograms."""

INSTRUCTION_SIZE = 8
"""Bytes of one instruction slot."""


class Function:
    """A stretch of instructions with a name.

    Attributes:
        name: the symbol's.
        section: the real ELF section name (with a leading ``?`` if it has one).
        section_index: its index.
        start: index of the first instruction in the section.
        count: how many instruction slots.
        instructions: as in the file, before any relocation, in the file's byte order.
        relocations: what must be patched in, sorted by instruction.
        core_relocations: CO-RE records, sorted by instruction.
        is_global: not static.
        is_weak: may be overridden when objects are linked statically.
        is_hidden: global for the linker only; the verifier shall treat it as static.
        is_entry: a program of its own, not a subprogram.
    """

    __slots__ = (
        "core_relocations",
        "count",
        "instructions",
        "is_entry",
        "is_global",
        "is_hidden",
        "is_weak",
        "name",
        "relocations",
        "section",
        "section_index",
        "start",
    )

    def __init__(self, name: str, section: str, section_index: int, start: int, instructions: bytes) -> None:
        self.name = name
        self.section = section
        self.section_index = section_index
        self.start = start
        self.count = len(instructions) // INSTRUCTION_SIZE
        self.instructions = instructions
        self.relocations: list[Relocation] = []
        self.core_relocations: CoreRelocations | list[CoreRelocation] = []
        self.is_global = True
        self.is_weak = False
        self.is_hidden = False
        self.is_entry = section != TEXT

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal functions."""
        return (
            self.name,
            self.section,
            self.section_index,
            self.start,
            self.instructions,
            tuple(relocation.facts() for relocation in self.relocations),
            tuple((core.index, core.type_id, core.access, core.kind) for core in self.core_relocations),
            self.is_global,
            self.is_weak,
            self.is_hidden,
        )

    def __repr__(self) -> str:
        kind = "program" if self.is_entry else "subprogram"
        return f"<Function {self.name!r} {kind} in {self.section!r} at {self.start}, {self.count} instructions>"


def _start(function: Function) -> int:
    return function.start


class FunctionTable:
    """The functions of a file by place.

    Attributes:
        functions: all of them, sorted by section and start.
        sections: index of a section -> its functions, sorted by start.
    """

    __slots__ = ("functions", "sections")

    def __init__(self, sections: dict[int, list[Function]]) -> None:
        self.sections = sections
        self.functions = [function for index in sorted(sections) for function in sections[index]]

    def at(self, section_index: int, instruction: int) -> Function | None:
        """The function that covers an instruction of a section, or None."""
        return find(self.sections.get(section_index, []), instruction)


def find(functions: list[Function], instruction: int) -> Function | None:
    """The one of a section's functions, sorted by start, that covers an instruction, or None."""
    position = bisect_right(functions, instruction, key=_start) - 1
    if position < 0:
        return None
    function = functions[position]
    return function if instruction < function.start + function.count else None


def read_functions(container: Container, code: dict[int, Section]) -> FunctionTable:
    """The functions of the given sections (index -> section).

    Raises:
        ObjectError: a function is not made of whole instructions, leaves its section, or is a static entry program.
    """
    sections: dict[int, list[Function]] = {index: [] for index in code}
    contents: dict[int, bytes] = {}
    for symbol in container.symbols(STT_FUNC):
        section = code.get(symbol.section)
        if section is None:
            continue
        content = contents.get(section.index)
        if content is None:
            content = contents[section.index] = bytes(container.content(section))
        place = f"section {section.name!r}: function {symbol.name!r} at offset {symbol.value} with {symbol.size} bytes"
        if symbol.value % INSTRUCTION_SIZE or symbol.size % INSTRUCTION_SIZE or symbol.size == 0:
            raise container.error(f"{place} is not made of whole instructions")
        if symbol.value + symbol.size > len(content):
            raise container.error(f"{place} reaches over the end of the section ({len(content)} bytes)")
        if symbol.bind == STB_LOCAL and section.name != TEXT:
            raise container.error(f"section {section.name!r}: program {symbol.name!r} must not be static")
        code_bytes = content[symbol.value : symbol.value + symbol.size]
        function = Function(symbol.name, section.name, section.index, symbol.value // INSTRUCTION_SIZE, code_bytes)
        function.is_global = symbol.bind != STB_LOCAL
        function.is_weak = symbol.bind == STB_WEAK
        function.is_hidden = function.is_global and symbol.is_hidden
        sections[section.index].append(function)
    for functions in sections.values():
        functions.sort(key=_start)
    return FunctionTable(sections)
