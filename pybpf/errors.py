"""Every exception of pybpf.

Rules of this file:

* What the kernel refused is a `BPFError`, which is an `OSError`: it has `errno`.
* A subclass of `OSError` does not become `PermissionError` by its errno alone, so the combinations that
  `except` clauses expect are spelled out here and chosen by `kernel_error()`.
* A bad file is an `ObjectError`, bad type information a `BTFError`: both are `ValueError`, both say where.
"""

from __future__ import annotations

import errno as _errno
import os

ENOTSUPP = 524
"""Kernel-internal errno that bpf(2) leaks to user space (include/linux/errno.h)."""

_NAMES = {ENOTSUPP: "ENOTSUPP", _errno.EOPNOTSUPP: "EOPNOTSUPP", _errno.EAGAIN: "EAGAIN"}
"""Names that `errno.errorcode` lacks, or has another word for."""


def errno_name(number: int) -> str:
    """The symbolic name of an errno: ``13`` gives ``"EACCES"``; an unknown one gives its digits."""
    return _NAMES.get(number) or _errno.errorcode.get(number, str(number))


def errno_text(number: int) -> str:
    """The message of an errno, as strerror(3) gives it."""
    return "Operation not supported by the kernel" if number == ENOTSUPP else os.strerror(number)


class BPFError(OSError):
    """The kernel refused something.

    Attributes:
        errno: the positive error number; `errno_name` is its symbol.
        command: the system call or bpf(2) command, for example ``"BPF_PROG_LOAD"``.
        what: what was being done, to which program, map or link; may be empty.
        hint: what would help, when a probe found the reason; may be empty.
    """

    command: str
    what: str
    hint: str

    def __init__(self, number: int, command: str, what: str = "", hint: str = "") -> None:
        super().__init__(number, errno_text(number))
        self.command = command
        self.what = what
        self.hint = hint

    @property
    def errno_name(self) -> str:
        return errno_name(self.errno or 0)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.errno, self.command, self.what, self.hint), self.__dict__)

    def __str__(self) -> str:
        subject = f"{self.what}: " if self.what else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{subject}{self.command}: {self.strerror} ({self.errno_name}){hint}"


class BPFPermissionError(BPFError, PermissionError):
    """EPERM or EACCES."""


class BPFNotFoundError(BPFError, FileNotFoundError):
    """ENOENT, ENODEV or ESRCH: the thing named does not exist."""


class BPFExistsError(BPFError, FileExistsError):
    """EEXIST: it is there already."""


class BPFInterruptedError(BPFError, InterruptedError):
    """EINTR that was not retried."""


class BPFBlockingError(BPFError, BlockingIOError):
    """EAGAIN after all retries."""


class NotSupportedError(BPFError):
    """This kernel does not have the feature; `hint` says which kernel brought it."""


