"""Attaching a program by what its section says: ``SEC("tp/sched/sched_process_exec")`` needs nothing more.

The table of sections (`pybpf.elf.sections`) names a routine for each kind that can be attached so; the routines are
here, and only read the rest of the section's name. Everything else is done by the module of that way of attaching.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf.links.base import Attachable, Link

    Routine = Callable[[Attachable, str, str, dict[str, Any]], Link]

_CGROUP = "cgroup programs need a cgroup: use program.attach_cgroup(path)"
_RAW = "raw_tp programs need a tracepoint: use program.attach_raw_tracepoint(name)"
_TUNNEL = "lwt programs need a route: use program.attach_lwt(destination, interface)"

METHODS: dict[int, str] = {
    c.BPF_PROG_TYPE_SOCKET_FILTER: "socket filters need a socket: use program.attach_socket_filter(socket)",
    c.BPF_PROG_TYPE_KPROBE: "kprobe programs need a place: use program.attach_kprobe(), attach_uprobe(), attach_usdt()",
    c.BPF_PROG_TYPE_SCHED_CLS: "tc programs need an interface: use program.attach_tcx(interface) or attach_netkit()",
    c.BPF_PROG_TYPE_SCHED_ACT: "tc actions are attached with tc(8): pin the program and name it there",
    c.BPF_PROG_TYPE_TRACEPOINT: "tracepoint programs need a tracepoint: use program.attach_tracepoint(category, name)",
    c.BPF_PROG_TYPE_XDP: "xdp programs need an interface: use program.attach_xdp(interface)",
    c.BPF_PROG_TYPE_PERF_EVENT: "perf_event programs need an event: use program.attach_perf_event(event, frequency=99)",
    c.BPF_PROG_TYPE_CGROUP_SKB: _CGROUP,
    c.BPF_PROG_TYPE_CGROUP_SOCK: _CGROUP,
    c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR: _CGROUP,
    c.BPF_PROG_TYPE_CGROUP_DEVICE: _CGROUP,
    c.BPF_PROG_TYPE_CGROUP_SYSCTL: _CGROUP,
    c.BPF_PROG_TYPE_CGROUP_SOCKOPT: _CGROUP,
    c.BPF_PROG_TYPE_SOCK_OPS: _CGROUP,
    c.BPF_PROG_TYPE_LSM: "lsm_cgroup programs need a cgroup: use program.attach_cgroup(path)",
    c.BPF_PROG_TYPE_LWT_IN: _TUNNEL,
    c.BPF_PROG_TYPE_LWT_OUT: _TUNNEL,
    c.BPF_PROG_TYPE_LWT_XMIT: _TUNNEL,
    c.BPF_PROG_TYPE_LWT_SEG6LOCAL: _TUNNEL,
    c.BPF_PROG_TYPE_SK_SKB: "sk_skb programs need a sockmap: use program.attach_sockmap(map)",
    c.BPF_PROG_TYPE_SK_MSG: "sk_msg programs need a sockmap: use program.attach_sockmap(map)",
    c.BPF_PROG_TYPE_LIRC_MODE2: "lirc_mode2 programs need a receiver: use program.attach_lirc(device)",
    c.BPF_PROG_TYPE_RAW_TRACEPOINT: _RAW,
    c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE: _RAW,
    c.BPF_PROG_TYPE_FLOW_DISSECTOR: "flow dissectors need a network namespace: use program.attach_netns(namespace)",
    c.BPF_PROG_TYPE_SK_LOOKUP: "sk_lookup programs need a network namespace: use program.attach_netns(namespace)",
    c.BPF_PROG_TYPE_SK_REUSEPORT: "sk_reuseport programs need a socket: use program.attach_reuseport(socket)",
    c.BPF_PROG_TYPE_NETFILTER: "netfilter programs need a hook: use program.attach_netfilter(hook)",
    c.BPF_PROG_TYPE_STRUCT_OPS: "struct_ops programs are attached through their map: obj.maps[name].attach()",
    c.BPF_PROG_TYPE_SYSCALL: "syscall programs are not attached: use program.test_run()",
}
"""Program type: what to do when the section does not say where to attach."""


def auto_attaches(program: Attachable) -> bool:
    """Whether `attach` needs nothing but the program: its section names a target, and a routine knows it."""
    routine, target = _routine_of(program)
    return bool(routine) and (bool(target) or routine in TARGET_AT_LOAD)


def attach(program: Attachable, **options: Any) -> Link:
    """Attaches a program as its section says.

    Args:
        program: a program whose spec has a section.
        **options: given on to the attach function of that kind, for example ``cookie=1`` or ``pid=4711``.

    Raises:
        ObjectError: the section does not say where to attach; the message names the method that does.
        BPFError: the kernel refused; see the attach function of that kind.
    """
    section = program.spec.section if program.spec is not None else ""
    routine, target = _routine_of(program)
    if not routine or (not target and routine not in TARGET_AT_LOAD):
        method = METHODS.get(program.type_number, f"programs of type {program.type_number} are not attached by section")
        where = f" (section {section!r})" if section else ""
        raise ObjectError(f"program {program.name!r}{where} cannot be attached without a target: {method}")
    return ROUTINES[routine](program, section.partition("/")[0], target, options)


def _routine_of(program: Attachable) -> tuple[str, str]:
    """The routine's name (empty for none), and the target: the section's text after the first slash, unless changed."""
    if program.spec is None or program.spec.section_definition is None:
        return "", ""
    return program.spec.section_definition.attach or "", program.spec.attach_target


def _tracepoint(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.tracepoint import attach_tracepoint

    category, _, name = target.partition("/")
    if not category or not name:
        raise _malformed(program, prefix, target, "<category>/<name>")
    return attach_tracepoint(program, category, name, **options)


def _raw_tracepoint(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.raw_tracepoint import attach_raw_tracepoint

    return attach_raw_tracepoint(program, target, **options)


def _trace(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.trace import attach_freplace, attach_trace

    if program.type_number == c.BPF_PROG_TYPE_EXT:
        return attach_freplace(program, **options)
    return attach_trace(program, **options)


def _iter(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.iter import attach_iter

    return attach_iter(program, **options)


def _kprobe(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.kprobe import attach_kprobe, attach_kretprobe

    function, plus, text = target.partition("+")
    offset = parse_number(text) if plus else 0
    if not _is_function(function) or offset is None or offset < 0:
        raise _malformed(program, prefix, target, "<function>[+<offset>]")
    if prefix == "kretprobe":
        if offset:
            raise _malformed(program, prefix, target, "<function>, without an offset")
        return attach_kretprobe(program, function, **options)
    return attach_kprobe(program, function, offset=offset, **options)


def _ksyscall(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.kprobe import attach_kretsyscall, attach_ksyscall

    if not _is_function(target):
        raise _malformed(program, prefix, target, "<system call>")
    return (attach_kretsyscall if prefix == "kretsyscall" else attach_ksyscall)(program, target, **options)


def _kprobe_multi(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.kprobe_multi import attach_kprobe_multi

    if not _is_function(target.replace("*", "_").replace("?", "_")):
        raise _malformed(program, prefix, target, "<pattern>")
    return attach_kprobe_multi(program, target, retprobe=prefix == "kretprobe.multi", **options)


def _uprobe(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.uprobe import attach_uprobe, attach_uretprobe

    path, _, function = target.partition(":")
    symbol, plus, text = function.rpartition("+")
    offset = parse_number(text) if plus else None
    if offset is None or offset < 0:
        symbol, offset = function, 0
    if not path or not symbol:
        raise _malformed(program, prefix, target, "<path>:<function>[+<offset>]")
    if prefix.startswith("uretprobe"):
        if offset:
            raise _malformed(program, prefix, target, "<path>:<function>, without an offset")
        return attach_uretprobe(program, path, symbol, **options)
    return attach_uprobe(program, path, symbol, offset=offset, **options)


def _uprobe_multi(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.uprobe_multi import attach_uprobe_multi

    path, _, pattern = target.partition(":")
    if not path or not pattern:
        raise _malformed(program, prefix, target, "<path>:<pattern>")
    return attach_uprobe_multi(program, path, pattern, retprobe=prefix.startswith("uretprobe"), **options)


def _usdt(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.usdt import attach_usdt

    path, provider, name = (*target.split(":"), "", "", "")[:3]
    if target.count(":") != 2 or not path or not provider or not name:
        raise _malformed(program, prefix, target, "<path>:<provider>:<name>")
    return attach_usdt(program, path, provider, name, **options)


def _tracing_multi(program: Attachable, prefix: str, target: str, options: dict[str, Any]) -> Link:
    from pybpf.links.tracing_multi import attach_tracing_multi

    if not _is_function(target.replace("*", "_").replace("?", "_").replace(":", "_")):
        raise _malformed(program, prefix, target, "[<module>:]<pattern>")
    return attach_tracing_multi(program, target, **options)


ROUTINES: dict[str, Routine] = {
    "tracepoint": _tracepoint,
    "raw_tracepoint": _raw_tracepoint,
    "trace": _trace,
    "lsm": _trace,
    "iter": _iter,
    "kprobe": _kprobe,
    "ksyscall": _ksyscall,
    "kprobe_multi": _kprobe_multi,
    "kprobe_session": _kprobe_multi,
    "uprobe": _uprobe,
    "uprobe_multi": _uprobe_multi,
    "usdt": _usdt,
    "tracing_multi": _tracing_multi,
}
"""Routine name in the table of sections, and what it does with the section's target."""

TARGET_AT_LOAD = frozenset({"trace", "lsm", "iter"})
"""Routines of programs whose target was fixed at load: the section need not name it."""


def parse_number(text: str) -> int | None:
    """A number as strtol(3) with base 0 reads it: decimal, 0x hexadecimal, 0 octal; None if it is none."""
    digits = text.removeprefix("-")
    try:
        if len(digits) > 1 and digits[0] == "0" and digits.isdigit():
            return int(text, 8)
        return int(text, 0) if digits[:1].isdigit() and "_" not in text else None
    except ValueError:
        return None


def _is_function(text: str) -> bool:
    """Whether a text is made of the characters of kernel function names."""
    return bool(text) and text.isascii() and text.replace("_", "a").replace(".", "a").isalnum()


def _malformed(program: Attachable, prefix: str, target: str, form: str) -> ObjectError:
    return ObjectError(f"program {program.name!r}: section '{prefix}/{target}' is not of the form '{prefix}/{form}'")
