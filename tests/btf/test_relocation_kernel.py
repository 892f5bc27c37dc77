"""CO-RE against the running kernel gives the instructions that libbpf gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from core_objects import OBJECTS, CoreObject, build_object, build_oracle, libbpf_instructions

from pybpf.asm import disassemble
from pybpf.btf.corespec import RELOCATION_NAMES
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import Relocator

VMLINUX = Path("/sys/kernel/btf/vmlinux")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF"),
]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_oracle(tmp_path_factory.mktemp("oracle") / "relocated")


@pytest.fixture(scope="module")
def vmlinux() -> BTF:
    return BTF.from_bytes(VMLINUX.read_bytes(), name="vmlinux")


def test_every_kind_gives_the_instructions_of_libbpf(tmp_path: Path, oracle: Path, vmlinux: BTF) -> None:
    path = build_object(OBJECTS / "core_kernel.bpf.c", tmp_path / "core_kernel.o")
    core = CoreObject(path)
    ours = core.relocate(Relocator(core.btf, vmlinux))
    theirs = libbpf_instructions(oracle, path)
    assert ours.keys() == theirs.keys()
    kinds: Counter[str] = Counter()
    for name, (instructions, resolutions) in ours.items():
        assert disassemble(instructions) == disassemble(theirs[name]), name
        assert instructions == theirs[name]
        kinds.update(RELOCATION_NAMES[resolution.kind] for resolution in resolutions)
    assert kinds.keys() == set(RELOCATION_NAMES.values())
    print(dict(kinds))
