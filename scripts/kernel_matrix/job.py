"""What a guest is to do: a command, and the files it needs.

The guest's working folder is the copy of the checkout (or the folder in it that corresponds to the caller's). Files
named on the command line that lie elsewhere on the host are copied to /files, and the command is changed to say so.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kernel_matrix.cpio import CpioWriter

CHECKOUT = "/checkout"
FILES = "/files"
JUNIT = "/out/junit.xml"

#: Names of files and folders of a checkout that no guest needs.
LEFT_OUT = (
    ".git",
    ".venv",
    ".free-threaded",
    "venv",
    ".matrix",
    ".hypothesis",
    ".coverage*",
    "*_cache",
    "__pycache__",
    "*.pyc",
    "*.egg-info",
    "build",
    "dist",
    "node_modules",
)

#: Folders that are the guest's own, though the host has them too.
SYSTEM_FOLDERS = ("bin", "dev", "etc", "lib", "lib64", "out", "proc", "run", "sbin", "sys", "usr")

#: The whole suite. Of a test that takes longer than five minutes, pytest shows where it is: so a hang can be found.
SUITE = ("pytest", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=300", "tests")


@dataclass(frozen=True)
class Job:
    """A command in the guest's terms, its working folder there, and host files by their path there."""

    command: tuple[str, ...]
    folder: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def writes_junit(self) -> bool:
        """Whether the command is made to write its results as JUnit XML."""
        return f"--junitxml={JUNIT}" in self.command


def is_left_out(name: str) -> bool:
    """Whether a path of the checkout, relative to its top, stays out of the copy."""
    return any(fnmatch(part, pattern) for part in PurePosixPath(name).parts for pattern in LEFT_OUT)


def plan(words: tuple[str, ...], checkout: Path, folder: Path) -> Job:
    """The job that runs these words, which were given in this folder of the host."""
    files: dict[str, Path] = {}
    command = [words[0], *(_argument(word, checkout, folder, files) for word in words[1:])]
    if runs_pytest(words) and not any(word.startswith(("--junitxml", "--junit-xml")) for word in words):
        command.append(f"--junitxml={JUNIT}")
    within = _in_checkout(folder, checkout)
    return Job(tuple(command), CHECKOUT if within is None else within, files)


def runs_pytest(words: tuple[str, ...]) -> bool:
    """Whether the command is pytest, started as itself or as python -m pytest."""
    return words[0] == "pytest" or (words[0] in ("python", "python3") and words[1:3] == ("-m", "pytest"))


def _argument(word: str, checkout: Path, folder: Path, files: dict[str, Path]) -> str:
    """The word as the guest must see it; a host file it names is entered in files when it has to be copied."""
    path = folder / word
    if word.startswith("-") or not path.is_file():
        return word
    path = path.resolve()
    within = _in_checkout(path, checkout)
    if within is not None:
        return within if Path(word).is_absolute() or ".." in Path(word).parts else word
    if path.parts[1] in SYSTEM_FOLDERS:
        return word
    name = f"{FILES}/{path.name}"
    if files.get(name, path) != path:
        name = f"{FILES}/{len(files)}/{path.name}"
    files[name] = path
    return name


def _in_checkout(path: Path, checkout: Path) -> str | None:
    """Where a host path lies in the guest's copy of the checkout; None when it is not in the copy."""
    path, checkout = path.resolve(), checkout.resolve()
    if not path.is_relative_to(checkout):
        return None
    relative = str(path.relative_to(checkout))
    return None if is_left_out(relative) else str(PurePosixPath(CHECKOUT) / relative)


def script(job: Job) -> str:
    """The shell script that the guest's init runs. PYBPF_EMULATED makes costly tests try fewer examples."""
    environment = f"export PYTHONPATH={CHECKOUT} PYBPF_EMULATED=1"
    return f"cd {shlex.quote(job.folder)} || exit 125\n{environment}\nexec {shlex.join(job.command)}\n"


def write_archive(file: BinaryIO, job: Job, checkout: Path, init: Path) -> None:
    """Write the job's part of the initramfs: init, command, the copy of the checkout, other files."""
    with CpioWriter(file) as archive:
        archive.file("init", init.read_bytes(), 0o755)
        archive.file("job/command", script(job).encode())
        archive.folder(CHECKOUT[1:])
        archive.tree(checkout, CHECKOUT[1:], skip=is_left_out)
        for name, path in job.files.items():
            archive.path(path, name[1:])
