"""`pybpf verify`: what the verifier of this kernel says to each program of an object, and what each costs it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pybpf.verifier.compare import Change, Cost

COLUMNS = ("program", "verdict", "instructions", "of limit", "states", "peak", "stack", "time")


def add_command(commands: Any) -> None:
    from argparse import RawDescriptionHelpFormatter

    parser = commands.add_parser(
        "verify",
        help="tell what the verifier says to each program, and what each costs it",
        description="Load each program of an object by itself, tell the verifier's verdict and what verification cost,"
        " and let go of it again. Nothing is attached or pinned.",
        epilog="examples:\n"
        "  pybpf verify x.bpf.o\n"
        "  pybpf verify x.bpf.o --json > before.json          keep the figures of a kernel or a commit\n"
        "  pybpf verify x.bpf.o --compare before.json         side by side with them\n"
        "  pybpf verify new.bpf.o --compare old.bpf.o --max-growth 10\n"
        "  pybpf verify x.bpf.o --max-insns 100000            a budget for CI\n\n"
        "exit status: 0; 5 when a program is not accepted; 8 when all are, but one costs more than it may.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("object", metavar="OBJECT", help="a .bpf.o file, a name that `pybpf kernels` lists, or .json")
    parser.add_argument("program", nargs="*", metavar="PROGRAM", help="only these programs")
    parser.add_argument("--all", action="store_true", help='also programs that are not loaded by default (SEC("?..."))')
    parser.add_argument("--btf", metavar="FILE", help="relocate against the types in this file")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument(
        "--compare", metavar="BEFORE", help="what to compare with: a .json of --json, or another object"
    )
    parser.add_argument("--max-insns", type=_count, metavar="N", help="budget: verified instructions of a program")
    parser.add_argument("--max-states", type=_count, metavar="N", help="budget: states of a program")
    parser.add_argument(
        "--max-growth",
        type=float,
        metavar="PERCENT",
        help="with --compare: fail when instructions, states or stack of a program grew by more",
    )
    parser.set_defaults(command=verify)


def _count(text: str) -> int:
    from argparse import ArgumentTypeError

    if not text.replace("_", "").isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return int(text)


def verify(options: Namespace) -> int:
    from pybpf.cli import EXIT_BUDGET, EXIT_OK, EXIT_VERIFIER
    from pybpf.verifier.compare import compare

    if options.max_growth is not None and not options.compare:
        raise ValueError("--max-growth needs --compare: growth since what?")
    before = _costs(options, options.compare) if options.compare else []
    costs = _costs(options, options.object)
    changes = compare(before, costs) if options.compare else []
    over = list(_over(options, costs, changes))
    if options.json:
        _print_json(costs, changes, over)
    else:
        for line in _change_lines(changes) if options.compare else _lines(costs):
            print(line)
        for cost in costs:
            for line in _story(cost):
                print(line)
        for text in over:
            print(f"over budget: {text}")
    if any(not cost.accepted for cost in costs):
        return EXIT_VERIFIER
    return EXIT_BUDGET if over else EXIT_OK


def _costs(options: Namespace, source: str) -> list[Cost]:
    """Measured now, or read from what was measured before."""
    from pybpf.cli.kernels import find
    from pybpf.verifier.costs import measure

    if not source.endswith(".json"):
        return list(measure(find(source), options.program, every=options.all, btf=options.btf))
    costs = _read(source)
    return [cost for cost in costs if not options.program or cost.program in options.program]


def _read(path: str) -> list[Cost]:
    import json

    from pybpf.errors import ObjectError
    from pybpf.verifier.compare import Cost

    with open(path, encoding="utf-8") as file:
        try:
            found = json.load(file)
            return [Cost.from_dict(one) for one in found["programs"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ObjectError(f"{path}: not what `pybpf verify --json` prints: {error}") from None


def _over(options: Namespace, costs: Iterable[Cost], changes: Iterable[Change]) -> Iterator[str]:
    for cost in costs:
        for budget, number, what in (
            (options.max_insns, cost.instructions, "instructions"),
            (options.max_states, cost.states, "states"),
        ):
            if budget is not None and number is not None and number > budget:
                yield f"{cost.program}: {number} {what}, and {budget} are allowed"
    if options.max_growth is not None:
        for change in changes:
            for words in change.regressions(options.max_growth):
                yield f"{change.name}: {words}"


# Output


def _print_json(costs: list[Cost], changes: list[Change], over: list[str]) -> None:
    import json
    import os

    system = os.uname()
    found: dict[str, Any] = {
        "kernel": system.release,
        "machine": system.machine,
        "programs": [cost.to_dict() for cost in costs],
    }
    if changes:
        found["changes"] = [change.to_dict() for change in changes]
    if over:
        found["over_budget"] = over
    print(json.dumps(found, ensure_ascii=False, indent=1))


def _lines(costs: list[Cost]) -> Iterator[str]:
    """The table, numbers to the right."""
    rows = [COLUMNS, *(_row(cost) for cost in costs)]
    yield from _table(rows, left=2)


def _row(cost: Cost) -> tuple[str, ...]:
    share = "" if cost.share is None else f"{cost.share:.2%}"
    stack = "" if cost.stack is None else "+".join(map(str, cost.stacks))
    return (
        cost.program,
        cost.verdict,
        _number(cost.instructions),
        share,
        _number(cost.states),
        _number(cost.peak_states),
        stack,
        _time(cost.microseconds),
    )


def _change_lines(changes: list[Change]) -> Iterator[str]:
    """The table of a comparison: before, after and growth of each measure."""
    from pybpf.verifier.compare import signed_percent

    head = ["program", "verdict"]
    for title in ("instructions", "states", "stack"):
        head += [title, "now", "growth"]
    rows = [tuple(head)]
    for change in changes:
        old = "absent" if change.before is None else change.before.verdict
        new = "absent" if change.after is None else change.after.verdict
        row = [change.name, old if old == new else f"{old} -> {new}"]
        for measure in ("instructions", "states", "stack"):
            growth = change.growth(measure)
            before, after = change.numbers(measure)
            row += [_number(before), _number(after), "" if growth is None else signed_percent(growth)]
        rows.append(tuple(row))
    yield from _table(rows, left=2)


def _table(rows: list[tuple[str, ...]], left: int) -> Iterator[str]:
    """Rows as lines: the first columns begin at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _story(cost: Cost) -> Iterator[str]:
    """Why a program is not accepted."""
    if cost.accepted:
        return
    yield f"{cost.program}: {cost.verdict}: {cost.reason}"
    if cost.meaning:
        yield f"  {cost.meaning}"
    if cost.location:
        yield f"  at {cost.location}: {cost.source}"
    if cost.advice:
        yield f"  mend: {cost.advice}"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _time(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    return f"{microseconds} us" if microseconds < 10_000 else f"{microseconds / 1000:.1f} ms"
