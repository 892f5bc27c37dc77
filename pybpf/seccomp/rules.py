"""Rules: which system calls get which answer.

    from pybpf.seccomp import ALLOW, KILL_PROCESS, Policy, arg, errno

    policy = Policy(default=ALLOW)
    policy.add(errno("EPERM"), "socket", arg[0] != AF_UNIX)
    policy.add(errno("EACCES"), "openat", "openat2", arg[2] & O_ACCMODE != O_RDONLY)
    policy.add(KILL_PROCESS, "ptrace")

Rules of this module:

* The first rule that fits a call decides; if none does, the default. All conditions of a rule have to hold.
* Arguments are compared as unsigned 64-bit numbers, as the kernel sees them. Of an ``int`` the upper half may hold
  anything: compare ``arg[0] & 0xffffffff``.
* The architecture is checked before anything else: a call of one that the policy does not name gets `foreign`, by
  default the end of the process. So does x32 on x86-64, unless it is named.
"""

from __future__ import annotations

import errno as _errno

from pybpf.errors import ObjectError
from pybpf.seccomp import numbers as n
from pybpf.seccomp.architectures import Architecture, is_call, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

    from pybpf.asm.classic import Filter

    Operator = Literal["==", "!=", "<", "<=", ">", ">="]

_ALL = (1 << 64) - 1


