"""One table from the results of all kernels: every test by kernel.

A test that some kernel's run did not have is "absent" there. The table is bad when a test failed, or was skipped
wherever it was met: then nothing has shown that it holds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from kernel_matrix.kernels import KERNELS
from kernel_matrix.results import FAILED, PASSED, SKIPPED, KernelResults, Outcome, function_of


@dataclass(frozen=True)
class Table:
    """Every test by kernel. A kernel's outcome is missing from a row where it did not have the test."""

    kernels: list[KernelResults]
    rows: dict[str, dict[str, Outcome]]  # test -> kernel -> outcome

    @property
    def failed(self) -> list[tuple[str, str, str]]:
        """(test, kernel, reason) of what failed."""
        return [
            (test, kernel, outcome.reason)
            for test, row in self.rows.items()
            for kernel, outcome in row.items()
            if outcome.result == FAILED
        ]

    @property
    def skipped_everywhere(self) -> list[str]:
        """The tests that ran on no kernel."""
        return [test for test, row in self.rows.items() if all(outcome.result == SKIPPED for outcome in row.values())]

    @property
    def is_good(self) -> bool:
        """Whether there are tests, none failed, and every one ran somewhere."""
        return bool(self.rows) and not self.failed and not self.skipped_everywhere


def join(kernels: Iterable[KernelResults]) -> Table:
    """Join the kernels' results, in the order of the table of kernels; others (a host's) come first."""
    order = list(KERNELS)
    columns = sorted(kernels, key=lambda k: (order.index(k.kernel) if k.kernel in order else -1, k.kernel))
    tests = {test: None for column in columns for test in column.outcomes}
    rows: dict[str, dict[str, Outcome]] = {test: {} for test in tests}
    for column in columns:
        for test in tests:
            if outcome := column.outcomes.get(test):
                rows[test][column.kernel] = outcome
        for module, reason in column.skipped_modules.items():
            within = [test for test in tests if test.startswith((f"{module}::", f"{module}."))]
            for test in within or [module]:
                rows.setdefault(test, {}).setdefault(column.kernel, Outcome(SKIPPED, reason))
    return Table(columns, dict(sorted(rows.items())))


def without_parameters(table: Table) -> dict[str, dict[str, list[Outcome]]]:
    """The table by test function: function -> kernel -> the outcomes of its parameters."""
    functions: dict[str, dict[str, list[Outcome]]] = {}
    for test, row in table.rows.items():
        cells = functions.setdefault(function_of(test), {})
        for kernel, outcome in row.items():
            cells.setdefault(kernel, []).append(outcome)
    return functions


