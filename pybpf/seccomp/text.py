"""Policies as text, a rule a line.

    default allow
    errno EPERM     socket                  if a0 != 1
    errno EACCES    openat openat2          if a2 & 3 != 0
    log             connect bind
    kill            ptrace process_vm_writev

Rules of this module:

* A line is an action, names of system calls, and after ``if`` conditions with ``and`` between them.
* Actions: ``allow``, ``log``, ``errno NAME``, ``trap [N]``, ``trace [N]``, ``notify``, ``kill`` (the process),
  ``kill_thread``.
* ``default ACTION`` and ``foreign ACTION`` are for calls that no rule fits, and for those of other architectures than
  ``arch NAME ...`` names.
* ``#`` begins a comment.
"""

from __future__ import annotations

import re

from pybpf.errors import ObjectError
from pybpf.seccomp.rules import (
    ALLOW,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    Action,
    Argument,
    Condition,
    Policy,
    errno,
    trace,
    trap,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = {
    "allow": ALLOW, "log": LOG, "notify": NOTIFY, "kill": KILL_PROCESS, "kill_process": KILL_PROCESS,
    "kill_thread": KILL_THREAD,
}  # fmt: skip
_CONDITION = re.compile(r"a([0-5])\s*(?:&\s*(\w+)\s*)?(==|!=|<=|>=|<|>)\s*(-?\w+)")


def parse(text: str, *, architectures: Iterable[str] | None = None) -> Policy:
    """The policy that a text describes.

    Args:
        architectures: for which; the text's own ``arch`` goes before.

    Raises:
        ObjectError: a line cannot be understood; the message has its number.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words[:1] == ["arch"]:
            architectures = words[1:]
        elif words:
            lines.append((number, line.strip(), words))
    try:
        policy = Policy(architectures=architectures)
    except ValueError as error:
        raise ObjectError(f"policy: {error}") from None
    for number, line, words in lines:
        try:
            _read(policy, words)
        except ValueError as error:  # ObjectError is one
            raise ObjectError(f"line {number}: {line!r}: {error}") from None
    return policy


def _read(policy: Policy, words: list[str]) -> None:
    if words[0] in ("default", "foreign"):
        action, rest = _action(words[1:])
        if rest:
            raise ValueError(f"{words[0]} takes an action and nothing more")
        setattr(policy, words[0], action)
        return
    action, rest = _action(words)
    at = rest.index("if") if "if" in rest else len(rest)
    conditions = " ".join(rest[at + 1 :])
    policy.add(action, *rest[:at], *([] if at == len(rest) else map(_condition, conditions.split(" and "))))


def _action(words: list[str]) -> tuple[Action, list[str]]:
    """The action that words begin with, and the words after it."""
    if not words:
        raise ValueError("an action is missing")
    first, *rest = words
    if first in _PLAIN:
        return _PLAIN[first], rest
    if first == "errno":
        if not rest:
            raise ValueError("errno needs a name or a number")
        return errno(int(rest[0]) if rest[0].isdecimal() else rest[0]), rest[1:]
    if first in ("trap", "trace"):
        make = trap if first == "trap" else trace
        if rest and rest[0].isdecimal():
            return make(int(rest[0])), rest[1:]
        return make(), rest
    raise ValueError(f"there is no action {first!r}")


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no condition such as a0 == 1 or a2 & 3 != 0")
    index, mask, operator, value = match.groups()
    argument = Argument(int(index)) & int(mask, 0) if mask else Argument(int(index))
    return Condition(argument.index, operator, int(value, 0), argument.mask)  # type: ignore[arg-type]
