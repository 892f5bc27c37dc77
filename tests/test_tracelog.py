"""The trace log: lines of our own programs, without taking any from others."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from threads import run_all

import pybpf
from pybpf import tracefs
from pybpf.errors import BPFNotFoundError, ClosedError
from pybpf.tracelog import TraceLog, parse

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="tracefs needs root")
ENDING = ".bpf.o" if sys.byteorder == "little" else ".eb.bpf.o"
FILES = Path(__file__).resolve().parent.parent / f"kernels/learn/ch02_hello_file{ENDING}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("            bash-4711    [002] ...21  12.5: bpf_trace_printk: Hello", ("Hello", "bash", 4711, 2)),
        ("   my-own-task-7     [000] d..1.  12.5: bpf_trace_printk: a: b [1] c", ("a: b [1] c", "my-own-task", 7, 0)),
        ("  two words-8       [011] .....  1.0: bpf_trace_printk: ", ("", "two words", 8, 11)),
        ("           <...>-99      [001] ....1  1.0: bpf_trace_printk: x", ("x", "<...>", 99, 1)),
        ("strange: bpf_trace_printk: x", ("x", "", -1, -1)),
    ],
)
def test_a_line_is_read(line: str, expected: tuple[str, str, int, int]) -> None:
    read = parse(line)
    assert read is not None
    assert (read.text, read.task, read.pid, read.cpu) == expected
    assert str(read) == expected[0]


@pytest.mark.parametrize("line", ["", "CPU:0 [LOST 12 EVENTS]", "bash-1 [000] .... 1.0: sched_switch: x"])
def test_other_lines_are_passed_over(line: str) -> None:
    assert parse(line) is None


def instances() -> set[str]:
    return {name for name in os.listdir(f"{tracefs.root()}/instances") if name.startswith(f"pybpf_{os.getpid()}_")}


def has_line(log: TraceLog, path: str) -> bool:
    return any(line.text == f"File {path}" and line.pid == os.getpid() for line in log.poll(5))


@needs_root
@pytest.mark.kernel
def test_two_readers_get_every_line() -> None:
    path = f"/nowhere/{os.getpid()}"
    with TraceLog() as one, TraceLog() as other, pybpf.load(FILES) as obj, obj.attach():
        assert len(instances()) == 2
        with pytest.raises(FileNotFoundError):
            os.open(path, os.O_RDONLY)
        for log in (one, other):
            assert any(has_line(log, path) for _ in range(20))
    assert not instances()


@needs_root
@pytest.mark.kernel
def test_iteration_gives_the_lines_one_by_one() -> None:
    path = f"/nowhere/{os.getpid()}"
    with TraceLog() as log, pybpf.load(FILES) as obj, obj.attach():
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                os.open(path, os.O_RDONLY)
        lines = (line for line in log if line.text == f"File {path}")
        first, second = next(lines), next(lines)
        assert first.pid == second.pid == os.getpid()


@needs_root
@pytest.mark.kernel
def test_nothing_comes_from_nobody_and_a_closed_log_says_so() -> None:
    with TraceLog() as log:
        log.poll(0)  # others may write
        assert "(closed)" not in repr(log)
    log.close()
    assert "(closed)" in repr(log)
    with pytest.raises(ClosedError):
        log.poll(0)
    with pytest.raises(ClosedError):
        log.fileno()


@needs_root
@pytest.mark.kernel
def test_a_kernel_without_the_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pybpf.tracelog.EVENT", "events/bpf_trace/no_such_event/enable")
    with pytest.raises(BPFNotFoundError, match=r"trace log in .*instances: open.*Linux 5\.9"):
        TraceLog()
    assert not instances()


@needs_root
@pytest.mark.kernel
def test_a_forgotten_log_warns_and_is_removed() -> None:
    log = TraceLog()
    assert instances()
    with pytest.warns(ResourceWarning, match="unclosed <TraceLog"):
        del log
    assert not instances()


@needs_root
@pytest.mark.kernel
def test_a_forked_child_leaves_the_parents_log_alone() -> None:
    with TraceLog() as log:
        pid = os.fork()
        if pid == 0:
            log.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert len(instances()) == 1
        log.poll(0)


@needs_root
@pytest.mark.kernel
def test_closing_wakes_who_waits() -> None:
    def poll() -> None:
        while True:
            log.poll()

    def close() -> None:
        time.sleep(0.2)
        log.close()

    with TraceLog() as log:
        raised = run_all(poll, poll, lambda: list(log), close, patience=10)  # the loop just ends
    assert [type(error) for error in raised] == [ClosedError, ClosedError]
    assert not instances()
    with pytest.raises(ClosedError):
        iter(log)


@needs_root
@pytest.mark.kernel
def test_a_signal_handler_may_close_it() -> None:
    log = TraceLog()
    before = signal.signal(signal.SIGUSR1, lambda *_: log.close())
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(ClosedError):
            while True:
                log.poll()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert not instances()


@needs_root
@pytest.mark.kernel
def test_a_forked_child_may_only_close_it() -> None:
    with TraceLog() as log:
        pid = os.fork()
        if pid == 0:
            try:
                log.poll(0)
            except RuntimeError:
                log.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        log.poll(0)


@needs_root
@pytest.mark.kernel
def test_time_is_kept() -> None:
    with TraceLog() as log:
        log.poll(0)
        start = time.monotonic()
        lines = log.poll(0.6)  # more than the main thread waits at once
        assert lines or time.monotonic() - start >= 0.6
