"""The examples of chapters 2 to 7, run and seen at work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from pybpf import probe

Start = Callable[..., "object"]

pytestmark = pytest.mark.kernel


def run_true() -> None:
    subprocess.run(["/bin/true"], check=True)


def open_file(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        os.open(path, os.O_RDONLY)


def test_hello(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello")
    way = "hello_kprobe" if probe.has_feature("kprobes") else "hello_tracepoint"
    assert running.lines[0].startswith(f"{way} is attached")
    line = running.wait_for(lambda line: line.endswith(": Hello World!"), run_true)
    assert re.fullmatch(r".+ \(\d+\): Hello World!", line)
    running.end()


def test_hello_file(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello_file")
    path = f"/nowhere/pybpf_{os.getpid()}"
    running.wait_for(lambda line: line == f"File {path}", lambda: open_file(path))
    running.wait_for(lambda line: line.startswith("     opened by: "), lambda: open_file(path))
    running.end()


def test_hello_map(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello_map")
    uid = 54321
    command = ["setpriv", f"--reuid={uid}", "--clear-groups", "--regid=54321", "/bin/true"]
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    runs = 0

    def run() -> None:
        nonlocal runs
        subprocess.run(command, check=True)
        runs += 1

    running.wait_for(lambda line: f"ID {uid}: " in line, run)
    counted = running.wait_for(lambda line: f"ID {uid}: {runs}" in line.split("\t"))
    assert "ID 0: " in counted
    running.end()


def test_hello_buffer(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello_buffer")
    line = running.wait_for(lambda line: line.endswith(" Hello World"), run_true)
    assert re.fullmatch(r"\d+ \d+ \S.* Hello World", line)
    running.end()


def test_hello_ring(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello_ring")
    path = f"/nowhere/pybpf_{os.getpid()}_" + "x" * 150
    line = running.wait_for(lambda line: line.endswith(f" - {path}"), lambda: open_file(path))
    assert f"({os.getpid()})" in line
    assert re.search(r"\d+ events were dropped$", running.end()[-1])  # the interrupt may come in the middle of a line


def test_hello_tail(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch02_hello_tail")

    def use_a_timer() -> None:
        subprocess.run(["timeout", "20", "true"], check=True)

    running.wait_for(lambda line: re.match(r"timeout \(\d+\): TIMER_CREATED", line) is not None, use_a_timer)
    running.wait_for(lambda line: re.match(r"timeout \(\d+\): TIMER_USED", line) is not None, use_a_timer)
    running.wait_for(lambda line: re.match(r"timeout \(\d+\): EXECUTING", line) is not None, use_a_timer)
    assert not any("ANOTHER_CALL" in line for line in running.lines)
    running.end()


def test_hello_func(example) -> None:  # type: ignore[no-untyped-def]
    lines = example("ch03_hello_func", ready=False).finish()
    assert lines[0] == "hello:"
    assert any(re.search(r"\(85\) call (pc\+\d+|get_opcode)", line) for line in lines), lines[:5]
    at = lines.index("The most frequent system calls within a second:")
    assert re.fullmatch(r"  number \d+: \d+ times", lines[at + 1])


@pytest.mark.parametrize("buffer", ["perf", "ring"])
def test_buffer_config(example, buffer: str) -> None:  # type: ignore[no-untyped-def]
    running = example("ch04_buffer_config", buffer)
    running.wait_for(lambda line: re.fullmatch(r"\d+ 0 \S.* Hey root!", line) is not None, run_true)
    if shutil.which("setpriv"):
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/true"]
        as_other = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "/bin/true"]
        running.wait_for(lambda line: " 65534 " in line, lambda: subprocess.run(as_nobody, check=True))
        assert running.lines[-1].endswith(" Hi nobody!")
        running.wait_for(lambda line: " 4711 " in line, lambda: subprocess.run(as_other, check=True))
        assert running.lines[-1].endswith(" Hello World")
    running.end()


def test_syscalls(example) -> None:  # type: ignore[no-untyped-def]
    lines = example("ch04_syscalls", ready=False).finish()
    order = ["bpf(BPF_BTF_LOAD)", "bpf(BPF_MAP_CREATE)", "bpf(BPF_PROG_LOAD)", "perf_event_open", "mmap"]
    found = [next(index for index, line in enumerate(lines) if line.startswith(f"{name} = ")) for name in order]
    assert found == sorted(found)
    assert any(line.startswith("event: greeting(pid=") for line in lines)


def test_core(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch05_buffer_config")
    for field in ("struct task_struct.real_parent", "struct linux_binprm.filename"):
        assert any(re.search(rf"{field}: value \d+$", line) for line in running.lines), running.lines
    wanted = rf"\d+ \(from {os.getpid()}\) 0 true (/usr)?/bin/true Hey root!"
    running.wait_for(lambda line: re.fullmatch(wanted, line) is not None, run_true)
    found = example("ch05_find_map", ready=False).finish()
    assert any(re.fullmatch(r"map \d+: my_config, keys of 4 and values of 16 bytes", line) for line in found)
    assert any(re.fullmatch(r"  0: message\(text='Hey root!'\)", line) for line in found)
    running.end()


REJECTED = {
    "bad_null_pointer": "'map_value_or_null'|or_null",
    "bad_argument": "expected=map_ptr",
    "bad_global_index": "outside of the allowed memory range|outside of the array range|invalid access to map value",
    "bad_context": "invalid bpf_context access",
    "bad_packet": "invalid access to packet|outside of the packet",
    "bad_packet_end": "pointer arithmetic on pkt_end|pkt_end prohibited",
    "bad_loop": "infinite loop detected|back-edge",
    "bad_no_return_value": "R0 !read_ok",
    "bad_license": "GPL",
}


def test_verifier(example) -> None:  # type: ignore[no-untyped-def]
    lines = example("ch06_verifier", ready=False).finish()
    found = {line.partition(":")[0]: (line, where) for line, where in zip(lines, [*lines[1:], ""], strict=True)}
    for name, words in REJECTED.items():
        line, where = found[name]
        assert line.startswith(f"{name}: rejected: ") and re.search(words, line), line
        assert re.match(r"    .*ch06_\w+\.bpf\.c:\d+:\d+: \S", where), where
    for name in ("null_pointer", "global_index", "packet", "loop"):
        assert found[f"good_{name}"][0] == f"good_{name}: loaded"


def test_attach(example) -> None:  # type: ignore[no-untyped-def]
    running = example("ch07_attach")
    ways = {"tracepoint": "true", "raw_tp": "true", "tp_btf": "true"}
    if probe.has_feature("kprobes"):
        ways |= {"ksyscall": "true", "kprobe": "true"}
    if probe.has_link_type("tracing"):
        ways["fentry"] = "true"
    left_out = [line for line in running.lines if " is left out: " in line]
    assert len(left_out) == 6 - len(ways)
    for way in ways:
        running.wait_for(lambda line, way=way: re.match(rf"{way}: (/usr)?/bin/true by ", line) is not None, run_true)
    running.end()
