"""A linked program, ready for the simulated processor.

Rules of this module:

* What a loader writes into instructions for the kernel (descriptors, ids) is here the address of the thing itself.
* Without a kernel's BTF nothing is relocated: structs are as the object has them, which is how a test lays them out.
"""

from __future__ import annotations

from pybpf.asm.instruction import decode
from pybpf.btf.lines import Lines
from pybpf.btf.relocation import Relocator
from pybpf.constants import BPF_PSEUDO_FUNC
from pybpf.elf.functions import INSTRUCTION_SIZE
from pybpf.elf.jump_tables import jump_targets
from pybpf.elf.linking import link
from pybpf.errors import SimulationError
from pybpf.sim.memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pybpf.asm.instruction import Instruction
    from pybpf.btf.lines import Line
    from pybpf.btf.reader import BTF
    from pybpf.elf.functions import Function
    from pybpf.elf.linking import Image
    from pybpf.elf.relocations import Relocation
    from pybpf.sim.memory import Memory
    from pybpf.spec import ObjectSpec, ProgramSpec


class Code:
    """A program as the processor runs it.

    Attributes:
        spec: what it was made from.
        instructions: one for each slot; None for the second slot of ``ldimm64``.
        functions: (index of its first instruction, name), in order; the program itself comes first.
        kernel_functions: index of a call -> the name of the kernel function that is called.
        region: where its function pointers point to.
    """

    __slots__ = ("_lines", "functions", "instructions", "kernel_functions", "region", "spec")

    def __init__(self, spec: ProgramSpec, image: Image, btf: BTF | None, memory: Memory) -> None:
        self.spec = spec
        self.instructions: list[Instruction | None] = []
        for insn in decode(bytes(image.instructions), memory.byte_order):
            self.instructions.append(insn)
            self.instructions += [None] * (insn.slots - 1)
        self.functions = [(start, function.name) for function, start in image.parts]
        self.kernel_functions: dict[int, str] = {}
        self.region = memory.map(Region(f"code of {spec.name}", bytearray(len(image.instructions)), writable=False))
        size = image.line_info_rec_size
        self._lines = None if btf is None or not size else Lines(btf, image.line_info, size)

    @property
    def name(self) -> str:
        return self.spec.name

    def __len__(self) -> int:
        return len(self.instructions)

    def __repr__(self) -> str:
        return f"<Code {self.name!r}: {len(self)} instructions>"

    def address_of(self, index: int) -> int:
        """The pointer to a function that begins at an instruction."""
        return self.region.base + index * INSTRUCTION_SIZE

    def index_at(self, address: int) -> int:
        """The instruction that a function pointer points to. Raises SimulationError."""
        index, rest = divmod(address - self.region.base, INSTRUCTION_SIZE)
        if rest or not 0 <= index < len(self.instructions):
            raise SimulationError(f"{address:#x} is no pointer to a function of {self.name}")
        return index

    def function_at(self, index: int) -> tuple[int, str]:
        """The function that an instruction is in: where it begins, and its name."""
        return next(one for one in reversed(self.functions) if one[0] <= index)

    def line_at(self, index: int) -> Line | None:
        """The line of C that an instruction comes from, if the object tells."""
        return None if self._lines is None else self._lines.at(index, self.function_at(index)[0])


class Linker:
    """Makes `Code` of the programs of one object.

    Args:
        place: gives the address of a map's handle (``"map"``), of a variable's map (``"data"``), of an extern.
        btf: a kernel's types to relocate for, or None.
    """

    def __init__(
        self, spec: ObjectSpec, memory: Memory, place: Callable[[str, str], int], btf: BTF | None = None
    ) -> None:
        self._spec = spec
        self._memory = memory
        self._place = place
        self._patched = _relocate(spec, btf)

    def link(self, program: ProgramSpec) -> Code:
        """Raises ObjectError: it cannot be linked. SimulationError: it refers to what is not there."""
        image = link(self._spec, program, self._patched)
        code = Code(program, image, self._spec.btf, self._memory)
        for index, insn in enumerate(code.instructions):
            if insn is not None and insn.slots == 2 and insn.src == BPF_PSEUDO_FUNC:
                insn.src, insn.imm64 = 0, code.address_of(index + insn.imm + 1)
        for index, relocation in image.relocations:
            self._write(code, image, index, relocation)
        return code

    def _write(self, code: Code, image: Image, index: int, relocation: Relocation) -> None:
        kind, name = relocation.kind, relocation.name
        if kind == "extern_call":
            code.kernel_functions[index] = name
            return
        insn = code.instructions[index]
        assert insn is not None, "relocations name instructions"
        if kind == "data":
            insn.imm64 = self._place("data", name) + insn.imm + relocation.offset
        elif kind == "jump_table":
            insn.imm64 = self._jump_table(code, image, index, relocation)
        elif kind == "extern" and self._spec.externs[name].section == ".kconfig":
            insn.imm64 = self._place("data", ".kconfig") + self._spec.externs[name].offset
        else:
            insn.imm64 = self._place(kind, name)
        insn.src = 0

    def _jump_table(self, code: Code, image: Image, index: int, relocation: Relocation) -> int:
        targets = jump_targets(self._spec, image, index, relocation)
        order = self._memory.byte_order
        data = b"".join(code.address_of(target).to_bytes(8, order) for target in targets)
        return self._memory.map(Region("jump table", bytearray(data), writable=False)).base


def _relocate(spec: ObjectSpec, btf: BTF | None) -> Mapping[Function, bytearray]:
    patched: dict[Function, bytearray] = {}
    if btf is not None and spec.btf is not None:
        relocator = Relocator(spec.btf, btf, custom=True)
        for function in spec.functions:
            if function.core_relocations:
                code = patched[function] = bytearray(function.instructions)
                relocator.apply(code, function.core_relocations, function.name)
    return patched
