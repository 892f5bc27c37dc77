"""What the tests of maps share."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest
from map_helpers import Types


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="bpf(2) needs root"))


@pytest.fixture(scope="session", autouse=True)
def locked_memory() -> None:
    """Kernels before 5.11 charge maps against RLIMIT_MEMLOCK."""
    with suppress(ValueError):  # root without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture(scope="session")
def types() -> Types:
    return Types()
