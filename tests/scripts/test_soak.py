"""A short soak: every event accounted for, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "soak"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_a_short_soak() -> None:
    command = [sys.executable, str(SOAK), "--minutes", "0.2", "--slice", "0.2", "--rate", "2000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    seen = json.loads(done.stdout)
    assert seen["faults"] == []
    assert done.returncode == 0
    assert seen["samples"] >= 8
    assert seen["delivered"] > 1000
    assert seen["lost"] > 0, "the buffer never overflowed: nothing was shown about losses"
    assert seen["produced"] == seen["delivered"] + seen["lost"]
