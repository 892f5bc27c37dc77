"""The debugger and the coverage of the simulated kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybpf import ObjectSpec, sim
from pybpf.asm import assemble
from pybpf.errors import SimulationError

ROOT = Path(__file__).resolve().parents[2]
PACKET = bytes(12) + b"\x08\x00" + bytes(50)
SHORT = """\
.program main xdp
    r6 = 1
    r1 = 5
    call double
    if r0 == 10 goto out
    r6 = 99
out:
    r0 = r6
    exit
.function double
    r0 = r1
    r0 += r1
    exit
"""


@pytest.fixture
def short() -> sim.Kernel:
    return sim.load(assemble(SHORT))


@pytest.fixture
def counter() -> sim.Kernel:
    return sim.load(ObjectSpec.from_file(str(ROOT / "kernels/xdp_count.bpf.o")))


def test_steps(short: sim.Kernel) -> None:
    with short.programs["main"].debug(PACKET) as debugger:
        seen = [debugger.index]
        while debugger.step():
            seen.append(debugger.index)
        assert seen == [0, 1, 2, 7, 8, 9, 3, 5, 6]
        assert debugger.done
        assert debugger.result is not None
        assert debugger.result.retval == 1
        assert not debugger.step()
    debugger.close()


def test_registers_and_what_they_point_to(short: sim.Kernel) -> None:
    with short.programs["main"].debug(PACKET) as debugger:
        registers = debugger.registers
        assert str(registers["r1"]) == f"{registers['r1'].number:#x} (ctx +0)"
        assert registers["r10"].meaning == "stack +0"
        assert str(registers["r0"]) == "no value"
        debugger.step()
        assert str(debugger.registers["r6"]) == "1"
        assert debugger.instruction == "(b7) r1 = 5"


def test_functions_and_backtraces(short: sim.Kernel) -> None:
    with short.programs["main"].debug(PACKET) as debugger:
        debugger.add_breakpoint("double")
        assert debugger.resume()
        assert debugger.function == "double"
        assert [text.split()[0] for text in debugger.backtrace] == ["double", "main"]
        assert not debugger.resume()


def test_lines(short: sim.Kernel) -> None:
    with short.programs["main"].debug(PACKET) as debugger:
        lines = [debugger.line.number if debugger.line else 0]
        while debugger.step_line():
            assert debugger.line is not None
            lines.append(debugger.line.number)
        assert lines == [2, 3, 4, 11, 12, 13, 5, 8, 9]
    with short.programs["main"].debug(PACKET) as debugger:
        over = []
        while debugger.step_over():
            assert debugger.line is not None
            over.append(debugger.line.number)
        assert over == [3, 4, 5, 8, 9]


def test_breakpoints_on_lines_of_c(counter: sim.Kernel) -> None:
    program = counter.programs["xdp_count"]
    with program.debug(PACKET) as debugger:
        debugger.add_breakpoint("xdp_count.bpf.c:36")
        assert debugger.resume()
        assert debugger.line is not None
        assert debugger.line.text.strip() == "total->packets += 1;"
        assert debugger.registers["r0"].meaning == "value of map 'protocols' +0"
        assert "xdp_count.bpf.c:36" in repr(debugger)
        assert not debugger.resume()
    with program.debug(PACKET) as debugger:
        for place in ("xdp_count.bpf.c:9999", "other.c:36", "nowhere", 999):
            with pytest.raises(ValueError, match="has no place"):
                debugger.add_breakpoint(place)
        debugger.add_breakpoint("36")
        debugger.clear_breakpoints()
        assert not debugger.resume()


def test_an_error_leaves_the_debugger_before_it() -> None:
    kernel = sim.load(assemble("r2 = 7\nr0 = *(u8 *)(r2 +0)\nexit", "xdp"))
    with kernel.programs["program"].debug(PACKET) as debugger:
        debugger.step()
        with pytest.raises(SimulationError, match="nothing is"):
            debugger.step()
        assert debugger.index == 1
        assert str(debugger.registers["r2"]) == "7"


def test_a_debugger_that_is_closed_leaves_nothing(counter: sim.Kernel) -> None:
    before = len(counter.memory._regions)
    with counter.programs["xdp_count"].debug(PACKET) as debugger:
        debugger.step()
        assert len(counter.memory._regions) > before
    assert len(counter.memory._regions) == before


def test_coverage_of_c_lines(counter: sim.Kernel) -> None:
    coverage = counter.coverage = sim.Coverage()
    run = counter.programs["xdp_count"].run
    run(bytes(12) + b"\x08\x00")
    hits = {line.number: line.hits for line in coverage.lines()}
    assert hits[36] == 1
    for _ in range(4):
        run(PACKET)
    hits = {line.number: line.hits for line in coverage.lines()}
    assert hits[36] == 5
    assert hits[31] == 1
    assert coverage.of("xdp_count") == (40, 40)
    assert coverage.of("other") == (0, 0)
    table = coverage.text()
    assert table.splitlines()[0].endswith("xdp_count.bpf.c")
    assert "total->packets += 1;" in table
    record = coverage.lcov()
    assert "DA:36,5\n" in record
    assert record.endswith("end_of_record\n")
    assert coverage.to_dict()[next(iter(coverage.to_dict()))][36] == 5


def test_coverage_shows_what_did_not_run(short: sim.Kernel) -> None:
    short.coverage = sim.Coverage()
    short.programs["main"].run(PACKET)
    assert short.coverage.of("main") == (9, 10)
    missed = [line.number for line in short.coverage.lines() if not line.hits]
    assert missed == [6]
    assert any(row.split()[:3] == ["0", "-", "6"] for row in short.coverage.text().splitlines())
