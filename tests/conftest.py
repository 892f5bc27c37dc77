"""What every test shares: a leak is a failure, and tests that need the kernel say why they are skipped."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from thrift import EMULATED, few


def descriptors() -> dict[int, str]:
    """Every open descriptor of this process and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def left_open(before: dict[int, str]) -> dict[int, str]:
    """Descriptors of the kernel's objects that are open now and were not before."""
    return {fd: what for fd, what in descriptors().items() if before.get(fd) != what and what.startswith("anon_inode:")}


@pytest.fixture(autouse=True)
def no_leaked_descriptors(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test must close what it opens: BPF descriptors, and any other that it leaves behind."""
    if request.node.get_closest_marker("keeps_descriptors"):
        yield
        return
    before = descriptors()
    yield
    if left_open(before):
        gc.collect()  # what waits for the garbage collector is not kept by anybody
    left = left_open(before)
    assert not left, f"left open: {left}"


def pytest_configure(config: pytest.Config) -> None:
    if EMULATED:
        from hypothesis import HealthCheck, settings

        settings.register_profile(
            "emulated", max_examples=few(100), deadline=None, suppress_health_check=list(HealthCheck)
        )
        settings.load_profile("emulated")
    config.addinivalue_line("markers", "keeps_descriptors: the descriptors that this test leaves are counted by itself")
