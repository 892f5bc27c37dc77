"""Externs: what a program takes from the kernel."""

from __future__ import annotations

import pytest
from object_builder import ObjectBuilder

from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec

BEGIN = '#include "bpf_min.h"\n'
USE = '\n__u64 sink; SEC("socket") int use(void *c) { sink = (__u64)&x; return 0; }\n'


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_settings_have_a_place_and_a_kind(byte_order: str, build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_externs.bpf.c", byte_order=byte_order))
    settings = [one for one in spec.externs.values() if one.section == ".kconfig"]
    assert [(one.name, one.offset, one.size, one.kind, one.is_signed, one.is_weak) for one in settings] == [
        ("CONFIG_HZ", 0, 8, "int", False, True),
        ("CONFIG_WIDE", 8, 8, "int", False, True),
        ("CONFIG_NETFILTER", 16, 4, "tristate", False, True),
        ("LINUX_KERNEL_VERSION", 20, 4, "int", True, False),
        ("CONFIG_NARROW", 24, 2, "int", True, True),
        ("CONFIG_BPF_SYSCALL", 26, 1, "bool", False, False),
        ("CONFIG_LETTER", 27, 1, "char", True, True),
        ("CONFIG_DEFAULT_HOSTNAME", 28, 20, "string", False, True),
    ]
    one = spec.maps[".kconfig"]
    assert (one.value_size, one.is_internal, one.is_read_only, one.kernel_name) == (48, True, True, "elf_ext.kconfig")
    assert one.data == bytearray(48)


def test_kernel_symbols_have_a_type_or_none(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_externs.bpf.c"))
    assert spec.btf is not None
    symbols = {one.name: one for one in spec.externs.values() if one.section == ".ksyms"}
    assert list(symbols) == sorted(symbols)
    assert symbols["bpf_prog_active"].type_id == 0
    assert spec.btf.name_of(symbols["runqueues_missing"].type_id) == "int"
    assert [one.name for one in symbols.values() if one.is_function] == ["bpf_task_from_pid", "bpf_task_release"]
    assert spec.btf.name_of(symbols["bpf_task_release"].btf_id) == "bpf_task_release"


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("extern int x;", "extern 'x' is neither in .kconfig nor in .ksyms: it has to be linked"),
        ('extern int x __attribute__((section(".other")));', "extern 'x' is neither in .kconfig nor in .ksyms"),
        ("extern struct { int y; } x __kconfig;", "a setting must be bool, char"),
        ("extern __int128 x __kconfig;", "a setting must be bool, char"),
        ("extern int x[4] __kconfig;", "a setting must be bool, char"),
        ("extern enum colour { RED } x __kconfig;", "a setting must be bool, char"),
        ("extern int x(void) __kconfig;", "a function cannot be in .kconfig"),
    ],
)
def test_externs_that_the_kernel_cannot_provide_are_refused(
    declaration: str, message: str, build: ObjectBuilder
) -> None:
    with pytest.raises(ObjectError, match=message):
        ObjectSpec.from_file(build.compile_text("extern.bpf.c", BEGIN + declaration + USE))


def test_externs_need_type_information(build: ObjectBuilder) -> None:
    with pytest.raises(ObjectError, match="extern '.*': the file has no BTF that says what it is"):
        ObjectSpec.from_file(build("elf_externs.bpf.c", "-g0"))
