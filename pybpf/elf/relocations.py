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
from pybpf.elf.container import SHN_LORESERVE, SHN_UNDEF, STB_LOCAL, STT_FUNC, STT_SECTION
from pybpf.elf.functions import INSTRUCTION_SIZE, TEXT, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pybpf.elf.container import Container, Section, Symbol
    from pybpf.elf.externs import Extern
    from pybpf.elf.functions import Function

    Kind = Literal["map", "data", "extern", "extern_call", "call", "function", "jump_table"]
    Constant = tuple[Kind, str, int, int]


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
    constants: dict[int, Constant] = {}
    function = None
    for offset, symbol_index in container.relocations(section):
        if offset % INSTRUCTION_SIZE or offset >= code.size:
            raise container.error(f"section {section.name!r}: offset {offset:#x} is no instruction of {code.name!r}")
        place = offset // INSTRUCTION_SIZE
        if function is None or not 0 <= place - function.start < function.count:
            function = find(functions, place)
            if function is None:
                continue
        index = place - function.start
        opcode = function.instructions[index * INSTRUCTION_SIZE]
        try:
            if opcode == LDIMM64 and index + 1 < function.count:
                constant = constants.get(symbol_index)
                if constant is None:
                    symbol = container.symbol(symbol_index, f"section {section.name!r}")
                    constant = constants[symbol_index] = _classify_constant(container, symbol, targets)
                kind, name, value, size = constant
                relocation = Relocation(index, kind, name, value, 0, size)
                if kind == "function":
                    _find_address(relocation, get_imm(function.instructions, index, container.byte_order))
            elif opcode == CALL:
                symbol = container.symbol(symbol_index, f"section {section.name!r}")
                relocation = _classify_call(container, function, index, symbol, targets)
            else:
                raise Misplaced(f"an instruction with opcode {opcode:#04x} cannot be relocated")
        except Misplaced as error:
            name = _symbol_name(container, symbol_index)
            raise container.error(
                f"function {function.name!r}, instruction {index}: relocation against {name}: {error}"
            ) from None
        function.relocations.append(relocation)
    for function in functions:
        function.relocations.sort(key=_by_index)


class Misplaced(Exception):
    """A relocation cannot be what it is; caught where it is known which one that is."""


def _by_index(relocation: Relocation) -> int:
    return relocation.index


def _classify_constant(container: Container, symbol: Symbol, targets: Targets) -> Constant:
    """What an ``ldimm64`` gets from a symbol: kind, name, offset, size. Of a function the offset is the symbol's."""
    if symbol.is_extern:
        return "extern", _extern_name(symbol, targets), 0, 0
    section = symbol.section
    if section == SHN_UNDEF or section >= SHN_LORESERVE:
        raise Misplaced(f"it is in no section ({section:#x}); is it a global variable without an initial value?")
    if section == targets.text and _is_function_address(symbol):
        return "function", "", symbol.value, 0
    if section == targets.jump_tables:
        return "jump_table", "", symbol.value, symbol.size
    if section in targets.map_sections:
        name = targets.map_definitions.get((section, symbol.value))
        if name is None:
            raise Misplaced(f"no map is defined at offset {symbol.value} of {container.section_name(section)}")
        return "map", name, 0, 0
    name = targets.data_maps.get(section)
    if name is None:
        raise Misplaced(f"section {container.section_name(section)} holds neither maps nor data")
    return "data", name, symbol.value, 0


def _classify_call(
    container: Container, function: Function, index: int, symbol: Symbol, targets: Targets
) -> Relocation:
    if symbol.is_extern:
        return Relocation(index, "extern_call", _extern_name(symbol, targets))
    order = container.byte_order
    if get_src(function.instructions, index, order) != BPF_PSEUDO_CALL:
        raise Misplaced("the call is not one of a BPF function")
    if symbol.section != targets.text:
        raise Misplaced(f"only functions in {TEXT} can be called, this is in {container.section_name(symbol.section)}")
    if symbol.value % INSTRUCTION_SIZE:
        raise Misplaced(f"offset {symbol.value} is not at an instruction")
    target = symbol.value // INSTRUCTION_SIZE + get_imm(function.instructions, index, order) + 1
    return Relocation(index, "call", target=target)


def _extern_name(symbol: Symbol, targets: Targets) -> str:
    extern = targets.externs.get(symbol.index)
    if extern is None:
        raise Misplaced("the extern is not known")
    return extern.name


def _is_function_address(symbol: Symbol) -> bool:
    """Whether a symbol in ``.text`` stands for code: a static function's place is relative to the section's symbol."""
    if symbol.bind == STB_LOCAL:
        return symbol.type == STT_SECTION
    return symbol.type == STT_FUNC


def _find_address(relocation: Relocation, addend: int) -> None:
    """Turn the offset of a function's symbol and the instruction's own immediate into the index of its target."""
    place = relocation.offset + addend
    if relocation.offset % INSTRUCTION_SIZE or addend % INSTRUCTION_SIZE:
        raise Misplaced(f"offset {place} is not at an instruction")
    relocation.offset = 0
    relocation.target = place // INSTRUCTION_SIZE


def _symbol_name(container: Container, index: int) -> str:
    symbol = container.symbol(index, "relocation")
    if symbol.name:
        return repr(symbol.name)
    return f"section {container.section_name(symbol.section)}" if symbol.type == STT_SECTION else f"symbol {index}"
