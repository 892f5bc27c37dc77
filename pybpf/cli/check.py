"""`pybpf check`: which of an object's CO-RE relocations fail on a kernel, told from that kernel's types alone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.elf.relocation_report import RelocationReport, Row


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="tell which relocations of an object fail on a kernel",
        description="Relocate an object against a kernel's types, without that kernel and without privileges, and print"
        " the relocations that fail there. Programs that are not loaded by default are left out."
        " Exit status: 0 when none fails, 6 when one does.",
    )
    parser.add_argument("object", metavar="OBJECT", help="a .bpf.o file, or a name that `pybpf kernels` lists")
    parser.add_argument(
        "--btf", metavar="FILE", help="the kernel's types: BTF, or an ELF file with BTF; default: the running kernel's"
    )
    parser.add_argument("--json", action="store_true", help="print every relocation, as one JSON object")
    parser.set_defaults(command=check)


def check(options: Namespace) -> int:
    from pybpf.cli import EXIT_KERNEL_LACKS, EXIT_OK
    from pybpf.cli.kernels import find
    from pybpf.spec import ObjectSpec

    report = ObjectSpec.from_file(find(options.object)).relocate(options.btf)
    target = options.btf or "the running kernel"
    if options.json:
        print(_as_json(options.object, target, report))
    else:
        for row in report.failures:
            print(_as_text(row))
        print(f"{options.object} on {target}: {_summary(report)}")
    return EXIT_KERNEL_LACKS if report.failures else EXIT_OK


def _as_json(name: str, target: str, report: RelocationReport) -> str:
    from json import dumps

    rows = [row.to_dict() for row in report.rows]
    return dumps({"object": name, "btf": target, "ok": not report.failures, "relocations": rows})


def _as_text(row: Row) -> str:
    lines = [f"{row.function}, instruction {row.index}: <{row.kind}> {row.name}: {row.outcome}: {row.reason}"]
    if row.location:
        lines.append(f"  at {row.location}: {row.source}")
    return "\n".join(lines)


def _summary(report: RelocationReport) -> str:
    """``31 relocations: 28 value, 2 missing, 1 poisoned``."""
    counts: dict[str, int] = {}
    dead = 0
    for row in report.rows:
        counts[row.outcome] = counts.get(row.outcome, 0) + 1
        dead += row.is_dead
    if not counts:
        return "no relocations"
    text = f"{len(report.rows)} relocations: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"
    return f"{text} ({dead} of them never reached)" if dead else text
