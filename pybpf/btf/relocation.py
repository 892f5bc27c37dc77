"""CO-RE: making an object's field offsets, sizes, enumerators and type ids those of the running kernel.

For each relocation: find the kernel's types of the same name, look in each for what the object means
(`pybpf.btf.matching`), compute the number the instruction must carry (`pybpf.btf.resolution`), and write it there
(`pybpf.btf.patching`).

Rules of this module:

* Pure: bytes and types in, bytes out; either byte order, the instructions in that of the object.
* Candidates that disagree are an error, never a guess.
* What the kernel does not have either becomes 0 ("exists?", "which id?") or poisons its instruction: a call of a helper
  that does not exist, which the verifier removes when it cannot be reached and reports when it can.

Source: tools/lib/bpf/relo_core.c of the Linux kernel.
"""

from __future__ import annotations

from pybpf.asm import slots
from pybpf.btf.corespec import RELOCATION_NAMES, Spec, parse, type_label
from pybpf.btf.matching import candidate_kinds, match, types_compatible
from pybpf.btf.patching import POISON, patch
from pybpf.btf.reader import essential_name
from pybpf.btf.resolution import Resolution, calculate
from pybpf.constants import BPF_CORE_TYPE_ID_LOCAL
from pybpf.errors import BTFError, RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pybpf.btf.ext import Records
    from pybpf.btf.reader import BTF

    What = tuple[int, str, int]

__all__ = [
    "POISON",
    "AmbiguousRelocationError",
    "CoreRelocation",
    "CoreRelocations",
    "Relocator",
    "Resolution",
    "describe",
    "types_compatible",
]


class AmbiguousRelocationError(RelocationError):
    """The types that could be meant disagree."""


class CoreRelocation:
    """One record of .BTF.ext's CO-RE section.

    Attributes:
        index: the instruction, in slots from the start of its function.
        type_id: the root type, in the object's BTF.
        access: the access string, ``"0:5"``.
        kind: a BPF_CORE_ number.
    """

    __slots__ = ("access", "index", "kind", "type_id")

    def __init__(self, index: int, type_id: int, access: str, kind: int) -> None:
        self.index = index
        self.type_id = type_id
        self.access = access
        self.kind = kind

    def __repr__(self) -> str:
        name = RELOCATION_NAMES.get(self.kind, self.kind)
        return f"CoreRelocation(index={self.index}, type_id={self.type_id}, access={self.access!r}, kind={name})"


