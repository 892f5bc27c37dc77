"""What libbpf makes of an object, as printed by oracle.c."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HEADER = Path("/usr/include/bpf/libbpf.h")


class Call:
    """One line of the oracle: what kind it is of, and its fields."""

    def __init__(self, line: str) -> None:
        self.kind, _, rest = line.partition(" ")
        self.fields: dict[str, str] = {}
        last = ""
        for word in rest.split(" "):
            name, equals, value = word.partition("=")
            if equals:
                last = name
                self.fields[name] = value
            else:  # a value with a space in it
                self.fields[last] += " " + word

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def number(self, name: str) -> int:
        return int(self.fields[name])

    def data(self, name: str) -> bytes:
        return bytes.fromhex(self.fields[name])


class Oracle:
    """Compiles the oracle and asks it; skips the test when libbpf or its headers are not there."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("gcc") or not HEADER.exists():
            pytest.skip("no gcc or no libbpf-dev to compare with")
        if os.geteuid():
            pytest.skip("libbpf has to load programs, which needs root")
        self._program = folder / "oracle"
        command = ["gcc", "-O1", "-Wall", "-Werror", "-o", str(self._program), str(HERE / "oracle.c"), "-lbpf", "-ldl"]
        subprocess.run(command, check=True, timeout=120)

    def calls(self, path: Path) -> list[Call]:
        """What libbpf asks of the kernel for an object, in order."""
        run = subprocess.run([str(self._program), str(path)], capture_output=True, text=True, timeout=120)
        calls = [Call(line) for line in run.stdout.splitlines()]
        refused = [call for call in calls if call.kind in ("refused", "failed")]
        assert not refused, run.stderr
        return calls
