"""The running kernel accepts what the builder, the editor and sanitising write, and gives the same types back."""

from __future__ import annotations

import os
import sys

import pytest
from btf_samples import every_kind, fill_with_every_kind

from pybpf import syscall
from pybpf.btf import kinds
from pybpf.btf.kinds import Member
from pybpf.btf.reader import BTF
from pybpf.btf.writer import FEATURES, BTFBuilder, BTFEditor, sanitise
from pybpf.errors import BPFError

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="BPF_BTF_LOAD needs root"),
]

NATIVE = sys.byteorder


def missing() -> frozenset[str]:
    """The features that this kernel lacks, asked with one load for each."""
    from pybpf.probe.btf import missing_btf_kinds

    return missing_btf_kinds()


def load(data: bytes) -> bytes:
    """Load BTF and return what the kernel has of it; a refusal shows the kernel's log."""
    log = bytearray(65536)
    try:
        fd = syscall.btf_load(data, log_level=1, log_buffer=log)
    except BPFError:
        pytest.fail(log.rstrip(b"\0").decode())
    with fd:
        return syscall.btf_info(fd, data=True).data


def test_every_kind_is_accepted() -> None:
    data = sanitise(every_kind(NATIVE), missing())
    assert load(data) == data


@pytest.mark.parametrize("feature", sorted(FEATURES - {"func"}))
def test_sanitised_btf_is_accepted(feature: str) -> None:
    """Except without functions: a prototype as an enum needs names that prototypes of old kernels did not have."""
    data = sanitise(every_kind(NATIVE), missing() | {feature})
    assert load(data) == data


def test_an_edited_data_section_is_accepted() -> None:
    builder = BTFBuilder()
    number = builder.add_int("int", 4)
    first = builder.add_var("first", number)
    builder.add_datasec(".bss", 0, [(first, 0, 0)])
    btf = BTF.from_bytes(builder.to_bytes())
    with pytest.raises(BPFError):
        syscall.btf_load(bytes(btf.data)).close()
    editor = BTFEditor(btf)
    second = editor.add_var("second", number)
    editor.set_datasec(3, 8, [(first, 0, 4), (second, 4, 4)])
    data = sanitise(editor.to_bytes(), missing())
    assert load(data) == data


def test_bit_fields_are_accepted() -> None:
    builder = BTFBuilder()
    number = builder.add_int("int", 4)
    builder.add_struct("s", 8, [Member("a", number, 0, 3), Member("b", number, 3, 29), Member("c", number, 32)])
    data = builder.to_bytes()
    assert load(data) == data


def test_the_kernel_checks_what_the_builder_does_not() -> None:
    builder = BTFBuilder()
    number = builder.add_int("int", 4)
    builder.add_struct("s", 4, [Member("a", number, 32)])
    log = bytearray(4096)
    with pytest.raises(BPFError):
        syscall.btf_load(builder.to_bytes(), log_level=1, log_buffer=log).close()
    assert b"STRUCT s" in log


def test_ids_agree_with_the_kernel() -> None:
    builder = BTFBuilder()
    ids = fill_with_every_kind(builder)
    btf = BTF.from_bytes(load(sanitise(builder.to_bytes(), missing())))
    assert btf.find("event").id == ids["struct"]
    assert btf.find("handler", btf.kind_of(ids["func"])).id == ids["func"]
    assert btf.kind_of(ids["struct"]) == kinds.KIND_STRUCT
