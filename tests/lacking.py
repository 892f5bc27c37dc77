"""Skips for what a kernel is too old for, or was built without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pybpf.btf.kernel import vmlinux
from pybpf.btf.kinds import KIND_ENUM, KIND_FUNC
from pybpf.errors import VerifierError


def needs_enumerator(enum: str, name: str) -> None:
    """Skip the test where the kernel's own BTF does not have this value of an enum."""
    found = vmlinux().get(enum, KIND_ENUM)
    if found is None or not any(value[0] == name for value in found.values):
        pytest.skip(f"this kernel has no {name}")


def needs_function(name: str) -> None:
    """Skip the test where the kernel's own BTF has no function of this name."""
    if vmlinux().get(name, KIND_FUNC) is None:
        pytest.skip(f"this kernel has no {name}()")


@contextmanager
def jit_needed() -> Iterator[None]:
    """Callbacks, functions of the kernel and exceptions need the JIT: Debian's s390x kernel was built without."""
    try:
        yield
    except VerifierError as error:
        if "JIT" not in error.log:
            raise
        pytest.skip(f"this kernel has no JIT: {error.reason}")
