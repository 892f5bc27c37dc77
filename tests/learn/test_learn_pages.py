"""The examples as a set: short, told of in the table, and none without its kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = sorted((ROOT / "docs/learn/examples").glob("ch*.py"))
KERNELS = {path.name.removesuffix(".bpf.c") for path in (ROOT / "kernels/learn").glob("*.bpf.c")}
TABLE = (ROOT / "docs/learn/examples/README.md").read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert re.match(r'"""Chapter \d: ', text)
    assert set(re.findall(r'kernel\("(\w+)"\)', text)) <= KERNELS


def test_the_table_has_every_example_and_no_other() -> None:
    assert re.findall(r"^\| `(\w+)\.py", TABLE, re.M) == [path.stem for path in EXAMPLES]


def test_every_kernel_is_used() -> None:
    used = set(re.findall(r'kernel\("(\w+)"\)', "".join(path.read_text() for path in EXAMPLES)))
    assert used == KERNELS


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_learn_*.py"))
    assert set(re.findall(r'example\("(\w+)"', tests)) == {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("name", ["ch08_balance", "ch08_tc", "ch09_lsm"])
def test_an_example_without_its_arguments_says_how_it_is_used(name: str) -> None:
    folder = ROOT / "docs/learn/examples"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, f"{name}.py"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith("Chapter")
    assert f"{name}.py" in result.stderr