class Footnotes:
    """Reasons, each numbered once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, reason: str) -> int:
        """The number of a reason, from 1."""
        return self.numbers.setdefault(reason, len(self.numbers) + 1)

    def lines(self) -> list[str]:
        """`[number] reason`, one a line."""
        return [f"[{number}] {reason}" for reason, number in self.numbers.items()]


def cell(outcomes: list[Outcome] | None, notes: Footnotes) -> str:
    """What the table shows for the outcomes of one test function: `pass`, `12 pass, 1 skip [3]`, `FAIL [1]`."""
    if not outcomes:
        return "absent"
    counts = Counter(outcome.result for outcome in outcomes)
    reasons = sorted({notes.number(o.reason) for o in outcomes if o.result != PASSED and o.reason})
    words = [
        word if counts[result] == len(outcomes) == 1 else f"{counts[result]} {word}"
        for result, word in ((FAILED, "FAIL"), (PASSED, "pass"), (SKIPPED, "skip"))
        if counts[result]
    ]
    return ", ".join(words) + "".join(f" [{number}]" for number in reasons)


def _summary(table: Table) -> list[list[str]]:
    rows = [["kernel", "release", "passed", "failed", "skipped", "tests took", "guest took"]]
    for column in table.kernels:
        counts = Counter(row[column.kernel].result for row in table.rows.values() if column.kernel in row)
        seconds = column.properties.get("seconds")
        rows.append(
            [
                column.kernel,
                column.properties.get("release", ""),
                *(str(counts[result]) for result in (PASSED, FAILED, SKIPPED)),
                f"{column.seconds:.0f} s",
                f"{float(seconds):.0f} s" if seconds else "",
            ]
        )
    return rows


def _functions(table: Table, notes: Footnotes) -> list[list[str]]:
    names = [column.kernel for column in table.kernels]
    rows = [["test", *names]]
    for function, cells in without_parameters(table).items():
        rows.append([function, *(cell(cells.get(name), notes) for name in names)])
    return rows


def by_file(table: Table) -> dict[str, dict[str, list[tuple[str, Outcome]]]]:
    """The table by test file: file -> kernel -> (test function, outcome) of each test in it."""
    files: dict[str, dict[str, list[tuple[str, Outcome]]]] = {}
    for test, row in table.rows.items():
        module, _, name = test.partition("::")
        words = module.split(".")
        while len(words) > 1 and words[-1][0].isupper():  # a class within the file
            name = f"{words.pop()}::{name}"
        cells = files.setdefault("/".join(words) + ".py" * (len(words) > 1), {})
        for kernel, outcome in row.items():
            cells.setdefault(kernel, []).append((function_of(name), outcome))
    return files


def _files(table: Table) -> list[list[str]]:
    """For each test file what passed, failed and was skipped on each kernel."""
    notes = Footnotes()
    names = [column.kernel for column in table.kernels]
    rows = [["file", *names]]
    for file, cells in by_file(table).items():
        found = [[Outcome(outcome.result) for _, outcome in cells.get(name, ())] for name in names]
        rows.append([f"`{file}`", *(cell(outcomes, notes) if outcomes else "" for outcomes in found)])
    return rows


def _skips(table: Table) -> list[str]:
    """What was skipped, as a list: the files, in them the reasons, and for each the tests and kernels."""
    lines: list[str] = []
    for file, cells in by_file(table).items():
        places: dict[tuple[str, str], list[str]] = {}  # (reason, function) -> kernels
        for kernel, tests in cells.items():
            for function, outcome in tests:
                kernels = places.setdefault((outcome.reason, function), []) if outcome.result == SKIPPED else []
                if kernel not in kernels:
                    kernels.append(kernel)
        together: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # (reason, kernels) -> functions
        for (reason, function), kernels in places.items():
            together.setdefault((reason, tuple(kernels)), []).append(function)
        if together:
            lines.append(f"* `{file}`")
        for (reason, kernels), functions in together.items():
            tests = ", ".join(f"`{name}`" for name in functions[:4])
            more = f" and {len(functions) - 4} more" if len(functions) > 4 else ""
            lines.append(f"  * {', '.join(kernels)}: {tests}{more}: {_escape(_short(reason))}")
    return lines


def _short(reason: str) -> str:
    return reason if len(reason) <= 160 else reason[:157] + "..."


def _verdict(table: Table) -> list[str]:
    if not table.rows:
        return ["No test was met."]
    lines = [f"failed on {kernel}: {test}: {reason}" for test, kernel, reason in table.failed]
    for function, count in Counter(map(function_of, table.skipped_everywhere)).items():
        lines.append(f"ran on no kernel: {function}" + (f" ({count} times)" if count > 1 else ""))
    return lines or ["No test failed, and every test ran on some kernel."]


def text(table: Table, *, brief: bool = False) -> str:
    """The table for a terminal; in brief without the tests."""
    notes = Footnotes()
    tests = [] if brief else [*_columns(_functions(table, notes)), "", *notes.lines(), ""]
    return "\n".join([*tests, *_columns(_summary(table)), "", *_verdict(table), ""])


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def markdown(table: Table, date: str) -> str:
    """The table as a page of documentation, with the date and the commits it was made from."""
    commits = sorted(
        {one for column in table.kernels for one in column.properties.get("commit", "").split(", ") if one}
    )
    lines = [
        "# The kernels pybpf is tested on",
        "",
        f"Made on {date} by `scripts/matrix report`, from commit {', '.join(commits) or 'unknown'}. "
        "[kernel-matrix.md](kernel-matrix.md) tells how to repeat it.",
        "",
        *_markdown_rows(_summary(table)),
        "",
        *[f"* {_escape(line)}" for line in _verdict(table)],
        "",
        "## By test file",
        "",
        "An empty cell: not run there. Tests that ask nothing of the kernel run on one kernel of each architecture.",
        "`scripts/matrix report` shows every test by kernel.",
        "",
        *_markdown_rows(_files(table)),
        "",
        "## What was skipped, where and why",
        "",
        "Each of these tests ran on another kernel, or on the host.",
        "",
        *_skips(table),
        "",
    ]
    return "\n".join(lines)


def _markdown_rows(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(word if "`" in word else _escape(word) for word in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return lines


def _escape(word: str) -> str:
    return re.sub(r"([|<>_*`])", r"\\\1", word)
