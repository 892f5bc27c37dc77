"""The verifier's log, read: its steps, the source lines between them, what the registers held, how it ended.

Rules of this module:

* It is text in, values out: no kernel, no file. Whatever the text is, nothing is raised: lines that are not known are
  kept as lines that say something, and that is all.
* The formats of Linux 5.10 (states on lines of their own) up to 7.3 (states behind the instructions, a report at the
  end) are read.

Source: kernel/bpf/log.c (print_verifier_state, print_insn_state); kernel/bpf/verifier.c (do_check,
print_verification_stats).
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REPORT = "\nVerification failed: "
SUGGESTION = "\nSuggestion:\n"
"""Parts of the report that newer kernels (7.3 does) put behind the steps of the log."""

_STEP = re.compile(r"(\d{1,9}): (\([0-9a-f]{2}\) .*|<invalid .*)")
_STATE_AT = re.compile(r"(\d{1,9}): ?((?:frame\d+: ?)?(?:[Rr](?:10|\d)|fp-?\d|refs=|cb|async_cb|\S*\().*)?")
_FROM = re.compile(r"from (\d{1,9}) to (\d{1,9})(?: \(speculative execution\))?:(.*)")
_REMARK = re.compile(r"\s*; (?=(?:frame\d+: ?)?(?:R(?:10|\d)|fp-?\d|refs=|$))")
"""What separates an instruction from the state behind it."""
_FRAME = re.compile(r"frame(\d{1,3}):? ?")
_PLACE = re.compile(r"(R(?:10|\d)|fp-\d{1,5})(?:_[a-zA-Z]{1,3})?=")
_SOURCE = re.compile(r"; (.*?)(?: @ (\S[^\n]*):(\d{1,9}))?$")
_STACKS = re.compile(r"\d+")
_STATISTIC = re.compile(r"([a-z_]+) (\d+)")
_OTHER_REMARKS = (
    "processed ",
    "verification time ",
    "stack depth ",
    "max_states",
    "mark_precise",
    "func#",
    "Func#",
    "Validating ",
    "from ",
    "arg#0 reference type",
    "arg#0 type is not a struct",
    "Unrecognized arg#0 type ",
    "regs=",
    "parent ",
    "last_idx",
    "caller",
    "callee",
    "returning from callee",
    "to caller at",
    "propagating ",
    "insns_per",
    "Live regs before insn",
    "subprog#",
    "cur state:",
    "old state:",
    "verification failed",
)


class Step:
    """One instruction that the verifier walked over.

    Attributes:
        index: the instruction's number in the program.
        text: ``(79) r0 = *(u64 *)(r0 +0)``.
        source: the line of C that was shown before it, or "".
        location: ``file.c:24`` of that line where the kernel says it (Linux 6.8 or so), or "".
        frame: 0 in the program itself, 1 in a function that it called, and so on.
        before: what was known before it: ``R0`` or ``fp-8`` -> the verifier's words.
    """

    __slots__ = ("before", "frame", "index", "location", "source", "text")

    def __init__(self, index: int, text: str, source: str, location: str, frame: int, before: dict[str, str]) -> None:
        self.index = index
        self.text = text
        self.source = source
        self.location = location
        self.frame = frame
        self.before = before

    def __repr__(self) -> str:
        return f"<Step {self.index}: {self.text}>"


class Statistics:
    """What the last lines of a log count. A number that the log does not have is None.

    Attributes:
        instructions: how many the verifier walked over, all paths together (``processed``).
        limit: how many it walks over at most.
        total_states, peak_states: states kept in all, and at most at a time.
        longest_mark_read: the longest chain of states that a read had to be noted in.
        microseconds: how long verification took (needs log level 4).
        stacks: bytes of stack of the program and of each function (needs log level 4).
    """

    __slots__ = ("instructions", "limit", "longest_mark_read", "microseconds", "peak_states", "stacks", "total_states")

    def __init__(self) -> None:
        self.instructions: int | None = None
        self.limit: int | None = None
        self.total_states: int | None = None
        self.peak_states: int | None = None
        self.longest_mark_read: int | None = None
        self.microseconds: int | None = None
        self.stacks: list[int] = []

    def __repr__(self) -> str:
        return f"<Statistics {self.instructions} instructions, {self.peak_states} states at most>"


class Log:
    """A log.

    Attributes:
        text: all of it.
        steps: the instructions, in the order of the walk.
        complaints: the lines behind the last step that are no remarks: why it was rejected.
        suggestion: what the report of newer kernels suggests, in one line; "".
        statistics: the counts at its end.
    """

    __slots__ = ("complaints", "statistics", "steps", "suggestion", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps: list[Step] = []
        walk, _, report = text.partition(REPORT)
        self.suggestion = " ".join(report.partition(SUGGESTION)[2].partition("\n\n")[0].split())
        self.statistics = _statistics(text)
        self.complaints: list[str] = []
        reader = _Reader()
        for line in walk.splitlines():
            if line[:1] != ";":
                line = line.strip()
            step = reader.read(line)
            if step is not None:
                self.steps.append(step)
                self.complaints.clear()
            elif reader.says_why:
                self.complaints.append(line)

    @property
    def last(self) -> Step | None:
        """The instruction that the verifier stopped at."""
        return self.steps[-1] if self.steps else None

    def __repr__(self) -> str:
        return f"<Log {len(self.steps)} steps: {self.complaints}>"


class _Reader:
    """Goes through the lines and keeps what is known at each."""

    def __init__(self) -> None:
        self._source, self._location = "", ""
        self._frames: dict[int, dict[str, str]] = {}
        self._frame = 0
        self.says_why = False

    def read(self, line: str) -> Step | None:
        """The step that a line is. Otherwise `says_why` tells whether it may be the reason of a rejection."""
        self.says_why = False
        if not line:
            return None
        if line[0] == ";":
            found = _SOURCE.match(line)
            if found is not None:
                self._source = found[1].strip()
                self._location = f"{found[2]}:{found[3]}" if found[2] else ""
            return None
        step = _STEP.match(line)
        if step is not None:
            return self._step(int(step[1]), step[2])
        jump = _FROM.match(line)
        if jump is not None:
            self._state(jump[3], whole=True)
            return None
        if line[0].isdigit():
            at = _STATE_AT.match(line)
            if at is not None:
                self._state(at[2] or "", whole=True)
                return None
        if _PLACE.match(line) or _FRAME.match(line):
            self._state(line, whole=True)
            return None
        self.says_why = not line.startswith(_OTHER_REMARKS)
        return None

    def _step(self, index: int, text: str) -> Step:
        parts = _REMARK.split(text, 1)
        step = Step(
            index, parts[0].rstrip(), self._source, self._location, self._frame, dict(self._frames.get(self._frame, {}))
        )
        if len(parts) > 1:
            self._state(parts[1])
        return step

    def _state(self, text: str, whole: bool = False) -> None:
        """Take over a state; what stands behind an instruction is only what changed."""
        text = text.strip()
        frame = _FRAME.match(text)
        if frame is not None:
            self._frame = int(frame[1])
            text = text[frame.end() :]
        elif whole:
            self._frame = 0
        known = {} if whole else self._frames.get(self._frame, {})
        known.update(state_values(text))
        self._frames[self._frame] = known


def state_values(text: str) -> Iterator[tuple[str, str]]:
    """``R1_w=scalar(umax=3) fp-8=mmmmmmmm`` as pairs: ``("R1", "scalar(umax=3)")``, ``("fp-8", "mmmmmmmm")``."""
    place = 0
    while (found := _PLACE.search(text, place)) is not None:
        end, depth = found.end(), 0
        while end < len(text):
            letter = text[end]
            depth += (letter == "(") - (letter == ")")
            if letter == " " and depth <= 0:
                break
            end += 1
        yield found[1], text[found.end() : end]
        place = end


def _statistics(text: str) -> Statistics:
    found = Statistics()
    for line in reversed(text.splitlines()[-200:]):
        if line.startswith("processed ") and found.instructions is None:
            numbers = {name: int(value[:18]) for name, value in _STATISTIC.findall(line)}
            found.instructions, found.limit = numbers.get("processed"), numbers.get("limit")
            found.total_states, found.peak_states = numbers.get("total_states"), numbers.get("peak_states")
            found.longest_mark_read = numbers.get("mark_read")
        elif line.startswith("verification time "):
            number = line.split()[2] if len(line.split()) > 2 else ""
            found.microseconds = int(number[:18]) if number.isascii() and number.isdigit() else None
        elif line.startswith("stack depth "):
            each, _, most = line.partition("max")  # Linux 7.3 may tell only the most: "stack depth max 24"
            found.stacks = [int(depth[:9]) for depth in _STACKS.findall(each) or _STACKS.findall(most)]
    return found