class Action:
    """What happens to a call. Attributes: value, SECCOMP_RET_... with its 16 bits of data."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        """``"errno"``, ``"kill_process"`` ..."""
        return _ACTION_NAMES.get(self.value & n.SECCOMP_RET_ACTION_FULL, hex(self.value))

    @property
    def data(self) -> int:
        """The lower 16 bits: the errno, or what a tracer or signal handler is told."""
        return self.value & n.SECCOMP_RET_DATA

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Action) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        if self.name == "errno":
            return f"errno({_errno.errorcode.get(self.data, self.data)})"
        return f"{self.name}({self.data})" if self.data else self.name


ALLOW = Action(n.SECCOMP_RET_ALLOW)
"""The call is made."""
LOG = Action(n.SECCOMP_RET_LOG)
"""The call is made, and logged (Linux 4.14)."""
KILL_PROCESS = Action(n.SECCOMP_RET_KILL_PROCESS)
"""The process ends as by SIGSYS (Linux 4.14)."""
KILL_THREAD = Action(n.SECCOMP_RET_KILL_THREAD)
"""The thread ends."""
NOTIFY = Action(n.SECCOMP_RET_USER_NOTIF)
"""Whoever holds the listener answers (Linux 5.0; see `pybpf.seccomp.notify`)."""


def errno(number: int | str) -> Action:
    """The call fails with this errno and is not made: ``errno("EPERM")``, ``errno(1)``. 0 makes it succeed, as if.

    Raises:
        ValueError: there is no such name, or the number is not in 0..4095.
    """
    if isinstance(number, str):
        found = getattr(_errno, number, None)
        if not isinstance(found, int):
            raise ValueError(f"there is no errno {number!r}")
        number = found
    if not 0 <= number <= 4095:
        raise ValueError(f"errno {number} is not in 0..4095")
    return Action(n.SECCOMP_RET_ERRNO | number)


def trap(data: int = 0) -> Action:
    """The thread gets SIGSYS, with `data` in si_errno; without a handler the process ends."""
    return _with_data(n.SECCOMP_RET_TRAP, data)


def trace(data: int = 0) -> Action:
    """The tracer is told `data` (PTRACE_EVENT_SECCOMP); without one the call fails with ENOSYS."""
    return _with_data(n.SECCOMP_RET_TRACE, data)


def _with_data(action: int, data: int) -> Action:
    if not 0 <= data <= n.SECCOMP_RET_DATA:
        raise ValueError(f"{data} is not in 0..65535")
    return Action(action | data)


_ACTION_NAMES = {
    n.SECCOMP_RET_ALLOW: "allow",
    n.SECCOMP_RET_LOG: "log",
    n.SECCOMP_RET_KILL_PROCESS: "kill_process",
    n.SECCOMP_RET_KILL_THREAD: "kill_thread",
    n.SECCOMP_RET_TRAP: "trap",
    n.SECCOMP_RET_ERRNO: "errno",
    n.SECCOMP_RET_TRACE: "trace",
    n.SECCOMP_RET_USER_NOTIF: "notify",
}


class Condition:
    """A comparison of one argument. Attributes: index, of the argument; operator; value; mask, applied before."""

    __slots__ = ("index", "mask", "operator", "value")

    def __init__(self, index: int, operator: Operator, value: int, mask: int = _ALL) -> None:
        if not 0 <= index < 6:
            raise ObjectError(f"system calls have arguments 0 to 5, not {index}")
        if not -(1 << 63) <= value <= _ALL or not 0 <= mask <= _ALL:
            raise ObjectError(f"argument {index}: {value:#x} is more than 64 bits")
        self.index = index
        self.operator: Operator = operator
        self.value = value & _ALL
        self.mask = mask

    def holds(self, arguments: tuple[int, ...]) -> bool:
        """Whether it does for these arguments."""
        found = arguments[self.index] & _ALL & self.mask
        if self.operator == "==":
            return found == self.value
        if self.operator == "!=":
            return found != self.value
        if self.operator in ("<", ">="):
            return (found < self.value) == (self.operator == "<")
        return (found > self.value) == (self.operator == ">")

    def __bool__(self) -> bool:
        raise TypeError("a condition is for the kernel to judge; give it to Policy.add() as it is")

    def __repr__(self) -> str:
        mask = "" if self.mask == _ALL else f" & {self.mask:#x}"
        return f"arg[{self.index}]{mask} {self.operator} {self.value:#x}"


class Argument:
    """An argument of a system call; comparing it makes a `Condition`, ``&`` masks it."""

    __slots__ = ("index", "mask")
    __hash__ = None  # type: ignore[assignment]  # what is equal is a condition

    def __init__(self, index: int, mask: int = _ALL) -> None:
        self.index = index
        self.mask = mask

    def __and__(self, mask: int) -> Argument:
        return Argument(self.index, self.mask & mask)

    def __eq__(self, value: int) -> Condition:  # type: ignore[override]
        return Condition(self.index, "==", value, self.mask)

    def __ne__(self, value: int) -> Condition:  # type: ignore[override]
        return Condition(self.index, "!=", value, self.mask)

    def __lt__(self, value: int) -> Condition:
        return Condition(self.index, "<", value, self.mask)

    def __le__(self, value: int) -> Condition:
        return Condition(self.index, "<=", value, self.mask)

    def __gt__(self, value: int) -> Condition:
        return Condition(self.index, ">", value, self.mask)

    def __ge__(self, value: int) -> Condition:
        return Condition(self.index, ">=", value, self.mask)

    def __repr__(self) -> str:
        return f"arg[{self.index}]" + ("" if self.mask == _ALL else f" & {self.mask:#x}")


class _Arguments:
    def __getitem__(self, index: int) -> Argument:
        return Argument(index)


arg = _Arguments()
"""``arg[0]`` to ``arg[5]``."""


class Rule:
    """One rule. Attributes: action; calls, names or numbers; conditions, all of which have to hold."""

    __slots__ = ("action", "calls", "conditions")

    def __init__(self, action: Action, calls: tuple[str | int, ...], conditions: tuple[Condition, ...]) -> None:
        self.action = action
        self.calls = calls
        self.conditions = conditions

    def numbers(self, architecture: Architecture) -> list[int]:
        """Those of its calls that an architecture has."""
        found = (architecture.numbers.get(one) if isinstance(one, str) else one for one in self.calls)
        return [number for number in found if number is not None]

    def __repr__(self) -> str:
        conditions = f" if {' and '.join(map(repr, self.conditions))}" if self.conditions else ""
        return f"<Rule {self.action!r} {', '.join(map(str, self.calls))}{conditions}>"


class Policy:
    """A list of rules, and what becomes of calls that none of them fits.

    Attributes:
        default: for those calls.
        foreign: for calls of architectures that the policy does not name.
        architectures: those that it names; the first one is tried first.
        rules: in order.
    """

    def __init__(
        self, default: Action = ALLOW, *, architectures: Iterable[str] | None = None, foreign: Action = KILL_PROCESS
    ) -> None:
        """
        Args:
            architectures: names; only this process's when it is left out.

        Raises:
            ValueError: an architecture is not known, or there are two in different byte orders.
        """
        self.default = default
        self.foreign = foreign
        self.architectures = [Architecture(name) for name in dict.fromkeys(architectures or [native()])]
        self.rules: list[Rule] = []
        if len({one.byte_order for one in self.architectures}) > 1:
            raise ValueError("one filter cannot be for architectures of both byte orders")

    def add(self, action: Action, *what: str | int | Condition) -> Rule:
        """Append a rule.

        Args:
            what: names or numbers of system calls, and conditions for their arguments.

        Raises:
            ObjectError: no architecture has a system call of this name or number, or none is given.
        """
        calls: list[str | int] = []
        conditions: list[Condition] = []
        for one in what:
            if isinstance(one, Condition):
                conditions.append(one)
                continue
            if isinstance(one, str) and not is_call(one):
                raise ObjectError(f"no architecture has a system call {one!r}")
            if isinstance(one, int) and not 0 <= one < 1 << 32:
                raise ObjectError(f"the number of a system call has 32 bits and no sign, not {one}")
            calls.append(one)
        if not calls:
            raise ObjectError("a rule needs the name of a system call")
        rule = Rule(action, tuple(calls), tuple(conditions))
        self.rules.append(rule)
        return rule

    def compile(self) -> Filter:
        """The filter that does what the rules say (see `pybpf.seccomp.compiler`).

        Raises:
            ObjectError: it would be longer than the kernel takes.
        """
        from pybpf.seccomp.compiler import compile_policy

        return compile_policy(self)

    def decide(self, call: str | int, *arguments: int, architecture: str | None = None) -> Action:
        """What becomes of a call, by the rules themselves.

        Raises:
            ValueError: the architecture is not known, or has no such call.
        """
        chosen = Architecture(architecture) if architecture else self.architectures[0]
        if chosen.name not in [one.name for one in self.architectures]:
            return self.foreign
        number = chosen.numbers.get(call) if isinstance(call, str) else call
        if number is None:
            raise ValueError(f"{chosen.name} has no system call {call!r}")
        filled = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        for rule in self.rules:
            if number in rule.numbers(chosen) and all(one.holds(filled) for one in rule.conditions):
                return rule.action
        return self.default

    def install(self, **options: Any) -> Any:
        """Put this thread, and all it will start, under the policy for ever; see `pybpf.seccomp.install`."""
        from pybpf.seccomp.process import install

        return install(self.compile(), byte_order=self.architectures[0].byte_order, **options)

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.architectures)
        return f"<Policy {len(self.rules)} rules, else {self.default!r}, for {names}>"
