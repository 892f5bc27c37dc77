"""What the tests of reading object files share."""

from __future__ import annotations

from pathlib import Path

import pytest
from libbpf_oracle import Oracle
from object_builder import ObjectBuilder


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    """Compiles sources of tests/objects."""
    return ObjectBuilder(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="session")
def linked(build: ObjectBuilder) -> Path:
    """Two objects linked into one: with a gap where a weak function was, and two static variables of one name."""
    return build.link("linked.o", build("elf_link_a.bpf.c"), build("elf_link_b.bpf.c"))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """What libbpf hands to the kernel for an object."""
    return Oracle(tmp_path_factory.mktemp("oracle"))
