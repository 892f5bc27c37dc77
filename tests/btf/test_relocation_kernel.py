"""CO-RE against the running kernel gives the instructions that libbpf gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from core_objects import OBJECTS, CoreObject, build_object, build_oracle, libbpf_instructions
from core_worlds import fragments

from pybpf import syscall
from pybpf.asm import Instruction, decode, disassemble, encode
from pybpf.btf.corespec import RELOCATION_NAMES
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import Relocator
from pybpf.constants import BPF_PROG_TYPE_RAW_TRACEPOINT
from pybpf.errors import BPFError

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


def compare(path: Path, oracle: Path, vmlinux: BTF) -> Counter[str]:
    """Relocate an object both ways; how many relocations of each kind were compared."""
    core = CoreObject(path)
    ours = core.relocate(Relocator(core.btf, vmlinux))
    theirs = libbpf_instructions(oracle, path)
    assert ours.keys() == theirs.keys()
    kinds: Counter[str] = Counter()
    for name, (instructions, resolutions) in ours.items():
        assert disassemble(instructions) == disassemble(theirs[name]), name
        assert instructions == theirs[name]
        kinds.update(RELOCATION_NAMES[resolution.kind] for resolution in resolutions)
    return kinds


def test_every_kind_gives_the_instructions_of_libbpf(tmp_path: Path, oracle: Path, vmlinux: BTF) -> None:
    kinds = compare(build_object(OBJECTS / "core_kernel.bpf.c", tmp_path / "core_kernel.o"), oracle, vmlinux)
    assert kinds.keys() == set(RELOCATION_NAMES.values())
    assert min(kinds.values()) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_parts_of_many_structs_give_the_instructions_of_libbpf(
    tmp_path: Path, oracle: Path, vmlinux: BTF, seed: int
) -> None:
    (tmp_path / "fragments.bpf.c").write_text(fragments(vmlinux, seed, 100))
    kinds = compare(build_object(tmp_path / "fragments.bpf.c", tmp_path / "fragments.o"), oracle, vmlinux)
    assert sum(kinds.values()) > 2000


@pytest.fixture(scope="module")
def kernel_object(tmp_path_factory: pytest.TempPathFactory) -> CoreObject:
    path = tmp_path_factory.mktemp("object") / "core_kernel.o"
    return CoreObject(build_object(OBJECTS / "core_kernel.bpf.c", path))


def load(instructions: bytes, **options: Any) -> bytes:
    """What the verifier leaves of a program."""
    with syscall.prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, instructions, **options) as program:
        return bytes(syscall.prog_info(program, xlated=True).xlated)


@pytest.mark.parametrize("name", ["bitfields", "fields"])
def test_the_kernel_relocates_alike(kernel_object: CoreObject, vmlinux: BTF, name: str) -> None:
    """The kernel can do it too (Linux 5.17), for programs that bring their records."""
    ours, _ = kernel_object.relocate(Relocator(kernel_object.btf, vmlinux))[name]
    section = f"core/{name}"
    with syscall.btf_load(kernel_object.btf.data) as btf:
        theirs = load(
            kernel_object.functions[name],
            btf_fd=btf,
            func_info=bytes(kernel_object.ext.func_info[section].data)[:8],
            func_info_rec_size=8,
            core_relos=bytes(kernel_object.ext.core[section].data),
            core_relo_rec_size=16,
        )
    assert disassemble(load(ours)) == disassemble(theirs)
    assert ours == theirs


def test_types_and_values_load(kernel_object: CoreObject, vmlinux: BTF) -> None:
    relocated = kernel_object.relocate(Relocator(kernel_object.btf, vmlinux))
    for name in ("types", "values"):
        assert load(relocated[name][0]) == relocated[name][0]


def test_poison_that_cannot_be_reached_is_removed(kernel_object: CoreObject, vmlinux: BTF) -> None:
    code, resolutions = kernel_object.relocate(Relocator(kernel_object.btf, vmlinux))["flavors"]
    assert sum(resolution.poison for resolution in resolutions) == 1
    assert sum("unknown#195896080" in line for line in disassemble(code)) == 1
    instructions = decode(code)
    loads = [index for index, insn in enumerate(instructions) if insn.code == 0x61]
    assert len(loads) == 1
    instructions[loads[0]] = Instruction(0xB7, imm=0)  # what it loads from is no task here
    assert "unknown" not in "\n".join(disassemble(load(encode(instructions))))


def test_poison_that_can_be_reached_is_rejected(kernel_object: CoreObject, vmlinux: BTF) -> None:
    code, _ = kernel_object.relocate(Relocator(kernel_object.btf, vmlinux))["poisoned"]
    log = syscall.LogBuffer(1 << 16)
    with pytest.raises(BPFError):
        load(code, log_level=1, log_buffer=log)
    assert "invalid func unknown#195896080" in log.text
