"""Turning the kernel's bare refusals into sentences: what was being attached, and what would help.

A hint is chosen when a call has failed, never before it: nothing here is on the path of an attachment that works.
"""

from __future__ import annotations

import errno

from pybpf.errors import kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybpf.errors import BPFError
    from pybpf.links.base import Attachable

CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON = 12, 21, 38
"""What attaching needs beside CAP_BPF (include/uapi/linux/capability.h)."""

TRAMPOLINE_HINT = (
    "fentry, fexit, fmod_ret, lsm and freplace programs run on a BPF trampoline, which this kernel refuses to make"
)


def refused(error: BPFError, what: str, hints: Mapping[int, str] | None = None) -> BPFError:
    """The same refusal, told with what was being done and the hint that fits its errno."""
    number = error.errno or 0
    return kernel_error(number, error.command, what, (hints or {}).get(number) or error.hint)


def attaching(program: Attachable, target: str) -> str:
    """The words for an attachment that was tried: ``attaching 'on_exec' to tracepoint 'sched/...'``."""
    return f"attaching {program.name!r} to {target}"


def permission_hints(needs: int, otherwise: str = "") -> dict[int, str]:
    """The hint of a refusal by EPERM or EACCES, for `refused`: what is missing, or `otherwise` when nothing is."""
    from pybpf.probe.privileges import permission_hint

    hint = permission_hint(needs=needs) or otherwise
    return {errno.EPERM: hint, errno.EACCES: hint}
