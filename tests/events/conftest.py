"""Room for the tests' buffers on kernels that charge them to RLIMIT_MEMLOCK (before Linux 5.11)."""

from __future__ import annotations

import resource
from contextlib import suppress


def pytest_configure() -> None:
    with suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
