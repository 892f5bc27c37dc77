"""Calls told as they happen: in a block, in a process, dry, as text, JSON and a page."""

from __future__ import annotations

import errno
import io
import json
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf import syscall
from pybpf.asm.instruction import Instruction, encode
from pybpf.cli.kernels import find
from pybpf.constants import (
    BPF_MAP_TYPE_ARRAY,
    BPF_MAP_TYPE_HASH,
    PERF_COUNT_SW_DUMMY,
    PERF_TYPE_SOFTWARE,
    PERF_TYPE_TRACEPOINT,
)
from pybpf.syscall import elements
from pybpf.syscall.door import observers

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
from pybpf import syscall
from pybpf.cli.kernels import find
with syscall.map_create(2, key_size=4, value_size=8, max_entries=1, name="seen"): pass
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("explain"))("load_everything.bpf.c", byte_order=sys.byteorder)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )


@NEEDS_ROOT
def test_a_block() -> None:
    out = io.StringIO()
    with pybpf.explain(out) as story:
        fd = syscall.map_create(BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=3, name="mine")
        syscall.map_freeze(fd)
    fd.close()
    syscall.map_create(BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=3).close()
    made, frozen = story.calls
    assert (made.title, made.since, made.made) == ("bpf(BPF_MAP_CREATE)", "3.18", 'map "mine" (hash)')
    assert made.field("map_type").text == "BPF_MAP_TYPE_HASH"
    assert made.microseconds > 0 and not made.answered
    assert frozen.subject == 'map "mine" (hash)' == frozen.field("map_fd").text.partition(": ")[2]
    assert "#1 bpf(BPF_MAP_CREATE): make a map (Linux 3.18)\n" in out.getvalue()
    assert f'   = {made.result}: map "mine" (hash), ' in out.getvalue()
    assert not observers


@NEEDS_ROOT
def test_refusals_in_words() -> None:
    with pybpf.explain(io.StringIO()) as story, pytest.raises(pybpf.BPFError):
        syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=5, value_size=8, max_entries=3)
    (call,) = story.calls
    assert (call.result, call.errno, call.errno_name, call.errno_text) == (
        -1,
        errno.EINVAL,
        "EINVAL",
        "Invalid argument",
    )


@NEEDS_ROOT
def test_elements_are_told_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with syscall.map_create(BPF_MAP_TYPE_HASH, key_size=8, value_size=8, max_entries=3, name="fast") as fd:
        calls = elements.ElementCalls(fd.fileno(), 8, 8, key_format="Q", value_format="Q")
        calls.update(1, 10)
        with pybpf.explain(io.StringIO()) as story:
            assert calls.lookup(1) == 10
            calls.update(2, 20)
            assert calls.delete(2)
        assert [call.command for call in story.calls] == [
            "BPF_MAP_LOOKUP_ELEM",
            "BPF_MAP_UPDATE_ELEM",
            "BPF_MAP_DELETE_ELEM",
        ]
        assert story.calls[0].subject == 'map "fast" (hash)'
        assert story.calls[0].field("value").text.endswith("(10)")
        # Unwatched, nothing of the seam is touched.
        monkeypatch.setattr(elements, "Call", None)
        monkeypatch.setattr(elements, "observe", None)
        assert calls.lookup(1) == 10
        calls.update(2, 20)
        assert calls.delete(2)
        calls.close()


@NEEDS_ROOT
def test_the_fast_paths_of_maps_are_told(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        table = obj.maps["table"]
        table[9] = 1
        with pybpf.explain(io.StringIO()) as story:
            table[9] = 2
            assert table[9] == 2
            assert 77 not in table
            del table[9]
            assert list(table.items()) == []
        table[9] = 3
    commands = [call.command.removeprefix("BPF_MAP_") for call in story.calls]
    assert commands[:4] == ["UPDATE_ELEM", "LOOKUP_ELEM", "LOOKUP_ELEM", "DELETE_ELEM"]
    assert len(commands) > 4
    assert story.calls[2].errno_name == "ENOENT"


@NEEDS_ROOT
def test_the_other_ways_into_the_kernel() -> None:
    with pybpf.explain(io.StringIO()) as story:
        with syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, disabled=1) as event:
            syscall.perf_enable(event)
            syscall.map_memory(event, 2 * mmap.PAGESIZE, writable=True).close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(pybpf.BPFError):
            syscall.attach_socket_filter(sock, 1)
    opened, enabled, mapped, attached = story.calls
    assert opened.field("type").text == "PERF_TYPE_SOFTWARE" and opened.field("disabled").text == "1"
    assert opened.made == "perf event (PERF_COUNT_SW_DUMMY)"
    assert enabled.purpose == "let a perf event count" and enabled.subject == opened.made
    assert mapped.field("length").value == 2 * mmap.PAGESIZE and mapped.subject == opened.made
    assert attached.title == "setsockopt(SO_ATTACH_BPF)" and attached.errno
    assert attached.field("value").meaning == "the program; 0 is none"
    assert all(call.purpose for call in story.calls)


