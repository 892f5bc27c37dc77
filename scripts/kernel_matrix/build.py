"""A kernel made from Debian's package of sources, for what none of Debian's own kernels has.

The result is laid out like an unpacked kernel package. It takes minutes, once: the cache keeps what comes of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kernel_matrix import apt
from kernel_matrix.errors import MatrixError

#: Programs that it needs -> the Debian packages that have them.
PROGRAMS = {
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "perl": "perl",
    "pahole": "pahole",
    "xz": "xz-utils",
}
#: Variables of the environment that would have make build something else, or elsewhere.
FOREIGN = ("ARCH", "CROSS_COMPILE", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS", "O")
#: What it needs that is no program -> its package.
HEADERS = {Path("/usr/include/libelf.h"): "libelf-dev"}


def built(sources: Path, configuration: Path, scratch: Path) -> Path:
    """Build the kernel.

    Args:
        sources: the unpacked package linux-source-VERSION.
        configuration: the options that are not to be as `make allnoconfig` leaves them.
        scratch: a folder for all that is made.

    Returns:
        The folder that looks like an unpacked package: boot/vmlinuz-RELEASE, lib/modules/RELEASE.

    Raises:
        MatrixError: the build failed, or an option could not be had.
    """
    (archive,) = sources.glob("usr/src/linux-source-*.tar.*")
    apt.run(["tar", "-xf", str(archive), "-C", str(scratch)])
    (source,) = scratch.glob("linux-source-*/")
    make = ["make", "-C", str(source), f"-j{os.cpu_count() or 1}"]
    clean = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    apt.run([*make, "allnoconfig"], environment=clean | {"KCONFIG_ALLCONFIG": str(configuration)})
    if missing := refused(configuration.read_text(), (source / ".config").read_text()):
        raise MatrixError(f"{configuration.name}: the kernel's configuration did not take {', '.join(missing)}")
    apt.run([*make, "bzImage", "modules"], environment=clean)
    release = apt.run([*make, "-s", "kernelrelease"], environment=clean).strip()
    tree = scratch / "built"
    apt.run([*make, "modules_install", f"INSTALL_MOD_PATH={tree}", "DEPMOD=true"], environment=clean)
    (tree / "boot").mkdir()
    (source / apt.run([*make, "-s", "image_name"], environment=clean).strip()).rename(tree / f"boot/vmlinuz-{release}")
    (source / ".config").rename(tree / f"boot/config-{release}")
    return tree


def refused(wanted: str, made: str) -> list[str]:
    """The options of one configuration that another has otherwise."""
    there = _options(made)
    return [f"{name}={value}" for name, value in _options(wanted).items() if there.get(name, "n") != value]


def _options(text: str) -> dict[str, str]:
    """Option -> value; what "is not set" is n."""
    found = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))
    return found | dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", text, re.MULTILINE), "n")
