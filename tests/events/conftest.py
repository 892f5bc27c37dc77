"""Room for the tests' buffers on kernels that charge them to RLIMIT_MEMLOCK (before Linux 5.11)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import suppress

import pytest
from affinity import on_cpu


def pytest_configure() -> None:
    with suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def one_cpu() -> Iterator[int]:
    """The CPU that this test, and every thread it starts, runs on."""
    cpu = min(os.sched_getaffinity(0))
    with on_cpu(cpu):
        yield cpu