def test_requests_over_netlink() -> None:
    from pybpf.syscall.netlink import RouteSocket

    flags = 0x301  # a request, for all there is
    with pybpf.explain(io.StringIO()) as story, RouteSocket() as route:
        assert route.request("RTM_GETLINK", struct.pack("=IHHII", 32, 18, flags, 0, 0) + bytes(16))
    opened, asked = story.calls
    assert opened.made == "netlink socket"
    assert asked.title == "netlink(RTM_GETLINK)"
    assert asked.field("message").text.startswith("NLM_F_REQUEST | NLM_F_DUMP; 32 bytes: ")


@NEEDS_ROOT
def test_tracepoints_by_name() -> None:
    from pybpf import tracefs

    number = tracefs.event_id("sched", "sched_switch")
    with pybpf.explain(io.StringIO()) as story:
        syscall.perf_event_open(PERF_TYPE_TRACEPOINT, number).close()
    assert story.calls[0].made == "perf event (sched/sched_switch)"
    assert story.calls[0].field("config").text == f"{number}: sched/sched_switch"


@NEEDS_ROOT
def test_an_object_with_its_instructions(everything: Path) -> None:
    with pybpf.explain(io.StringIO(), instructions=True, zeros=True) as story, pybpf.load(everything):
        pass
    loads = [call for call in story.calls if call.command == "BPF_PROG_LOAD" and not call.errno]
    main = next(call for call in loads if call.field("prog_name").value == "main_program")
    assert any('map "table" (hash) (fd ' in line for line in main.instructions)
    assert main.instructions[-1].endswith("exit")
    assert main.field("prog_flags").text == "0"
    assert main.field("prog_btf_fd").text.partition(": ")[2].startswith("BTF (")


@NEEDS_ROOT
def test_the_verifiers_words_are_told() -> None:
    with pybpf.explain(io.StringIO()) as story, pytest.raises(pybpf.BPFError):
        code = encode([Instruction(0xBF, dst=0, src=5), Instruction(0x95)])
        syscall.prog_load(1, code, log_level=1, log_buffer=bytearray(4096))
    assert "R5 !read_ok" in story.calls[-1].log


