"""RelocationReport: what an object's CO-RE relocations come to against a kernel's types, without that kernel.

Rules of this module:

* Pure: the object and the types in, instructions and rows out. Either byte order.
* Nothing raises for a relocation that cannot be resolved: its row says so, and the others are done all the same.
* The functions that are relocated are those that a load relocates: programs with `autoload`, and every subprogram.
"""

from __future__ import annotations

from pybpf.asm import slots
from pybpf.asm.reach import reachable
from pybpf.btf.corespec import FIELD_KINDS, RELOCATION_NAMES, VALUE_KINDS, type_label
from pybpf.btf.kinds import kind_name
from pybpf.btf.lines import Lines
from pybpf.btf.patching import POISON, patch
from pybpf.btf.relocation import AmbiguousRelocationError, Relocator
from pybpf.elf.functions import INSTRUCTION_SIZE
from pybpf.errors import BTFError, ObjectError, RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal

    from pybpf.asm.slots import ByteOrder
    from pybpf.btf.corespec import Spec
    from pybpf.btf.reader import BTF
    from pybpf.btf.relocation import CoreRelocation, Resolution
    from pybpf.elf.functions import Function
    from pybpf.spec import ObjectSpec

    Outcome = Literal["value", "missing", "poisoned", "ambiguous", "failed"]


