"""Why bpf(2) will not work here, and what to change: one check for each thing that can stand in the way.

Rules:

* A check asks the kernel where that is possible, and reads settings to explain the answer.
* Each finding has evidence, and if something is wrong, what to change. It is one of four:

| level | meaning |
|---|---|
| ok | nothing to do |
| note | worth knowing; this process is not hindered |
| limit | some kinds of programs will not work |
| problem | nothing, or next to nothing, will work |
"""

from __future__ import annotations

import errno
import os

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, errno_name
from pybpf.probe import system
from pybpf.probe.answer import Answer
from pybpf.probe.features import has_feature
from pybpf.probe.links import has_link_type
from pybpf.probe.maps import has_map_type
from pybpf.probe.privileges import (
    CAP_BPF,
    CAP_NET_ADMIN,
    CAP_PERFMON,
    CAP_SYS_ADMIN,
    NAMES,
    effective_capabilities,
    has_capability,
    is_in_user_namespace,
    lockdown_mode,
)
from pybpf.probe.programs import has_helper, has_program_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    Level = Literal["ok", "note", "limit", "problem"]

WANTED = (CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN)
FILTERED = "2"
"""The value of Seccomp in /proc/self/status when system calls pass a filter."""
BPFFS = "/sys/fs/bpf"
SECURITYFS = "mount -t securityfs securityfs /sys/kernel/security"
ROOT_NEEDED = "run it as root (sudo), or give the process CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
CONTAINER_NEEDED = (
    "let the container have them: docker or podman run --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN;"
    " Kubernetes: securityContext.capabilities.add; systemd: CapabilityBoundingSet= and AmbientCapabilities="
)
KERNEL_OPTIONS = {
    "CONFIG_BPF_SYSCALL": "bpf(2)",
    "CONFIG_BPF_JIT": "machine code, trampolines, kernel functions",
    "CONFIG_DEBUG_INFO_BTF": "CO-RE, fentry, LSM",
    "CONFIG_BPF_EVENTS": "programs at kprobes, uprobes and tracepoints",
    "CONFIG_FTRACE_SYSCALLS": "tracepoints of system calls",
    "CONFIG_KPROBE_EVENTS": "kprobes",
    "CONFIG_UPROBE_EVENTS": "uprobes, USDT",
    "CONFIG_FPROBE": "many kprobes at once",
    "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS": "fentry and fexit",
    "CONFIG_BPF_LSM": "LSM programs",
    "CONFIG_CGROUP_BPF": "programs of cgroups",
    "CONFIG_NET_CLS_BPF": "tc filters",
    "CONFIG_XDP_SOCKETS": "AF_XDP",
}


class Finding:
    """What one check found.

    Attributes:
        name: the check, a key of `CHECKS`.
        level: ``"ok"``, ``"note"``, ``"limit"`` or ``"problem"``.
        what: a sentence.
        evidence: what shows it: a call and its errno, a setting and its value.
        change: what to do about it; empty if nothing is wrong.
    """

    __slots__ = ("change", "evidence", "level", "name", "what")

    def __init__(self, level: Level, what: str, evidence: str = "", change: str = "") -> None:
        self.name = ""
        self.level = level
        self.what = what
        self.evidence = evidence
        self.change = change

    @property
    def is_fine(self) -> bool:
        """True for ok and note."""
        return self.level in ("ok", "note")

    def to_dict(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("name", "level", "what", "evidence", "change")}

    def __repr__(self) -> str:
        return f"<{self.level}: {self.name}: {self.what}>"


def _seccomp_text() -> str:
    return f"Seccomp: {system.status('Seccomp') or '?'} in /proc/self/status"


def _filter_change(call: str) -> str:
    return (
        f"allow {call} in the filter: docker and podman do so with the capabilities above,"
        f" or with --security-opt seccomp=PROFILE; systemd: SystemCallFilter={call}"
    )


