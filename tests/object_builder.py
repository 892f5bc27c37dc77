"""Compiles the sources below tests/objects.

The guests of the kernel matrix have no compiler. What their tests load lies compiled in tests/objects/built; run this
file to make those objects anew:   python tests/object_builder.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OBJECTS = Path(__file__).resolve().parent / "objects"
COMPILERS = [f"clang-{version}" for version in range(30, 11, -1) if shutil.which(f"clang-{version}")]
TARGETS = {"little": "bpfel", "big": "bpfeb"}

BUILT = OBJECTS / "built"
"""Objects for tests where there is no compiler."""

SOURCES = (
    "elf_arena.bpf.c",
    "elf_calls.bpf.c",
    "elf_data.bpf.c",
    "elf_exceptions.bpf.c",
    "elf_externs.bpf.c",
    "elf_legacy.bpf.c",
    "elf_link_b.bpf.c",
    "elf_maps.bpf.c",
    "elf_struct_ops.bpf.c",
)
"""The sources that are whole objects by themselves."""


def text(name: str, flags: str = "ax") -> str:
    """Assembly that begins a section."""
    return f'.section "{name}","{flags}",@progbits\n'


def function(name: str, body: str = "exit\n", bind: str = ".globl", size: str = "") -> str:
    """Assembly of a function; `size` is what its symbol says instead of its real size."""
    return f"{bind} {name}\n.type {name},@function\n{name}:\n{body}.size {name}, {size or f'.-{name}'}\n"


def built_path(source: str, byte_order: str) -> Path:
    """Where the compiled form of a source lies for places without a compiler."""
    return BUILT / f"{source.partition('.')[0]}.{TARGETS[byte_order]}.o"


def build_for_guests() -> list[Path]:
    """Compile every tests/objects/load_* for both byte orders into tests/objects/built."""
    BUILT.mkdir(exist_ok=True)
    outputs = []
    for source in sorted(OBJECTS.glob("load_*")):
        for byte_order, target in TARGETS.items():
            output = built_path(source.name, byte_order)
            debug = [] if source.suffix == ".s" else ["-g"]
            command = ["clang-19", "-target", target, "-O2", *debug, f"-fdebug-prefix-map={OBJECTS.parent.parent}=."]
            subprocess.run([*command, "-c", str(source), "-o", str(output)], check=True, timeout=120)
            subprocess.run(["llvm-strip-19", "-g", str(output)], check=True, timeout=120)
            outputs.append(output)
    return outputs


class ObjectBuilder:
    """Compiles each source at most once for each set of flags."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._built: dict[tuple[str, ...], Path] = {}

    def __call__(self, source: str, *flags: str, byte_order: str = "little", compiler: str = "") -> Path:
        """The object compiled from a source of tests/objects; skips when there is no clang and none is built."""
        if not COMPILERS:
            built = built_path(source, byte_order)
            if not built.exists() or flags:
                pytest.skip("no clang to compile BPF objects with")
            return built
        compiler = compiler or COMPILERS[0]
        key = (source, byte_order, compiler, *flags)
        if key not in self._built:
            folder = self.folder / str(len(self._built))
            folder.mkdir()
            output = folder / (source.partition(".")[0] + ".o")
            debug = [] if "-g0" in flags or source.endswith(".s") else ["-g"]
            command = [compiler, "-target", TARGETS[byte_order], "-O2", *debug, *flags, "-c", str(OBJECTS / source)]
            run = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, timeout=120)
            assert run.returncode == 0, run.stderr
            self._built[key] = output
        return self._built[key]

    def compile_text(self, name: str, text: str, *flags: str) -> Path:
        """The object compiled from a source given as text."""
        if not COMPILERS:
            pytest.skip("no clang to compile BPF objects with")
        source = self.folder / name
        source.write_text(text)
        output = source.with_suffix(".o")
        command = [COMPILERS[0], "-target", "bpfel", "-O2", "-g", f"-I{OBJECTS}", *flags, "-c", str(source)]
        run = subprocess.run([*command, "-o", str(output)], capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return output

    def link(self, name: str, *objects: Path) -> Path:
        """The objects linked statically by bpftool; skips the test when there is no bpftool."""
        bpftool = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
        if bpftool is None:
            pytest.skip("no bpftool to link objects with")
        output = self.folder / name
        command = [bpftool, "gen", "object", str(output), *map(str, objects)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return output


if __name__ == "__main__":
    for path in build_for_guests():
        sys.stdout.write(f"{path}\n")
