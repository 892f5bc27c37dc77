"""Debian packages by name, through apt with a state of its own: the machine's package lists are not touched.

The mirror is the one the machine's apt uses for Debian, or the one given. Nothing here needs root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kernel_matrix.cache import cache_folder, locked
from kernel_matrix.errors import MatrixError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def run(arguments: Iterable[str], *, environment: dict[str, str] | None = None, folder: Path | None = None) -> str:
    """Run a program to its end and return its output; MatrixError with its last words when it fails."""
    command = list(arguments)
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = "\n".join((done.stderr or done.stdout).strip().splitlines()[-12:])
        raise MatrixError(f"{' '.join(command[:3])} ... failed with status {done.returncode}:\n{words}")
    return done.stdout


@cache
def machine_mirror() -> str:
    """The mirror from which this machine's own apt takes Debian."""
    rows = run(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"])
    for row in rows.splitlines():
        label, _, uri = row.partition(" ")
        if label == "Debian" and uri:
            return uri.rstrip("/")
    raise MatrixError("this machine's apt has no Debian mirror: name one with --mirror URI")


@cache
def machine_architecture() -> str:
    """Debian's name of this machine's architecture."""
    return run(["dpkg", "--print-architecture"]).strip()


class Archive:
    """One suite of Debian for one architecture."""

    def __init__(self, suite: str, architecture: str, mirror: str | None = None) -> None:
        self.suite = suite
        self.architecture = architecture
        self.mirror = mirror or machine_mirror()
        self.folder = cache_folder() / "apt" / f"{suite}-{architecture}"
        self._environment = dict(os.environ, APT_CONFIG=str(self.folder / "apt.conf"), LC_ALL="C.UTF-8")

    def prepare(self, *, update: bool = False) -> None:
        """Write apt's configuration, and fetch the package lists when there are none or update is asked for."""
        with locked(self.folder):
            for name in ("lists/partial", "archives/partial"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / "status").touch()
            signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
            (self.folder / "sources.list").write_text(f"deb {signed}{self.mirror} {self.suite} main\n")
            (self.folder / "apt.conf").write_text(self._configuration())
            stamp = self.folder / "updated"
            if update or not stamp.exists():
                stamp.unlink(missing_ok=True)
                self._apt("apt-get", "-qq", "update")
                stamp.touch()

    def names(self, prefix: str) -> list[str]:
        """The names of all packages that start so."""
        return self._apt("apt-cache", "pkgnames", prefix).split()

    def dependencies(self, package: str) -> list[str]:
        """The names of the packages that one depends on."""
        rows = self._apt("apt-cache", "depends", "--important", package).splitlines()
        return [row.split()[-1] for row in rows if row.strip().startswith("Depends:")]

    def download(self, packages: Iterable[str], folder: Path) -> list[Path]:
        """Download these packages alone into the folder."""
        return self._fetch(["apt-get", "-qq", "download", *packages], folder, folder)

    def download_closure(self, packages: Iterable[str], folder: Path) -> list[Path]:
        """Download these packages and all they depend on, as if for an empty system, into the folder."""
        (folder / "partial").mkdir()
        options = ["--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={folder}/"]
        return self._fetch(["apt-get", "-qq", "-y", "install", *options, *packages], folder, None)

    def _fetch(self, command: list[str], folder: Path, working_folder: Path | None) -> list[Path]:
        """Run a download. Lists that have aged name files the mirror no longer has, so a failure is tried once more
        with fresh lists.
        """
        try:
            self._apt(*command, folder=working_folder)
        except MatrixError:
            self.prepare(update=True)
            self._apt(*command, folder=working_folder)
        return sorted(folder.glob("*.deb"))

    def _apt(self, *command: str, folder: Path | None = None) -> str:
        return run(command, environment=self._environment, folder=folder)

    def _configuration(self) -> str:
        """apt.conf: places and architecture of our own; how to fetch (proxies and the like) as the machine does.

        The machine's other settings are left out: some add hooks that would run on its own state.
        """
        fetching = [row for row in run(["apt-config", "dump"]).splitlines() if row.startswith("Acquire::")]
        places = {
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::Parts": "/dev/null",
            "Dir::Etc::SourceList": f"{self.folder}/sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": str(self.folder),
            "Dir::State::Lists": f"{self.folder}/lists",
            "Dir::State::status": f"{self.folder}/status",
            "Dir::Cache": str(self.folder),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Dir::Cache::archives": f"{self.folder}/archives",
            "APT::Architecture": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::GzipIndexes": "true",
        }
        rows = [f'{name} "{value}";' for name, value in places.items()]
        return "\n".join([*fetching, f'APT::Architectures {{ "{self.architecture}"; }};', *rows, ""])


def unpack(packages: Iterable[Path], tree: Path) -> None:
    """Unpack packages over each other. No maintainer script runs, so any architecture's can be unpacked."""
    for package in packages:
        run(["dpkg-deb", "--extract", str(package), str(tree)])
