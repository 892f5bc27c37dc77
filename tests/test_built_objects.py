"""The objects that lie compiled in tests/objects/built are what their sources give."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_builder import COMPILERS, OBJECTS, TARGETS, ObjectBuilder, built_path

from pybpf import ObjectSpec

COMPILER = "clang-19"


def content(path: Path) -> tuple[object, ...]:
    spec = ObjectSpec.from_file(path)
    return (
        [function.facts() for function in spec.functions],
        [one.facts() for one in spec.maps.values()],
        [extern.facts() for extern in spec.externs.values()],
        [variable.facts() for variable in spec.variables.values()],
    )


@pytest.mark.parametrize("byte_order", TARGETS)
@pytest.mark.parametrize("source", [path.name for path in sorted(OBJECTS.glob("load_*"))])
def test_built_objects_are_up_to_date(source: str, byte_order: str, tmp_path: Path) -> None:
    if COMPILER not in COMPILERS:
        pytest.skip(f"they come from {COMPILER}, which is not here")
    fresh = ObjectBuilder(tmp_path)(source, byte_order=byte_order, compiler=COMPILER)
    assert content(built_path(source, byte_order)) == content(fresh), "run: python tests/object_builder.py"
