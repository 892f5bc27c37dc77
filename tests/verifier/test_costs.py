"""What programs cost the verifier, measured, compared, and as a command with budgets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

from pybpf.errors import ObjectError
from pybpf.verifier.compare import Change, Cost, compare
from pybpf.verifier.costs import measure

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
ROOT = Path(__file__).resolve().parent.parent.parent


def cost(program: str, instructions: int | None = 100, **others: object) -> Cost:
    found = Cost("x", program)
    found.verdict, found.instructions = "accepted", instructions
    for name, value in others.items():
        setattr(found, name, value)
    return found


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pybpf", "verify", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def everything(build: ObjectBuilder) -> Path:
    return build("load_everything.bpf.c", byte_order=sys.byteorder)


@pytest.fixture(scope="module")
def rejected(build: ObjectBuilder) -> Path:
    return build("load_rejected.bpf.c", byte_order=sys.byteorder)


@NEEDS_ROOT
def test_accepted_programs(everything: Path) -> None:
    costs = list(measure(everything))
    assert len(costs) == 3 and all(one.accepted for one in costs)
    main = next(one for one in costs if one.program == "main_program")
    assert main.size is not None and main.instructions is not None and main.instructions > 10
    assert main.limit == 1_000_000 and main.share == main.instructions / 1_000_000
    assert main.states is not None and main.peak_states is not None and main.states >= main.peak_states
    assert main.microseconds is not None and main.microseconds > 0
    assert main.stack is not None and main.stack >= 8


@NEEDS_ROOT
def test_one_rejection_hides_nothing_of_the_others(rejected: Path) -> None:
    costs = {one.program: one for one in measure(rejected, every=True)}
    assert {name: one.verdict for name, one in costs.items()} == {
        "null_pointer": "rejected",
        "missing_map": "accepted",
        "missing_field": "rejected",
        "missing_kfunc": "rejected",
    }
    null = costs["null_pointer"]
    assert null.source.startswith("return *value;") and null.location.endswith(":24:9")
    assert null.instructions == 7
    assert "this kernel has no struct no_such_struct.no_such_field" in costs["missing_field"].meaning


@NEEDS_ROOT
def test_programs_of_a_choice(rejected: Path) -> None:
    assert list(measure(rejected)) == []
    assert [one.program for one in measure(rejected, ["missing_map"])] == ["missing_map"]
    with pytest.raises(ObjectError, match="has no program 'nonsense'; it has null_pointer"):
        list(measure(rejected, ["nonsense"]))


@NEEDS_ROOT
def test_nothing_is_pinned(build: ObjectBuilder) -> None:
    path = build.compile_text(
        "pinned.bpf.c",
        """
        #include "bpf_min.h"
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32);
                 __uint(pinning, 1); } never_pinned SEC(".maps");
        SEC("socket") int p(void *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&never_pinned, &key) != 0; }
        """,
    )
    (one,) = measure(path)
    assert one.accepted
    assert not os.path.exists("/sys/fs/bpf/never_pinned")


def test_growth_and_what_broke() -> None:
    bad = cost("b", verdict="rejected")
    changes = compare([cost("a"), cost("b"), cost("gone")], [cost("a", 111, stacks=[8]), bad, cost("new")])
    assert [(one.name, one.before is None, one.after is None) for one in changes] == [
        ("a", False, False),
        ("b", False, False),
        ("new", True, False),
        ("gone", False, True),
    ]
    assert changes[0].growth("instructions") == pytest.approx(0.11)
    assert changes[0].growth("stack") is None
    assert list(changes[0].regressions(11.5)) == []
    assert list(changes[0].regressions(10)) == ["instructions grew from 100 to 111 (+11.00%)"]
    assert changes[1].broke and list(changes[1].regressions(1000)) == ["it was accepted before"]
    assert not changes[2].broke and list(changes[2].regressions(0)) == []
    assert Change(cost("a", states=0), cost("a", states=3)).growth("states") == float("inf")


def test_programs_of_several_objects_are_told_apart() -> None:
    one, two = cost("p", 1), cost("p", 2)
    two.object = "y"
    assert [(c.object, c.growth("instructions")) for c in compare([one, two], [two, one])] == [("y", 0), ("x", 0)]
    assert [c.growth("instructions") for c in compare([one], [two])] == [1.0]


def test_json_there_and_back() -> None:
    before = cost("p", 7, stacks=[8, 16], source="x")
    after = Cost.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after.to_dict() == before.to_dict()
    with pytest.raises(ValueError, match="stacks of a program cannot be 'x'"):
        Cost.from_dict({"stacks": "x"})


@NEEDS_ROOT
def test_the_command(everything: Path, rejected: Path, tmp_path: Path) -> None:
    result = command(everything)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].split()[:3] == ["program", "verdict", "instructions"]
    assert "main_program  accepted" in result.stdout
    result = command(rejected, "--all")
    assert result.returncode == 5
    assert "return *value;" in result.stdout and "mend: Compare the pointer with NULL" in result.stdout


@NEEDS_ROOT
def test_budgets_and_growth(everything: Path, tmp_path: Path) -> None:
    result = command(everything, "--max-insns", "10")
    assert result.returncode == 8
    assert "over budget: main_program: " in result.stdout and "10 are allowed" in result.stdout
    assert command(everything, "--max-insns", "1000000", "--max-states", "1000").returncode == 0
    kept = tmp_path / "before.json"
    kept.write_text(command(everything, "--json").stdout)
    assert command(everything, "--compare", kept, "--max-growth", "0").returncode == 0
    figures = json.loads(kept.read_text())
    assert figures["kernel"] == os.uname().release
    for one in figures["programs"]:
        one["instructions"] //= 2
    kept.write_text(json.dumps(figures))
    result = command(everything, "--compare", kept, "--max-growth", "10", "--json")
    assert result.returncode == 8
    found = json.loads(result.stdout)
    assert len(found["over_budget"]) == 3 and "instructions grew from" in found["over_budget"][0]
    assert found["changes"][0]["instructions"]["growth"] > 0.5
    # Two files of figures need no kernel.
    result = command(kept, "--compare", kept)
    assert result.returncode == 0 and "+0.00%" in result.stdout


def test_wrong_use(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"programs": [{"states": "many"}]}')
    result = command(bad)
    assert result.returncode == 3 and "not what `pybpf verify --json` prints" in result.stderr
    bad.write_text("{")
    assert command(bad).returncode == 3
    assert command(bad, "--max-growth", "1").returncode == 2
    assert command(bad, "--max-insns", "-5").returncode == 2
    assert command(tmp_path / "none.bpf.o").returncode == 3
