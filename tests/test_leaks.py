"""Nothing is left behind: a thousand rounds of load, attach and close, half of them failing on purpose at each step."""

from __future__ import annotations

import errno
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from thrift import few

import pybpf
from pybpf import syscall
from pybpf.syscall import watch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
ROUNDS = few(1000)


def ids(following: Callable[[int], int | None]) -> set[int]:
    found, number = set(), 0
    while (next_number := following(number)) is not None:
        number = next_number
        found.add(number)
    return found


def in_the_kernel() -> dict[str, set[int]]:
    return {
        "programs": ids(syscall.prog_get_next_id),
        "maps": ids(syscall.map_get_next_id),
        "links": ids(syscall.link_get_next_id),
        "btf": ids(syscall.btf_get_next_id),
    }


def in_the_process() -> dict[str, int]:
    gc.collect()
    with open("/proc/self/maps") as file:
        mappings = sum(" anon_inode:bpf" in line or " anon_inode:[perf" in line for line in file)
    return {"descriptors": len(os.listdir("/proc/self/fd")), "mappings": mappings}


class Fault:
    """Lets so many calls through; makes the next one fail, and every later one of its kind, so that no retry helps."""

    def __init__(self, at: int, number: int) -> None:
        self.left = at
        self.number = number
        self.hit = ""

    def before(self, call: watch.Call) -> int | None:
        self.left -= 1
        if self.left == -1:
            self.hit = call.command or call.name
        if self.left < 0 and self.hit == (call.command or call.name):
            return self.number
        return None

    def after(self, call: watch.Call) -> None:
        pass


class Counter:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before(self, call: watch.Call) -> int | None:
        self.calls.append(call.command or call.name)
        return None

    def after(self, call: watch.Call) -> None:
        pass


def one_round(spec: pybpf.ObjectSpec) -> None:
    with spec.load() as obj, obj.attach():
        assert obj.globals["dropped_events"] >= 0
        reader = obj.maps["events"].reader()
        reader.poll(0)
        reader.close()


def settle(before: dict[str, set[int]]) -> dict[str, set[int]]:
    """What is there now and was not before; the kernel frees after a grace period, so wait for it."""
    deadline = time.monotonic() + 20
    while True:
        left = {kind: now - before[kind] for kind, now in in_the_kernel().items()}
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["execsnoop", "opensnoop"])
def test_a_thousand_rounds_leave_nothing(name: str) -> None:
    ending = ".bpf.o" if os.sys.byteorder == "little" else ".eb.bpf.o"  # type: ignore[attr-defined]
    spec = pybpf.ObjectSpec.from_file(KERNELS / f"{name}{ending}")
    one_round(spec)  # fills the caches of immutable facts
    counter = Counter()
    watch.add_observer(counter)
    one_round(spec)
    watch.remove_observer(counter)
    steps = len(counter.calls)
    assert steps > 10

    kernel_before, process_before = in_the_kernel(), in_the_process()
    failed: dict[str, int] = {}
    rounds = max(ROUNDS // 2, 2 * steps)
    for number in range(rounds):
        if number % 2 == 0:
            one_round(spec)
            continue
        fault = Fault((number // 2) % steps, errno.ENOMEM if number % 4 == 1 else errno.EPERM)
        watch.add_observer(fault)
        try:
            one_round(spec)
        except (pybpf.BPFError, pybpf.ObjectError, OSError):
            failed[fault.hit] = failed.get(fault.hit, 0) + 1
        finally:
            watch.remove_observer(fault)
    assert in_the_process() == process_before
    assert not any(settle(kernel_before).values())
    # Only what can be done without does not end a round: the object's BTF, and the names of things.
    assert {"BPF_MAP_CREATE", "BPF_MAP_UPDATE_ELEM", "BPF_MAP_FREEZE", "BPF_PROG_LOAD", "mmap"} <= failed.keys()
    assert sum(failed.values()) > rounds // 4
