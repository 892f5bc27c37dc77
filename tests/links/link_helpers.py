"""What the tests of links ask the kernel, and an observer that lets calls fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pybpf import links, syscall, tracefs
from pybpf.btf.kernel import vmlinux
from pybpf.btf.kinds import KIND_ENUM, KIND_FUNC, KIND_STRUCT, KIND_TYPEDEF
from pybpf.symbols.kallsyms import has_kernel_symbol


def attached() -> set[int]:
    """The ids of the system's links."""
    return {info.id for info in links.iter_links()}


def probe_events() -> str:
    """The probe events that tracefs has."""
    text = ""
    for name in ("kprobe_events", "uprobe_events"):
        path = Path(tracefs.root(), name)
        text += path.read_text() if path.exists() else ""
    return text


def perf_descriptors() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += "perf_event" in os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
    return count


def eventually(condition: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Waits for a condition: the kernel detaches some links a moment after their descriptor was closed."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def has_enumerator(enum: str, name: str) -> bool:
    """Whether the kernel knows a number, by its own BTF."""
    found = vmlinux().get(enum, KIND_ENUM)
    return found is not None and any(value[0] == name for value in found.values)


def has_member(struct: str, member: str) -> bool:
    """Whether a struct of the kernel has a member, by its own BTF."""
    found = vmlinux().get(struct, KIND_STRUCT)
    return found is not None and any(m.name == member for m in found.members)


def needs_attach_type(name: str) -> None:
    if not has_enumerator("bpf_attach_type", name):
        pytest.skip(f"the kernel has no {name}")


def needs_perf_link() -> None:
    if not has_enumerator("bpf_link_type", "BPF_LINK_TYPE_PERF_EVENT"):
        pytest.skip("the kernel has no perf links (Linux 5.15)")


def needs_fprobe() -> None:
    needs_attach_type("BPF_TRACE_KPROBE_MULTI")
    if not has_kernel_symbol("register_fprobe_ips"):
        pytest.skip("the kernel was built without fprobe")


def function_id(name: str) -> int:
    if name.startswith("bpf_lsm_") and vmlinux().get(name, KIND_FUNC) is None:
        pytest.skip("the kernel was built without the BPF LSM")
    return vmlinux().find(name, KIND_FUNC).id


def typedef_id(name: str) -> int:
    return vmlinux().find(name, KIND_TYPEDEF).id


class Refuse:
    """An observer that lets one kind of call fail. A context manager."""

    def __init__(self, command: str, errno: int, *, name: str = "bpf") -> None:
        self.command, self.errno, self.name = command, errno, name
        self.refused = 0

    def before(self, call: syscall.Call) -> int | None:
        if call.name == self.name and call.command == self.command:
            self.refused += 1
            return self.errno
        return None

    def after(self, call: syscall.Call) -> None:
        pass

    def __enter__(self) -> Refuse:
        syscall.add_observer(self)
        return self

    def __exit__(self, *_: object) -> None:
        syscall.remove_observer(self)
