"""Linking: one program and the subprograms it calls, put into one piece of code.

Rules of this module:

* Every program gets its own copy of each subprogram that it reaches, in the order in which a depth-first walk over its
  calls finds them. Calls and addresses of functions are made relative to the calling instruction.
* Relocations of other kinds are only moved to where their instruction now is; the loader applies them.
* Function and line information moves with the code. It is computed when it is asked for.
* The code that is linked is `patched`, where CO-RE has been applied, or else the file's.

Source: tools/lib/bpf/libbpf.c, bpf_object__reloc_code(), adjust_prog_btf_ext_info().
"""

from __future__ import annotations

from struct import pack

from pybpf.asm.slots import CALL, LDIMM64, get_imm, get_off, set_imm, set_imm64, set_src
from pybpf.constants import BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC
from pybpf.elf.functions import INSTRUCTION_SIZE, TEXT, find
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybpf.btf.ext import Records
    from pybpf.elf.functions import Function
    from pybpf.elf.relocations import Relocation
    from pybpf.spec import ObjectSpec, ProgramSpec

INSTRUCTION_LIMIT = 1 << 20
"""Most instructions of a linked program: kernels take no more than a million (BPF_COMPLEXITY_LIMIT_INSNS)."""


class Image:
    """A linked program.

    Attributes:
        instructions: in the file's byte order.
        relocations: (index of the instruction, relocation) of maps, data, externs and jump tables, in order.
        parts: (function, index of its first instruction), in order; the first one is the program itself.
        func_info, line_info: records as BPF_PROG_LOAD takes them, in host byte order; empty if the object has none.
        func_info_rec_size, line_info_rec_size: bytes of one record, 0 if there are none.
    """

    __slots__ = ("_infos", "_spec", "instructions", "parts", "relocations")

    def __init__(self, spec: ObjectSpec) -> None:
        self._spec = spec
        self._infos: dict[str, tuple[bytes, int]] = {}
        self.instructions = bytearray()
        self.relocations: list[tuple[int, Relocation]] = []
        self.parts: list[tuple[Function, int]] = []

    @property
    def func_info(self) -> bytes:
        return self._info("func_info")[0]

    @property
    def func_info_rec_size(self) -> int:
        return self._info("func_info")[1]

    @property
    def line_info(self) -> bytes:
        return self._info("line_info")[0]

    @property
    def line_info_rec_size(self) -> int:
        return self._info("line_info")[1]

    def _info(self, kind: str) -> tuple[bytes, int]:
        info = self._infos.get(kind)
        if info is None:
            ext = self._spec.ext
            areas: dict[str, Records] = {} if ext is None else getattr(ext, kind)
            info = self._infos[kind] = _moved(areas, self.parts)
        return info

    def rename_functions(self, ids: Mapping[int, int]) -> None:
        """Let the function information name other types for functions: id now -> id then."""
        from array import array

        data, size = self._info("func_info")
        words = array("I", data)
        words[1 :: size // 4] = array("I", [ids.get(id, id) for id in words[1 :: size // 4]])
        self._infos["func_info"] = words.tobytes(), size

    def __repr__(self) -> str:
        names = ", ".join(function.name for function, _ in self.parts)
        return f"<Image {len(self.instructions) // INSTRUCTION_SIZE} instructions: {names}>"


def link(spec: ObjectSpec, program: ProgramSpec, patched: Mapping[Function, bytearray]) -> Image:
    """Put a program and all subprograms that it reaches into one image.

    `patched` has the code of functions whose CO-RE relocations have been applied.

    Raises:
        ObjectError: a call leads nowhere; the message names the function and the instruction.
    """
    linker = _Linker(spec, program, patched)
    linker.append(program.function)
    for callback in _exception_callbacks(spec, program):
        linker.append(callback)
    return linker.image


def _exception_callbacks(spec: ObjectSpec, program: ProgramSpec) -> list[Function]:
    """The function that the program names as its exception callback; two of them are left to the kernel to refuse."""
    names = spec.exception_callbacks.get(program.function.name, [])
    if len(names) != 1:
        return []
    name = names[0]
    if not name:
        raise ObjectError(f"program {program.name!r}: the tag of its exception callback names no function")
    for function in spec.subprograms:
        if function.name == name and function.is_global and not function.is_hidden:
            return [function]
    raise ObjectError(f"program {program.name!r}: its exception callback {name!r} is no global function in {TEXT}")


class _Linker:
    __slots__ = ("_entry", "_patched", "_placed", "_spec", "image")

    def __init__(self, spec: ObjectSpec, program: ProgramSpec, patched: Mapping[Function, bytearray]) -> None:
        self._spec = spec
        self._patched = patched
        self._placed: dict[Function, int] = {}
        self._entry = program.function
        self.image = Image(spec)

    def append(self, function: Function) -> None:
        """Append a function, unless it is there, and everything it reaches, depth first."""
        if function in self._placed:
            return
        pending = [self._place(function)]
        while pending:
            for index, target in pending[-1]:
                known = self._placed.get(target)
                if known is None:
                    following = self._place(target)
                    known = self._placed[target]
                    self._point(index, known)
                    pending.append(following)
                    break
                self._point(index, known)
            else:
                pending.pop()

    def _place(self, function: Function) -> Iterator[tuple[int, Function]]:
        """Append a function that is not there yet; what is given are its references to others."""
        image = self.image
        code = self._patched.get(function, function.instructions)
        start = len(image.instructions) // INSTRUCTION_SIZE
        if start + function.count > INSTRUCTION_LIMIT:
            raise ObjectError(
                f"program {self._entry.name!r}: more than {INSTRUCTION_LIMIT} instructions with subprograms"
            )
        self._placed[function] = start
        image.parts.append((function, start))
        image.instructions += code
        for relocation in function.relocations:
            if relocation.kind not in ("call", "function"):
                image.relocations.append((start + relocation.index, relocation))
        references = self._references(function)
        return iter([(start + index, self._target(function, index, target)) for index, target in references])

    def _references(self, function: Function) -> list[tuple[int, int]]:
        """(index of an instruction, index in its section of the function that it refers to) of one function."""
        little = self._spec.byte_order == "little"
        code = function.instructions
        relocations = {one.index: one for one in function.relocations}
        references = [(one.index, one.target) for one in function.relocations if one.kind == "function"]
        opcodes, registers = code[::INSTRUCTION_SIZE], code[1::INSTRUCTION_SIZE]
        address = BPF_PSEUDO_FUNC << 4 if little else BPF_PSEUDO_FUNC
        index = opcodes.find(LDIMM64)
        while index >= 0:
            if registers[index] & (0xF0 if little else 0x0F) == address and index not in relocations:
                raise _error(function, index, "the address of a function has no relocation")
            index = opcodes.find(LDIMM64, index + 2)
        call = BPF_PSEUDO_CALL << 4 if little else BPF_PSEUDO_CALL
        for index in _slots_that_begin_with(code, bytes((CALL, call))):
            if get_off(code, index) != 0:
                continue
            relocation = relocations.get(index)
            if relocation is None and function.section == TEXT:
                distance = get_imm(code, index, self._spec.byte_order)
                references.append((index, function.start + index + distance + 1))
            elif relocation is None:
                raise _error(function, index, "the call has no relocation")
            elif relocation.kind == "call":
                references.append((index, relocation.target))
            elif relocation.kind != "extern_call":
                raise _error(function, index, f"the call has a relocation of kind {relocation.kind!r}")
        references.sort()
        return references

    def _target(self, function: Function, index: int, target: int) -> Function:
        found = find(self._spec.subprograms, target)
        if found is None or found.start != target:
            raise _error(function, index, f"it refers to instruction {target} of {TEXT}, where no function starts")
        return found

    def _point(self, index: int, target: int) -> None:
        """Make the call or function address at an index refer to the instruction at another."""
        code = self.image.instructions
        order = self._spec.byte_order
        distance = target - index - 1
        if code[index * INSTRUCTION_SIZE] == CALL:
            set_imm(code, index, distance, order)
        else:
            set_src(code, index, BPF_PSEUDO_FUNC, order)
            set_imm64(code, index, distance, 0, order)


def _slots_that_begin_with(code: bytes, pattern: bytes) -> Iterator[int]:
    """The indexes of instructions, found faster than by looking at each: there are many calls, few of functions."""
    at = code.find(pattern)
    while at >= 0:
        if at % INSTRUCTION_SIZE == 0:
            yield at // INSTRUCTION_SIZE
        at = code.find(pattern, at + 1)


def _error(function: Function, index: int, text: str) -> ObjectError:
    return ObjectError(f"function {function.name!r}, instruction {index}: {text}")


def _moved(areas: Mapping[str, Records], parts: list[tuple[Function, int]]) -> tuple[bytes, int]:
    """The records of all parts with the places that their instructions have now, and the bytes of one record.

    There are none if one part has none: the kernel wants them for all functions of a program or for none.
    """
    result = bytearray()
    size = 0
    for function, start in parts:
        records = areas.get(function.section)
        if records is None or size not in (0, records.record_size):
            return b"", 0
        size = records.record_size
        first = function.start * INSTRUCTION_SIZE
        own = records.part(first, first + function.count * INSTRUCTION_SIZE)
        if not own:
            return b"", 0
        distance = start - function.start
        places = [offset // INSTRUCTION_SIZE + distance for offset in own.column(0)]
        words = memoryview(bytearray(own.data)).cast("I")
        words[:: size // 4] = memoryview(pack(f"={len(places)}I", *places)).cast("I")
        result += words
    return bytes(result), size
