"""Coverage: which instructions ran, and so which lines of C.

>>> kernel.coverage = sim.Coverage()
>>> kernel.programs["count"].run(packet)
>>> print(kernel.coverage.text())
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.sim.code import Code


class LineCount:
    """A line of C.

    Attributes:
        file, number: where it stands. text: what it says.
        hits: how often its most executed instruction ran.
        instructions, executed: how many instructions it became, and how many of them ran.
    """

    __slots__ = ("executed", "file", "hits", "instructions", "number", "text")

    def __init__(self, file: str, number: int, text: str) -> None:
        self.file = file
        self.number = number
        self.text = text
        self.hits = self.instructions = self.executed = 0

    def __repr__(self) -> str:
        return f"<LineCount {self.file}:{self.number} {self.hits} hits>"


class Coverage:
    """Counts of executed instructions, of any number of runs."""

    def __init__(self) -> None:
        self._counts: dict[Code, dict[int, int]] = {}

    def count(self, code: Code, index: int) -> None:
        """Called before each instruction."""
        counts = self._counts.setdefault(code, {})
        counts[index] = counts.get(index, 0) + 1

    def of(self, name: str) -> tuple[int, int]:
        """How many of a program's instructions ran, and how many it has, those of its subprograms included."""
        for code, counts in self._counts.items():
            if code.name == name:
                return len(counts), sum(one is not None for one in code.instructions)
        return 0, 0

    def lines(self) -> list[LineCount]:
        """The lines of all programs that ran, sorted by place. Objects without line information have none."""
        found: dict[tuple[str, int], LineCount] = {}
        for code, counts in self._counts.items():
            for index, insn in enumerate(code.instructions):
                line = None if insn is None else code.line_at(index)
                if line is None or not line.number:
                    continue
                entry = found.setdefault((line.file, line.number), LineCount(line.file, line.number, line.text))
                hits = counts.get(index, 0)
                entry.instructions += 1
                entry.executed += hits > 0
                entry.hits = max(entry.hits, hits)
        return [found[key] for key in sorted(found)]

    def text(self) -> str:
        """A table: hits, line number, line. Lines that did not run are marked ``-``, those that ran in part ``~``."""
        rows: list[str] = []
        file = ""
        for line in self.lines():
            if line.file != file:
                file = line.file
                rows.append(file)
            mark = "-" if not line.hits else " " if line.executed == line.instructions else "~"
            rows.append(f"{line.hits:8} {mark} {line.number:5} {line.text.rstrip()}")
        return "\n".join(rows)

    def lcov(self) -> str:
        """The format that genhtml and code hosts read."""
        rows: list[str] = []
        lines = self.lines()
        for file in sorted({line.file for line in lines}):
            own = [line for line in lines if line.file == file]
            rows += ["TN:", f"SF:{file}", *(f"DA:{line.number},{line.hits}" for line in own)]
            rows += [f"LF:{len(own)}", f"LH:{sum(line.hits > 0 for line in own)}", "end_of_record"]
        return "".join(f"{row}\n" for row in rows)

    def to_dict(self) -> dict[str, dict[int, int]]:
        """File -> line number -> hits."""
        found: dict[str, dict[int, int]] = {}
        for line in self.lines():
            found.setdefault(line.file, {})[line.number] = line.hits
        return found

    def __repr__(self) -> str:
        lines = self.lines()
        return f"<Coverage {sum(line.hits > 0 for line in lines)} of {len(lines)} lines>"
