"""`pybpf explain`: load an object, attach it, and tell each call into the kernel in words."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.object import Object


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "explain",
        help="tell each call into the kernel that loading and attaching an object makes",
        description="Load an object, attach what its sections say, and let go of it again: every bpf(),"
        " perf_event_open(), ioctl(), mmap() and netlink call is told, each field by its name and meaning, with what"
        " came back. To see the calls of any other command or script, set PYBPF_EXPLAIN=1 (or to a path that ends in"
        " .html or .json).",
    )
    parser.add_argument("object", metavar="OBJECT", help="a .bpf.o file, or a name that `pybpf kernels` lists")
    parser.add_argument("program", nargs="*", metavar="PROGRAM", help="load only these programs")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tell what would be sent, and send nothing: it needs no privileges",
    )
    parser.add_argument("--no-attach", action="store_true", help="only load")
    parser.add_argument("--instructions", action="store_true", help="with the disassembly of each program")
    parser.add_argument("--zeros", action="store_true", help="with the fields that are 0")
    parser.add_argument("--json", action="store_true", help="one JSON object for each call, a line each")
    parser.add_argument("--html", metavar="FILE", help="write one page of HTML")
    parser.set_defaults(command=explain_object)


def explain_object(options: Namespace) -> int:
    from pybpf.cli import EXIT_OK, EXIT_USAGE
    from pybpf.cli.kernels import find
    from pybpf.explaining.session import explain
    from pybpf.spec import ObjectSpec

    if options.json and options.html:
        print("pybpf explain: --json and --html exclude each other", file=sys.stderr)
        return EXIT_USAGE
    spec = ObjectSpec.from_file(find(options.object))
    if options.program:
        spec.only(*options.program)
    story = explain(
        options.html or sys.stdout,
        format="html" if options.html else "json" if options.json else "text",
        instructions=options.instructions,
        zeros=options.zeros,
        dry_run=options.dry_run,
    )
    with story, spec.load() as obj:
        if not options.no_attach:
            _attach(obj)
    refused = sum(1 for call in story.calls if call.errno and not call.answered)
    where = f", written to {options.html}" if options.html else ""
    print(f"{len(story.calls)} calls, {refused} refused{where}", file=sys.stderr)
    return EXIT_OK


def _attach(obj: Object) -> None:
    with obj.attach(strict=False) as links:
        for program, reason in links.skipped:
            print(f"not attached: {program.name}: {reason}", file=sys.stderr)
        for program, error in links.failed:
            print(f"not attached: {program.name}: {error}", file=sys.stderr)
