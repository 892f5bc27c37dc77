"""What descriptors are: ``map "events" (ringbuf)``, ``program "on_exec" (tracepoint)``, ``/sys/fs/cgroup/x``."""

from __future__ import annotations

import os

from pybpf import constants as c
from pybpf.errors import BPFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall import Call

_KINDS = {
    "anon_inode:bpf-map": "map",
    "anon_inode:bpf-prog": "program",
    "anon_inode:bpf_link": "link",
    "anon_inode:bpf-link": "link",
    "anon_inode:btf": "BTF",
    "anon_inode:[perf_event]": "perf event",
    "anon_inode:bpf_iter": "iterator",
    "anon_inode:bpf-stats": "statistics",
    "anon_inode:bpf_token": "token",
}
"""What /proc/self/fd shows -> what it is."""


class Descriptors:
    """Knows what descriptors of this process are: the kernel is asked, and what it does not tell is remembered.

    Args:
        invented: the descriptors stand for objects that do not exist (a dry run): only what is remembered counts.
    """

    def __init__(self, invented: bool = False) -> None:
        self._invented = invented
        self._learned: dict[int, str] = {}

    def learn(self, call: Call, made: int) -> str:
        """Remember what a call has made; what it is, in words."""
        words = _made_by(call)
        if words:
            self._learned[made] = words
        return words

    def describe(self, fd: int) -> str:
        """What a descriptor is; "" when nobody knows."""
        learned = self._learned.get(fd, "")
        if self._invented and learned:
            return learned
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            return learned
        kind = _KINDS.get(target)
        if kind is None:
            return learned if target.startswith("/memfd:") else target
        if kind in ("map", "program", "link"):
            return _asked(kind, fd) or kind
        return learned if learned.startswith(kind) else kind


def _asked(kind: str, fd: int) -> str:
    """What the kernel says of a map, program or link."""
    from pybpf import syscall

    try:
        if kind == "map":
            info = syscall.map_info(fd)
            return f'map "{info.name}" ({type_word(c.MAP_TYPE_NAMES, info.type)})'
        if kind == "program":
            program = syscall.prog_info(fd)
            return f'program "{program.name}" ({type_word(c.PROG_TYPE_NAMES, program.type)})'
        return f"link ({type_word(c.LINK_TYPE_NAMES, syscall.link_info(fd).type)})"
    except BPFError:
        return ""


def _made_by(call: Call) -> str:
    """What a call that succeeded has made."""
    fields = {name: value for name, value in call.fields().items() if not isinstance(value, bytes)}
    command = call.command
    if command == "BPF_MAP_CREATE":
        return f'map "{fields["map_name"]}" ({type_word(c.MAP_TYPE_NAMES, fields["map_type"])})'
    if command == "BPF_PROG_LOAD":
        return f'program "{fields["prog_name"]}" ({type_word(c.PROG_TYPE_NAMES, fields["prog_type"])})'
    if command == "BPF_BTF_LOAD":
        return f"BTF ({fields['btf_size']} bytes)"
    if command == "BPF_LINK_CREATE":
        return f"link ({type_word(c.ATTACH_TYPE_NAMES, fields['attach_type'])})"
    if command == "BPF_RAW_TRACEPOINT_OPEN":
        name = memory_text(call, "name")
        return f'link (raw tracepoint "{name}")' if name else "link (to what the program was loaded for)"
    if command == "BPF_OBJ_GET":
        return f"what is pinned at {memory_text(call, 'pathname')}"
    simple = {"BPF_ITER_CREATE": "iterator", "BPF_ENABLE_STATS": "statistics", "BPF_TOKEN_CREATE": "token"}
    if command in simple:
        return simple[command]
    if call.name == "perf_event_open":
        return f"perf event ({perf_event_word(int(fields['type']), int(fields['config']))})"
    return "netlink socket" if call.name == "socket" else ""


def memory_text(call: Call, field: str) -> str:
    """The string that a field points to; "" without one."""
    data = call.buffers.get(field)
    return "" if data is None else bytes(data).partition(b"\0")[0].decode("utf-8", "backslashreplace")


def type_word(names: tuple[str | None, ...], number: object) -> str:
    """``27`` gives ``ringbuf``; one that has no name gives its digits."""
    found = names[number] if isinstance(number, int) and 0 <= number < len(names) else None
    return found or str(number)


def perf_event_word(type_number: int, config: int) -> str:
    """What a perf event is of: ``syscalls/sys_enter_openat``, ``PERF_COUNT_SW_CPU_CLOCK``, ``type 9, config 1``."""
    if type_number == c.PERF_TYPE_TRACEPOINT:
        return trace_events().get(config, f"tracepoint {config}")
    prefix = {c.PERF_TYPE_SOFTWARE: "PERF_COUNT_SW_", c.PERF_TYPE_HARDWARE: "PERF_COUNT_HW_"}.get(type_number, "-")
    return constant(prefix, config) or f"type {type_number}, config {config}"


_trace_events: dict[int, str] = {}


def trace_events() -> dict[int, str]:
    """The trace events of this kernel: id -> ``syscalls/sys_enter_openat``; empty where tracefs is closed to us."""
    if not _trace_events:
        from glob import glob

        from pybpf import tracefs

        try:
            root = f"{tracefs.root()}/events/"
        except BPFError:
            return {}
        for path in glob(f"{root}*/*/id"):
            try:
                with open(path) as file:
                    _trace_events[int(file.read())] = path.removeprefix(root).removesuffix("/id")
            except (OSError, ValueError):
                continue
    return _trace_events


_constants: dict[str, dict[int, str]] = {}


def constant(prefix: str, value: int) -> str:
    """The name of a constant of `pybpf.constants` by its beginning and value; "" when there is none."""
    if prefix not in _constants:
        table: dict[int, str] = {}
        for name, number in vars(c).items():
            if name.startswith(prefix) and isinstance(number, int) and not name.endswith(("_MAX", "_DEPRECATED")):
                table.setdefault(number, name)
        _constants[prefix] = table
    return _constants[prefix].get(value, "")
