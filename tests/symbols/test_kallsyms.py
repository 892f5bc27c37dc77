"""The kernel's symbol table."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

import pytest

from pybpf.btf.kernel import vmlinux
from pybpf.errors import BPFNotFoundError, BPFPermissionError, BTFError
from pybpf.symbols import kallsyms
from pybpf.symbols.kallsyms import (
    functions,
    has_kernel_symbol,
    has_syscall_wrapper,
    kernel_addresses,
    syscall_function,
    wrapper_prefix,
)

TABLE = """\
ffffffff81000000 T _stext
ffffffff81000010 t twice
ffffffff81000020 T vfs_read
ffffffff81000030 t twice
ffffffff82000000 D vfs_read_data
ffffffff82000010 d data
ffffffffc0000000 t helper\t[module]
ffffffffc0000010 T vfs_read.cold\t[module]
"""


@pytest.fixture(scope="module", autouse=True)
def kernel_types() -> None:
    """The kernel's BTF, which the process keeps mapped, is mapped before a test counts descriptors."""
    with suppress(BTFError):
        vmlinux()


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "kallsyms"
    path.write_text(TABLE)
    return str(path)


def test_addresses(table: str) -> None:
    assert kernel_addresses(["vfs_read", "twice", "helper", "missing", "read", "vfs"], path=table) == {
        "vfs_read": (0xFFFFFFFF81000020,),
        "twice": (0xFFFFFFFF81000010, 0xFFFFFFFF81000030),
        "helper": (0xFFFFFFFFC0000000,),
    }


@pytest.mark.parametrize("size", [1, 7, 40, 64, 1000])
def test_lines_cut_between_pieces(table: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kallsyms, "CHUNK", size)
    assert kernel_addresses(["vfs_read", "helper"], path=table) == {
        "vfs_read": (0xFFFFFFFF81000020,),
        "helper": (0xFFFFFFFFC0000000,),
    }


def test_functions(table: str) -> None:
    assert list(functions(path=table)) == [
        ("_stext", 0xFFFFFFFF81000000),
        ("twice", 0xFFFFFFFF81000010),
        ("vfs_read", 0xFFFFFFFF81000020),
        ("twice", 0xFFFFFFFF81000030),
        ("helper", 0xFFFFFFFFC0000000),
        ("vfs_read.cold", 0xFFFFFFFFC0000010),
    ]


def test_hidden_addresses(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 T vfs_read\n")
    with pytest.raises(BPFPermissionError, match="kptr_restrict"):
        kernel_addresses(["vfs_read"], path=str(path))
    assert kernel_addresses(["missing"], path=str(path)) == {}
    assert has_kernel_symbol("vfs_read", path=str(path))
    assert not has_kernel_symbol("vfs", path=str(path))


def test_last_line_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("ffffffff81000000 T last")
    assert kernel_addresses(["last"], path=str(path)) == {"last": (0xFFFFFFFF81000000,)}


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(BPFNotFoundError, match="CONFIG_KALLSYMS"):
        kernel_addresses(["x"], path=str(tmp_path / "kallsyms"))


@pytest.mark.parametrize(
    ("machine", "prefix"),
    [
        ("x86_64", "x64"),
        ("i686", "ia32"),
        ("aarch64", "arm64"),
        ("armv7l", "arm"),
        ("s390x", "s390x"),
        ("riscv64", "riscv"),
        ("ppc64le", "powerpc"),
        ("mips64", "mips"),
        ("loongarch64", ""),
    ],
)
def test_wrapper_prefix(machine: str, prefix: str) -> None:
    assert wrapper_prefix(machine) == prefix


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_running_kernel() -> None:
    text = Path("/proc/kallsyms").read_text()
    expected = {int(line.split()[0], 16) for line in text.splitlines() if line.split()[2] == "vfs_read"}
    assert expected
    assert set(kernel_addresses(["vfs_read", "no_such_function"])["vfs_read"]) == expected
    wrapper = f"__{wrapper_prefix()}_sys_bpf"
    assert has_syscall_wrapper() == (f" {wrapper}\n" in text)
    assert has_kernel_symbol(syscall_function("openat"))


@pytest.mark.kernel
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64", "s390x"), reason="not known of this machine")
def test_wrappers_of_well_known_machines() -> None:
    """x86-64 since Linux 4.17, arm64 and s390x since 4.19."""
    assert has_syscall_wrapper()
