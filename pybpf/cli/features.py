"""`pybpf features`: what this kernel and these privileges can do, found by trying."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.probe.answer import Answer


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "features",
        aliases=["probe"],
        help="tell what this kernel and these privileges can do",
        description="Try what this kernel and these privileges can do, and print it: yes, no with the call that shows"
        " it, or that it cannot be told. Nothing stays loaded. Exit status: 0.",
    )
    parser.add_argument("section", nargs="*", metavar="SECTION", help="print only these, for example map_types")
    parser.add_argument("--helpers", action="store_true", help="the helpers of each program type too")
    parser.add_argument("--full", action="store_true", help="--helpers, with those whose probe the kernel logs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=features)


def features(options: Namespace) -> int:
    from pybpf.cli import EXIT_OK
    from pybpf.probe.survey import helpers, report

    found = report()
    wanted = options.section or [*found, *(["helpers"] if options.helpers or options.full else [])]
    for section in wanted:
        if section not in found and section != "helpers":
            raise ValueError(f"no section is called {section!r}: there are {', '.join(found)}, helpers")
    lists = helpers(full=options.full) if "helpers" in wanted else {}
    found = {section: answers for section, answers in found.items() if section in wanted}
    if options.json:
        print(_as_json(found, lists if "helpers" in wanted else None))
        return EXIT_OK
    for section, answers in found.items():
        print(f"{section}:")
        print("\n".join(_as_text(name, answer) for name, answer in answers.items()))
    for program, names in lists.items():
        print(f"helpers of {program}:\n  {' '.join(names)}")
    return EXIT_OK


def _as_text(name: str, answer: Answer) -> str:
    evidence = "" if answer else f" ({answer.evidence})"
    return f"  {name:<32}{answer}{evidence}"


def _as_json(found: dict[str, dict[str, Answer]], lists: dict[str, list[str]] | None) -> str:
    from json import dumps

    sections: dict[str, Any] = {
        section: {name: answer.to_dict() for name, answer in answers.items()} for section, answers in found.items()
    }
    if lists is not None:
        sections["helpers"] = lists
    return dumps(sections)
