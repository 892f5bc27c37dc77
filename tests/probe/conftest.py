"""What the tests of probes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pybpf import probe


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Every test asks the kernel anew."""
    probe.forget()
    yield
    probe.forget()
