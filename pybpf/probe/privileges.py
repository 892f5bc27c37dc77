"""Why bpf(2) was refused with EPERM or EACCES: a sentence for the error's hint.

Rules:

* Nothing is tried here: only files under /proc and /sys are read, and only after a refusal.
* A hint names the thing to change. When nothing is found it is empty: no guess.

Source: kernel/bpf/syscall.c (bpf_prog_load, map_create), capabilities(7), kernel_lockdown(7).
"""

from __future__ import annotations

import os

from pybpf.probe.system import read, status

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39

NAMES = {
    CAP_NET_ADMIN: "CAP_NET_ADMIN",
    CAP_SYS_ADMIN: "CAP_SYS_ADMIN",
    CAP_PERFMON: "CAP_PERFMON",
    CAP_BPF: "CAP_BPF",
}
WHOLE_RANGE = ["0", "0", "4294967295"]
"""/proc/self/uid_map of the first user namespace (user_namespaces(7))."""


def effective_capabilities() -> int:
    """The effective capability set of this process as a bit mask (CapEff of proc_pid_status(5))."""
    return int(status("CapEff") or "0", 16)


def has_capability(number: int) -> bool:
    """True when this process has the capability, or CAP_SYS_ADMIN, which bpf(2) takes in its place."""
    mask = effective_capabilities()
    return bool(mask >> number & 1 or mask >> CAP_SYS_ADMIN & 1)


def is_in_user_namespace() -> bool:
    """True when this process is in a user namespace of its own, whose capabilities bpf(2) does not count."""
    return read("/proc/self/uid_map").split() not in ([], WHOLE_RANGE)


def lockdown_mode() -> str:
    """``none``, ``integrity`` or ``confidentiality``; an empty string on a kernel without lockdown."""
    text = read("/sys/kernel/security/lockdown")
    return text.partition("[")[2].partition("]")[0]


def permission_hint(*, needs: int = CAP_BPF) -> str:
    """What keeps this process from using bpf(2), or an empty string."""
    if not has_capability(needs):
        if os.geteuid() != 0:
            return "Run it as root, or give the process CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
        return (
            f"This process is root without {NAMES[needs]} (a container?): "
            "it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
        )
    if is_in_user_namespace():
        return "This process is in a user namespace (a rootless container?): there BPF takes a BPF token"
    mode = lockdown_mode()
    if mode == "confidentiality":
        return "The kernel is locked down (confidentiality), which forbids reading kernel memory from BPF"
    return ""
