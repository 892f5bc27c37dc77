"""The rules of the house, held by reading the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pybpf"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
VERDICTS = ("pybpf.verifier.log", "pybpf.verifier.words", "pybpf.verifier.advice", "pybpf.verifier.compare")
PURE = (
    "pybpf.elf",
    "pybpf.btf",
    "pybpf.asm",
    "pybpf.sim",
    "pybpf.events.types",
    "pybpf.spec",
    "pybpf.mapspec",
    "pybpf.variables",
    *VERDICTS,
)
PURE_MAY_IMPORT = (*PURE, "pybpf.errors", "pybpf.constants", "pybpf.abi", "pybpf.lazy")
HEAVY = (
    "asyncio",
    "collections",
    "contextlib",
    "dataclasses",
    "elftools",
    "enum",
    "functools",
    "inspect",
    "logging",
    "operator",
    "pathlib",
    "re",
    "resource",
    "typing",
    "warnings",
)


def is_within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


class Imports(ast.NodeVisitor):
    """Imports of a module: those made when it is imported, and those made later inside functions."""

    def __init__(self, module: str, path: Path) -> None:
        self.early: set[str] = set()
        self.late: set[str] = set()
        self._into = self.early
        self._package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self.visit(ast.parse(path.read_text()))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._into = self._into, self.late
        self.generic_visit(node)
        self._into = outer

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self._into.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            package = self._package.rsplit(".", node.level - 1)[0] if node.level > 1 else self._package
            base = f"{package}.{base}".rstrip(".")
        for alias in node.names:
            name = f"{base}.{alias.name}"
            self._into.add(name if name in MODULES else base)


IMPORTS = {module: Imports(module, path) for module, path in MODULES.items()}


def test_ctypes_is_only_behind_the_door() -> None:
    users = {
        module
        for module, imports in IMPORTS.items()
        if any(name.split(".")[0] in ("ctypes", "_ctypes") for name in imports.early | imports.late)
    }
    assert users
    assert all(is_within(module, ("pybpf.syscall",)) for module in users), users


@pytest.mark.parametrize("module", [name for name in MODULES if is_within(name, PURE)])
def test_pure_floors_import_no_live_floor(module: str) -> None:
    for name in IMPORTS[module].early:
        if name.startswith("pybpf"):
            assert is_within(name, PURE_MAY_IMPORT), f"{module} imports {name}"


def test_the_only_way_up_from_a_pure_floor_is_load() -> None:
    ways = {
        (module, name)
        for module in MODULES
        if is_within(module, PURE)
        for name in IMPORTS[module].late
        if name.startswith("pybpf") and not is_within(name, PURE_MAY_IMPORT)
    }
    assert ways == {("pybpf.spec", "pybpf.object")}


def test_no_import_cycles() -> None:
    graph = {module: {n for n in imports.early if n in MODULES} for module, imports in IMPORTS.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for following in sorted(graph[module] - {module}):
                visit(following, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


EVENT_PATH = """
import sys
import pybpf.maps.ringbuf, pybpf.maps.perf, pybpf.events.ringbuf, pybpf.events.perfbuf, pybpf.events.types
import pybpf.btf.codec, pybpf.links.auto, pybpf.links.raw_tracepoint, pybpf.live_globals
pybpf.load, pybpf.ObjectSpec
print(" ".join(name for name in {heavy!r} if name in sys.modules))
"""


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """From the file to its first event: the modules that cost milliseconds stay out until something uses them."""
    code = EVENT_PATH.format(heavy=HEAVY)
    bare = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert bare.stdout.split() == []
