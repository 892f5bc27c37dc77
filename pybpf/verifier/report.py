"""Telling why a program was refused: what the verifier said, about which line of C, and what would help.

Imported only when a program has been refused.

Source: fixup_verifier_log() of libbpf; kernel/bpf/log.c and verifier.c.
"""

from __future__ import annotations

import errno
import re

from pybpf import constants as c
from pybpf.errors import BPFError, BTFError, VerifierError, VerifierPermissionError
from pybpf.probe.privileges import CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, permission_hint
from pybpf.verifier.advice import choose
from pybpf.verifier.log import Log
from pybpf.verifier.words import describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.lines import Line
    from pybpf.elf.linking import Image
    from pybpf.loading.loader import Loader
    from pybpf.spec import ProgramSpec
    from pybpf.verifier.advice import Advice

POISON = 195896080
"""Helper number that CO-RE writes where an instruction cannot be relocated (0xbad2310)."""

ENOUGH = 1 << 18
"""How much of a log is read, in characters."""

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
    if not Log(_end(log)).complaints:
        error.what = what
        if number in (errno.EPERM, errno.EACCES):
            error.hint = _refusal_hint(spec)
        elif spec.type_number == c.BPF_PROG_TYPE_UNSPEC:
            error.hint = f"SEC({spec.section!r}) is no section that names a program type; set the program's type"
        return error
    log = fix_log(loader, image, log)
    read = Log(_end(log))
    reason, advice = choose(read.complaints)
    index = _place(read, reason)
    line = _line(loader, image, index)
    kind = VerifierPermissionError if number in (errno.EPERM, errno.EACCES) else VerifierError
    return kind(
        number,
        what=what,
        hint=read.suggestion,
        program=spec.name,
        log=log,
        reason=reason,
        location=line.location if line is not None else "",
        source=line.text if line is not None else "",
        instruction=f"{index}: {read.last.text}" if read.last is not None else "",
        registers=_held(read, reason),
        rejection=advice.key if advice is not None else "",
        meaning=_meaning(loader, image, advice),
        advice=advice.mend if advice is not None else "",
    )


def _end(log: str) -> str:
    """The end of a log: long ones are tens of megabytes, and the states before the last steps are near them."""
    return log if len(log) <= ENOUGH else log[log.find("\n", len(log) - ENOUGH) + 1 :]


def _refusal_hint(spec: ProgramSpec) -> str:
    needs = CAP_NET_ADMIN if spec.type_number in NETWORKING else CAP_BPF
    hint = permission_hint(needs=needs) or permission_hint(needs=CAP_PERFMON)
    if not hint and spec.type_number in ON_TRAMPOLINE:
        return (
            "This kernel refuses programs of this kind (it is built without BPF trampolines, or a policy forbids them)"
        )
    return hint


def _line(loader: Loader, image: Image, index: int) -> Line | None:
    """The C line that an instruction of the linked program comes from."""
    btf = loader.spec.btf
    if index < 0 or btf is None or not image.line_info:
        return None
    from pybpf.btf.lines import Lines

    try:
        return Lines(btf, image.line_info, image.line_info_rec_size).at(index)
    except BTFError:
        return None


def _place(log: Log, reason: str) -> int:
    """The instruction that the log is about: the last one walked over, or the one that the reason names; -1."""
    if log.last is not None:
        return log.last.index
    named = re.search(r"insn (\d{1,9})", reason)
    return int(named[1]) if named is not None else -1


def _meaning(loader: Loader, image: Image, advice: Advice | None) -> str:
    """What is wrong; of an instruction that is named by its number, the line of C too."""
    if advice is None:
        return ""
    named = re.search(r"\binstruction (\d{1,9})", advice.meaning)
    line = _line(loader, image, int(named[1])) if named is not None else None
    return f"{advice.meaning} ({line.location}: {line.text.strip()})" if line is not None else advice.meaning


_REGISTER = re.compile(r"\b[rRw](10|\d)\b")


def _held(log: Log, reason: str) -> dict[str, str]:
    """What the registers held that the last instruction or the reason names."""
    last = log.last
    if last is None:
        return {}
    text = f"{last.text} {reason}"
    if "call " in last.text:  # the arguments that a call may take
        text += " R1 R2 R3 R4 R5"
    named = sorted({int(number) for number in _REGISTER.findall(text)})
    return {f"R{number}": describe(last.before[f"R{number}"]) for number in named if f"R{number}" in last.before}


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