class VerifierError(BPFError):
    """The verifier rejected a program.

    Attributes:
        program: the program's name.
        log: the whole verifier log.
        reason: the log's last telling line, the verifier's own sentence.
        source: the C source line that the verifier stopped at, with its indentation, or "".
        location: ``"file.c:12:5"`` of that line, or "".
        instruction: the instruction that it stopped at, ``"6: (79) r0 = *(u64 *)(r0 +0)"``, or "".
        registers: what the registers held that the instruction or the reason names: ``"R0"`` -> words.
        rejection: the kind of rejection (`pybpf.verifier.advice`), ``"null-pointer"``; "" for one that is not known.
        meaning: what is wrong, in one sentence; "" when the kind is not known.
        advice: how to mend it; "".
    """

    program: str
    log: str
    reason: str
    source: str
    location: str
    instruction: str
    registers: dict[str, str]
    rejection: str
    meaning: str
    advice: str

    def __init__(
        self,
        number: int,
        command: str = "BPF_PROG_LOAD",
        what: str = "",
        hint: str = "",
        *,
        program: str = "",
        log: str = "",
        reason: str = "",
        source: str = "",
        location: str = "",
        instruction: str = "",
        registers: dict[str, str] | None = None,
        rejection: str = "",
        meaning: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(number, command, what, hint)
        self.program = program
        self.log = log
        self.reason = reason
        self.source = source
        self.location = location
        self.instruction = instruction
        self.registers = registers or {}
        self.rejection = rejection
        self.meaning = meaning
        self.advice = advice

    def __str__(self) -> str:
        """The whole story. It ends with the line of C, as a traceback does."""
        lines = [super().__str__()]
        tail = self.log.rstrip().splitlines()[-12:]
        if tail:
            lines.append("  last lines of the verifier log:")
            lines += [f"    {line}" for line in tail]
        if self.instruction:
            lines.append(f"  at instruction {self.instruction}")
        lines += [f"    {register} held {words}" for register, words in self.registers.items()]
        if self.reason:
            lines.append(f"  reason: {self.reason}")
        if self.meaning:
            lines.append(f"    {self.meaning}")
        if self.advice:
            lines.append(f"  mend: {self.advice}")
        if self.location:
            name, _, rest = self.location.rpartition(":")
            name, _, number = name.rpartition(":")
            lines.append(f'  File "{name}", line {number}, in {self.program}')
            lines += [f"    {line}" for line in _with_caret(self.source, int(rest) if rest.isdigit() else 0)]
        return "\n".join(lines)


def _with_caret(source: str, column: int) -> list[str]:
    """A line without its indentation, and below it a mark at the column (from 1; 0 is unknown)."""
    text = source.lstrip()
    place = column - 1 - (len(source) - len(text))
    if not text:
        return []
    return [text.rstrip(), " " * place + "^"] if 0 <= place < len(text) else [text.rstrip()]


class VerifierPermissionError(VerifierError, PermissionError):
    """The verifier answered EACCES or EPERM."""


class ObjectError(ValueError):
    """An object file is malformed or asks for something that cannot be done; the message says where."""


class BTFError(ValueError):
    """Type information (BTF or .BTF.ext) is malformed; the message says where."""


class RecordingError(ValueError):
    """A file of recorded events is none, or is damaged; the message says where."""


class RelocationError(ObjectError):
    """A relocation cannot be resolved; the message names the struct, the field and the program."""


class SimulationError(RuntimeError):
    """A simulated program did what a kernel would not have let it do, or needs what is not simulated.

    Attributes:
        reason: what was wrong.
        where: the program and the instruction, or an empty string.
        instruction: its text. line: the line of C that it comes from, with its place; empty when that is not known.
    """

    def __init__(self, reason: str, *, where: str = "", instruction: str = "", line: str = "") -> None:
        self.reason = reason
        self.where = where
        self.instruction = instruction
        self.line = line
        text = f"{where}: {reason}" if where else reason
        details = "".join(f"\n    {one}" for one in (instruction, line) if one)
        super().__init__(text + details)


class ClosedError(ValueError):
    """An object, map, link or descriptor was used after `close()`."""


_BY_ERRNO: dict[int, type[BPFError]] = {
    _errno.EPERM: BPFPermissionError,
    _errno.EACCES: BPFPermissionError,
    _errno.ENOENT: BPFNotFoundError,
    _errno.ENODEV: BPFNotFoundError,
    _errno.ESRCH: BPFNotFoundError,
    _errno.EEXIST: BPFExistsError,
    _errno.EINTR: BPFInterruptedError,
    _errno.EAGAIN: BPFBlockingError,
    _errno.EOPNOTSUPP: NotSupportedError,
    ENOTSUPP: NotSupportedError,
}


def kernel_error(number: int, command: str, what: str = "", hint: str = "") -> BPFError:
    """The `BPFError` whose class fits the errno."""
    return _BY_ERRNO.get(number, BPFError)(number, command, what, hint)
