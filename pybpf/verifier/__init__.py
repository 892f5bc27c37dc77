"""The verifier as a teacher: its log read, what it said put into words, and what each program costs it.

| module | what it is about |
|---|---|
| `log` | text of a log -> steps, register states, reason, counts (pure) |
| `words` | what a register holds, in words (pure) |
| `advice` | kinds of rejection: what each means, how to mend it (pure) |
| `report` | the error of a refused program |
| `costs` | verdict, instructions, states, stack and time of each program of an object (`pybpf verify`) |
| `compare` | two such measurements side by side (pure) |
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.verifier.advice import Advice, advise
    from pybpf.verifier.log import Log, Statistics, Step
    from pybpf.verifier.words import describe

_HOME = {
    "Advice": "advice",
    "advise": "advice",
    "Log": "log",
    "Statistics": "log",
    "Step": "log",
    "describe": "words",
}

__all__ = ["Advice", "Log", "Statistics", "Step", "advise", "describe"]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
