"""The benchmark of events runs, and everybody reads what was written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench-events"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
@pytest.mark.skipif(shutil.which("clang-19") is None, reason="there is no clang-19 to build its programs with")
def test_it_measures() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--rounds", "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr  # 1: something was slower than it has to be
    lines = done.stdout.splitlines()
    ours = [line for line in lines if line.startswith("  pybpf, ")]
    assert len(ours) >= 10
    assert [line for line in ours if "not measured" in line and "numpy is not installed" not in line] == []
