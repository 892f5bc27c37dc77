"""Relocations: which instructions wait for a map, a variable, an extern or another function.

Rules of this module:

* A relocation is classified by its instruction and its symbol, never by its ELF type number.
* Only ``call`` and ``ldimm64`` can be relocated. What fits no class is an `ObjectError` that names the symbol.
* A relocation in code that no function covers is ignored: it belongs to a weak function that was overridden.

Source: tools/lib/bpf/libbpf.c, bpf_program__record_reloc().
"""

from __future__ import annotations

from pybpf.asm.slots import CALL, LDIMM64, get_imm, get_src
from pybpf.constants import BPF_PSEUDO_CALL
from pybpf.elf.container import SHN_LORESERVE, STB_LOCAL, STT_FUNC, STT_SECTION
from pybpf.elf.functions import INSTRUCTION_SIZE, TEXT, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pybpf.elf.container import Container, Section, Symbol
    from pybpf.elf.externs import Extern
    from pybpf.elf.functions import Function

    Kind = Literal["map", "data", "extern", "extern_call", "call", "function", "jump_table"]


class Relocation:
    """One instruction that waits for something.

    Attributes:
        index: the instruction's index within its function.
        kind: ``"map"`` (its descriptor), ``"data"`` (an address in a data map or arena), ``"extern"`` (the address or
            content of an extern), ``"extern_call"`` (a kernel function), ``"call"`` (a subprogram), ``"function"`` (the
            address of a subprogram), ``"jump_table"``.
        name: of the map or extern, or an empty string.
        offset: data: bytes to add to the instruction's own immediate; jump_table: byte offset in ``.jumptables``.
        target: call, function: instruction index in ``.text``.
        size: jump_table: bytes.
    """

    __slots__ = ("index", "kind", "name", "offset", "size", "target")

    def __init__(self, index: int, kind: Kind, name: str = "", offset: int = 0, target: int = 0, size: int = 0) -> None:
        self.index = index
        self.kind: Kind = kind
        self.name = name
        self.offset = offset
        self.target = target
        self.size = size

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal relocations."""
        return (self.index, self.kind, self.name, self.offset, self.target, self.size)

    def __repr__(self) -> str:
        return (
            f"Relocation(index={self.index}, kind={self.kind!r}, name={self.name!r}, offset={self.offset}, "
            f"target={self.target}, size={self.size})"
        )


class Targets:
    """What relocations can refer to.

    Attributes:
        externs: index of a symbol -> the extern.
        map_definitions: (index of a section, offset in it) -> name of the map that is defined there.
        data_maps: index of a section -> name of the map that holds it.
        map_sections: indexes of the sections of map definitions.
        text: index of ``.text``, or -1.
        jump_tables: index of ``.jumptables``, or -1.
    """

    __slots__ = ("data_maps", "externs", "jump_tables", "map_definitions", "map_sections", "text")

    def __init__(self) -> None:
        self.externs: dict[int, Extern] = {}
        self.map_definitions: dict[tuple[int, int], str] = {}
        self.data_maps: dict[int, str] = {}
        self.map_sections: set[int] = set()
        self.text = -1
        self.jump_tables = -1


def read_relocations(container: Container, section: Section, functions: list[Function], targets: Targets) -> None:
    """Give the functions of one code section the relocations of a REL section, sorted by instruction.

    Raises:
        ObjectError: a relocation is malformed or refers to what it cannot refer to.
    """
    code = container.target(section)
    for offset, symbol_index in container.relocations(section):
        place = f"section {section.name!r}: relocation at offset {offset:#x}"
        if offset % INSTRUCTION_SIZE or offset >= code.size:
            raise container.error(f"{place} is not at an instruction of {code.name!r}")
        symbol = container.symbol(symbol_index, place)
        function = find(functions, offset // INSTRUCTION_SIZE)
        if function is None:
            continue
        index = offset // INSTRUCTION_SIZE - function.start
        function.relocations.append(_classify(container, function, index, symbol, targets))
    for function in functions:
        function.relocations.sort(key=_by_index)


def _by_index(relocation: Relocation) -> int:
    return relocation.index


def _classify(container: Container, function: Function, index: int, symbol: Symbol, targets: Targets) -> Relocation:
    code = function.instructions
    opcode = code[index * INSTRUCTION_SIZE]
    if opcode != CALL and (opcode != LDIMM64 or index + 1 >= function.count):
        raise _error(container, function, index, symbol, f"the instruction (opcode {opcode:#04x}) cannot be relocated")
    if symbol.is_extern:
        extern = targets.externs.get(symbol.index)
        if extern is None:
            raise _error(container, function, index, symbol, "the extern is not known")
        return Relocation(index, "extern_call" if opcode == CALL else "extern", extern.name)
    if opcode == CALL:
        return _classify_call(container, function, index, symbol, targets)
    section = symbol.section
    if section == 0 or section >= SHN_LORESERVE:
        raise _error(
            container,
            function,
            index,
            symbol,
            f"it is in no section ({section:#x}); is a global variable not initialised?",
        )
    if section == targets.text and _is_function_address(symbol):
        target = symbol.value + get_imm(code, index, container.byte_order)
        if target % INSTRUCTION_SIZE:
            raise _error(container, function, index, symbol, f"offset {target} is not at an instruction")
        return Relocation(index, "function", target=target // INSTRUCTION_SIZE)
    if section == targets.jump_tables:
        return Relocation(index, "jump_table", offset=symbol.value, size=symbol.size)
    if section in targets.map_sections:
        name = targets.map_definitions.get((section, symbol.value))
        if name is None:
            raise _error(container, function, index, symbol, f"no map is defined at offset {symbol.value}")
        return Relocation(index, "map", name)
    name = targets.data_maps.get(section)
    if name is None:
        raise _error(
            container, function, index, symbol, f"section {container.section_name(section)} holds neither maps nor data"
        )
    return Relocation(index, "data", name, offset=symbol.value)


def _classify_call(
    container: Container, function: Function, index: int, symbol: Symbol, targets: Targets
) -> Relocation:
    order = container.byte_order
    if get_src(function.instructions, index, order) != BPF_PSEUDO_CALL:
        raise _error(container, function, index, symbol, "the call is not one of a BPF function")
    if symbol.section != targets.text:
        where = container.section_name(symbol.section)
        raise _error(container, function, index, symbol, f"only functions in {TEXT} can be called, this is in {where}")
    if symbol.value % INSTRUCTION_SIZE:
        raise _error(container, function, index, symbol, f"offset {symbol.value} is not at an instruction")
    target = symbol.value // INSTRUCTION_SIZE + get_imm(function.instructions, index, order) + 1
    return Relocation(index, "call", target=target)


def _is_function_address(symbol: Symbol) -> bool:
    if symbol.bind == STB_LOCAL:
        return symbol.type == STT_SECTION
    return symbol.type == STT_FUNC


def _error(container: Container, function: Function, index: int, symbol: Symbol, text: str) -> Exception:
    name = repr(symbol.name) if symbol.name else f"symbol {symbol.index}"
    if not symbol.name and symbol.type == STT_SECTION:
        name = f"section {container.section_name(symbol.section)}"
    return container.error(f"function {function.name!r}, instruction {index}: relocation against {name}: {text}")
