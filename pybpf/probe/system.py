"""Facts about this process and this system that files under /proc and /sys tell. Nothing is tried here.

Source: proc_pid_status(5), proc_pid_mounts(5), proc_sys_kernel(5), capabilities(7).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNTS = "/proc/self/mounts"


def read(path: str) -> str:
    """A file's text without the blanks around it; empty when it is missing or closed to this process."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read().strip()
    except OSError:
        return ""


def status(field: str) -> str:
    """A field of /proc/self/status: ``status("CapEff")``; empty on a kernel without it."""
    for line in read("/proc/self/status").split("\n"):
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return ""


def sysctl(name: str) -> str:
    """A setting of the kernel, ``sysctl("kernel.kptr_restrict")``; empty when there is none."""
    return read("/proc/sys/" + name.replace(".", "/"))


def mounts(kind: str) -> Iterator[tuple[str, str]]:
    """Where file systems of a kind are mounted in this process's mount namespace, and their options."""
    # The kernel escapes line feeds in names of folders, and no other character that str.splitlines() takes for an end.
    for line in filter(None, read(MOUNTS).split("\n")):
        _, place, found, options, *_ = line.split(" ")
        if found == kind:
            yield place.replace("\\040", " "), options  # a blank in a path is written as an octal escape


def container() -> str:
    """The kind of container that this process is in, as far as it shows: ``"docker"``; empty for none."""
    for path, kind in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        if os.path.exists(path):
            return kind
    if os.path.exists("/var/run/secrets/kubernetes.io"):
        return "kubernetes"
    return os.environ.get("container", "")  # noqa: SIM112  (systemd and podman spell it so)
