"""What programs cost the verifier, as values, and two such measurements side by side.

Source: tools/testing/selftests/bpf/veristat.c (comparison mode).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

NUMBERS = ("instructions", "states", "peak_states", "stack", "size", "machine_code", "microseconds")
"""The measures that are compared, by their names in `Cost`."""
STEADY = ("instructions", "states", "peak_states", "stack")
"""Those that are the same on every run: what a limit on growth is about."""
DEFAULT_LIMIT = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS since Linux 5.2 (include/linux/bpf.h): what a log without its limit stands for."""


class Cost:
    """One program under the verifier. A number that the kernel did not say is None.

    Attributes:
        object, program: whose.
        verdict: "accepted"; "rejected" by the verifier; "refused" by the kernel or the loader before it.
        reason, meaning, advice, location, source: of a program that is not accepted; see `VerifierError`.
        size: instructions of the program in its file.
        instructions: how many the verifier walked over, all paths together.
        limit: how many it walks over at most.
        states, peak_states: states kept in all, and at most at a time.
        longest_mark_read: the longest chain of states that a read was noted in.
        stacks: bytes of stack of the program and of each of its functions.
        microseconds: how long verification took.
        machine_code: bytes of machine code; 0 without JIT.
    """

    __slots__ = (
        "advice",
        "instructions",
        "limit",
        "location",
        "longest_mark_read",
        "machine_code",
        "meaning",
        "microseconds",
        "object",
        "peak_states",
        "program",
        "reason",
        "size",
        "source",
        "stacks",
        "states",
        "verdict",
    )

    def __init__(self, object: str, program: str, *, size: int | None = None) -> None:
        self.object = object
        self.program = program
        self.verdict = ""
        self.reason = self.meaning = self.advice = self.location = self.source = ""
        self.size = size
        self.instructions: int | None = None
        self.limit: int | None = None
        self.states: int | None = None
        self.peak_states: int | None = None
        self.longest_mark_read: int | None = None
        self.stacks: list[int] = []
        self.microseconds: int | None = None
        self.machine_code: int | None = None

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    @property
    def stack(self) -> int | None:
        """Bytes of stack of the program and all its functions together, as veristat counts them."""
        return sum(self.stacks) if self.stacks else None

    @property
    def share(self) -> float | None:
        """How much of the verifier's budget of instructions it takes: 1.0 is all of it."""
        return None if self.instructions is None else self.instructions / (self.limit or DEFAULT_LIMIT)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON; `from_dict` reads it again."""
        found: dict[str, Any] = {name: getattr(self, name) for name in sorted(self.__slots__)}
        found["stack"], found["share"] = self.stack, self.share
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cost:
        """What `to_dict` gave; what is not there stays unknown.

        Raises:
            ValueError: an entry has not the type that it should have.
        """
        cost = cls("", "")
        for name in cls.__slots__:
            value = values.get(name, getattr(cost, name))
            if not _fits(name, value):
                raise ValueError(f"{name} of a program cannot be {value!r}")
            setattr(cost, name, value)
        return cost

    def __repr__(self) -> str:
        return f"<Cost {self.object} {self.program}: {self.verdict}, {self.instructions} instructions>"


_WORDS = frozenset({"advice", "location", "meaning", "object", "program", "reason", "source", "verdict"})


def _fits(name: str, value: object) -> bool:
    if name in _WORDS:
        return isinstance(value, str)
    if name == "stacks":
        return isinstance(value, list) and all(isinstance(one, int) for one in value)
    return value is None or isinstance(value, int)


class Change:
    """One program in two measurements.

    Attributes:
        before, after: its costs; None where it is not there.
    """

    __slots__ = ("after", "before")

    def __init__(self, before: Cost | None, after: Cost | None) -> None:
        self.before = before
        self.after = after

    @property
    def name(self) -> str:
        """The program's name."""
        some = self.after or self.before
        assert some is not None  # a change is of something
        return some.program

    @property
    def object(self) -> str:
        """The object's name, that of the later one if it is there."""
        some = self.after or self.before
        assert some is not None
        return some.object

    def numbers(self, measure: str) -> tuple[int | None, int | None]:
        """A measure before and after."""
        return (
            None if self.before is None else getattr(self.before, measure),
            None if self.after is None else getattr(self.after, measure),
        )

    def growth(self, measure: str) -> float | None:
        """By how much a measure grew: 0.1 is a tenth; None when it is not known on both sides."""
        old, new = self.numbers(measure)
        if old is None or new is None:
            return None
        if not old:
            return float("inf") if new else 0.0
        return new / old - 1

    @property
    def broke(self) -> bool:
        """It was accepted before and is not now."""
        return self.before is not None and self.before.accepted and self.after is not None and not self.after.accepted

    def regressions(self, percent: float) -> Iterator[str]:
        """In which measures it grew by more than so many per cent, each as words."""
        if self.broke:
            yield "it was accepted before"
        for measure in STEADY:
            growth = self.growth(measure)
            if growth is not None and growth * 100 > percent:
                old, new = self.numbers(measure)
                yield f"{measure.replace('_', ' ')} grew from {old} to {new} ({signed_percent(growth)})"

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "object": self.object,
            "program": self.name,
            "verdict": [None if one is None else one.verdict for one in (self.before, self.after)],
        }
        for measure in NUMBERS:
            growth = self.growth(measure)
            found[measure] = {
                "before": self.numbers(measure)[0],
                "after": self.numbers(measure)[1],
                "growth": growth if growth != float("inf") else None,
            }
        return found

    def __repr__(self) -> str:
        return f"<Change of {self.name}>"


def signed_percent(growth: float) -> str:
    """``0.105`` as ``+10.50%``."""
    return "new" if growth == float("inf") else f"{growth * 100:+.2f}%"


def compare(before: Iterable[Cost], after: Iterable[Cost]) -> list[Change]:
    """Two measurements, program by program, in the order of the later one; what is gone comes last.

    Programs are the same when their names are, and those of their objects too where a side has several objects.
    """
    old, new = list(before), list(after)
    several = max(len({cost.object for cost in side}) for side in (old, new)) > 1 if old or new else False

    def key(cost: Cost) -> tuple[str, str]:
        return (cost.object if several else "", cost.program)

    left = {key(cost): cost for cost in old}
    changes = [Change(left.pop(key(cost), None), cost) for cost in new]
    return changes + [Change(cost, None) for cost in left.values()]
