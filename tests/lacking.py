"""Skips for what a kernel is too old for, or was built without."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pybpf.btf.kernel import vmlinux
from pybpf.btf.kinds import KIND_ENUM, KIND_FUNC
from pybpf.errors import BPFPermissionError, NotSupportedError, VerifierError

RELEASE = tuple(int("".join(filter(str.isdigit, part))) for part in os.uname().release.split(".")[:2])
"""The running kernel's: (6, 12)."""


def needs_enumerator(enum: str, name: str) -> None:
    """Skip the test where the kernel's own BTF does not have this value of an enum."""
    found = vmlinux().get(enum, KIND_ENUM)
    if found is None or not any(value[0] == name for value in found.values):
        pytest.skip(f"this kernel has no {name}")


def needs_function(name: str) -> None:
    """Skip the test where the kernel's own BTF has no function of this name."""
    if vmlinux().get(name, KIND_FUNC) is None:
        pytest.skip(f"this kernel has no {name}()")


def needs_linux(release: str, what: str) -> None:
    """Skip the test on older kernels, which do the same thing differently and have nothing else to tell them by."""
    if tuple(map(int, release.split("."))) > RELEASE:
        pytest.skip(f"{what} since Linux {release}, this is {os.uname().release}")


def has_jit() -> bool:
    """Whether the kernel compiles programs: Debian's s390x kernel was built without that."""
    path = Path("/proc/sys/net/core/bpf_jit_enable")
    return path.exists() and path.read_text().strip() != "0"


def needs_checksums() -> None:
    """Skip the test where the machine adds up checksums wrongly, as QEMU 7.2's s390x does: refusals are lost then."""
    with socket.socket() as unheard, socket.socket() as client:
        unheard.bind(("127.0.0.1", 0))
        client.settimeout(2)
        try:
            client.connect(unheard.getsockname())
        except ConnectionRefusedError:
            return
        except TimeoutError:
            pytest.skip("nobody refuses a connection here: checksums go wrong (InCsumErrors in /proc/net/snmp)")


@contextmanager
def trampolines_needed() -> Iterator[None]:
    """Load and attach what runs on a trampoline; skips where the kernel makes none or refuses them."""
    if not has_jit():
        pytest.skip("this kernel has no JIT, and so no trampolines")
    try:
        yield
    except VerifierError:
        raise
    except (BPFPermissionError, NotSupportedError) as error:
        pytest.skip(f"the kernel refuses programs on trampolines: {error}")


@contextmanager
def jit_needed() -> Iterator[None]:
    """Callbacks, functions of the kernel, arenas and exceptions need the JIT."""
    try:
        yield
    except VerifierError as error:
        if "JIT" not in error.log:
            raise
        pytest.skip(f"this kernel has no JIT: {error.reason}")
