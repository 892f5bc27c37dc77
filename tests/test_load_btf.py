"""An object's type information in the kernel: what it refuses, and whether that matters."""

from __future__ import annotations

import os

import pytest

import pybpf
from pybpf.btf.writer import BTFBuilder
from pybpf.loading.btf import load_btf

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


def wrong() -> bytes:
    """A pointer to a type that is not there."""
    builder = BTFBuilder()
    builder.add_ptr(77)
    return builder.to_bytes()


def right() -> bytes:
    builder = BTFBuilder()
    builder.add_enum64("large", 8, False, [("one", 1 << 40)])  # kernels before 6.0 get something else
    builder.add_float("number", 8)
    return builder.to_bytes()


def test_what_is_right_is_loaded() -> None:
    for required in (True, False):
        fd = load_btf(right(), "object 'test'", required=required)
        assert fd is not None
        with fd:
            assert pybpf.syscall.btf_info(fd).btf_size > 0


def test_a_refusal_does_not_matter_when_only_types_are_lost() -> None:
    assert load_btf(wrong(), "object 'test'", required=False) is None


def test_a_refusal_that_matters_carries_the_kernels_log() -> None:
    with pytest.raises(pybpf.VerifierError) as caught:
        load_btf(wrong(), "object 'test'", required=True)
    error = caught.value
    assert error.command == "BPF_BTF_LOAD"
    assert error.what == "type information of object 'test'"
    assert "Invalid type_id" in error.reason or "77" in error.reason
    assert error.reason in error.log
    assert "type information of object 'test': BPF_BTF_LOAD: Invalid argument (EINVAL)" in str(error)
