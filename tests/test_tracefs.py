"""The tracing file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pybpf import tracefs
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError
from pybpf.probe import system
from pybpf.symbols import find_binary, function_offset

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


def test_event_id() -> None:
    path = Path(tracefs.root(), "events/sched/sched_switch/id")
    assert tracefs.event_id("sched", "sched_switch") == int(path.read_text())


@pytest.mark.parametrize(("category", "name"), [("", "x"), ("x", ""), ("..", "x"), ("a/b", "c"), ("a", "b\0")])
def test_names_that_would_leave_the_directory(category: str, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a tracepoint"):
        tracefs.event_id(category, name)


def test_not_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path / "a"), str(tmp_path / "b")))
    monkeypatch.setattr(system, "MOUNTS", str(tmp_path / "mounts"))
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    with pytest.raises(BPFNotFoundError, match="mount -t tracefs tracefs /sys/kernel/tracing"):
        tracefs.root()


def test_mounted_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracefs, "ROOTS", (str(tmp_path / "a"),))
    monkeypatch.setattr(system, "MOUNTS", str(tmp_path / "mounts"))
    (tmp_path / "my trace" / "events").mkdir(parents=True)
    place = str(tmp_path / "my trace").replace(" ", "\\040")
    odd = "t /a\rb tmpfs rw 0 0\nt /a\fb tmpfs rw 0 0\nt /a\u2028b tmpfs rw 0 0\n"  # what the kernel does not escape
    (tmp_path / "mounts").write_text(f"{odd}t {place} tracefs rw 0 0\n", encoding="utf-8", newline="\n")
    assert tracefs.root() == str(tmp_path / "my trace")


@pytest.mark.parametrize("is_return", [False, True])
def test_probe_event(is_return: bool) -> None:
    libc = find_binary("libc.so.6")
    event = tracefs.ProbeEvent("uprobe", libc, offset=function_offset(libc, "getppid"), is_return=is_return)
    try:
        group = "uretprobes" if is_return else "uprobes"
        assert event.id == tracefs.event_id(group, event.name)
        assert event.name.startswith(f"pybpf_{os.getpid()}_")
        assert "libc_so_6" in event.name
    finally:
        event.remove()
    assert event.name not in Path(tracefs.root(), "uprobe_events").read_text()


def test_long_names_are_cut() -> None:
    name = tracefs._event_name("a-very.long/name" * 10, 0x1000)
    assert len(name) == 63
    assert name.replace("_", "").isalnum()


def test_refused_probe_event() -> None:
    with pytest.raises(BPFError, match="uprobe_events"):
        tracefs.ProbeEvent("uprobe", "/no/such/file", offset=0, is_return=False)
    with pytest.raises(ValueError, match="blanks"):
        tracefs.ProbeEvent("uprobe", "/tmp/a b", offset=0, is_return=False)


def test_traceable_functions() -> None:
    try:
        found = dict(tracefs.traceable_functions())
    except BPFPermissionError as error:
        assert tracefs.LOCKDOWN_HINT in str(error)
        pytest.skip(str(error))
    assert found["vfs_read"] == ""
    assert len(found) > 1000
