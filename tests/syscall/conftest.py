"""What the tests of the door share."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from syscall_programs import Watcher

from pybpf.syscall import add_observer, remove_observer


@pytest.fixture(scope="session", autouse=True)
def locked_memory() -> None:
    """Before Linux 5.11 maps and programs count as locked memory."""
    with contextlib.suppress(ValueError):  # no CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """An observer that watches during the test."""
    watcher = Watcher()
    add_observer(watcher)
    yield watcher
    remove_observer(watcher)


@pytest.fixture
def cgroup() -> Iterator[int]:
    """The descriptor of an empty cgroup of our own."""
    for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if Path(root, "cgroup.controllers").exists():
            break
    else:
        pytest.skip("no cgroup2 file system is mounted")
    path = f"{root}/pybpf-test-{os.getpid()}"
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd
    os.close(fd)
    os.rmdir(path)


@pytest.fixture
def bpffs() -> Iterator[str]:
    """A directory of our own in the BPF file system."""
    path = f"/sys/fs/bpf/pybpf_test_{os.getpid()}"
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"no BPF file system at /sys/fs/bpf: {error}")
    yield path
    for name in os.listdir(path):
        os.unlink(f"{path}/{name}")
    os.rmdir(path)
