"""Tracepoints, through perf: ``SEC("tp/<category>/<name>")``.

Source: Documentation/trace/events.rst; perf_event_open(2), PERF_TYPE_TRACEPOINT.
"""

from __future__ import annotations

from pybpf import tracefs
from pybpf.errors import BPFError
from pybpf.links.perf import attach_perf, check_mode, open_tracepoint
from pybpf.links.refusal import attaching, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable, PerfLink


def attach_tracepoint(
    program: Attachable, category: str, name: str, *, cookie: int = 0, mode: str = "auto"
) -> PerfLink:
    """Attaches a tracepoint program to a trace event of every process. Since Linux 4.7.

    Args:
        program: of type tracepoint.
        category: the group under ``events`` of tracefs, for example ``"sched"``.
        name: the event, for example ``"sched_process_exec"``.
        cookie: a number that bpf_get_attach_cookie() gives to the program (Linux 5.15).
        mode: "auto", "link" or "perf", as `pybpf.links.perf` says.

    Raises:
        BPFNotFoundError: there is no such tracepoint, or tracefs is not mounted.
        BPFPermissionError: CAP_PERFMON or read access to tracefs is missing.
        NotSupportedError: a cookie, and a kernel without perf links.
    """
    check_mode(mode)
    target = f"{category}/{name}"
    try:
        event_id = tracefs.event_id(category, name)
    except BPFError as error:
        raise refused(error, f"attaching {program.name!r}: {error.what}") from None
    perf = open_tracepoint(attaching(program, f"tracepoint {target}"), event_id)
    return attach_perf(program, perf, "tracepoint", target, cookie=cookie, mode=mode)
