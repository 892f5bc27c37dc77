"""Objects compiled for tests of CO-RE, what we make of them, and what libbpf makes of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pybpf.btf.ext import BTFExt
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import CoreRelocation, Relocator, Resolution

OBJECTS = Path(__file__).resolve().parent.parent / "objects"
TARGETS = {"little": "bpfel", "big": "bpfeb"}


def clang() -> str:
    """A compiler with a BPF target that knows all kinds of relocation."""
    for name in ("clang-19", "clang"):
        if shutil.which(name):
            return name
    pytest.skip("no clang")


def build_object(source: Path, output: Path, byte_order: str = "little") -> Path:
    """Compile C to a BPF object."""
    command = [clang(), "-target", TARGETS[byte_order], "-g", "-O2", "-Wall", "-Werror", "-fno-crash-diagnostics"]
    command += [f"-I{OBJECTS}", "-c", str(source), "-o", str(output)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "Unsupported field expression" in run.stderr:
        pytest.skip("this compiler has no relocation for one of the bit fields")
    assert run.returncode == 0, run.stderr
    return output


def build_oracle(output: Path) -> Path:
    """Compile the program that prints libbpf's instructions."""
    if not shutil.which("gcc") or not Path("/usr/include/bpf/libbpf.h").exists():
        pytest.skip("no gcc or no libbpf-dev to compare with")
    source = OBJECTS / "relocated.c"
    subprocess.run(["gcc", "-O1", "-Wall", "-o", str(output), str(source), "-lbpf"], check=True, timeout=120)
    return output


def libbpf_instructions(oracle: Path, path: Path, custom: Path | None = None) -> dict[str, bytes]:
    """Program name -> the instructions that libbpf would load."""
    command = [str(oracle), str(path), *([str(custom)] if custom else [])]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    lines = (line.split() for line in run.stdout.splitlines())
    return {name: bytes.fromhex(data) for name, data in lines}


class CoreObject:
    """An object's programs and their CO-RE relocations, read with pyelftools."""

    def __init__(self, path: Path) -> None:
        self.functions: dict[str, bytes] = {}
        self.relocations: dict[str, list[CoreRelocation]] = {}
        with path.open("rb") as file:
            elf = ELFFile(file)
            self.btf = BTF.from_bytes(elf.get_section_by_name(".BTF").data())
            self.ext = BTFExt.from_bytes(elf.get_section_by_name(".BTF.ext").data(), self.btf)
            for symbol in elf.get_section_by_name(".symtab").iter_symbols():
                if symbol["st_info"]["type"] == "STT_FUNC":
                    section = elf.get_section(symbol["st_shndx"])
                    self._add(symbol.name, section.name, section.data(), symbol["st_value"], symbol["st_size"])

    def _add(self, name: str, section: str, data: bytes, start: int, size: int) -> None:
        self.functions[name] = data[start : start + size]
        records = self.ext.core[section].rows() if section in self.ext.core else ()
        self.relocations[name] = [
            CoreRelocation((offset - start) // 8, type_id, self.btf.string(access), kind)
            for offset, type_id, access, kind in records
            if start <= offset < start + size
        ]

    def relocate(self, relocator: Relocator) -> dict[str, tuple[bytes, list[Resolution]]]:
        """Every program's instructions after our relocation, and what its relocations came to."""
        result = {}
        for name, instructions in self.functions.items():
            code = bytearray(instructions)
            resolutions = relocator.apply(code, self.relocations[name], name)
            result[name] = bytes(code), resolutions
        return result
