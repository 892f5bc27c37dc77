"""The simulated processor against the real kernel: the same programs, the same results."""

from __future__ import annotations

import os

import pytest
from corpus import program
from thrift import few

from pybpf import probe, sim
from pybpf.asm import Assembler, assemble

PACKET = bytes(range(64))


def simulated(seed: int) -> int:
    return sim.load(assemble(routine(seed))).programs["program"].run(PACKET).retval


def routine(seed: int) -> Assembler:
    made = Assembler("program", "socket")
    for insn in program(seed):
        made.append(insn)
    return made


@pytest.mark.kernel
@pytest.mark.parametrize("block", range(10))
def test_random_programs(block: int) -> None:
    """PYBPF_SIM_PROGRAMS in the environment says how many there are; 1,000 take a minute."""
    answer = probe.has_feature("isa_v4")
    if not answer:
        pytest.skip(f"this kernel has not all instructions (Linux 6.6): {answer.evidence}")
    for seed in range(block, int(os.environ.get("PYBPF_SIM_PROGRAMS", few(200))), 10):
        with assemble(routine(seed)).load() as obj:
            real = obj.programs["program"].test_run(PACKET).retval
        assert simulated(seed) == real, f"seed {seed}"
