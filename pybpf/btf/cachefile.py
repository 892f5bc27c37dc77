"""Private files in the user's cache directory: there and trustworthy, or not there.

Rules of this file:

* A file is used only when nobody but this user (or root) could have put it there: it is a regular file of this user
  with mode 0600, and no directory above it can be changed by others. A sticky directory like /tmp counts as safe,
  because others cannot replace what is ours in it.
* A file is replaced as a whole by rename(2), so a reader sees the old one or the new one.

Source of the place: XDG Base Directory Specification.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap

DIRECTORY = "pybpf"


def directory() -> str:
    """The cache directory of this package: $XDG_CACHE_HOME/pybpf or ~/.cache/pybpf. It need not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):  # the specification says that a relative one is to be ignored
        home = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, DIRECTORY)


def is_safe_directory(path: str) -> bool:
    """True when the path is a directory and nobody but this user and root can change what it leads to."""
    try:
        return all(map(_is_safe, _ancestors(os.path.realpath(path))))
    except OSError:
        return False


def _ancestors(path: str) -> list[str]:
    """The path and every directory above it."""
    parts = [path]
    while (parent := os.path.dirname(path)) != path:
        parts.append(parent)
        path = parent
    return parts


def _is_safe(path: str) -> bool:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        return False
    return not status.st_mode & 0o022 or bool(status.st_mode & stat.S_ISVTX)


def map_file(name: str) -> mmap | None:
    """The private cache file, mapped for reading; None when it is not there or cannot be trusted."""
    from mmap import ACCESS_READ, mmap

    path = os.path.join(directory(), name)
    if not is_safe_directory(os.path.dirname(path)):
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        private = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o600
        if not (stat.S_ISREG(status.st_mode) and private and status.st_size):
            return None
        return mmap(fd, status.st_size, access=ACCESS_READ)
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def prepare() -> str:
    """Make the cache directory and return it. Raises OSError; PermissionError when others could change it."""
    path = directory()
    os.makedirs(path, mode=0o700, exist_ok=True)
    if not is_safe_directory(path):
        raise PermissionError(f"{path}: others can change this directory or one above it")
    return path


def store_file(name: str, data: bytes) -> str:
    """Write or replace a private cache file and return its path. Raises OSError and leaves nothing behind then."""
    path = os.path.join(prepare(), name)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
