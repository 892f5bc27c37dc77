"""One object, one spec, the kernel's types: used by many threads at once.

These find most in free-threaded Python, where threads meet in the middle of a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from threads import run_all

import pybpf
from pybpf.btf import kernel
from pybpf.btf.reader import BTF
from pybpf.errors import ClosedError

HELLO = "hello.bpf.o" if sys.byteorder == "little" else "hello.eb.bpf.o"
OBJECT = Path(__file__).resolve().parent.parent / "kernels" / HELLO


def test_the_types_of_the_kernel() -> None:
    """A view of the kernel's BTF that two threads sliced at once was released for all, until the process ended."""
    if not Path(kernel.SYSFS, "vmlinux").exists():
        pytest.skip("the kernel has no BTF")
    names = ("task_struct", "sk_buff", "file", "inode", "sock", "net_device", "mm_struct", "super_block")
    kernel.store_index()

    def turn() -> None:
        for _ in range(300):
            btf = kernel.vmlinux()
            for name in names:
                found = btf.find(name)
                assert btf.size_of(found.id) > 0

    kernel.clear_cache()
    assert run_all(*[turn] * 4) == []


def test_the_members_of_types() -> None:
    if not Path(kernel.SYSFS, "vmlinux").exists():
        pytest.skip("the kernel has no BTF")
    data = Path(kernel.SYSFS, "vmlinux").read_bytes()
    for _ in range(5):
        btf = BTF.from_bytes(data)

        def turn(btf: BTF = btf) -> None:
            for id in range(1, 4000):
                for member in getattr(btf.type(id), "members", ()):
                    assert member.type_id

        assert run_all(*[turn] * 4) == []


def test_one_spec_loaded_by_all() -> None:
    spec = pybpf.ObjectSpec.from_file(OBJECT)

    def turn() -> None:
        for _ in range(40):
            with spec.load() as obj:
                assert obj.programs

    assert run_all(*[turn] * 4) == []


@pytest.mark.parametrize("action", ["read", "write"])
def test_closing_an_object_while_others_use_its_globals(action: str) -> None:
    uses: dict[str, Callable[[pybpf.Object], object]] = {
        "read": lambda obj: obj.globals.items(),
        "write": lambda obj: obj.globals.__setitem__("dropped_events", 5),
    }
    use = uses[action]
    spec = pybpf.ObjectSpec.from_file(OBJECT)
    for _ in range(15):
        obj = spec.load()

        def user(obj: pybpf.Object = obj) -> None:
            while True:
                use(obj)

        def closer(obj: pybpf.Object = obj) -> None:
            time.sleep(0.002)
            obj.close()

        raised = run_all(user, user, user, closer)
        assert [type(error) for error in raised] == [ClosedError] * 3, raised
