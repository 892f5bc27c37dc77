"""The kernel matrix: what a guest is given to do, and the archive that brings it there."""

from __future__ import annotations

import io
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_matrix.cpio import CpioWriter
from kernel_matrix.guest import INIT
from kernel_matrix.job import JUNIT, SUITE, Job, is_left_out, plan, script, write_archive

Entry = tuple[int, bytes, int, tuple[int, int]]  # mode, data, mtime, device


def read_cpio(data: bytes) -> dict[str, Entry]:
    """The entries of an archive, read as the kernel's unpacker does."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, user, group, _, mtime, size, _, _, major, minor, name_size, _ = fields
        assert (user, group) == (0, 0)
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return entries
        assert name not in entries
        assert not os.path.dirname(name) or stat.S_ISDIR(entries[os.path.dirname(name)][0])
        entries[name] = (mode, data[at : at + size], mtime, (major, minor))
        at = (at + size + 3) & ~3


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout: a package, tests, an object, and what must stay out."""
    top = tmp_path / "checkout"
    for name in ("pybpf/a.py", "tests/links/test_a.py", "kernels/x.bpf.o", ".git/HEAD", ".venv/bin/python"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


def test_archive_of_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/run").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "sub/run").chmod(0o755)
    os.utime(tmp_path / "sub/run", (5, 1234567890))
    (tmp_path / "link").symlink_to("sub/run")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped/file").touch()
    os.mkfifo(tmp_path / "pipe")
    output = io.BytesIO()
    with CpioWriter(output) as archive:
        archive.tree(tmp_path, "usr/share", skip=lambda name: name == "skipped")
        archive.character_device("dev/console", 5, 1)
        archive.folder("usr")
    entries = read_cpio(output.getvalue())
    assert list(entries) == [
        "usr",
        "usr/share",
        "usr/share/link",
        "usr/share/sub",
        "usr/share/sub/run",
        "dev",
        "dev/console",
    ]
    assert entries["usr/share/sub/run"] == (stat.S_IFREG | 0o755, b"#!/bin/sh\n", 1234567890, (0, 0))
    assert entries["usr/share/link"][:2] == (stat.S_IFLNK | 0o777, b"sub/run")
    assert entries["dev/console"] == (stat.S_IFCHR | 0o600, b"", 0, (5, 1))


@given(
    st.dictionaries(
        st.text("abcä.-", min_size=1, max_size=9).filter(lambda n: n not in (".", "..")), st.binary(max_size=9)
    )
)
def test_archive_of_any_files(files: dict[str, bytes]) -> None:
    output = io.BytesIO()
    with CpioWriter(output) as archive:
        for name, data in files.items():
            archive.file(name, data)
    assert {name: entry[1] for name, entry in read_cpio(output.getvalue()).items()} == files


@pytest.mark.parametrize(
    ("name", "out"),
    [
        (".git", True),
        (".venv", True),
        (".mypy_cache", True),
        ("pybpf/__pycache__", True),
        (".matrix", True),
        ("pybpf.egg-info", True),
        (".ci/run", False),
        ("kernels/x.bpf.o", False),
        ("pybpf/cache.py", False),
        ("scripts/build-kernels", False),
    ],
)
def test_what_is_left_out(name: str, out: bool) -> None:
    assert is_left_out(name) == out


def test_the_suite_writes_junit(checkout: Path) -> None:
    job = plan(SUITE, checkout, checkout)
    assert job.command == (*SUITE, f"--junitxml={JUNIT}")
    assert job.writes_junit
    assert job.folder == "/checkout"


@pytest.mark.parametrize(
    ("words", "writes"),
    [
        (("python3", "-m", "pytest", "tests"), True),
        (("pytest", "--junitxml=/tmp/mine.xml"), False),
        (("python3", "-m", "pybpf"), False),
        (("sh", "-c", "pytest"), False),
    ],
)
def test_only_pytest_is_made_to_write_junit(words: tuple[str, ...], writes: bool, checkout: Path) -> None:
    job = plan(words, checkout, checkout)
    assert job.writes_junit == writes
    assert job.command[: len(words)] == words


def test_files_outside_the_checkout_are_copied(checkout: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in ("x.bpf.o", "other/x.bpf.o"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(name)
    job = plan(("pybpf", "run", "x.bpf.o", "--quiet", str(mine / "other/x.bpf.o"), "x.bpf.o"), checkout, mine)
    assert job.command == ("pybpf", "run", "/files/x.bpf.o", "--quiet", "/files/1/x.bpf.o", "/files/x.bpf.o")
    assert job.files == {"/files/x.bpf.o": mine / "x.bpf.o", "/files/1/x.bpf.o": mine / "other/x.bpf.o"}
    assert job.folder == "/checkout"


def test_files_of_the_checkout_are_in_the_copy(checkout: Path) -> None:
    words = ("cat", "test_a.py", "../../kernels/x.bpf.o", str(checkout / "pybpf/a.py"), "absent", ".")
    job = plan(words, checkout, checkout / "tests/links")
    assert job.command == ("cat", "test_a.py", "/checkout/kernels/x.bpf.o", "/checkout/pybpf/a.py", "absent", ".")
    assert job.folder == "/checkout/tests/links"
    assert job.files == {}


def test_a_file_that_the_copy_leaves_out_is_copied_by_itself(checkout: Path) -> None:
    job = plan(("cat", ".git/HEAD"), checkout, checkout)
    assert job.command == ("cat", "/files/HEAD")
    assert job.files == {"/files/HEAD": checkout / ".git/HEAD"}


def test_the_systems_own_files_are_the_guests(checkout: Path) -> None:
    words = ("cat", "/proc/version", "/etc/hostname", "/usr/bin/env")
    assert plan(words, checkout, checkout) == Job(words, "/checkout")


def test_script_keeps_words_whole() -> None:
    text = script(Job(("echo", "two words", "$HOME;`x`", ""), "/checkout/a b"))
    assert shlex.split(text.splitlines()[-1]) == ["exec", "echo", "two words", "$HOME;`x`", ""]
    assert text.startswith("cd '/checkout/a b' || exit")


def test_the_archive_of_a_job(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "x.bpf.o").write_bytes(b"\x7fELF")
    job = plan(("pybpf", "run", "x.bpf.o"), checkout, tmp_path)
    output = io.BytesIO()
    write_archive(output, job, checkout, INIT)
    entries = read_cpio(output.getvalue())
    assert entries["init"][:2] == (stat.S_IFREG | 0o755, INIT.read_bytes())
    assert entries["job/command"][1].endswith(b"exec pybpf run /files/x.bpf.o\n")
    assert entries["files/x.bpf.o"][1] == b"\x7fELF"
    assert entries["checkout/kernels/x.bpf.o"][1] == b"kernels/x.bpf.o"
    assert not any(part in name for name in entries for part in (".git", ".venv"))


def test_init_is_a_shell_script_without_faults() -> None:
    subprocess.run(["sh", "-n", str(INIT)], check=True)
