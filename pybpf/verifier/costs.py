"""What each program of an object costs the verifier of the running kernel.

Rules of this module:

* Programs are loaded one at a time, each with all maps of the object: one rejection hides nothing of the others.
* Nothing is attached, nothing is pinned, nothing stays.

Source of the measures: tools/testing/selftests/bpf/veristat.c (parse_verif_log).
"""

from __future__ import annotations

from pybpf.errors import BPFError, ObjectError, VerifierError
from pybpf.mapspec import PIN_NONE
from pybpf.spec import ObjectSpec
from pybpf.verifier.compare import Cost
from pybpf.verifier.log import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from pybpf.spec import ProgramSpec

STATISTICS = 4
"""Log level: counts alone, without the steps (BPF_LOG_STATS, Linux 5.2; include/linux/bpf_verifier.h)."""
STEPS = 1


def measure(
    path: str | os.PathLike[str], names: Iterable[str] = (), *, every: bool = False, btf: str | None = None
) -> Iterator[Cost]:
    """Verify the programs of an object, one after the other, and tell what each cost.

    Args:
        path: the object.
        names: the programs to verify; those that are loaded by default when none is named.
        every: also those that are not loaded by default (``SEC("?...")``).
        btf: a file with the types to relocate against; the running kernel's when it is None.

    Raises:
        ObjectError: the file is no BPF object, or has no program of that name.
        BPFPermissionError: privileges are missing.
    """
    spec = ObjectSpec.from_file(path)
    wanted = list(names)
    if wanted:
        spec.only(*wanted)
    chosen = wanted or [one.name for one in spec.programs.values() if one.autoload or every]
    for one in spec.maps.values():
        one.pinning, one.pin_path = PIN_NONE, None
    for name in chosen:
        spec.only(name)
        yield _cost(spec, spec.programs[name], btf)


def _cost(spec: ObjectSpec, program: ProgramSpec, btf: str | None) -> Cost:
    cost = Cost(spec.name, program.name, size=len(program.instructions) // 8)
    try:
        try:
            _load(spec, program, btf, cost, STATISTICS)
        except VerifierError as error:
            _count(cost, error.log)
            _load(spec, program, btf, cost, STEPS)  # once more, with the steps, for the line of C
    except VerifierError as error:
        cost.verdict = "rejected"
        cost.reason, cost.meaning, cost.advice = error.reason, error.meaning, error.advice
        cost.location, cost.source = error.location, error.source.strip()
    except PermissionError as error:
        if not isinstance(error, BPFError) or error.command != "BPF_PROG_LOAD":
            raise
        cost.verdict, cost.reason = "refused", str(error)
    except (BPFError, ObjectError) as error:
        cost.verdict, cost.reason = "refused", str(error)
    return cost


def _load(spec: ObjectSpec, program: ProgramSpec, btf: str | None, cost: Cost, level: int) -> None:
    with spec.load(log_level=level, **({} if btf is None else {"btf": btf})) as obj:
        loaded = obj.programs.get(program.name)
        if loaded is None:  # a program of a struct_ops map that is not made
            cost.verdict, cost.reason = "refused", "no struct_ops map of the object uses it"
            return
        cost.verdict = "accepted"
        _count(cost, loaded.log)
        cost.machine_code = loaded.info().jited_prog_len


def _count(cost: Cost, log: str) -> None:
    """Take over the counts at a log's end."""
    found = Log(log[-4096:]).statistics
    cost.instructions, cost.limit = found.instructions, found.limit
    cost.states, cost.peak_states, cost.longest_mark_read = (
        found.total_states,
        found.peak_states,
        found.longest_mark_read,
    )
    cost.microseconds = found.microseconds
    cost.stacks = found.stacks