class Page(HTMLParser):
    """Counts what is in a page, and that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.calls = 0
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.calls += tag == "details"
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@NEEDS_ROOT
def test_a_page(tmp_path: Path) -> None:
    path = tmp_path / "calls.html"
    with pybpf.explain(path) as story:
        syscall.map_create(BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=3, name="a").close()
        with pytest.raises(pybpf.BPFError):
            syscall.obj_get("/sys/fs/bpf/<script>alert(1)</script>")
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.calls == len(story.calls) == 2
    assert page.open == ["html", "body"]  # whose ends HTML lets be left out
    assert page.links == [] and "http" not in text and "@import" not in text and "url(" not in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text
    assert '<details class="failed"' in text


@NEEDS_ROOT
def test_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with pybpf.explain(path):
        syscall.map_create(BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=3, name="a").close()
    (line,) = path.read_text().splitlines()
    found = json.loads(line)
    assert (found["call"], found["command"], found["made"]) == ("bpf", "BPF_MAP_CREATE", 'map "a" (hash)')
    assert {"name": "key_size", "value": 4, "text": "4", "meaning": "bytes of a key"} in found["fields"]


@NEEDS_ROOT
def test_a_whole_process(tmp_path: Path) -> None:
    result = python("-c", SCRIPT, PYBPF_EXPLAIN="1")
    assert result.returncode == 0 and 'map "seen" (array)' in result.stderr
    result = python("-c", SCRIPT, PYBPF_EXPLAIN="json")
    assert json.loads(result.stderr)["made"] == 'map "seen" (array)'
    assert python("-c", SCRIPT, PYBPF_EXPLAIN=str(tmp_path / "calls.%p.html")).stderr == ""
    (page,) = tmp_path.iterdir()
    assert page.name.split(".")[1].isdigit() and "&quot;seen&quot;" in page.read_text()
    assert python("-c", SCRIPT, PYBPF_EXPLAIN="").stderr == ""


def test_a_file_that_cannot_be_written_does_not_keep_the_program_from_running() -> None:
    result = python("-c", "import pybpf; print('ran')", PYBPF_EXPLAIN="/no/such/calls.html")
    assert (result.returncode, result.stdout) == (0, "ran\n")
    assert result.stderr == "pybpf: PYBPF_EXPLAIN: /no/such/calls.html: No such file or directory\n"


def test_nothing_is_imported_when_nobody_asks() -> None:
    result = python("-c", "import pybpf, sys; print([n for n in sys.modules if 'explaining' in n])", PYBPF_EXPLAIN="")
    assert result.stdout.strip() == "[]"


def test_formats() -> None:
    with pytest.raises(ValueError, match="text, json or html"):
        pybpf.explain(io.StringIO(), format="pdf")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError), pybpf.explain("/no/such/folder/x.txt"):
        pass
    assert not observers
    with pytest.raises(OSError, match="No space left"):
        pybpf.explain("/dev/full", format="html").start()
    with pybpf.explain(io.StringIO()) as story:
        story.start()
        assert len(observers) == 1
    assert not observers


def test_dry_run_sends_nothing(everything: Path) -> None:
    with pybpf.explain(io.StringIO(), dry_run=True) as story, pybpf.load(everything) as obj:
        assert list(obj.programs) == ["main_program", "tail_caller", "called"] or len(obj.programs) == 3
        assert [each.id for each in obj.programs.values()] == [each.fd.fileno() for each in obj.programs.values()]
    assert all(call.answered for call in story.calls if call.name != "mmap")
    assert {"BPF_BTF_LOAD", "BPF_MAP_CREATE", "BPF_PROG_LOAD"} <= {call.command for call in story.calls}
    loaded = [call for call in story.calls if call.command == "BPF_PROG_LOAD"]
    assert loaded[-1].field("prog_btf_fd").text.partition(": ")[2].startswith("BTF (")


@NEEDS_ROOT
def test_dry_run_tells_what_a_real_load_sends(everything: Path) -> None:
    def commands(dry_run: bool) -> list[tuple[str, list[str]]]:
        with pybpf.explain(io.StringIO(), dry_run=dry_run) as story, pybpf.load(everything):
            pass
        return [
            (call.command, [one.name for one in call.fields if not one.is_output and one.name != "info_len"])
            for call in story.calls
        ]

    assert commands(True) == commands(False)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv, to be nobody")
def test_dry_run_needs_no_privileges() -> None:
    """An object whose externs need the addresses of /proc/kallsyms would; this one has none."""
    code = (
        "import io, sys, pybpf\n"
        "with pybpf.explain(io.StringIO(), dry_run=True) as story, pybpf.load(sys.stdin.buffer.read()): pass\n"
        "print(len(story.calls), all(call.answered for call in story.calls if call.name != 'mmap'))"
    )
    result = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", sys.executable, "-c", code],
        input=Path(find("runqlat")).read_bytes(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
    )
    if b"Permission denied" in result.stderr:
        pytest.skip(f"nobody may not run this: {result.stderr.decode()[-300:]}")
    count, answered = result.stdout.decode().split()
    assert int(count) >= 9 and answered == "True", result.stderr


@NEEDS_ROOT
def test_the_command(tmp_path: Path, everything: Path) -> None:
    result = python("-m", "pybpf", "explain", str(everything))
    assert result.returncode == 0, result.stderr
    assert "bpf(BPF_PROG_LOAD): verify a program and load it (Linux 3.18)" in result.stdout
    assert "not attached: main_program: SEC('socket') names no target" in result.stderr
    result = python("-m", "pybpf", "explain", str(everything), "main_program", "--json", "--dry-run")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["command"] for one in lines].count("BPF_PROG_LOAD") == 1
    page = tmp_path / "page.html"
    result = python("-m", "pybpf", "explain", str(everything), "--html", str(page), "--instructions")
    assert result.returncode == 0 and f"written to {page}" in result.stderr
    assert "<h2>The program</h2>" in page.read_text()
    assert python("-m", "pybpf", "explain", str(everything), "nonsense").returncode == 3
    assert python("-m", "pybpf", "explain", str(everything), "--json", "--html", "x").returncode == 2


@NEEDS_ROOT
def test_a_rejection_is_told_too(tmp_path: Path) -> None:
    build = ObjectBuilder(tmp_path)
    rejected = build("load_rejected.bpf.c", byte_order=sys.byteorder)
    result = python("-m", "pybpf", "explain", str(rejected), "null_pointer")
    assert result.returncode == 5
    assert "processed " in result.stdout  # the end of the verifier's log: each kernel words the reason in its own way
    assert "Compare the pointer with NULL" in result.stderr
