"""The harness of the benchmarks: turns, ratios, failures, tables."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from benchmark.harness import Options, Scenario, run, targets_table, times_table, write_section


def waiting(milliseconds: float) -> None:
    end = time.perf_counter() + milliseconds / 1000
    while time.perf_counter() < end:
        pass


def race(check_value: int = 1) -> Scenario:
    scenario = Scenario("wait", operations=10)

    def check(result: int) -> None:
        if result != check_value:
            raise ValueError(f"got {result}")

    scenario.add("slow", lambda: waiting(4) or 1)
    scenario.add("quick pybpf", lambda: waiting(1) or 1, check=check)
    return scenario


def options(rounds: int = 5) -> Options:
    return Options(rounds=rounds, only="", write=False)


def test_ratios_are_those_of_the_times() -> None:
    scenario = race()
    scenario.run(5)
    assert scenario.ratio("slow", "quick pybpf") == pytest.approx(4, rel=0.5)
    assert [len(rival.times) for rival in scenario.rivals.values()] == [5, 5]
    assert scenario.rivals["quick pybpf"].quartile == pytest.approx(1e5, rel=0.5)


@pytest.mark.parametrize(("limit", "status"), [(0.9, 0), (0.01, 1)])
def test_a_missed_target_is_told(limit: float, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = race()
    scenario.expect("quick pybpf", "slow", at_most=limit, aim=0.005)
    assert run([scenario], options(), "maps") == status
    assert ("**missed**" in capsys.readouterr().out) == bool(status)


def test_at_least_counts_how_many_times_as_long_the_other_takes() -> None:
    scenario = race()
    scenario.expect("quick pybpf", "slow", at_least=2)
    scenario.run(3)
    assert scenario.measured(scenario.expectations[0]) > 2
    assert "≥ 2 times as fast" in targets_table([scenario])


def test_wrong_results_do_not_count() -> None:
    scenario = race(check_value=2)
    scenario.expect("quick pybpf", "slow", at_most=0.9)
    assert run([scenario], options(2), "maps") == 1
    assert "not measured" in targets_table([scenario])
    assert "not measured" in times_table([scenario])


def test_a_missing_rival_is_named_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = race()
    scenario.lacks("bcc", "it is not installed")
    scenario.expect("quick pybpf", "bcc", at_least=10)
    assert run([scenario], options(2), "maps") == 0
    assert "not measured: it is not installed" in capsys.readouterr().out


def test_only_its_section_of_the_document_is_written(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text("a\n<!-- begin maps -->\nold\n<!-- end maps -->\nb <!-- begin events --><!-- end events -->\n")
    write_section(document, "maps", "new\n")
    write_section(document, "events", "more\n")
    expected = "a\n<!-- begin maps -->\nnew\n<!-- end maps -->\nb <!-- begin events -->\nmore\n<!-- end events -->\n"
    assert document.read_text() == expected
    with pytest.raises(SystemExit, match="no section"):
        write_section(document, "links", "x\n")
