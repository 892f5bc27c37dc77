"""What a type checker makes of code that uses pybpf: README's own passes, and a misspelled name does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

USER = """
import asyncio

import pybpf
from pybpf import links, maps, syscall


def readme(path: str) -> None:
    with pybpf.load(path) as obj, obj.attach() as attached:
        for event in obj.maps["events"]:
            print(event.pid, event.comm)
        attached[0].close()
    spec = pybpf.ObjectSpec.from_file(path)
    spec.globals["only_failed"] = True
    spec.maps["running"].max_entries = 4096
    spec.programs["enter_openat2"].autoload = False
    with spec.load() as obj:
        link: pybpf.Link = obj.programs["enter_openat"].attach()
        print(obj.maps["running"].items())
        obj.maps["counts"][0] += 1
        link.close()
        names: list[str] = list(obj.globals)
        print(names, obj.globals["only_failed"], obj.globals.values())


async def loop(obj: pybpf.Object) -> None:
    async for event in obj.maps["events"]:
        print(event.pid)


def narrowed(obj: pybpf.Object) -> int:
    made = obj.maps["counts"]
    assert isinstance(made, maps.HashMap)
    made[1] = 2
    return len(made)


def ways(program: pybpf.Program) -> None:
    program.attach_xdp("eth0").close()
    program.attach_kprobe("do_exit", cookie=3).close()
    for link in program.attach_perf_event(frequency=99):
        link.close()


def misspelled(obj: pybpf.Object, table: maps.HashMap, stack: maps.Stack, ring: maps.RingBufferMap) -> None:
    print(pybpf.Objekt, links.atach, syscall.map_creat, maps.HashMapp)  # type: ignore[attr-defined]
    print(obj.programs["x"].atach)  # type: ignore[attr-defined]
    obj.programs["x"].attach_xpd("eth0")  # type: ignore[attr-defined]
    obj.programs["x"].attach_xdp(interfase="eth0")  # type: ignore[call-arg]
    print(table.itmes, stack.psuh, ring.redaer)  # type: ignore[attr-defined]


asyncio.run(loop(pybpf.load("x.bpf.o")))
"""


def test_a_user_of_mypy_is_told_what_is_so(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "user.py"
    script.write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", str(script)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout
