"""CO-RE against invented kernels gives the instructions that libbpf gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from core_objects import CoreObject, build_object, build_oracle, libbpf_instructions
from core_worlds import World

from pybpf.asm import disassemble
from pybpf.btf.corespec import RELOCATION_NAMES
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import Relocator

SEEDS = (1, 2, 5, 6, 8, 10, 11, 13)
"""Worlds that clang 19 can compile."""


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_oracle(tmp_path_factory.mktemp("oracle") / "relocated")


def build_world(seed: int, folder: Path, byte_order: str) -> tuple[Path, Path]:
    """The program and the other kernel, compiled."""
    world = World(seed)
    (folder / "local.bpf.c").write_text(world.local)
    (folder / "target.c").write_text(world.target)
    local = build_object(folder / "local.bpf.c", folder / "local.o", byte_order)
    return local, build_object(folder / "target.c", folder / "target.o", byte_order)


@pytest.mark.kernel
@pytest.mark.parametrize("seed", SEEDS)
def test_random_types_give_the_instructions_of_libbpf(tmp_path: Path, oracle: Path, seed: int) -> None:
    path, target_path = build_world(seed, tmp_path, "little")
    core = CoreObject(path)
    ours = core.relocate(Relocator(core.btf, BTF.from_file(str(target_path)), custom=True))
    theirs = libbpf_instructions(oracle, path, target_path)
    assert ours.keys() == theirs.keys()
    outcomes: Counter[tuple[str, str]] = Counter()
    for name, (instructions, resolutions) in ours.items():
        assert disassemble(instructions) == disassemble(theirs[name]), name
        for resolution in resolutions:
            found = (
                "poisoned" if resolution.poison or resolution.bad_size else "found" if resolution.matched else "missing"
            )
            outcomes[RELOCATION_NAMES[resolution.kind], found] += 1
    for kind in RELOCATION_NAMES.values():
        assert outcomes[kind, "found"], f"world {seed} has no {kind} that is found"
    assert sum(outcomes.values()) > 500


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_the_other_byte_order_resolves_alike(tmp_path: Path, seed: int) -> None:
    """Only where bits lie depends on the byte order: everything else has the same outcome."""
    numbers = {}
    for byte_order in ("little", "big"):
        path, target_path = build_world(seed, tmp_path, byte_order)
        core = CoreObject(path)
        target = BTF.from_file(str(target_path))
        assert core.btf.byte_order == target.byte_order == byte_order
        relocated = core.relocate(Relocator(core.btf, target, custom=True))
        numbers[byte_order] = [
            (name, resolution.description, resolution.matched, resolution.poison, resolution.bad_size, resolution.value)
            for name, (_, resolutions) in relocated.items()
            for resolution in resolutions
            if RELOCATION_NAMES[resolution.kind] != "lshift_u64"
        ]
    assert numbers["little"] == numbers["big"]
    assert len(numbers["little"]) > 500
