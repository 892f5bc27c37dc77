"""The files that a process has mapped."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from pybpf.errors import BPFNotFoundError
from pybpf.symbols.process import Mapping, code_address, find_mapped, mapped_files, mappings


def test_a_line_of_maps() -> None:
    line = "7f5c6f5d8000-7f5c6f5d9000 r-xp 00003000 103:01 362990598    /data/a file\\012.so (deleted)\n"
    found = Mapping(line)
    assert (found.start, found.end, found.offset) == (0x7F5C6F5D8000, 0x7F5C6F5D9000, 0x3000)
    assert (found.is_code, found.path) == (True, "/data/a file\n.so (deleted)")
    assert Mapping("7f5c6f5d3000-7f5c6f5d8000 rw-p 00000000 00:00 0\n").path == ""


def test_this_process() -> None:
    executable = os.path.realpath("/proc/self/exe")
    assert executable in mapped_files(0)
    assert find_mapped(os.getpid(), os.path.basename(executable)) == executable
    assert find_mapped(0, "no such name") is None
    mapping = next(one for one in mappings(0) if one.is_code and one.path == executable)
    assert code_address(0, executable, mapping.offset + 16) == mapping.start + 16
    assert code_address(0, "/bin/sh", mapping.offset) is None
    with pytest.raises(BPFNotFoundError, match="there is no process 4194304"):
        list(mappings(4194304))


@pytest.mark.parametrize("name", ["carriage\rreturn.so", "form\ffeed.so", "two words.so ", "not\udcfftext.so"])
def test_names_of_files_that_look_like_the_end_of_a_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    with mapped:
        assert find_mapped(0, name) == str(path)


def test_file_that_was_deleted(tmp_path: Path) -> None:
    """The kernel still holds it, and another file may have its name."""
    path = tmp_path / "library.so"
    path.write_bytes(b"old".ljust(mmap.PAGESIZE))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
    with mapped:
        assert find_mapped(0, "library.so") == str(path)
        path.unlink()
        path.write_bytes(b"new")
        held = find_mapped(0, "library.so")
        assert held is not None
        if os.geteuid():
            pytest.skip("needs root")
        assert Path(held).read_bytes()[:3] == b"old"
        assert code_address(0, held, 5) is not None
