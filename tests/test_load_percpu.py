"""Per-CPU global variables: `.percpu` sections (Linux 7.3)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from affinity import on_cpu
from object_builder import ObjectBuilder

import pybpf
from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import VerifierError
from pybpf.maps.percpu import PerCPU
from pybpf.sim import SimulationError, load

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

CPUS = syscall.possible_cpus()


@pytest.fixture
def spec(tmp_path: Path) -> pybpf.ObjectSpec:
    path = ObjectBuilder(tmp_path)("load_percpu.bpf.c", byte_order=sys.byteorder)
    return pybpf.ObjectSpec.from_file(path)


def count(obj: pybpf.Object, cpu: int) -> int:
    """Run the program on that CPU."""
    with on_cpu(cpu):
        return obj.programs["count"].test_run(bytes(64)).retval


def loaded(spec: pybpf.ObjectSpec) -> pybpf.Object:
    try:
        return spec.load()
    except VerifierError as error:
        if error.reason != "no direct value access support for this map type":
            raise
        assert error.advice is not None and "Linux 7.3" in error.advice
        pytest.skip(f"no per-CPU global variables before Linux 7.3: {error.reason}")


def test_the_maps(spec: pybpf.ObjectSpec) -> None:
    made, others = spec.maps[".percpu"], spec.maps[".percpu.others"]
    for one in (made, others):
        assert (one.type_number, one.max_entries, one.flags) == (c.BPF_MAP_TYPE_PERCPU_ARRAY, 1, 0)
        assert one.kernel_name == one.name
    assert (others.value_size, spec.variables["odd"].is_static) == (4, True)


def test_initial_values(spec: pybpf.ObjectSpec) -> None:
    assert spec.globals["hits"] == 100
    assert (spec.globals["place"].cpu, list(spec.globals["place"].pair)) == (0xFFFF, [1, 2])
    spec.globals["hits"] = 5
    with loaded(spec) as obj:
        assert obj.globals["hits"] == [5] * CPUS
        assert count(obj, min(os.sched_getaffinity(0))) == 1
        assert obj.globals["hits"].sum() == 5 * CPUS + 1


def test_each_cpu_has_its_own(spec: pybpf.ObjectSpec) -> None:
    with loaded(spec) as obj:
        runs = {cpu: number + 1 for number, cpu in enumerate(sorted(os.sched_getaffinity(0)))}
        for cpu, times in runs.items():
            for _ in range(times):
                count(obj, cpu)
        for cpu in range(CPUS):
            times = runs.get(cpu, 0)
            assert obj.globals["hits"][cpu] == 100 + times
            assert obj.globals["odd"][cpu] == times % 2
            place = obj.globals["place"][cpu]
            assert (place.cpu, list(place.pair)) == (cpu if times else 0xFFFF, [1, 2 + 7 * times])


def test_writing(spec: pybpf.ObjectSpec) -> None:
    with loaded(spec) as obj:
        obj.globals["hits"] = 3
        assert obj.globals["hits"] == PerCPU([3] * CPUS)
        obj.globals["hits"] = PerCPU(range(CPUS))
        assert obj.globals["hits"] == list(range(CPUS))
        obj.globals["hits"] = [2 * number for number in obj.globals["hits"]]
        assert obj.globals["hits"] == list(range(0, 2 * CPUS, 2))
        obj.globals["place"] = {"cpu": 1, "pair": [8, 9]}
        assert {tuple(place.pair) for place in obj.globals["place"]} == {(8, 9)}
        assert obj.globals["hits"] == list(range(0, 2 * CPUS, 2)), "the neighbours were left alone"
        with pytest.raises(ValueError, match=f"hits: {CPUS + 1} values for {CPUS} CPUs"):
            obj.globals["hits"] = PerCPU([0] * (CPUS + 1))
        with pytest.raises(OverflowError):
            obj.globals["odd"] = 256


def test_drops_are_counted_on_each_cpu(spec: pybpf.ObjectSpec) -> None:
    spec.only("emit")
    with loaded(spec) as obj, obj.maps["ring"].reader() as reader:
        assert reader.lost == 0
        obj.programs["emit"].test_run(bytes(64), repeat=1000)
        kept = 4096 // 16 - 1  # a ring is never quite full
        assert (len(reader.consume()), reader.lost) == (kept, 1000 - kept)


def test_who_does_not_use_them_loads_on_any_kernel(spec: pybpf.ObjectSpec) -> None:
    spec.only("bystander")
    with spec.load() as obj:
        assert obj.programs["bystander"].test_run(bytes(64)).retval == 1
        assert obj.globals["hits"] == [100] * CPUS
        obj.globals["other"] = 1 << 31
        assert obj.globals["other"].sum() == CPUS << 31


def test_the_simulator_has_none(spec: pybpf.ObjectSpec) -> None:
    with pytest.raises(SimulationError, match=r"variables in map '\.percpu' .* are not simulated"):
        load(spec)
    for name in ("count", "emit"):
        del spec.programs[name]
    kernel = load(spec)
    assert kernel.globals["ran"] == 0
    with pytest.raises(SimulationError, match=r"variables in map '\.percpu' .* are not simulated"):
        kernel.globals["hits"]
