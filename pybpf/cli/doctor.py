"""`pybpf doctor`: why bpf(2) will not work here, and what to change."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.probe.doctor import Finding


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="tell why bpf() will not work here, and what to change",
        description="Look at everything that can keep BPF programs from working here, and tell what to change: each"
        " finding with its evidence. Nothing is changed. Exit status: 0 when all is well; 4 when privileges, settings"
        " or mounts are in the way; 6 when only the kernel lacks something.",
    )
    parser.add_argument("check", nargs="*", metavar="CHECK", help="run only these, for example: capabilities btf")
    parser.add_argument("--verbose", "-v", action="store_true", help="show the evidence of what is well, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=doctor)


def doctor(options: Namespace) -> int:
    from pybpf.cli import EXIT_KERNEL_LACKS, EXIT_OK, EXIT_PRIVILEGES
    from pybpf.probe.doctor import OF_THE_KERNEL, examine

    findings = examine(options.check)
    bad = [finding for finding in findings if not finding.is_fine]
    if options.json:
        print(_as_json(findings))
    else:
        for finding in findings:
            print(_as_text(finding, options.verbose))
        print(_summary(bad))
    if not bad:
        return EXIT_OK
    return EXIT_KERNEL_LACKS if all(finding.name in OF_THE_KERNEL for finding in bad) else EXIT_PRIVILEGES


def _as_json(findings: list[Finding]) -> str:
    from json import dumps
    from os import uname

    rows = [finding.to_dict() for finding in findings]
    return dumps({"ok": all(f.is_fine for f in findings), "kernel": uname().release, "findings": rows})


def _as_text(finding: Finding, verbose: bool) -> str:
    lines = [f"{finding.level:<8} {finding.name:<15} {finding.what}"]
    if finding.evidence and (verbose or finding.level != "ok"):
        lines.append(f"{'':<24} seen: {finding.evidence}")
    if finding.change:
        lines.append(f"{'':<24} change: {finding.change}")
    return "\n".join(lines)


def _summary(bad: list[Finding]) -> str:
    if not bad:
        return "All is well."
    problems = sum(finding.level == "problem" for finding in bad)
    counts = [
        f"{count} {name}{'s' * (count != 1)}" for count, name in ((problems, "problem"), (len(bad) - problems, "limit"))
    ]
    return ", ".join(text for text in counts if not text.startswith("0 ")) + "."
