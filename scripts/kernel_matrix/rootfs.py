"""What a guest boots, made from packages and cached: a kernel with its modules, the root, and Python's byte code.

    kernels/NAME/KEY/        vmlinuz, modules.cpio, release (uname -r), package (its name)
    roots/ARCHITECTURE/KEY.cpio
    bytecode/SUITE/KEY.cpio  for all architectures: byte code does not depend on them

KEY stands for the tables the thing was made from, so a changed table makes it anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix import apt, build
from kernel_matrix.cache import cache_folder, cached
from kernel_matrix.cpio import CpioWriter
from kernel_matrix.errors import MatrixError
from kernel_matrix.kernels import (
    ARCHITECTURES,
    MODULES,
    ROOT_PACKAGES,
    Architecture,
    Kernel,
    module_closure,
    newest_first,
    parts_of_image,
)

#: Parts of the packages that no guest needs; they would only cost it memory.
UNNEEDED = (
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "var/lib/dpkg",
)
UNNEEDED_NAMES = ("gconv", "pydoc_data")

PASSWD = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
PYBPF_COMMAND = '#!/bin/sh\nexec python3 -m pybpf "$@"\n'


@dataclass(frozen=True)
class Image:
    """A kernel in the cache."""

    folder: Path

    @property
    def vmlinuz(self) -> Path:
        """The bootable image."""
        return self.folder / "vmlinuz"

    @property
    def modules(self) -> Path:
        """The archive of the modules and of /boot/config-RELEASE."""
        return self.folder / "modules.cpio"

    @property
    def release(self) -> str:
        """What uname -r says."""
        return (self.folder / "release").read_text().strip()

    @property
    def package(self) -> str:
        """The Debian package it came from."""
        return (self.folder / "package").read_text().strip()


def _key(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _image_folder(kernel: Kernel) -> Path:
    own = [kernel.configuration.read_text()] if kernel.configuration else []
    return cache_folder() / "kernels" / kernel.name / _key([kernel.package, *MODULES, *own])


def cached_image(kernel: Kernel) -> Image | None:
    """The kernel when it is in the cache already."""
    folder = _image_folder(kernel)
    return Image(folder) if folder.exists() else None


def image(kernel: Kernel, *, mirror: str | None = None, renew: bool = False) -> Image:
    """The kernel, fetched (or built) when it is not in the cache or is to be renewed."""

    def make(scratch: Path) -> Path:
        if kernel.configuration and apt.machine_architecture() != kernel.architecture.name:
            raise MatrixError(f"{kernel.name} is built on {kernel.architecture.name} machines only")
        archive = apt.Archive(kernel.suite, kernel.architecture.name, mirror)
        archive.prepare(update=renew)
        names = newest_first(archive.names("linux-"), kernel.package)
        if not names:
            raise MatrixError(f"no package of {kernel.suite} ({kernel.architecture.name}) matches {kernel.package}")
        package, files = _download_newest(archive, names, scratch / "packages")
        tree = scratch / "tree"
        apt.unpack(files, tree)
        shutil.rmtree(scratch / "packages")
        if kernel.configuration:
            tree = build.built(tree, kernel.configuration, scratch)
        return _make_image(package, tree, scratch)

    return Image(cached(_image_folder(kernel), make, renew=renew))


def _download_newest(archive: apt.Archive, names: list[str], folder: Path) -> tuple[str, list[Path]]:
    """The first of the packages that the mirror gives, and its files.

    A mirror's list may name a package whose file has not arrived there yet, and goes on naming the one before it.
    """
    for name in names:
        folder.mkdir()
        try:
            return name, archive.download(parts_of_image(name, archive.dependencies(name)), folder)
        except MatrixError:
            if name == names[-1]:
                raise
            shutil.rmtree(folder)
    raise AssertionError("names is not empty")


def _make_image(package: str, tree: Path, scratch: Path) -> Path:
    """Turn the unpacked packages of a kernel into the folder that is cached."""
    found = [*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")]
    if not found:
        raise MatrixError(f"{package} has no modules")
    release = found[0].name
    modules = _module_tree(scratch / "all") / release
    found[0].rename(modules)
    kernel = _first(tree / "boot" / f"vmlinuz-{release}", modules / "vmlinuz", modules / "vmlinux")
    config = _first(tree / "boot" / f"config-{release}", modules / "config")

    _depmod(scratch / "all", release)
    wanted = _module_tree(scratch / "wanted") / release
    wanted.mkdir()
    for file in module_closure((modules / "modules.dep").read_text(), MODULES):
        (wanted / file).parent.mkdir(parents=True, exist_ok=True)
        (modules / file).rename(wanted / file)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (modules / name).exists():
            (modules / name).rename(wanted / name)
    _depmod(scratch / "wanted", release)

    made = scratch / "made"
    made.mkdir()
    with (made / "modules.cpio").open("wb") as output, CpioWriter(output) as archive:
        archive.tree(wanted, f"usr/lib/modules/{release}")
        archive.path(config, f"boot/config-{release}")
    kernel.rename(made / "vmlinuz")
    (made / "release").write_text(release + "\n")
    (made / "package").write_text(package + "\n")
    return made


def _first(*paths: Path) -> Path:
    for path in paths:
        if path.exists():
            return path
    raise MatrixError(f"the kernel's package has no {paths[0].name}")


def _module_tree(root: Path) -> Path:
    """The folder of modules in a new root for depmod, which looks in /lib/modules or, when newer, /usr/lib/modules."""
    modules = root / "usr/lib/modules"
    modules.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    return modules


def _depmod(root: Path, release: str) -> None:
    """Write modules.dep and the alias tables below the root."""
    apt.run([program("depmod"), "-b", str(root), release])


def program(name: str) -> str:
    """The path of a host program, also when /usr/sbin is not in the user's PATH."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    path = shutil.which(name, path=search)
    if path is None:
        raise MatrixError(f"{name} is not installed")
    return path


