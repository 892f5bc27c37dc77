"""Telling why a program was refused: what the verifier said, about which line of C, and what would help.

Imported only when a program has been refused.

Source: fixup_verifier_log() of libbpf; kernel/bpf/log.c and verifier.c.
"""

from __future__ import annotations

import errno
from struct import iter_unpack

from pybpf import constants as c
from pybpf.errors import BPFError, VerifierError, VerifierPermissionError
from pybpf.probe.privileges import CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, permission_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.elf.linking import Image
    from pybpf.loading.loader import Loader
    from pybpf.spec import ProgramSpec

POISON = 195896080
"""Helper number that CO-RE writes where an instruction cannot be relocated (0xbad2310)."""

ON_TRAMPOLINE = frozenset({c.BPF_PROG_TYPE_TRACING, c.BPF_PROG_TYPE_LSM, c.BPF_PROG_TYPE_EXT})
NETWORKING = frozenset(
    {
        c.BPF_PROG_TYPE_SCHED_CLS,
        c.BPF_PROG_TYPE_SCHED_ACT,
        c.BPF_PROG_TYPE_XDP,
        c.BPF_PROG_TYPE_SK_SKB,
        c.BPF_PROG_TYPE_SK_MSG,
        c.BPF_PROG_TYPE_FLOW_DISSECTOR,
        c.BPF_PROG_TYPE_CGROUP_DEVICE,
        c.BPF_PROG_TYPE_CGROUP_SOCK,
        c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        c.BPF_PROG_TYPE_CGROUP_SOCKOPT,
        c.BPF_PROG_TYPE_CGROUP_SYSCTL,
        c.BPF_PROG_TYPE_SOCK_OPS,
        c.BPF_PROG_TYPE_NETFILTER,
    }
)


def explain(loader: Loader, spec: ProgramSpec, image: Image, error: BPFError, log: str) -> BPFError:
    """The error that the caller sees: a `VerifierError` when the verifier spoke, else the kernel's with a hint."""
    what = f"program {spec.name!r}"
    number = error.errno or errno.EINVAL
    if not _reason(log):
        error.what = what
        if number in (errno.EPERM, errno.EACCES):
            error.hint = _refusal_hint(spec)
        elif spec.type_number == c.BPF_PROG_TYPE_UNSPEC:
            error.hint = f"SEC({spec.section!r}) is no section that names a program type; set the program's type"
        return error
    log = fix_log(loader, image, log)
    location, source = source_line(loader, image, log)
    kind = VerifierPermissionError if number in (errno.EPERM, errno.EACCES) else VerifierError
    return kind(
        number,
        what=what,
        hint=_suggestion(log),
        program=spec.name,
        log=log,
        reason=_reason(log),
        location=location,
        source=source,
    )


def _refusal_hint(spec: ProgramSpec) -> str:
    needs = CAP_NET_ADMIN if spec.type_number in NETWORKING else CAP_BPF
    hint = permission_hint(needs=needs) or permission_hint(needs=CAP_PERFMON)
    if not hint and spec.type_number in ON_TRAMPOLINE:
        return (
            "This kernel refuses programs of this kind (it is built without BPF trampolines, or a policy forbids them)"
        )
    return hint


# Reading the log


def _is_remark(line: str) -> bool:
    """Lines that are not the reason: counters, source lines, register states, instructions."""
    if (
        not line
        or line[0] == ";"
        or line.startswith(
            ("processed ", "verification time ", "stack depth ", "max_states", "mark_precise", "func#", "Validating ")
        )
    ):
        return True
    number, colon, _ = line.partition(":")
    if colon and number.strip().isdigit():
        return True
    first = line.split(None, 1)[0]
    if first[0] == "R" and "=" in first:  # R1=ctx() R10=fp0
        return True
    return line.startswith(("from ", "arg#0 reference type", "regs=", "parent ", "last_idx", "caller"))


REPORT = "\nVerification failed: "
SUGGESTION = "\nSuggestion:\n"
"""Parts of the report that newer kernels (7.3 does) put behind the steps of the log."""


def _reason(log: str) -> str:
    """The last line of the log's steps that says why."""
    for line in reversed(log.partition(REPORT)[0].splitlines()):
        if not _is_remark(line.strip()):
            return line.strip()
    return ""


def _suggestion(log: str) -> str:
    """What the report suggests, in one line; empty without a report."""
    _, _, text = log.partition(REPORT)[2].partition(SUGGESTION)
    return " ".join(text.partition("\n\n")[0].split())


def _last_instruction(log: str) -> int:
    """Number of the last instruction that the log shows, or -1."""
    for line in reversed(log.partition(REPORT)[0].splitlines()):
        number, colon, rest = line.partition(": ")
        if colon and number.isdigit() and rest.startswith(("(", "<invalid")):
            return int(number)
    return -1


def source_line(loader: Loader, image: Image, log: str) -> tuple[str, str]:
    """``file:line:column`` and the text of the C line at the last instruction in the log; empty when unknown."""
    index = _last_instruction(log)
    btf = loader.spec.btf
    if index < 0 or btf is None or not image.line_info:
        return "", ""
    best = None
    for record in iter_unpack(f"=4I{image.line_info_rec_size - 16}x", image.line_info):
        if record[0] > index:
            break
        best = record
    if best is None:
        return "", ""
    _, file_name, text, position = best
    return f"{btf.string(file_name)}:{position >> 10}:{position & 0x3FF}", btf.string(text).strip()


def fix_log(loader: Loader, image: Image, log: str) -> str:
    """Replace the numbers that the loader wrote for what is missing by what they stand for."""
    lines = log.splitlines()
    for at in range(len(lines) - 1, max(len(lines) - 11, 0), -1):
        prefix, found, digits = lines[at].partition("invalid func unknown#")
        if prefix or not found or not digits.isdigit():
            continue
        index, colon, _ = lines[at - 1].partition(": ")
        if not colon or not index.isdigit():
            continue
        title, text = _missing(loader, image, int(index), int(digits))
        if title:
            lines[at - 1 : at + 1] = [f"{index}: <{title}>", text]
            return "\n".join(lines) + "\n"
    return log


def _missing(loader: Loader, image: Image, index: int, number: int) -> tuple[str, str]:
    from pybpf.loading.code import UNRESOLVED_KFUNC, UNUSABLE_MAP

    if number == POISON:
        for function, start in image.parts:
            if start <= index < start + function.count:
                description = loader.core_description(function, index - start)
                return "invalid CO-RE relocation", f"failed to resolve CO-RE relocation {description}"
    if 0 <= number - UNRESOLVED_KFUNC < len(loader.spec.externs):
        name = list(loader.spec.externs)[number - UNRESOLVED_KFUNC]
        return "invalid kfunc call", f"kfunc '{name}' is referenced but wasn't resolved"
    if 0 <= number - UNUSABLE_MAP < len(loader.spec.maps):
        name = list(loader.spec.maps)[number - UNUSABLE_MAP]
        return "invalid BPF map reference", f"BPF map '{name}' is referenced but wasn't created"
    return "", ""
