"""What the benchmarks of single operations share: rivals in turn in one process, paired ratios, checked results.

    scenario = Scenario("m[k], hash of u64", operations=2000)
    scenario.add("C", lambda: library.lookups(fd, 2000), check=check_sum)
    scenario.add("pybpf", read_them, check=check_sum)
    scenario.lacks("bcc", "python3-bpfcc is not installed")
    scenario.expect("pybpf", "C", at_most=2.1)
    run([scenario], Options())

How it measures:

* A *block* is one call of a rival's function that does all of a scenario's operations, some milliseconds long.
* In each round every rival runs its block (a short one five times, of which the best counts), in another order each
  time. A ratio is the median over the rounds of the paired ratio, so a machine whose speed drifts favours nobody.
  Times are given as the lower quartile.
* `prepare` runs before each block and is not timed; `check` gets what the block gave and raises when it is wrong, so
  that nobody is quick by leaving work out.
* The garbage collector runs before a block and not in it.
* A rival that is not there, or that fails, is named with the reason. An expectation of it is then "not measured".
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "performance.md"
NOT_MEASURED = float("nan")
SHORT = 50_000_000
TRIES = 5
"""A block of less than so many nanoseconds is run so many times in each round, and the shortest counts: on a machine
that others use too, most rounds would else tell how long they were kept waiting."""


class Rival:
    """One way to do a scenario's work.

    Attributes:
        times: nanoseconds of one operation, of each round.
        missing: why there are none; empty as long as nothing went wrong.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], Any],
        prepare: Callable[[], object] | None = None,
        check: Callable[[Any], object] | None = None,
        missing: str = "",
    ) -> None:
        self.name = name
        self.run = run
        self.prepare = prepare
        self.check = check
        self.missing = missing
        self.times: list[float] = []

    def block(self, operations: int) -> None:
        """The block of one round, unless an earlier one went wrong."""
        if self.missing:
            return
        try:
            took = self._timed()
            if took < SHORT:
                took = min(took, *(self._timed() for _ in range(TRIES - 1)))
        except Exception as error:
            self.missing = f"{type(error).__name__}: {error}"
            return
        self.times.append(took / operations)

    def _timed(self) -> int:
        """Nanoseconds of one block."""
        if self.prepare is not None:
            self.prepare()
        gc.collect()
        gc.disable()
        try:
            start = time.perf_counter_ns()
            result = self.run()
            took = time.perf_counter_ns() - start
        finally:
            gc.enable()
        if self.check is not None:
            self.check(result)
        return took

    @property
    def quartile(self) -> float:
        """The lower quartile of the times in nanoseconds."""
        return NOT_MEASURED if self.missing else statistics.quantiles(self.times, n=4)[0]


class Expectation:
    """What the ratio of two rivals' times has to be: at most a number, or (the other takes so many times as long)
    at least one.

    Attributes:
        must, aim: numbers that the ratio is compared with; aim may be None.
    """

    def __init__(self, name: str, other: str, must: float, aim: float | None, is_speedup: bool) -> None:
        self.name = name
        self.other = other
        self.must = must
        self.aim = aim
        self.is_speedup = is_speedup

    def text(self, number: float | None) -> str:
        """A limit in words."""
        if number is None:
            return ""
        return f"≥ {number:g} times as fast" if self.is_speedup else f"≤ {number:g} of its time"

    def is_met(self, measured: float, limit: float) -> bool:
        return measured >= limit if self.is_speedup else measured <= limit


class Scenario:
    """One piece of work that several rivals do."""

    def __init__(self, title: str, operations: int) -> None:
        self.title = title
        self.operations = operations
        self.rivals: dict[str, Rival] = {}
        self.expectations: list[Expectation] = []

    def add(
        self,
        name: str,
        run: Callable[[], Any],
        *,
        prepare: Callable[[], object] | None = None,
        check: Callable[[Any], object] | None = None,
    ) -> None:
        """A rival. `run` does all operations and gives what `check` looks at."""
        self.rivals[name] = Rival(name, run, prepare, check)

    def lacks(self, name: str, reason: str) -> None:
        """A rival that cannot take part."""
        self.rivals[name] = Rival(name, lambda: None, missing=reason)

    def expect(
        self,
        name: str,
        other: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        aim: float | None = None,
    ) -> None:
        """What the time of one rival has to be compared with another's.

        Args:
            at_most: the ratio of the times.
            at_least: how many times as long the other has to take.
            aim: the number that would be still better.
        """
        must = at_most if at_least is None else at_least
        if must is None:
            raise TypeError("give at_most or at_least")
        self.expectations.append(Expectation(name, other, must, aim, at_least is not None))

    def ratio(self, name: str, other: str) -> float:
        """The median of the paired ratio of the times of two rivals."""
        one, two = self.rivals[name], self.rivals[other]
        if one.missing or two.missing:
            return NOT_MEASURED
        return statistics.median(a / b for a, b in zip(one.times, two.times, strict=True))

    def measured(self, expectation: Expectation) -> float:
        """The number that an expectation is about."""
        if expectation.is_speedup:
            return self.ratio(expectation.other, expectation.name)
        return self.ratio(expectation.name, expectation.other)

    def run(self, rounds: int) -> None:
        """One round to warm up, then those that count."""
        everybody = list(self.rivals.values())
        for rival in everybody:
            rival.block(self.operations)
            rival.times.clear()
        for _ in range(rounds):
            for rival in random.sample(everybody, len(everybody)):
                rival.block(self.operations)