def root(architecture: Architecture, *, mirror: str | None = None) -> Path:
    """The archive of the guest's root, made when it is not in the cache."""

    def make(scratch: Path) -> Path:
        tree = _unpacked_root(architecture.root_suite, architecture.name, scratch, mirror)
        made = scratch / "root.cpio"
        with made.open("wb") as file, CpioWriter(file) as archive:
            for name in ("dev", "job", "out", "proc", "root", "run", "sys", "tmp", "usr/local/bin"):
                archive.folder(name)
            archive.character_device("dev/console", 5, 1)
            archive.character_device("dev/null", 1, 3, 0o666)
            archive.tree(tree, skip=_is_unneeded)
            archive.file("etc/passwd", PASSWD.encode())
            archive.file("etc/group", GROUP.encode())
            archive.file("etc/hosts", HOSTS.encode())
            archive.file("usr/local/bin/pybpf", PYBPF_COMMAND.encode(), 0o755)
            archive.link("usr/local/bin/python", "/usr/bin/python3")
        return made

    key = _key(
        [architecture.root_suite, *ROOT_PACKAGES, PASSWD, GROUP, HOSTS, PYBPF_COMMAND, *UNNEEDED, *UNNEEDED_NAMES]
    )
    return cached(cache_folder() / "roots" / architecture.name / f"{key}.cpio", make)


def bytecode(suite: str, *, mirror: str | None = None) -> Path:
    """The archive of byte code for the Python modules of a suite's roots: under emulation, compiling takes longest.

    It is compiled by the root's own Python, run from a root of the host's architecture.
    """

    def make(scratch: Path) -> Path:
        architecture = ARCHITECTURES.get(apt.machine_architecture())
        made = scratch / "bytecode.cpio"
        with made.open("wb") as file, CpioWriter(file) as archive:
            if architecture is not None:  # on other hosts the guests compile for themselves
                tree = _unpacked_root(suite, architecture.name, scratch, mirror)
                _compile(tree, architecture)
                archive.tree(
                    tree,
                    skip=lambda name: _is_unneeded(name) or ((tree / name).is_file() and not name.endswith(".pyc")),
                )
        return made

    key = _key([suite, *ROOT_PACKAGES])
    return cached(cache_folder() / "bytecode" / suite / f"{key}.cpio", make)


def _unpacked_root(suite: str, architecture: str, scratch: Path, mirror: str | None) -> Path:
    packages = scratch / "packages"
    packages.mkdir()
    archive = apt.Archive(suite, architecture, mirror)
    archive.prepare()
    tree = scratch / "root"
    for name in ("bin", "lib", "sbin"):
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    apt.unpack(archive.download_closure(ROOT_PACKAGES, packages), tree)
    shutil.rmtree(packages)
    return tree


def _compile(tree: Path, architecture: Architecture) -> None:
    """Compile the root's Python modules. Hashes, not times, tell whether byte code fits its source: the guest's
    files carry other times, and another architecture's root may have another build of a package.
    """
    version = next((tree / "usr/lib").glob("python3.*"))
    libraries = tree / "usr/lib" / architecture.library_folder
    places = [str(version), str(tree / "usr/lib/python3")]
    apt.run(
        [
            *(str(tree / architecture.loader), "--library-path", str(libraries)),
            *(str(tree / "usr/bin" / version.name), "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"),
            *("-x", r"/(test|tests|lib2to3)/", "-s", str(tree), "-p", "/", *places),
        ],
        environment={"PYTHONHOME": str(tree / "usr"), "PATH": os.environ.get("PATH", os.defpath)},
    )


def _is_unneeded(name: str) -> bool:
    return name in UNNEEDED or name.rpartition("/")[2] in UNNEEDED_NAMES
