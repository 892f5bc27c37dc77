"""The kernel's symbol table, /proc/kallsyms, read in one pass.

Rules:

* The file is made up by the kernel while it is read (some 50 ms for 120,000 symbols): it is read in pieces,
  searched as bytes, and never kept.
* An address of zero is no address: `kernel.kptr_restrict` or a missing CAP_SYSLOG hides them (proc_sys_kernel(5)).
"""

from __future__ import annotations

import errno
import os

from pybpf.errors import BPFPermissionError, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = "/proc/kallsyms"
CHUNK = 1 << 20

WRAPPER_PREFIXES: tuple[tuple[str, str], ...] = (
    ("x86_64", "x64"),
    ("i386", "ia32"),
    ("i486", "ia32"),
    ("i586", "ia32"),
    ("i686", "ia32"),
    ("s390", "s390x"),
    ("aarch64", "arm64"),
    ("arm", "arm"),
    ("mips", "mips"),
    ("riscv", "riscv"),
    ("ppc", "powerpc"),
    ("powerpc", "powerpc"),
)
"""Machine name of uname(2), or how it begins, and the prefix of its system call wrappers."""


def _pieces(path: str) -> Iterator[bytes]:
    """The table in pieces of whole lines."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path, "The kernel needs CONFIG_KALLSYMS") from error
    with open(descriptor, "rb") as file:
        rest = b""
        while piece := file.read(CHUNK):
            whole, end, piece = piece.rpartition(b"\n")
            if end:
                yield rest + whole + end
                rest = piece
            else:
                rest += piece
        if rest:
            yield rest + b"\n"


def kernel_addresses(names: Iterable[str], *, path: str = PATH) -> dict[str, tuple[int, ...]]:
    """Every address that the kernel gives for each name, in the table's order.

    A name that the kernel does not have is absent from the answer. A static function may exist many times: the
    caller decides what several addresses mean.

    Raises:
        BPFNotFoundError: the kernel has no /proc/kallsyms.
        BPFPermissionError: the names are there, and their addresses are hidden from this process.
    """
    found: dict[str, tuple[int, ...]] = {}
    patterns = [(name, (f" {name}\n".encode(), f" {name}\t".encode())) for name in names]
    hidden = False
    for piece in _pieces(path):
        for name, endings in patterns:
            for ending in endings:
                at = piece.find(ending)
                while at >= 0:
                    address = int(piece[piece.rfind(b"\n", 0, at) + 1 : at].split(b" ", 1)[0], 16)
                    if address:
                        found[name] = (*found.get(name, ()), address)
                    else:
                        hidden = True
                    at = piece.find(ending, at + 1)
    if hidden and not found:
        raise BPFPermissionError(
            errno.EPERM,
            "read",
            path,
            "Addresses read as zero: kernel.kptr_restrict hides them, or CAP_SYSLOG is missing",
        )
    return found


def has_kernel_symbol(name: str, *, path: str = PATH) -> bool:
    """True when the kernel has a symbol of this name; works with hidden addresses too."""
    line, module_line = f" {name}\n".encode(), f" {name}\t".encode()
    return any(line in piece or module_line in piece for piece in _pieces(path))


def functions(*, path: str = PATH) -> Iterator[tuple[str, int]]:
    """Name and address of every function (symbols of type ``t``, ``T``, ``w`` or ``W``) of the kernel and its modules.

    Addresses are zero when they are hidden.
    """
    for piece in _pieces(path):
        for line in piece.splitlines():
            address, kind, name = line.split(None, 2)
            if kind in b"tTwW":
                yield name.split(b"\t", 1)[0].decode("ascii", "replace"), int(address, 16)


def wrapper_prefix(machine: str = "") -> str:
    """The prefix of system call wrappers on a machine (default: this one): ``x64`` of ``__x64_sys_read``.

    It is empty for a machine that has none.
    """
    machine = machine or os.uname().machine
    for beginning, prefix in WRAPPER_PREFIXES:
        if machine.startswith(beginning):
            return prefix
    return ""


_has_wrapper: bool | None = None


def has_syscall_wrapper() -> bool:
    """True when system calls enter through ``__<arch>_sys_<name>`` functions that take a pointer to the registers.

    This is CONFIG_ARCH_HAS_SYSCALL_WRAPPER (x86-64 since Linux 4.17, arm64 and s390x since 4.19, riscv since 6.6,
    powerpc since 6.1), which programs see as ``LINUX_HAS_SYSCALL_WRAPPER``. It is decided by whether the wrapper of
    bpf(2) exists: in the kernel's BTF if it is there, which is quick, else in /proc/kallsyms.
    """
    global _has_wrapper
    if _has_wrapper is None:
        prefix = wrapper_prefix()
        wrapper = f"__{prefix}_sys_bpf"
        _has_wrapper = bool(prefix) and (_in_kernel_btf(wrapper) or has_kernel_symbol(wrapper))
    return _has_wrapper


def _in_kernel_btf(function: str) -> bool:
    """True when the kernel's BTF describes this function. False is no answer: BTF leaves functions out."""
    from pybpf.btf.kernel import vmlinux
    from pybpf.btf.kinds import KIND_FUNC
    from pybpf.errors import BTFError

    try:
        return vmlinux().get(function, KIND_FUNC) is not None
    except (BTFError, OSError):
        return False


def syscall_function(name: str) -> str:
    """The kernel function that a system call enters: ``__x64_sys_openat`` for ``openat``."""
    if has_syscall_wrapper():
        return f"__{wrapper_prefix()}_sys_{name}"
    return f"__se_sys_{name}"
