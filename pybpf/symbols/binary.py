"""The file that a program or library name means.

A name with a slash is a path and stays as it is. Any other name is looked up: libraries (``libc.so.6``) in
LD_LIBRARY_PATH, the system's library directories and the dynamic linker's cache, programs (``bash``) in PATH and the
system's directories. Access is checked with the effective ids, as faccessat(2) does with AT_EACCESS.
"""

from __future__ import annotations

import errno
import os

from pybpf.errors import BPFError, BPFNotFoundError

MULTIARCH: tuple[tuple[str, str], ...] = (
    ("x86_64", "x86_64-linux-gnu"),
    ("i386", "i386-linux-gnu"),
    ("i486", "i386-linux-gnu"),
    ("i586", "i386-linux-gnu"),
    ("i686", "i386-linux-gnu"),
    ("s390x", "s390x-linux-gnu"),
    ("aarch64", "aarch64-linux-gnu"),
    ("arm", "arm-linux-gnueabihf"),
    ("arm", "arm-linux-gnueabi"),
    ("mips64", "mips64el-linux-gnuabi64"),
    ("mips", "mipsel-linux-gnu"),
    ("ppc64le", "powerpc64le-linux-gnu"),
    ("sparc64", "sparc64-linux-gnu"),
    ("riscv64", "riscv64-linux-gnu"),
    ("loongarch64", "loongarch64-linux-gnu"),
)
"""Machine name of uname(2), or how it begins, and Debian's directory name for its libraries."""


def library_directories(machine: str = "") -> list[str]:
    """Where libraries of a machine (default: this one) are looked for, LD_LIBRARY_PATH first."""
    machine = machine or os.uname().machine
    triplets = [triplet for beginning, triplet in MULTIARCH if machine.startswith(beginning)]
    return [
        *_path_list("LD_LIBRARY_PATH"),
        "/usr/lib64",
        "/usr/lib",
        *(f"{root}/{triplet}" for triplet in triplets for root in ("/lib", "/usr/lib")),
        "/lib64",
        "/lib",
    ]


def program_directories() -> list[str]:
    """Where programs are looked for, PATH first."""
    return [*_path_list("PATH"), "/usr/bin", "/usr/sbin"]


def _path_list(variable: str) -> list[str]:
    return [directory for directory in os.environ.get(variable, "").split(":") if directory]


def find_binary(name: str, pid: int = -1) -> str:
    """The path of a program or library; a name with a slash is given back unchanged.

    Args:
        name: what is looked for.
        pid: what this process has mapped is looked at first: a process in a container has its own libraries. 0 for the
            caller, -1 for none.

    Raises:
        BPFNotFoundError: no directory has it; the hint lists where it was looked for.
    """
    if "/" in name:
        return name
    if pid >= 0:
        from pybpf.symbols.process import find_mapped

        try:
            mapped = find_mapped(pid, name)
        except BPFError:  # there is no such process, or it is closed to this one: attaching will say so
            mapped = None
        if mapped is not None:
            return mapped
    if name.endswith(".so") or ".so." in name:
        what, directories, mode = "library", library_directories(), os.R_OK
    else:
        what, directories, mode = "program", program_directories(), os.R_OK | os.X_OK
    for directory in directories:
        path = f"{directory}/{name}"
        if name and os.path.isfile(path) and os.access(path, mode, effective_ids=True):
            return path
    if what == "library":
        from pybpf.symbols.ld_cache import PATH, cached_libraries

        for path in cached_libraries(name):
            if os.access(path, mode, effective_ids=True):
                return path
        directories.append(PATH)
    raise BPFNotFoundError(errno.ENOENT, "open", f"{what} {name!r} is not found", f"Looked in {', '.join(directories)}")
