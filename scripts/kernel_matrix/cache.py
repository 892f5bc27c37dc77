"""The cache folder: each thing in it is made once, whole or not at all.

A thing is made in a scratch folder beside its place and renamed into it, so a killed run leaves nothing half-written;
the next one removes the scratch folder. A lock keeps two runs from making the same thing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/pybpf/matrix, or ~/.cache/pybpf/matrix."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pybpf" / "matrix"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; other runs wait. The folder is created."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(path: Path, make: Callable[[Path], Path], *, renew: bool = False) -> Path:
    """The path, made when it is absent or to be renewed.

    make() is given an empty scratch folder and returns what is to become `path` (a file or folder inside it). What
    else lies in the path's folder are earlier versions, and is removed: each thing has a folder of its own.
    """
    if path.exists() and not renew:
        return path
    with locked(path.parent):
        if path.exists() and not renew:
            return path
        scratch = path.parent / ".scratch"
        _remove(scratch)
        scratch.mkdir()
        made = make(scratch)
        for old in path.parent.iterdir():
            if not old.name.startswith("."):
                _remove(old)
        made.rename(path)
        _remove(scratch)
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
