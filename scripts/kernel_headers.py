"""The newest UAPI headers of the kernel (Debian's linux-libc-dev), fetched through apt into the user's cache.

The generators of this folder read them. Nothing of the system's apt is touched, and no host is named: the mirror is the
one that the machine's own apt uses.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from kernel_matrix.apt import Archive, machine_architecture, unpack
from kernel_matrix.errors import MatrixError

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pybpf" / "headers"
PACKAGE = "linux-libc-dev"
SUITES = ("trixie-backports", "forky", "sid")
"""Where headers of `OLDEST` and newer are; the first that has them is taken."""
OLDEST = (7, 2)


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