def check_syscall() -> Finding:
    """Does bpf(2) reach the kernel? An attr of more than a page is refused with E2BIG before anything else."""
    from pybpf.syscall.door import bpf

    result = -bpf(c.BPF_MAP_CREATE, bytearray(2 * syscall.PAGE_SIZE))
    evidence = f"bpf(2) with too large an attr: {errno_name(result)}"
    if result == errno.E2BIG:
        return Finding("ok", "bpf(2) reaches the kernel", evidence)
    evidence += f"; {_seccomp_text()}"
    if system.status("Seccomp") == FILTERED:
        if result == errno.EPERM and not has_capability(CAP_BPF) and _unprivileged_disabled() != "0":
            # Linux before 5.19 looks at the setting before it looks at the size
            return Finding(
                "problem",
                "bpf(2) is refused, by a seccomp filter or for lack of CAP_BPF",
                evidence,
                f"{ROOT_NEEDED}, and {_filter_change('bpf')}",
            )
        return Finding("problem", "A seccomp filter keeps bpf(2) from the kernel", evidence, _filter_change("bpf"))
    if result == errno.ENOSYS:
        return Finding(
            "problem", "The kernel was built without bpf(2)", evidence, "use a kernel with CONFIG_BPF_SYSCALL=y"
        )
    return Finding("problem", "bpf(2) is refused to the unprivileged", evidence, ROOT_NEEDED)


def check_seccomp() -> Finding:
    """Is there a filter, and does perf_event_open(2) pass it? Flags that do not exist give EINVAL before all else."""
    mode = system.status("Seccomp")
    if mode in ("", "0"):
        return Finding("ok", "No seccomp filter", _seccomp_text())
    try:
        syscall.perf_event_open(c.PERF_TYPE_SOFTWARE, 0, flags=1 << 30).close()
        number = 0
    except BPFError as error:
        number = error.errno or 0
    evidence = f"{_seccomp_text()}, {system.status('Seccomp_filters') or '?'} filters"
    if number == errno.EINVAL:
        return Finding("note", "System calls pass a seccomp filter, and perf_event_open(2) gets through", evidence)
    return Finding(
        "limit",
        "A seccomp filter keeps perf_event_open(2) from the kernel: no kprobes, uprobes, tracepoints, perf buffers",
        f"{evidence}; perf_event_open(2) with flags that do not exist: {errno_name(number)}",
        _filter_change("perf_event_open"),
    )


def check_capabilities() -> Finding:
    """Which capabilities are missing, and which of this process's sets lost them?"""
    effective = effective_capabilities()
    sets = ", ".join(f"{name} {system.status(name)}" for name in ("CapEff", "CapPrm", "CapBnd"))
    missing = [number for number in WANTED if not has_capability(number)]
    if not missing:
        how = "CAP_SYS_ADMIN" if effective >> CAP_SYS_ADMIN & 1 else "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
        return Finding("ok", f"This process has {how}", sets)
    permitted, bounding = (int(system.status(name) or "0", 16) for name in ("CapPrm", "CapBnd"))
    names = ", ".join(NAMES[number] for number in missing)
    what = f"This process lacks {names}"
    if not all(bounding >> number & 1 for number in missing):
        where = system.container()
        what += ", which its bounding set does not allow" + (f": this is a {where} container" if where else "")
        change = CONTAINER_NEEDED
    elif all(permitted >> number & 1 for number in missing):
        change = "they are permitted and switched off: raise them, see capset(2)"
    else:
        change = ROOT_NEEDED
    if system.status("NoNewPrivs") == "1":
        change += ", when it is started: no_new_privs is set, so sudo and file capabilities have no effect here"
    return Finding("problem" if CAP_BPF in missing else "limit", what, sets, change)


def check_user_namespace() -> Finding:
    evidence = f"/proc/self/uid_map: {' '.join(system.read('/proc/self/uid_map').split())}"
    if not is_in_user_namespace():
        return Finding("ok", "This process is in the first user namespace", evidence)
    delegated = [options for place, options in system.mounts("bpf") if "delegate_" in options]
    if delegated:
        return Finding(
            "note", "This process is in a user namespace, with a token", f"{evidence}; {BPFFS}: {delegated[0]}"
        )
    return Finding(
        "problem",
        "This process is in a user namespace of its own, whose capabilities do not count for bpf(2)",
        evidence,
        "run it outside (a rootful container), or mount a BPF file system there that delegates rights"
        " (BPF token, Linux 6.9; mount options delegate_cmds and the like)",
    )


def _unprivileged_disabled() -> str:
    return system.sysctl("kernel.unprivileged_bpf_disabled")


def check_unprivileged() -> Finding:
    value = _unprivileged_disabled()
    evidence = f"kernel.unprivileged_bpf_disabled = {value or '?'}"
    if has_capability(CAP_BPF):
        return Finding("ok", "Settings for the unprivileged do not concern this process", evidence)
    if value == "0":
        return Finding(
            "limit", "Without CAP_BPF only socket filters and cgroup_skb programs can be loaded", evidence, ROOT_NEEDED
        )
    change = ROOT_NEEDED
    if value == "1":
        change += "; the setting stays until the next boot"
    if value == "2":
        change += "; or let everybody load socket filters: sysctl kernel.unprivileged_bpf_disabled=0"
    return Finding("problem", "The unprivileged may not use bpf(2)", evidence, change)