class Options(argparse.Namespace):
    """What the command line of a benchmark says."""

    rounds: int = 31
    only: str = ""
    write: bool = False


def arguments(description: str | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="rounds of each scenario (31)")
    parser.add_argument("--only", default="", help="only scenarios with this in their title")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args(namespace=Options())
    if os.geteuid() != 0:
        sys.exit("it makes maps and loads programs: run it as root")
    if options.rounds < 2:
        sys.exit("at least 2 rounds")
    return options


def run(scenarios: Iterable[Scenario], options: Options, section: str) -> int:
    """Run them one after the other and print tables; the exit status.

    Args:
        scenarios: made one by one, so that a generator may let go of what one needed before it makes the next.
        section: the part of docs/performance.md that the tables belong to.

    Returns:
        1 when something that had to be reached was not, or a rival named pybpf failed; else 0.
    """
    done: list[Scenario] = []
    print(context(options.rounds), flush=True)
    for scenario in scenarios:
        if options.only not in scenario.title:
            continue
        gc.freeze()
        scenario.run(options.rounds)
        gc.unfreeze()
        done.append(scenario)
        print(f"\n{scenario.title}, {scenario.operations} operations each round")
        for rival in scenario.rivals.values():
            print(f"  {_line(scenario, rival)}", flush=True)
    tables = f"{context(options.rounds)}\n\n{times_table(done)}\n\n{targets_table(done)}\n"
    print(f"\n{targets_table(done)}")
    if options.write:
        write_section(DOCUMENT, section, tables)
    is_bad = any(
        scenario.measured(one) == scenario.measured(one) and not one.is_met(scenario.measured(one), one.must)
        for scenario in done
        for one in scenario.expectations
    )
    broken = [rival for one in done for rival in one.rivals.values() if rival.missing and "pybpf" in rival.name]
    return int(is_bad or bool(broken))


def _line(scenario: Scenario, rival: Rival) -> str:
    if rival.missing:
        return f"{rival.name:36} not measured: {rival.missing}"
    first = next(iter(scenario.rivals.values()))
    return f"{rival.name:36}{_number(rival.quartile):>10} ns  {_number(scenario.ratio(rival.name, first.name)):>8}"


def times_table(scenarios: Sequence[Scenario]) -> str:
    """Markdown: each rival's time of one operation, and its ratio to the first rival of the scenario."""
    lines = ["| scenario | who | ns each | of the first |", "|---|---|---:|---:|"]
    for scenario in scenarios:
        title = scenario.title
        for rival in scenario.rivals.values():
            if rival.missing:
                lines.append(f"| {title} | {rival.name} | not measured | |")
            else:
                ratio = scenario.ratio(rival.name, next(iter(scenario.rivals)))
                lines.append(f"| {title} | {rival.name} | {_number(rival.quartile)} | {_number(ratio)} |")
            title = ""
    return "\n".join(lines)


def targets_table(scenarios: Sequence[Scenario]) -> str:
    """Markdown: what was to be reached, and what was."""
    lines = ["| scenario | compared | measured | must reach | aim |", "|---|---|---:|---|---|"]
    for scenario in scenarios:
        for one in scenario.expectations:
            measured = scenario.measured(one)
            if measured != measured:
                told = "not measured"
            else:
                told = _number(measured) + ("" if one.is_met(measured, one.must) else " **missed**")
            pair = f"{one.name} to {one.other}"
            lines.append(f"| {scenario.title} | {pair} | {told} | {one.text(one.must)} | {one.text(one.aim)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def context(rounds: int) -> str:
    """On what it was measured."""
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{rounds} rounds, Linux {os.uname().release} on {os.uname().machine}, {os.cpu_count()} processors, "
        f"load average {os.getloadavg()[0]:.1f}, Python {version}."
    )


def write_section(document: Path, section: str, text: str) -> None:
    """Replace what lies between the marks of a section."""
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    before, found, rest = document.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{document} has no section between {begin} and {end}")
    document.write_text(f"{before}{begin}\n{text}{end}{after}")


# --- rivals ------------------------------------------------------------------------------------------------------


def build_library(folder: Path, source: Path) -> ctypes.CDLL | str:
    """Compile a C file with libbpf into a shared library; or the reason why it cannot be had.

    Call its functions once for each block: a call through ctypes costs about a microsecond.
    """
    target = folder / f"{source.stem}.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(target), str(source), "-lbpf"]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no gcc"
    if built.returncode:
        lines = built.stderr.strip().splitlines()
        return f"it cannot be built: {lines[0] if lines else 'gcc failed'}"
    return ctypes.CDLL(str(target), use_errno=True)


def import_bcc() -> ModuleType | str:
    """bcc's Python; or the reason why it cannot be had.

    It compiles against kernel headers; where there are none of the running kernel, BCC_KERNEL_SOURCE names a folder
    with those of another one.
    """
    if "/usr/lib/python3/dist-packages" not in sys.path:
        sys.path.append("/usr/lib/python3/dist-packages")  # where Debian has it, outside a virtual environment
    try:
        return importlib.import_module("bcc")
    except ImportError as error:
        return f"python3-bpfcc: {error}"
