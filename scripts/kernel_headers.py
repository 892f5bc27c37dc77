"""The newest UAPI headers of the kernel (Debian's linux-libc-dev), fetched through apt into the user's cache.

The generators of this folder read them. Nothing of the system's apt is touched, and no host is named: the mirror is the
one that the machine's own apt uses.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.apt import Archive, machine_architecture, unpack
from kernel_matrix.errors import MatrixError

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pybpf" / "headers"
PACKAGE = "linux-libc-dev"
SUITES = ("trixie-backports", "forky", "sid")
"""Where headers of `OLDEST` and newer are; the first that has them is taken."""
OLDEST = (7, 2)

# uname machine -> the header that numbers its system calls, below lib/linux/uapi of the package.
MACHINES = {
    "x86_64": "x86/asm/unistd_64.h",
    "i386": "x86/asm/unistd_32.h",
    "x32": "x86/asm/unistd_x32.h",
    "aarch64": "arm64/asm/unistd_64.h",
    "arm": "arm/asm/unistd-eabi.h",
    "riscv64": "riscv/asm/unistd_64.h",
    "riscv32": "riscv/asm/unistd_32.h",
    "loongarch64": "loongarch/asm/unistd_64.h",
    "ppc64": "powerpc/asm/unistd_64.h",
    "ppc": "powerpc/asm/unistd_32.h",
    "s390x": "s390/asm/unistd_64.h",
    "sparc64": "sparc/asm/unistd_64.h",
    "sparc": "sparc/asm/unistd_32.h",
    "mips64": "mips/asm/unistd_n64.h",
    "mipsn32": "mips/asm/unistd_n32.h",
    "mips": "mips/asm/unistd_o32.h",
    "alpha": "alpha/asm/unistd_32.h",
    "parisc64": "parisc/asm/unistd_64.h",
    "parisc": "parisc/asm/unistd_32.h",
    "sh": "sh/asm/unistd_32.h",
    "m68k": "m68k/asm/unistd_32.h",
    "arc": "arc/asm/unistd_32.h",
}
BASES = {"mips": 4000, "mips64": 5000, "mipsn32": 6000}
"""__NR_Linux of the machines whose header counts from it (asm/unistd.h)."""


def header_version(include: Path) -> str:
    """The kernel version that linux/version.h states: ``"7.2.13"``."""
    text = (include / "linux/version.h").read_text()
    parts = [re.search(rf"LINUX_VERSION_{part}\s+(\d+)", text) for part in ("MAJOR", "PATCHLEVEL", "SUBLEVEL")]
    if not all(parts):
        sys.exit(f"{include}/linux/version.h states no version")
    return ".".join(part[1] for part in parts if part)


def is_new_enough(version: str) -> bool:
    return tuple(map(int, version.split(".")))[:2] >= OLDEST


def cached_headers(version: str) -> Path | None:
    """The include directory of that version in the cache, if it is there."""
    include = CACHE / version / "include"
    return include if (include / "linux/bpf.h").exists() else None


def fetch_headers() -> Path:
    """Download the newest headers into the cache and return their include directory.

    Raises:
        RuntimeError: they cannot be had.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    problem = "no suite is known"
    for suite in SUITES:
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            folder = Path(name)
            try:
                archive = Archive(suite, machine_architecture())
                archive.prepare()
                unpack(archive.download([PACKAGE], folder), folder / "tree")
            except (MatrixError, OSError) as error:
                problem = str(error)
                continue
            version = header_version(folder / "tree/usr/include")
            if not is_new_enough(version):
                problem = f"{suite} has {PACKAGE} {version}"
                continue
            place = CACHE / version
            if not place.exists():
                shutil.move(folder / "tree/usr", place)
            return place / "include"
    raise RuntimeError(f"{PACKAGE} {'.'.join(map(str, OLDEST))} or newer cannot be had: {problem}")


# What the smaller generators share

_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\S.*?)[ \t]*(?:/\*.*)?$", re.M)
_ENUMERATOR = re.compile(r"^[ \t]*(\w+)[ \t]*=[ \t]*(\w+)[ \t]*,", re.M)
_SUFFIX = re.compile(r"\b(0x[0-9a-fA-F]+|\d+)[uUlL]+\b")
_OCTAL = re.compile(r"\b0([0-7]+)\b")


def defines(path: Path, prefix: str = "", known: dict[str, int] | None = None) -> dict[str, int]:
    """The macros and enumerators of a header whose values are numbers, in the header's order.

    Args:
        prefix: only names that begin so.
        known: names that values may use beside those of the header.
    """
    text = path.read_text().replace("\\\n", " ")
    found: dict[str, int] = {}
    names = dict(known or {})
    for match in sorted([*_DEFINE.finditer(text), *_ENUMERATOR.finditer(text)], key=lambda one: one.start()):
        name, value = match.groups()
        number = _number(value, names)
        if number is not None:
            names.setdefault(name, number)
            if name.startswith(prefix):
                found.setdefault(name, number)
    return found


def _number(text: str, names: dict[str, int]) -> int | None:
    """The value of a constant expression of numbers and known names, or None."""
    text = _OCTAL.sub(r"0o\1", _SUFFIX.sub(r"\1", text))
    if not re.fullmatch(r"[\w\s()|+<-]+", text):
        return None
    try:
        return int(eval(text, {"__builtins__": {}}, names))
    except (NameError, SyntaxError, TypeError):
        return None


def generate(description: str, target: Path, render: Callable[[Path], str]) -> int:
    """The main program of a generator of one file: write it, or with --check compare; the exit status.

    Args:
        description: for --help.
        target: the committed file; it states the version of the headers it was made from.
        render: gives the file's content from an include directory.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--header", type=Path, metavar="DIR", help="include directory of the headers")
    parser.add_argument("--check", action="store_true", help="compare with the committed file, write nothing")
    options = parser.parse_args()
    old = target.read_text() if target.exists() else ""
    committed = re.search(r" (\d+\.\d+\.\d+): do not edit", old)
    include = options.header or (options.check and committed and cached_headers(committed[1]))
    if not include:
        try:
            include = fetch_headers()
        except RuntimeError as error:
            print(f"cannot fetch the headers: {error}", file=sys.stderr)
            return 2
    fresh = render(include)
    if not options.check:
        target.write_text(fresh)
        return 0
    sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), fresh.splitlines(True), "committed", "generated"))
    return int(old != fresh)
