"""The kernel matrix: several guests at a time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from kernel_matrix import main, side_by_side
from kernel_matrix.kernels import KERNELS


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_lines_carry_the_name_and_statuses_are_in_order(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    commands = {
        "slow": script("import time; time.sleep(0.5); print('late')"),
        "bad": script("import sys; print('oops', file=sys.stderr); sys.exit(3)"),
        "cut": script("print('no end of line', end='')"),
    }
    assert side_by_side.run(commands, 3) == [0, 3, 0]
    out = capfdbinary.readouterr().out
    assert sorted(out.splitlines()) == [b"bad| oops", b"cut| no end of line", b"slow| late"]


def test_no_more_at_a_time_than_allowed(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Each finds that no other runs."""
    alone = (
        f"import os, time; os.mkdir({str(tmp_path / 'one')!r}); time.sleep(0.1); os.rmdir({str(tmp_path / 'one')!r})"
    )
    assert side_by_side.run({name: script(alone) for name in "abc"}, 1) == [0, 0, 0]


def test_an_end_by_signal_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        time.sleep(0.3)  # until they run
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "wait", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side.run({name: script("import time; time.sleep(60)") for name in "abc"}, 2)
    assert time.monotonic() - started < 30


def test_the_command_line_of_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "all",
        "--jobs=2",
        "--timeout=60",
        "--smp=3",
        "--append=a b",
        "--amend",
        "--results=r",
        "--",
        "pytest",
        "x",
    ]
    options, command = main.parse(words)
    line = main.command_line(KERNELS["6.1"], command, options)
    again, command_again = main.parse(line[2:])
    assert (again.action, again.kernels, again.jobs, command_again) == ("run", ["6.1"], 1, command)
    for name in ("timeout", "smp", "memory", "append", "amend", "keep_log", "results", "mirror"):
        assert getattr(again, name) == getattr(options, name)