def check_load() -> Finding:
    """A map and a program, for real; what refuses them although nothing else was found is a security module."""
    answers: list[Answer] = [has_map_type("array"), has_program_type("socket_filter")]
    failed = [answer for answer in answers if not answer]
    if not failed:
        return Finding("ok", "Maps can be made and programs loaded", "BPF_MAP_CREATE, BPF_PROG_LOAD")
    evidence = "; ".join(f"{answer.command}: {answer.errno_name}" for answer in failed)
    privileged = has_capability(CAP_BPF) and not is_in_user_namespace()
    if privileged and failed[0].errno in (errno.EPERM, errno.EACCES) and check_syscall().level == "ok":
        modules = system.read("/sys/kernel/security/lsm") or "?"
        label = system.read("/proc/self/attr/current") or "?"
        return Finding(
            "problem",
            "A security module refuses bpf(2) to this process",
            f"{evidence}; modules: {modules}; label of this process: {label}",
            "look into the audit log (journalctl -k, ausearch -m avc), and allow bpf(2) in that module's policy",
        )
    return Finding("problem", "Neither maps nor programs are taken", evidence, "mend what else is found here")


def check_memlock() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    texts = ["unlimited" if limit == resource.RLIM_INFINITY else f"{limit // 1024} KiB" for limit in (soft, hard)]
    evidence = f"RLIMIT_MEMLOCK {texts[0]}, at most {texts[1]}"
    answer = has_feature("memcg_accounting")
    if answer:
        return Finding("ok", "BPF memory is charged to the cgroup, not to RLIMIT_MEMLOCK", evidence)
    if not answer.is_known:
        return Finding("note", "Which limit BPF memory is charged to cannot be told", f"{evidence}; {answer.evidence}")
    if soft == resource.RLIM_INFINITY or hard == resource.RLIM_INFINITY or has_capability(24):  # CAP_SYS_RESOURCE
        return Finding("note", "BPF memory is charged to RLIMIT_MEMLOCK (before Linux 5.11); pybpf lifts it", evidence)
    return Finding(
        "limit",
        "BPF memory is charged to RLIMIT_MEMLOCK (before Linux 5.11), which this process cannot lift",
        evidence,
        "ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1",
    )


def check_jit() -> Finding:
    settings = {name: system.sysctl(f"net.core.bpf_jit_{name}") for name in ("enable", "harden", "limit")}
    evidence = ", ".join(f"net.core.bpf_jit_{name} = {value or '?'}" for name, value in settings.items())
    answer = has_feature("jit")
    if not answer.is_known:
        return Finding("note", "Whether programs are compiled cannot be told", f"{evidence}; {answer.evidence}")
    if not answer:
        return Finding(
            "limit",
            "Programs are interpreted: slow, and without trampolines (fentry, LSM) and kernel functions",
            f"{evidence}; {answer.evidence}",
            "sysctl net.core.bpf_jit_enable=1; it takes a kernel with CONFIG_BPF_JIT",
        )
    if settings["harden"] == "2":
        return Finding(
            "note",
            "Constants of programs are blinded, those of root too: programs are slower and larger",
            evidence,
            "sysctl net.core.bpf_jit_harden=1 blinds those of the unprivileged only",
        )
    return Finding("ok", "Programs are compiled to machine code", evidence)


def check_btf() -> Finding:
    answer = has_feature("kernel_btf")
    if answer:
        return Finding("ok", "The kernel's types can be read", answer.evidence)
    return Finding(
        "problem" if answer.is_known else "limit",
        "The kernel's types cannot be read: no CO-RE, fentry, LSM, iterators",
        answer.evidence,
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y, or give pybpf.load() the types: btf='vmlinux.btf'",
    )


