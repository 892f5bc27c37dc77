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
        reason: the log's last telling line, a sentence.
        source: the C source line that the verifier stopped at, or an empty string.
        location: ``"file.c:12:5"`` of that line, or an empty string.
    """

    program: str
    log: str
    reason: str
    source: str
    location: str

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
    ) -> None:
        super().__init__(number, command, what, hint)
        self.program = program
        self.log = log
        self.reason = reason
        self.source = source
        self.location = location

    def __str__(self) -> str:
        lines = [super().__str__()]
        if self.reason:
            lines.append(f"  reason: {self.reason}")
        if self.source or self.location:
            lines.append(f"  at {self.location or '?'}: {self.source}")
        tail = self.log.rstrip().splitlines()[-12:]
        if tail:
            lines.append("  last lines of the verifier log:")
            lines += [f"    {line}" for line in tail]
        return "\n".join(lines)


class VerifierPermissionError(VerifierError, PermissionError):
    """The verifier answered EACCES or EPERM."""


class ObjectError(ValueError):
    """An object file is malformed or asks for something that cannot be done; the message says where."""


class BTFError(ValueError):
    """Type information (BTF or .BTF.ext) is malformed; the message says where."""


class RelocationError(ObjectError):
    """A relocation cannot be resolved; the message names the struct, the field and the program."""


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
