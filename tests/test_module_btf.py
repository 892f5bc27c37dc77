"""Types of modules: they are found, and a module whose types are broken blocks nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf.btf import kernel
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import BPF_TRACE_FENTRY
from pybpf.loading.externs import resolve_ksyms
from pybpf.loading.kernel_btf import find_attach_target, kernel_btfs

pytestmark = pytest.mark.skipif(not os.path.exists("/sys/kernel/btf/vmlinux"), reason="the kernel has no BTF")

SOURCE = """
#include "bpf_min.h"
struct only_in_a_module { int pad; int field; } __attribute__((preserve_access_index));
struct nowhere { int field; } __attribute__((preserve_access_index));
#define EXISTS(type) __builtin_preserve_type_info(*(type *)0, 0)

extern int function_of_a_module(int) __ksym __weak;
extern int function_of_nothing(int) __ksym __weak;

SEC("socket") int asks(void *c)
{
	return EXISTS(struct only_in_a_module) + 2 * EXISTS(struct nowhere);
}

SEC("?socket") int reads(struct only_in_a_module *c)
{
	return c->field;
}

SEC("?socket") int calls(void *c)
{
	return (function_of_a_module ? function_of_a_module(1) : 5) + (function_of_nothing ? function_of_nothing(1) : 6);
}
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("modules")).compile_text("modules.c", SOURCE)


def good_module() -> bytes:
    """A struct with the field at offset 8, and a function."""
    base = kernel.vmlinux()
    builder = BTFBuilder(base=base)
    number = base.find("int").id
    builder.add_struct("only_in_a_module", 12, [("field", number, 64)])
    builder.add_func("function_of_a_module", builder.add_func_proto(number, [("number", number)]))
    return builder.to_bytes()


def bad_modules() -> dict[str, bytes]:
    good = good_module()
    wrong_name = bytearray(good)
    wrong_name[24:28] = (0x7FFFFFFF).to_bytes(4, "little")  # the first type's name is nowhere in the strings
    wrong_kind = bytearray(good)
    wrong_kind[28:32] = (0x1F << 24).to_bytes(4, "little")
    return {
        "aa_empty": b"",
        "bb_garbage": b"not type information at all",
        "cc_cut": good[: len(good) // 2],
        "dd_name": bytes(wrong_name),
        "ee_kind": bytes(wrong_kind),
    }


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The running kernel's types, and modules of which one is good."""
    kernel.vmlinux()
    folder = tmp_path / "btf"
    folder.mkdir()
    for name, data in {**bad_modules(), "mm_good": good_module()}.items():
        (folder / name).write_bytes(data)
    (folder / "vmlinux").symlink_to("/sys/kernel/btf/vmlinux")
    monkeypatch.setattr(kernel, "SYSFS", str(folder))
    yield sorted(bad_modules())


def test_broken_modules_are_left_out(modules: list[str]) -> None:
    assert [btf.name for btf in kernel.modules()] == ["mm_good"]
    assert [btf.name for btf in kernel_btfs()] == ["vmlinux", "mm_good"]
    for name in modules:
        with pytest.raises(pybpf.BTFError, match=name):
            kernel.module(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_a_load_finds_types_beside_broken_ones(path: Path, modules: list[str]) -> None:
    with pybpf.load(path) as obj:
        assert obj.programs["asks"].test_run(bytes(64)).retval == 1


@pytest.mark.usefixtures("modules")
def test_relocations_find_fields_of_modules(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.programs["reads"].autoload = True
    [row] = [row for row in spec.relocate().rows if row.function == "reads"]
    assert (row.outcome, row.value, row.module) == ("value", 8, "mm_good")


@pytest.mark.usefixtures("modules")
def test_kernel_functions_of_modules_are_found(path: Path) -> None:
    found = resolve_ksyms(pybpf.ObjectSpec.from_file(path), kernel.vmlinux, kernel.modules)
    function, nothing = found["function_of_a_module"], found["function_of_nothing"]
    assert (function.found, function.module) == (True, "mm_good")
    assert function.type_id >= len(kernel.vmlinux())
    assert not nothing.found


@pytest.mark.usefixtures("modules")
def test_attach_targets_in_modules_are_found() -> None:
    for target in ("function_of_a_module", "mm_good:function_of_a_module"):
        type_id, module = find_attach_target(target, BPF_TRACE_FENTRY)
        assert module == "mm_good"
        assert kernel.module(module).name_of(type_id) == "function_of_a_module"
    with pytest.raises(pybpf.ObjectError, match="has no function_of_nothing"):
        find_attach_target("function_of_nothing", BPF_TRACE_FENTRY)


@pytest.mark.usefixtures("modules")
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_what_only_a_file_has_cannot_be_called(path: Path) -> None:
    """The kernel itself knows no such module, so its descriptor cannot be had: that ends the load, and says why."""
    spec = pybpf.ObjectSpec.from_file(path)
    spec.programs["calls"].autoload = True
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(pybpf.ObjectError, match="the kernel has no BTF of a module named 'mm_good'"):
        spec.load()
    assert len(os.listdir("/proc/self/fd")) == before