def check_lockdown() -> Finding:
    """Where the file is missing (securityfs is not mounted), a helper that reads kernel memory is asked for."""
    mode = lockdown_mode()
    evidence = f"/sys/kernel/security/lockdown: {mode or 'not there'}"
    reads = has_helper("tracepoint", "probe_read_kernel")
    if mode == "confidentiality" or (not mode and reads.verdict == "no"):
        return Finding(
            "limit",
            "The kernel is locked down: BPF may not read kernel memory",
            evidence,
            "boot with lockdown=integrity or without it; on many machines Secure Boot turns it on",
        )
    if mode == "integrity":
        what = "The kernel is locked down (integrity): bpf_probe_write_user() is refused, and parts of tracefs may be"
        return Finding("note", what, evidence)
    if mode == "none":
        return Finding("ok", "The kernel is not locked down", evidence)
    return Finding(
        "note",
        "Whether the kernel is locked down cannot be told" + (", but BPF may read kernel memory" if reads else ""),
        evidence,
        SECURITYFS,
    )


def check_lsm() -> Finding:
    """Programs of the LSM hooks run only if the module `bpf` is active."""
    modules = system.read("/sys/kernel/security/lsm")
    evidence = f"/sys/kernel/security/lsm: {modules or 'not there'}"
    if not modules:
        return Finding(
            "note",
            "Which security modules are active cannot be told",
            evidence,
            SECURITYFS,
        )
    if "bpf" in modules.split(","):
        return Finding("ok", "The BPF security module is active", evidence)
    change = f"boot with lsm={modules},bpf; it takes a kernel with CONFIG_BPF_LSM"
    return Finding("limit", "LSM programs do not run: the BPF security module is not active", evidence, change)


def check_bpffs() -> Finding:
    mount = f"mount -t bpf bpf {BPFFS}"
    places = [place for place, _ in system.mounts("bpf")]
    if not places:
        return Finding(
            "limit",
            "No BPF file system is mounted: nothing can be pinned, and there are no tokens",
            "/proc/self/mounts has no file system of type bpf",
            f"{mount}; docker: --mount type=bind,source={BPFFS},target={BPFFS}",
        )
    if not any(os.access(place, os.W_OK | os.X_OK) for place in places):
        what = "This process may not pin: the BPF file system is closed to it"
        return Finding("limit", what, f"{places[0]} is not writable", f"run it as root, or {mount} -o mode=1777")
    note = "" if BPFFS in places else f" (not at {BPFFS})"
    return Finding("ok", f"A BPF file system is mounted{note}", ", ".join(places))


def check_tracefs() -> Finding:
    from pybpf import tracefs

    try:
        place = tracefs.root()
        number = tracefs.event_id("sched", "sched_process_exec")
    except BPFError as error:
        evidence = f"{error.what}: {error.errno_name}"
        return Finding("limit", "Tracepoints cannot be used: tracefs is out of reach", evidence, error.hint)
    return Finding("ok", "tracefs is mounted", f"{place}; sched/sched_process_exec is event {number}")


def check_cgroup() -> Finding:
    places = [place for place, _ in system.mounts("cgroup2")]
    if places:
        return Finding("ok", "cgroup version 2 is mounted", ", ".join(places))
    return Finding(
        "limit",
        "Programs cannot be attached to cgroups: no file system of version 2 is mounted",
        "/proc/self/mounts has no file system of type cgroup2",
        "mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd.unified_cgroup_hierarchy=1)",
    )


def _perf_change(number: int) -> str:
    if number != errno.EACCES:
        return _filter_change("perf_event_open")
    if has_capability(CAP_PERFMON):  # Debian's kernels know one value more, which wants CAP_SYS_ADMIN
        return "sysctl kernel.perf_event_paranoid=2, or run it with CAP_SYS_ADMIN"
    return "give the process CAP_PERFMON, or sysctl kernel.perf_event_paranoid=-1"


def check_perf_events() -> Finding:
    """A perf event of every process on a CPU, as attachments make it."""
    paranoid = f"kernel.perf_event_paranoid = {system.sysctl('kernel.perf_event_paranoid') or '?'}"
    try:
        syscall.perf_event_open(c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_CLOCK).close()
    except BPFError as error:
        return Finding(
            "limit",
            "Perf events of the whole system are refused: no kprobes, uprobes, tracepoints, perf buffers",
            f"perf_event_open: {error.errno_name}; {paranoid}",
            _perf_change(error.errno or 0),
        )
    return Finding("ok", "Perf events can be opened", paranoid)


def _config_change(option: str) -> str:
    return f"use a kernel with {option}=y"


def check_kprobes() -> Finding:
    answer = has_feature("kprobes")
    if not answer:
        change = _config_change("CONFIG_KPROBE_EVENTS")
        return Finding("limit", "There are no kprobes", answer.evidence, f"{change}, or use fentry or tracepoints")
    if system.read("/sys/kernel/debug/kprobes/enabled") == "0":
        change = "echo 1 > /sys/kernel/debug/kprobes/enabled"
        return Finding("limit", "kprobes are switched off", "/sys/kernel/debug/kprobes/enabled: 0", change)
    return Finding("ok", "Programs can be attached to kernel functions by kprobes", answer.evidence)


