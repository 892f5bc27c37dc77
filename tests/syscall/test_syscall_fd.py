"""Owned descriptors."""

from __future__ import annotations

import fcntl
import gc
import os
import warnings

import pytest
from syscall_programs import python

from pybpf.errors import ClosedError
from pybpf.syscall import FD, duplicate, fileno


def pipe_end() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def test_life_of_a_descriptor() -> None:
    number = pipe_end()
    fd = FD(number)
    assert fd.fileno() == number and fileno(fd) == number and not fd.closed
    assert repr(fd) == f"<FD {number}>"
    fd.close()
    fd.close()
    assert fd.closed and repr(fd) == "<FD closed>"
    with pytest.raises(ClosedError):
        fd.fileno()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_with_closes() -> None:
    with FD(pipe_end()) as fd:
        number = fd.fileno()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_detach_gives_away() -> None:
    fd = FD(pipe_end())
    number = fd.detach()
    assert fd.closed
    del fd
    gc.collect()
    os.fstat(number)
    os.close(number)


def test_copies_close_on_exec_and_live_alone() -> None:
    fd = FD(pipe_end())
    copy = fd.dup()
    fd.close()
    assert fcntl.fcntl(copy, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    number = duplicate(copy)
    assert number > 2 and fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(number)
    copy.close()


def test_a_forgotten_one_is_closed_with_a_warning() -> None:
    number = pipe_end()
    fd: FD | None = FD(number)
    with pytest.warns(ResourceWarning, match=f"unclosed <FD {number}>"):
        del fd
        gc.collect()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_a_closed_one_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fd = FD(pipe_end())
        fd.close()
        del fd
        gc.collect()


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        FD(-1)


def test_a_number_that_is_not_open_leaves_nothing() -> None:
    out = python(
        """
import os
from pybpf.syscall import FD
os.close(0)
try:
    FD(0)
except OSError as error:
    print(error.errno)
"""
    )
    assert out.split() == ["9"]


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2)])
def test_never_a_standard_stream(closed: tuple[int, ...]) -> None:
    out = python(
        f"""
import os
from pybpf.syscall import FD
keep = os.dup(1)
for number in {closed!r}:
    os.close(number)
low = os.open("/dev/null", os.O_RDONLY)
with FD(low) as fd:
    try:
        os.fstat(low)
        moved = False
    except OSError:
        moved = True
    text = f"{{low}} {{fd.fileno()}} {{moved}} {{os.get_inheritable(fd.fileno())}}"
os.write(keep, text.encode())
"""
    ).split()
    assert int(out[0]) == 0 and int(out[1]) > 2 and out[2:] == ["True", "False"]


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_maps_are_never_a_standard_stream() -> None:
    out = python(
        """
import os
from pybpf import syscall
keep = os.dup(1)
for number in (0, 1, 2):
    os.close(number)
with syscall.map_create(2, key_size=4, value_size=4, max_entries=1) as fd:
    paths = [path for path in map("/proc/self/fd/{}".format, range(3)) if os.path.lexists(path)]
    left = [path for path in paths if "bpf" in os.readlink(path)]  # libffi may keep a file of its own there
    text = f"{fd.fileno()} {os.get_inheritable(fd.fileno())} {left}"
os.write(keep, text.encode())
"""
    )
    number, inheritable, left = out.split(" ", 2)
    assert int(number) > 2 and inheritable == "False" and left == "[]"


def test_no_room_for_a_move_closes_the_low_one() -> None:
    out = python(
        """
import os, resource
from pybpf.syscall import FD
import fcntl
keep = os.dup(1)
os.close(0)
low = os.open("/dev/null", os.O_RDONLY)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    FD(low)
except OSError as error:
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.write(keep, f"{error.errno} {os.path.exists('/proc/self/fd/0')}".encode())
"""
    )
    # EINVAL: the lowest number asked for is above the limit.
    assert out.split()[0] in ("22", "24") and out.split()[1] == "False"


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_interrupt_during_the_call_loses_no_descriptor() -> None:
    """The kernel takes milliseconds to make a large map; the signal comes meanwhile and its handler runs after."""
    out = python(
        """
import gc, os, signal, warnings
from pybpf import constants, syscall
warnings.simplefilter("ignore")
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
syscall.map_create(constants.BPF_MAP_TYPE_HASH, key_size=4, value_size=64, max_entries=1).close()
before = len(os.listdir("/proc/self/fd"))
interrupts = 0
for _ in range(10):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        syscall.map_create(constants.BPF_MAP_TYPE_HASH, key_size=4, value_size=64, max_entries=200_000).close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
gc.collect()
print(interrupts > 0, len(os.listdir("/proc/self/fd")) - before)
"""
    )
    assert out.split() == ["True", "0"]
