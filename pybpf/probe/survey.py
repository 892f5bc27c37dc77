"""Everything that the probes can tell, in one table: what `pybpf features` prints."""

from __future__ import annotations

from pybpf.probe.answer import Answer
from pybpf.probe.btf import KINDS, has_btf
from pybpf.probe.commands import has_command
from pybpf.probe.features import FEATURES, has_feature
from pybpf.probe.links import has_attach_type, has_link_type
from pybpf.probe.maps import has_map_type
from pybpf.probe.names import canonical
from pybpf.probe.programs import has_helper, has_program_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LOUD = ("trace_printk", "trace_vprintk", "probe_write_user")
"""Helpers whose use leaves a trace: a line in the kernel's log, or an enabled trace event."""


def report() -> dict[str, dict[str, Answer]]:
    """Section -> name -> answer, of everything but helpers: some 200 calls, a tenth of a second."""
    sections: dict[str, tuple[list[str], Callable[[str], Answer]]] = {
        "features": (list(FEATURES), has_feature),
        "program_types": (_names("program type"), has_program_type),
        "map_types": (_names("map type"), has_map_type),
        "link_types": (_names("link type"), has_link_type),
        "attach_types": (_names("attach type"), has_attach_type),
        "commands": (_names("command"), has_command),
        "btf_kinds": (list(KINDS), has_btf),
    }
    return {section: {name: ask(name) for name in names} for section, (names, ask) in sections.items()}


def helpers(*, full: bool = False) -> dict[str, list[str]]:
    """Program type -> the helpers it may call, without the types that cannot be loaded: some 7000 calls, a second.

    Args:
        full: ask for `LOUD` helpers too.
    """
    wanted = [name for name in _names("helper") if full or name not in LOUD]
    found = {}
    for program in _names("program type"):
        answers = {helper: has_helper(program, helper) for helper in wanted} if has_program_type(program) else {}
        allowed = [helper for helper, answer in answers.items() if answer]
        if allowed:
            found[program] = allowed
    return found


def _names(kind: str) -> list[str]:
    return list(canonical(kind).values())