def check_uprobes() -> Finding:
    answer = has_feature("uprobes")
    if answer:
        return Finding("ok", "Programs can be attached to functions of executables", answer.evidence)
    return Finding("limit", "There are no uprobes", answer.evidence, _config_change("CONFIG_UPROBE_EVENTS"))


def check_trampolines() -> Finding:
    """fentry on a function of the kernel that nothing calls, for real."""
    answer = has_link_type("tracing")
    enabled = system.sysctl("kernel.ftrace_enabled")
    evidence = f"{answer.evidence}; kernel.ftrace_enabled = {enabled or '?'}"
    if not has_program_type("socket_filter"):
        return Finding("note", "Whether trampolines can be made cannot be told: no program is taken", evidence)
    if answer:
        return Finding("ok", "fentry, fexit and LSM programs can be attached", evidence)
    what = "fentry, fexit, fmod_ret, LSM and freplace programs will not work: no trampoline is made for them"
    if enabled == "0":
        return Finding("limit", what, evidence, "sysctl kernel.ftrace_enabled=1")
    if answer.is_known:
        return Finding("limit", what, evidence, _config_change("CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"))
    if not (has_capability(CAP_BPF) and has_capability(CAP_PERFMON)):
        return Finding("limit", what, evidence, ROOT_NEEDED)
    return Finding(
        "limit", what, evidence, "use another kernel, or kprobes and tracepoints: this kernel's policy refuses it"
    )


def check_symbols() -> Finding:
    """Names and addresses of kernel functions."""
    from pybpf.symbols.kallsyms import kernel_addresses

    evidence = f"kernel.kptr_restrict = {system.sysctl('kernel.kptr_restrict') or '?'}"
    try:
        kernel_addresses(["_stext", "_text"])
    except BPFError as error:
        return Finding(
            "limit",
            "The addresses of kernel functions are hidden: stacks cannot be named, kprobes have no addresses",
            f"{evidence}; {error.errno_name}",
            "give the process CAP_SYSLOG, or sysctl kernel.kptr_restrict=0",
        )
    return Finding("ok", "The kernel's symbols can be read", evidence)


def check_kernel_config() -> Finding:
    from pybpf.loading.externs import config_values

    found = config_values(set(KERNEL_OPTIONS), None)
    if not found:
        places = f"/boot/config-{os.uname().release}, /proc/config.gz"
        return Finding("note", "The kernel's configuration cannot be read", f"neither of {places}")
    missing = [name for name in KERNEL_OPTIONS if found.get(name) not in ("y", "m")]
    if not missing:
        return Finding("ok", "The kernel is built with all that BPF needs", f"{len(KERNEL_OPTIONS)} options")
    what = "The kernel is built without " + "; ".join(f"{name} ({KERNEL_OPTIONS[name]})" for name in missing)
    return Finding("note", what, f"{len(found)} of {len(KERNEL_OPTIONS)} options are set")


CHECKS: dict[str, Callable[[], Finding]] = {
    "syscall": check_syscall,
    "seccomp": check_seccomp,
    "capabilities": check_capabilities,
    "user_namespace": check_user_namespace,
    "unprivileged": check_unprivileged,
    "load": check_load,
    "memlock": check_memlock,
    "jit": check_jit,
    "btf": check_btf,
    "lockdown": check_lockdown,
    "lsm": check_lsm,
    "bpffs": check_bpffs,
    "tracefs": check_tracefs,
    "cgroup": check_cgroup,
    "perf_events": check_perf_events,
    "kprobes": check_kprobes,
    "uprobes": check_uprobes,
    "trampolines": check_trampolines,
    "symbols": check_symbols,
    "kernel_config": check_kernel_config,
}

OF_THE_KERNEL = frozenset(("jit", "btf", "lsm", "kprobes", "uprobes", "trampolines", "memlock"))
"""Checks whose findings a person with every privilege meets too."""


def examine(names: Sequence[str] = ()) -> list[Finding]:
    """Run the checks, in order.

    Args:
        names: only these; all when empty.

    Raises:
        ValueError: no check has this name.
    """
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"no check is called {name!r}: there are {', '.join(CHECKS)}")
    findings = []
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        finding = check()
        finding.name = name
        findings.append(finding)
    return findings
