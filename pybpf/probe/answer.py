"""Answers of probes: yes, no or "cannot tell", with the call that shows it.

Rules:

* What only says that this process may not ask, or that there was no room (`NO_ANSWER`), is no answer.
* Only conclusive answers are kept, for the life of the process: a kernel does not change under it. With a BPF token
  the answer is the token's, and not kept.
* Before Linux 5.11 a probe may lift RLIMIT_MEMLOCK, as a load does (`pybpf.memlock`).
"""

from __future__ import annotations

import errno

from pybpf.errors import BPFError, errno_name
from pybpf.memlock import with_memlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Literal

    from pybpf.syscall.fd import FdLike

    Verdict = Literal["yes", "no", "cannot tell"]

NO_ANSWER = frozenset(
    (
        errno.EPERM,
        errno.EACCES,
        errno.ENOSYS,  # no bpf(2) at all, or a seccomp filter
        errno.ENOMEM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.EINTR,
        errno.ENOSPC,  # the log was too small
    )
)
LOG_SIZE = 4096


class Answer:
    """What a probe found. It is true when the answer is yes, so `if has_map_type("ringbuf"):` reads as it should.

    Attributes:
        verdict: ``"yes"``, ``"no"`` or ``"cannot tell"``.
        command: the call that showed it, ``"BPF_MAP_CREATE"``, or what was looked at.
        errno: how that call failed; 0 if it did not.
        log: what the verifier, or the kernel's BTF checker, said; may be empty.
        reason: a sentence where the call does not speak for itself; may be empty.
    """

    __slots__ = ("command", "errno", "log", "reason", "verdict")

    verdict: Verdict
    command: str
    errno: int
    log: str
    reason: str

    def __init__(self, verdict: Verdict, command: str = "", errno: int = 0, log: str = "", reason: str = "") -> None:
        self.verdict = verdict
        self.command = command
        self.errno = errno
        self.log = log
        self.reason = reason

    def __bool__(self) -> bool:
        return self.verdict == "yes"

    @property
    def is_known(self) -> bool:
        """False when the answer is "cannot tell"."""
        return self.verdict != "cannot tell"

    @property
    def errno_name(self) -> str:
        """``"EINVAL"``; an empty string if the call did not fail."""
        return errno_name(self.errno) if self.errno else ""

    @property
    def evidence(self) -> str:
        """The call, how it ended, and the telling line of the log: ``"BPF_PROG_LOAD: EINVAL: unknown func ..."``."""
        return ": ".join(filter(None, (self.command, self.errno_name, self._complaint(), self.reason)))

    def _complaint(self) -> str:
        if not self.log or not self.errno:
            return ""
        from pybpf.verifier.advice import choose
        from pybpf.verifier.log import Log

        return choose(Log(self.log).complaints)[0]

    def to_dict(self) -> dict[str, str]:
        """For JSON: the verdict, and the evidence unless it is a plain yes."""
        if self and not self.reason:
            return {"answer": self.verdict}
        return {"answer": self.verdict, "evidence": self.evidence}

    def __repr__(self) -> str:
        return f"<{self.verdict}: {self.evidence}>" if self.evidence else f"<{self.verdict}>"

    def __str__(self) -> str:
        return self.verdict


_kept: dict[tuple[object, ...], Answer] = {}


def kept(question: tuple[object, ...], find: Callable[[], Answer], token_fd: FdLike | None = None) -> Answer:
    """The answer to a question, found once and kept when it is conclusive and no token was used."""
    if token_fd is not None:
        return find()
    answer = _kept.get(question)
    if answer is None:
        answer = find()
        if answer.is_known:
            _kept[question] = answer
    return answer


def forget() -> None:
    """Drop every kept answer, for a process that has changed what it may do or has loaded a kernel module."""
    _kept.clear()


def ask(
    call: Callable[..., Any],
    *args: Any,
    yes: Collection[int] = (),
    no: Collection[int] = (),
    log: str | None = None,
    **fields: Any,
) -> Answer:
    """Make the call, and say what its outcome means. A descriptor that it makes is closed.

    Args:
        yes: errnos that show that the kernel knows the thing.
        no: errnos that show that it does not, although they are among `NO_ANSWER`.
        log: words in the verifier's log that show that the kernel knows the thing; empty if there are none. The call
            gets a log buffer, and a refusal that comes with a log is the verifier's, so it is conclusive whatever the
            errno.
    """
    buffer = None
    if log is not None:
        from pybpf.syscall.logs import LogBuffer

        buffer = LogBuffer(LOG_SIZE)
        fields.update(log_level=1, log_buffer=buffer)
    try:
        made = with_memlock(call, *args, **fields)
    except BPFError as error:
        text = buffer.text if buffer is not None else ""
        number = error.errno or 0
        if number in yes or (log and log in text):
            return Answer("yes", error.command, number, text)
        if number in no or text or number not in NO_ANSWER:
            return Answer("no", error.command, number, text)
        return Answer("cannot tell", error.command, number, text, _why(number))
    if made is not None and hasattr(made, "close"):
        made.close()
    return Answer("yes", command_of(call))


def undecided(error: BPFError, reason: str = "") -> Answer:
    """That it cannot be told, because a step before the question was refused."""
    return Answer("cannot tell", error.command, error.errno or 0, reason=reason)


def command_of(call: Callable[..., Any]) -> str:
    """``map_create`` makes ``"BPF_MAP_CREATE"``."""
    name = getattr(call, "__name__", "")
    return f"BPF_{name.upper()}" if name else ""


def _why(number: int) -> str:
    if number not in (errno.EPERM, errno.EACCES):
        return ""
    from pybpf.probe.privileges import permission_hint

    return permission_hint()
