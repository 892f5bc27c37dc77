"""The code blocks of a page of Markdown, and running one as a reader does: in a process of its own, in the checkout.

What a reader does not see stands in HTML comments before a block:

    <!-- needs root, feature kprobes -->   where the block cannot run, it is skipped with the probe's reason
    <!-- while /bin/true -->               this command is run again and again while the block runs
    <!-- in a network namespace -->        of its own, whose loopback interface is up
    <!-- numbers differ -->                before a block of output, or a console: any numbers will do, and ms for us
    <!-- not run: the reason -->           the block is shown only

What may be needed: root, little-endian, "command tcpdump", "package capstone", "machine x86_64", "module bpf" (of
security), and what `pybpf.probe` has a function for: "feature kprobes", "btf enum64", "helper lsm d_path".

The output of a Python block is the `text` block after it, if there is one. In output `...` stands for anything: for
any lines when it is a line of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pybpf import probe
from pybpf.probe.doctor import check_lsm

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 300
"""Seconds for one block; emulated machines are slow."""

_PIECE = re.compile(
    r"^<!-- (?P<comment>.+?) -->$|^(?P<indent> *)```(?P<language>\S*)\n(?P<code>.*?)^ *```$", re.M | re.S
)
_NUMBER = r"0x[0-9a-f]+|\d(?:[\d,.]*\d)?"


@dataclass
class Block:
    """A fenced block: where it is, what it says, and what the comments before it say."""

    page: Path
    line: int
    language: str
    code: str
    comments: dict[str, str] = field(default_factory=dict)
    output: Block | None = None

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    found: list[Block] = []
    comments: dict[str, str] = {}
    end = 0
    for piece in _PIECE.finditer(text):
        adjacent = not text[end : piece.start()].strip()
        end = piece.end()
        if piece["comment"]:
            word, _, rest = piece["comment"].partition(" ")
            comments = {**(comments if adjacent else {}), word: rest}
            continue
        block = Block(page, text.count("\n", 0, piece.start()) + 1, piece["language"], piece["code"], comments)
        if block.language == "text" and adjacent and found and found[-1].language == "python":
            found[-1].output = block
        found.append(block)
        comments = {}
    return found


def skip_unless(needs: str) -> None:
    """Skip the test where something of a `needs` comment is not there, with the reason."""
    for need in filter(None, needs.split(", ")):
        kind, _, name = need.partition(" ")
        if kind == "root":
            if os.geteuid() != 0:
                pytest.skip("bpf(2) needs root")
        elif kind == "command":
            if shutil.which(name) is None:
                pytest.skip(f"{name} is not installed")
        elif kind == "package":
            pytest.importorskip(name, reason=f"{name} is not installed")
        elif kind == "little-endian":
            if sys.byteorder != "little":
                pytest.skip("the block is about little-endian machines")
        elif kind == "module":  # of security
            if check_lsm().level == "limit":
                pytest.skip(check_lsm().what)
        elif kind == "machine":
            if os.uname().machine != name:
                pytest.skip(f"the block is about {name}")
        else:
            answer = getattr(probe, f"has_{kind}")(*name.split())
            if not answer:
                pytest.skip(f"{need}: {answer.evidence}")


def pattern(expected: str, numbers_differ: bool) -> re.Pattern[str]:
    """What an output must look like, from what the page shows."""
    lines = []
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        parts = []
        for part in re.split(rf"(\.\.\.|[ \t]+|{_NUMBER})", line.rstrip()):
            if part == "...":
                parts.append(".*?")
            elif part.isspace():
                parts.append(r"[ \t]+")
            elif numbers_differ and part in ("us", "ms"):
                parts.append("[um]s")
            elif numbers_differ and re.fullmatch(_NUMBER, part):
                parts.append(f"(?:{_NUMBER})")
            else:
                parts.append(re.escape(part))
        lines.append("".join(parts) + r"[ \t]*\n")
    return re.compile("".join(lines))


def compare(expected: str, actual: str, numbers_differ: bool) -> None:
    """The output must look like what the page shows."""
    wanted = pattern(_for_this_machine(expected), numbers_differ)
    assert wanted.fullmatch(actual.rstrip("\n") + "\n"), f"the page shows:\n{expected}\nit printed:\n{actual}"


@contextmanager
def meanwhile(command: str) -> Iterator[None]:
    """Run a command again and again, for programs that wait for something to happen."""
    over = threading.Event()

    def repeat() -> None:
        while command and not over.wait(0.2):
            subprocess.run(command, shell=True, check=False, stdout=subprocess.DEVNULL)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _for_this_machine(code: str) -> str:
    return code if sys.byteorder == "little" else code.replace(".bpf.o", ".eb.bpf.o")


_IN_NAMESPACE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def _run(block: Block, line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A process in the checkout, whose temporary files go to a folder of the test."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        _IN_NAMESPACE + line if "in" in block.comments else line,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "TMPDIR": str(folder), "COLUMNS": "120", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def run_python(block: Block, folder: Path) -> None:
    """Run a Python block; what it prints must be the block of output behind it."""
    script = folder / f"{block.page.stem}_{block.line}.py"
    script.write_text(_for_this_machine(block.code))
    done = _run(block, [sys.executable, "-W", "error", str(script)], folder)
    assert done.returncode == 0, done.stdout
    assert "Exception ignored" not in done.stdout, done.stdout  # a ResourceWarning, say
    if block.output is not None:
        compare(block.output.code, done.stdout, "numbers" in block.output.comments)


def run_console(block: Block, folder: Path) -> None:
    """Run each command of a console block; what it prints must be what follows it."""
    for piece in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
        command, _, expected = piece.partition("\n")
        while command.endswith("\\"):
            more, _, expected = expected.partition("\n")
            command = f"{command[:-1]} {more}"
        done = _run(block, ["bash", "-c", _for_this_machine(command)], folder)
        if expected.strip():
            compare(expected, done.stdout, "numbers" in block.comments)
        else:
            assert done.returncode == 0, done.stdout


RUNNERS: dict[str, Callable[[Block, Path], None]] = {"python": run_python, "console": run_console}


def runnable(page: Path) -> list[Block]:
    """The blocks of a page that a test runs."""
    return [block for block in blocks(page) if block.language in RUNNERS and "not" not in block.comments]


def run(block: Block, folder: Path) -> None:
    """Run a block where it can run."""
    skip_unless(block.comments.get("needs", ""))
    with meanwhile(block.comments.get("while", "")):
        RUNNERS[block.language](block, folder)
