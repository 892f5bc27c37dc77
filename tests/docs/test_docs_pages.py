"""The code of docs/*.md and the README: what stands by itself is run; of the rest, names and arguments are checked.

docs/networking.md and docs/sim.md are run by the tests of links and of the simulated kernel.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import ROOT, Block, blocks, run

import pybpf
import pybpf.links
from pybpf.cli import _parser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]

#: page -> a line of the block: what goes before it, what goes behind it, what is said otherwise.
PREPARED: dict[str, dict[str, tuple[str, str, dict[str, str]]]] = {
    "README": {
        'pybpf.load("kernels/execsnoop.bpf.o")': ("", "", {"event.arguments)": "event.arguments); break"}),
        'spec.maps["running"]': ("import pybpf", "", {}),
    },
    "assembler": {"XDP_PASS; exit": ("", "", {}), "Assembler(": ("", "", {})},
    "classic": {"Filter.from_text": ("", "", {})},
    "doctor": {"probe.has_map_type": ("", "assert answer.verdict in ('yes', 'no', 'cannot tell')", {})},
    "events": {"import pybpf\n": ("", "", {'"exec': '"kernels/exec', "event.comm)": "event.comm); break"})},
    "explain": {
        "as story": (
            "",
            "obj.close()\nassert made.field('map_type').text.startswith('BPF_MAP_TYPE_')",
            {"x.bpf.o": "kernels/execsnoop.bpf.o"},
        ),
        "class Count": (
            "",
            "import pybpf\npybpf.HashMap(key=4, value=4, max_entries=1).close()",
            {},
        ),
    },
    "maps": {
        "a.view(": ("import pybpf\nfrom pybpf.constants import BPF_F_MMAPABLE", "assert a[7] == 5\na.close()", {}),
        "m.snapshot()": (
            "import os, pybpf\n"
            "m = pybpf.HashMap(key='u32', value='struct stats { u64 packets; u64 bytes; }', max_entries=8)\n"
            "m[1] = {'packets': 7}\nfolder = os.environ['TMPDIR']",
            "assert m[1].packets == 7\nm.close()",
            {'"flows.bpfmap"': 'f"{folder}/flows.bpfmap"'},
        ),
    },
    "seccomp": {"policy.install()": ("", "", {}), "spawn(": ("", "", {})},
}


def prepared() -> Iterator[tuple[str, str, Block]]:
    for page, wanted in PREPARED.items():
        for line in wanted:
            found = [block for block in PYTHON if block.page.stem == page and line in block.code]
            assert found, f"{page} has no block with {line!r}"
            yield page, line, found[0]


RUN = list(prepared())


@pytest.mark.kernel
@pytest.mark.parametrize(("page", "line", "block"), RUN, ids=[str(block) for _, _, block in RUN])
def test_it_runs(page: str, line: str, block: Block, tmp_path: Path) -> None:
    before, behind, instead = PREPARED[page][line]
    code = block.code
    for old, new in instead.items():
        assert old in code
        code = code.replace(old, new)
    comments = {"needs": "root", "while": "/bin/true"}
    run(Block(block.page, block.line, "python", f"{before}\n{code}\n{behind}\n", comments), tmp_path)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_names_and_arguments_are_right(block: Block) -> None:
    tree = compile(block.code, str(block), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pybpf"):
            for alias in node.names:
                home = importlib.import_module(node.module or "")
                if not hasattr(home, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pybpf":
            if not hasattr(pybpf, node.attr):
                importlib.import_module(f"pybpf.{node.attr}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name.startswith("attach_") and not any(isinstance(given, ast.Starred) for given in node.args):
                method = getattr(pybpf.links, name)
                keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(method).bind(None, *node.args, **keywords)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every use of the command in the pages, without what the shell does with it."""
    for page in [*PAGES, *sorted((ROOT / "docs/learn").glob("*.md"))]:
        for block in blocks(page):
            if block.language not in ("sh", "console"):
                continue
            for line in re.findall(r"^(?:\$ |\w+ \| |[\w -]+ \| )?pybpf .*", block.code, re.M):
                words = shlex.split(line[line.index("pybpf ") :], comments=True)
                end = next((i for i, word in enumerate(words) if re.match(r"\d?[|>&]", word)), len(words))
                if not any(word.startswith("[") for word in words):  # a synopsis
                    yield f"{block.page.stem}: {shlex.join(words[1:end])}", words[1:end]


@pytest.mark.parametrize(
    ("name", "words"), list(command_lines()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_command_lines_are_understood(name: str, words: list[str]) -> None:
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            _parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"{name}: {complaint.getvalue()}")