class Row:
    """One relocation.

    Attributes:
        function: name of the function.
        index: the instruction, in slots from the start of the function.
        kind: ``"byte_off"``, ``"field_exists"``, ``"type_size"`` and so on; digits when it is unknown.
        name: what the object means: ``"struct task_struct.pid"``, ``"enum state::RUNNING"``.
        outcome: ``"value"``: the instruction got `value`. ``"missing"``: it asks whether something is there, or for its
            size or id, and got 0 because it is not. ``"poisoned"``: it became a call that the verifier rejects where it
            can be reached. ``"ambiguous"``, ``"failed"``: the load ends here.
        value: the number in the instruction, as unsigned 64 bits; None unless the outcome is value or missing.
        target: where the kernel has it: ``"struct task_struct.pid (0:78 @ offset 2464)"``; empty when it does not.
        module: name of the BTF that has it, as ``"vmlinux"``; empty when there is none.
        reason: why it is not a value, a sentence; empty when it is.
        is_dead: poisoned, but never reached: the questions that the function asks before lead around it.
        location: ``"file.c:12:5"`` of the C line, or an empty string. source: its text.
    """

    __slots__ = (
        "function",
        "index",
        "is_dead",
        "kind",
        "location",
        "module",
        "name",
        "outcome",
        "reason",
        "source",
        "target",
        "value",
    )

    def __init__(self, function: str, index: int, kind: str, name: str) -> None:
        self.function = function
        self.index = index
        self.kind = kind
        self.name = name
        self.outcome: Outcome = "value"
        self.value: int | None = None
        self.target = ""
        self.module = ""
        self.reason = ""
        self.is_dead = False
        self.location = ""
        self.source = ""

    @property
    def is_failure(self) -> bool:
        """Whether a program cannot be loaded because of it."""
        return self.outcome not in ("value", "missing") and not self.is_dead

    def to_dict(self) -> dict[str, object]:
        """All attributes by name, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        result = self.outcome if self.value is None else f"{self.outcome} {self.value}"
        return f"<Row {self.function}+{self.index} <{self.kind}> {self.name}: {result}>"


class RelocationReport:
    """What the relocations of one object come to.

    Attributes:
        rows: one for each relocation, function by function.
        functions: the instructions of each function that has relocations, relocated as far as that was possible.
    """

    __slots__ = ("functions", "rows")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.functions: dict[Function, bytearray] = {}

    @property
    def failures(self) -> list[Row]:
        """The rows that keep a program from loading: ambiguous, failed, or poisoned where it can be reached."""
        return [row for row in self.rows if row.is_failure]

    def instructions(self, name: str) -> bytes:
        """The relocated instructions of the function of this name.

        Raises:
            KeyError: no function of this name has relocations.
        """
        for function, code in self.functions.items():
            if function.name == name:
                return bytes(code)
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"<RelocationReport {len(self.rows)} relocations, {len(self.failures)} failures>"


def relocate(spec: ObjectSpec, target: BTF, modules: Callable[[], Iterable[BTF]] | None = None) -> RelocationReport:
    """Relocate an object's functions against a kernel's types.

    Args:
        target: the types of the kernel.
        modules: gives those of its modules, for what the kernel itself does not have.

    Raises:
        ObjectError: the object has relocations, but no type information of its own.
    """
    report = RelocationReport()
    wanted = {program.function for program in spec.programs.values() if program.autoload}
    functions = [f for f in spec.functions if f.core_relocations and (f in wanted or not f.is_entry)]
    if not functions:
        return report
    if spec.btf is None:
        raise ObjectError(f"{spec.name}: it has relocations, but no type information")
    relocator = Relocator(spec.btf, target, modules=modules, custom=modules is None)
    for function in functions:
        code = report.functions[function] = bytearray(function.instructions)
        rows = [_relocate_one(relocator, function, code, relocation) for relocation in function.core_relocations]
        live = reachable(code, spec.byte_order) if any(row.outcome == "poisoned" for row in rows) else set()
        for row in rows:
            row.is_dead = row.outcome == "poisoned" and row.index not in live
            if row.outcome not in ("value", "missing"):
                row.location, row.source = source_of(spec, function, row.index)
        report.rows += rows
    return report


def _relocate_one(relocator: Relocator, function: Function, code: bytearray, relocation: CoreRelocation) -> Row:
    local = relocator.local
    kind = RELOCATION_NAMES.get(relocation.kind, str(relocation.kind))
    row = Row(function.name, relocation.index, kind, _root_name(local, relocation.type_id))
    try:
        resolution = relocator.resolve(relocation)
        row.name = subject(resolution.local)
        patch(code, relocation.index, resolution, local.byte_order)
    except AmbiguousRelocationError as error:
        row.outcome, row.reason = "ambiguous", str(error)
    except (RelocationError, BTFError) as error:
        row.outcome, row.reason = "failed", str(error)
    else:
        _tell(row, resolution, is_poisoned(code, relocation.index, local.byte_order))
    return row


def is_poisoned(code: bytearray, index: int, byte_order: ByteOrder) -> bool:
    """Whether the instruction at a slot is the call that stands for what the kernel does not have."""
    return slots.opcode(code, index) == slots.CALL and slots.get_imm(code, index, byte_order) == POISON


def _tell(row: Row, resolution: Resolution, poisoned: bool) -> None:
    """Enter what a relocation came to."""
    if resolution.target is not None:
        row.target = str(resolution.target).partition("] ")[2]
        row.module = resolution.target.btf.name
    if poisoned:
        row.outcome = "poisoned"
        row.reason = (
            "the field's size differs, and this access cannot be adjusted" if resolution.bad_size else _absent(row)
        )
        return
    row.value = resolution.value
    if resolution.target is None:
        row.outcome = "missing"
        row.reason = _absent(row)


def _absent(row: Row) -> str:
    return f"the kernel has no {row.name}"


def _root_name(btf: BTF, type_id: int) -> str:
    """The root type of a relocation: ``struct task_struct``."""
    try:
        return type_label(btf, type_id).partition("] ")[2]
    except BTFError:
        return f"type {type_id}"


def subject(spec: Spec) -> str:
    """What a relocation is about, as C writes it: ``struct task_struct.pid``, ``enum state::RUNNING``."""
    root = f"{kind_name(spec.btf.kind_of(spec.root_id))} {spec.btf.name_of(spec.root_id) or '<anon>'}"
    if spec.kind in FIELD_KINDS:
        return root + spec.path
    return f"{root}::{spec.enumerator[0]}" if spec.kind in VALUE_KINDS else root


def source_of(spec: ObjectSpec, function: Function, index: int) -> tuple[str, str]:
    """``file:line:column`` and the text of the C line that an instruction comes from; empty when unknown."""
    records = spec.ext.line_info.get(function.section) if spec.ext is not None else None
    if records is None or spec.btf is None:
        return "", ""
    line = Lines(spec.btf, records.data, records.record_size, unit=INSTRUCTION_SIZE).at(
        function.start + index, function.start
    )
    return ("", "") if line is None else (line.location, line.text.strip())
