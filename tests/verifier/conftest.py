"""What the verifier's tests share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("verifier"))


@pytest.fixture(scope="session")
def verdicts(build: ObjectBuilder) -> Path:
    """One program for each kind of rejection."""
    return build("load_verdicts.bpf.c", byte_order=sys.byteorder)
