"""Writing cpio archives in the "newc" form, which the kernel's initramfs unpacker reads.

The format is described in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Every entry
belongs to root, whoever writes the archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

MAGIC = b"070701"
HEADER_SIZE = 110
TRAILER = "TRAILER!!!"


class CpioWriter:
    """An archive being written to a file. Parent folders are added as needed, each once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._folders = {"", "."}

    def __enter__(self) -> CpioWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._entry(TRAILER, 0)

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder, unless it was added before."""
        if name not in self._folders:
            self._parents(name)
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | mode)

    def file(self, name: str, data: bytes, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a regular file; mtime in seconds."""
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, data, mtime=mtime)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def character_device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device. It needs no privilege: only the guest creates it."""
        self._parents(name)
        self._entry(name, stat.S_IFCHR | mode, device=(major, minor))

    def tree(self, root: Path, prefix: str = "", skip: Callable[[str], bool] = lambda name: False) -> None:
        """Add all below a folder, under a prefix. skip(name) is asked with names relative to the folder; a folder
        that is skipped is not entered. Sockets, pipes and devices are left out.
        """
        for folder, folders, files in os.walk(root):
            relative = PurePosixPath(Path(folder).relative_to(root))
            folders[:] = sorted(name for name in folders if not skip(str(relative / name)))
            for name in sorted([*folders, *files]):
                if not skip(str(relative / name)):
                    self.path(Path(folder, name), str(PurePosixPath(prefix) / relative / name))

    def path(self, path: Path, name: str) -> None:
        """Add one file, folder (without what is in it) or symbolic link under a name."""
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            self.link(name, str(path.readlink()))
        elif stat.S_ISDIR(status.st_mode):
            self.folder(name, stat.S_IMODE(status.st_mode))
        elif stat.S_ISREG(status.st_mode):
            self.file(name, path.read_bytes(), stat.S_IMODE(status.st_mode), int(status.st_mtime))

    def _parents(self, name: str) -> None:
        for parent in reversed(PurePosixPath(name).parents):
            self.folder(str(parent))

    def _entry(
        self, name: str, mode: int, data: bytes = b"", *, mtime: int = 0, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        path = os.fsencode(name) + b"\0"
        links, user, group, check = 1, 0, 0, 0
        fields = (self._inode, mode, user, group, links, mtime, len(data), 0, 0, *device, len(path), check)
        header = MAGIC + b"".join(b"%08X" % field for field in fields)
        self._file.write(header + path + bytes(-(HEADER_SIZE + len(path)) % 4))
        self._file.write(data + bytes(-len(data) % 4))