class CoreRelocations:
    """The CO-RE relocations of one function: a sequence of `CoreRelocation`, each made when it is asked for.

    An object has thousands of them, and they are applied once. As objects they would cost 2 ms, and time in every run
    of the garbage collector.
    """

    __slots__ = ("_records", "_start", "_strings")

    def __init__(self, records: Records, start: int, strings: Mapping[int, str]) -> None:
        """`records` are those of the function, which begins at byte `start`; `strings` has their access strings."""
        self._records = records
        self._start = start
        self._strings = strings

    def rows(self) -> Iterator[tuple[int, What]]:
        """The index of each, and its type id, access string and kind."""
        records, start = self._records, self._start
        indexes = [(offset - start) // slots.SLOT_SIZE for offset in records.column(0)]
        accesses = map(self._strings.__getitem__, records.column(2))
        return zip(indexes, zip(records.column(1), accesses, records.column(3), strict=True), strict=True)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[CoreRelocation]:
        return (CoreRelocation(index, *what) for index, what in self.rows())

    def __getitem__(self, number: int) -> CoreRelocation:
        return list(self)[number]

    def __repr__(self) -> str:
        return f"<CoreRelocations {list(self)}>"


class Relocator:
    """Resolves the relocations of one object against one kernel.

    Args:
        local: the object's BTF.
        target: the kernel's BTF or a custom one; None when there is none, which leaves only TYPE_ID_LOCAL resolvable.
        modules: gives the BTF of the loaded modules; asked once, when something is not in `target`.
        custom: `target` describes another kernel than this one, so the modules of this one are left out.
    """

    def __init__(
        self,
        local: BTF,
        target: BTF | None,
        *,
        modules: Callable[[], Iterable[BTF]] | None = None,
        custom: bool = False,
    ) -> None:
        self.local = local
        self.target = target
        self._find_modules = None if custom else modules
        self._modules: list[BTF] | None = None
        self._candidates: dict[int, list[tuple[BTF, int]]] = {}
        self._resolutions: dict[What, Resolution] = {}
        self._patched: dict[tuple[What, int], tuple[int, Resolution]] = {}

    def resolve(self, relocation: CoreRelocation) -> Resolution:
        """What a relocation comes to.

        Raises:
            RelocationError: it is malformed, its candidates disagree, or there is no kernel BTF.
            BTFError: the types are malformed.
        """
        key = (relocation.type_id, relocation.access, relocation.kind)
        resolution = self._resolutions.get(key)
        if resolution is None:
            resolution = self._resolutions[key] = self._resolve(parse(self.local, *key))
        return resolution

    def apply(
        self, instructions: bytearray, relocations: Iterable[CoreRelocation] | CoreRelocations, program: str
    ) -> list[Resolution]:
        """Relocate the instructions of one function in place, and tell what each relocation came to.

        Args:
            instructions: the function's, in the object's byte order.
            relocations: its relocations, with indices into `instructions`.
            program: its name, for messages.

        Raises:
            RelocationError: one cannot be resolved or applied; the instructions are then half done.
        """
        if isinstance(relocations, CoreRelocations):
            rows = relocations.rows()
        else:
            rows = iter([(one.index, (one.type_id, one.access, one.kind)) for one in relocations])
        count = slots.count(instructions)
        patched = self._patched
        resolutions = []
        with memoryview(instructions) as view, view.cast("Q") as words:
            for index, what in rows:
                # Programs repeat themselves: the same relocation of the same instruction gives the same instruction.
                word = words[index] if 0 <= index < count else 0
                known = patched.get((what, word))
                if known is not None:
                    words[index], resolution = known
                else:
                    is_wide = index < count and slots.opcode(instructions, index) == slots.LDIMM64
                    resolution = self._patch(instructions, CoreRelocation(index, *what), program)
                    if not is_wide:
                        patched[what, word] = words[index], resolution
                resolutions.append(resolution)
        return resolutions

    def _patch(self, instructions: bytearray, relocation: CoreRelocation, program: str) -> Resolution:
        try:
            resolution = self.resolve(relocation)
            patch(instructions, relocation.index, resolution, self.local.byte_order)
        except (RelocationError, BTFError) as error:
            where = f"program {program!r}, instruction {relocation.index}"
            raise RelocationError(f"{where}: {_subject(self.local, relocation)}: {error}") from error
        return resolution

    def candidates(self, type_id: int) -> list[tuple[BTF, int]]:
        """The target types that may stand for a local root type: same kind, same name without flavors.

        Modules are searched when `target` has none. The list shrinks to those that matched, relocation by relocation.

        Raises:
            RelocationError: the local type has no name, or there is no kernel BTF.
        """
        found = self._candidates.get(type_id)
        if found is not None:
            return found
        name = essential_name(self.local.name_of(type_id))
        if not name or not type_id:
            raise RelocationError("a type without a name cannot be looked for in the kernel")
        if self.target is None:
            raise RelocationError("there is no kernel BTF (/sys/kernel/btf/vmlinux) to look it up in")
        kinds = candidate_kinds(self.local.kind_of(type_id))
        found = []
        btf: BTF | None = self.target
        while btf is not None:
            found = [(btf, candidate) for candidate in btf.candidates(name, kinds)] + found
            btf = btf.base
        if not found and self._find_modules is not None:
            if self._modules is None:
                self._modules = list(self._find_modules())
            found = [(module, candidate) for module in self._modules for candidate in module.candidates(name, kinds)]
        self._candidates[type_id] = found
        return found

    def _resolve(self, local: Spec) -> Resolution:
        if local.kind == BPF_CORE_TYPE_ID_LOCAL:
            return calculate(local, local)
        candidates = self.candidates(local.root_id)
        matching = []
        first: Resolution | None = None
        for btf, candidate in candidates:
            target = match(local, btf, candidate)
            if target is None:
                continue
            matching.append((btf, candidate))
            resolution = calculate(local, target)
            if first is None:
                first = resolution
            elif _differ(first, resolution):
                found = f"{_found(first)} and {_found(resolution)}"
                raise AmbiguousRelocationError(f"ambiguous, candidates disagree: {found}")
        if first is None:
            return calculate(local, None)
        candidates[:] = matching
        return first


def describe(local: BTF, relocation: CoreRelocation) -> str:
    """A relocation as loaders print it: ``<byte_off> [12] struct task_struct.pid (0:5 @ offset 1256)``.

    Raises:
        RelocationError: it is malformed.
        BTFError: the types are malformed.
    """
    return str(parse(local, relocation.type_id, relocation.access, relocation.kind))


def _subject(local: BTF, relocation: CoreRelocation) -> str:
    """`describe()` that also manages with malformed relocations."""
    try:
        return describe(local, relocation)
    except (RelocationError, BTFError):
        name = RELOCATION_NAMES.get(relocation.kind, f"kind {relocation.kind}")
        try:
            label = type_label(local, relocation.type_id)
        except BTFError:
            label = f"[{relocation.type_id}]"
        return f"<{name}> {label} ({relocation.access[:80]})"


def _found(resolution: Resolution) -> str:
    btf = resolution.target_btf
    outcome = "poison" if resolution.poison else resolution.value
    return f"{resolution.target} in {(btf and btf.name) or 'the kernel'} gives {outcome}"


def _differ(one: Resolution, other: Resolution) -> bool:
    assert one.target is not None and other.target is not None
    return (one.target.bit_offset, one.poison, one.value) != (other.target.bit_offset, other.poison, other.value)
