"""The dynamic linker's cache, beside what ldconfig(8) says of it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.symbols import find_binary
from pybpf.symbols.ld_cache import BIG, LITTLE, cached_libraries


def cache(libraries: list[tuple[str, str]], *, order: int, old_entries: int | None = None) -> bytes:
    """A cache in the new form; with `old_entries`, behind one in the old form of so many entries."""
    strings, entries = b"", b""
    start = 48 + 24 * len(libraries)
    for name, path in libraries:
        entries += struct.pack("=iIIIQ", 0x303, start + len(strings), start + len(strings) + len(name) + 1, 0, 0)
        strings += name.encode() + b"\0" + path.encode() + b"\0"
    new = b"glibc-ld.so.cache1.1" + struct.pack("=IIB", len(libraries), len(strings), order)
    new = new.ljust(48, b"\0") + entries + strings
    if old_entries is None:
        return new
    old = b"ld.so-1.7.0\0" + struct.pack("=I", old_entries) + bytes(12 * old_entries)
    return old + bytes(-len(old) % 8) + new


NATIVE, OTHER = (LITTLE, BIG) if sys.byteorder == "little" else (BIG, LITTLE)


@pytest.fixture
def library(tmp_path: Path) -> str:
    path = tmp_path / "libx.so.1"
    path.write_bytes(b"\x7fELF\2" if sys.maxsize > 1 << 32 else b"\x7fELF\1")
    return str(path)


@pytest.mark.parametrize("old_entries", [None, 0, 3])
@pytest.mark.parametrize("order", [0, NATIVE])
def test_forms(tmp_path: Path, library: str, order: int, old_entries: int | None) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"\x7fELF\1" if sys.maxsize > 1 << 32 else b"\x7fELF\2")
    path = tmp_path / "cache"
    libraries = [("liby.so", "/y"), ("libx.so.1", "/gone"), ("libx.so.1", str(small)), ("libx.so.1", library)]
    path.write_bytes(cache(libraries, order=order, old_entries=old_entries))
    assert list(cached_libraries("libx.so.1", path=str(path))) == [library]
    assert list(cached_libraries("libx.so", path=str(path))) == []


def test_caches_of_others(tmp_path: Path, library: str) -> None:
    path = tmp_path / "cache"
    assert list(cached_libraries("libx.so.1", path=str(path))) == []
    for data in (cache([("libx.so.1", library)], order=OTHER), cache([("libx.so.1", library)], order=1), b"musl"):
        path.write_bytes(data)
        assert list(cached_libraries("libx.so.1", path=str(path))) == []


@given(st.integers(0, 200), st.binary(max_size=8))
@settings(max_examples=few(200), deadline=None)
def test_damage(tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes) -> None:
    data = bytearray(cache([("libx.so.1", "/a"), ("liby.so", "/b")], order=NATIVE, old_entries=2))
    data[at : at + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    list(cached_libraries("libx.so.1", path=str(path)))


def test_beside_ldconfig() -> None:
    ldconfig = shutil.which("ldconfig") or shutil.which("ldconfig", path="/usr/sbin:/sbin")
    if ldconfig is None or not Path("/etc/ld.so.cache").exists():
        pytest.skip("no cache of the GNU C library")
    told = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    lines = [line.strip().split(" => ") for line in told.splitlines() if " => " in line]
    assert lines
    for words, path in lines:
        found = list(cached_libraries(words.partition(" ")[0]))
        assert path in found or not Path(path).exists() or "x86-64" not in words


def test_library_of_a_directory_that_only_the_cache_has(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pybpf.symbols import ld_cache

    path = tmp_path / "cache"
    path.write_bytes(cache([("libx.so.1", library)], order=NATIVE))
    monkeypatch.setattr(ld_cache.cached_libraries, "__kwdefaults__", {"path": str(path)})
    assert find_binary("libx.so.1") == library
