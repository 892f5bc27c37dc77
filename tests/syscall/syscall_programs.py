"""Small programs in machine code, an observer, and how tests of the door start other processes."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pybpf import syscall
from pybpf.constants import BPF_MAP_TYPE_BLOOM_FILTER, BPF_MAP_TYPE_HASH, BPF_PROG_TYPE_SOCKET_FILTER
from pybpf.errors import BPFError, NotSupportedError
from pybpf.syscall import FD, Call

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDS_ROOT = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One instruction in this machine's byte order."""
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, off, imm)


def move(register: int, value: int) -> bytes:
    return insn(0xB7, register, imm=value)


EXIT = insn(0x95)


def returns(value: int) -> bytes:
    """``return value;``"""
    return move(0, value) + EXIT


BAD = insn(0xBF, 0, 5) + EXIT
"""``r0 = r5``: the verifier says "R5 !read_ok"."""


def load(prog_type: int = BPF_PROG_TYPE_SOCKET_FILTER, value: int = 0, **options: object) -> FD:
    return syscall.prog_load(prog_type, returns(value), **options)  # type: ignore[arg-type]


def hash_map(entries: int = 0, *, capacity: int = 64) -> FD:
    """A hash of u64 to u64; entry i has the value i * 10."""
    fd = syscall.map_create(BPF_MAP_TYPE_HASH, key_size=8, value_size=8, max_entries=capacity, name="test_hash")
    for number in range(entries):
        syscall.map_update_elem(fd, u64(number), u64(number * 10))
    return fd


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def u64(value: int) -> bytes:
    return struct.pack("=Q", value)


def pops_elements() -> bool:
    """Whether BPF_MAP_LOOKUP_AND_DELETE_ELEM works on hashes, which it does since Linux 5.14."""
    with hash_map(1) as fd:
        try:
            syscall.map_lookup_and_delete_elem(fd, u64(0), 8)
        except NotSupportedError:
            return False
        return True


def bloom_filter() -> FD:
    """A bloom filter of u64 with 3 hash functions."""
    try:
        return syscall.map_create(BPF_MAP_TYPE_BLOOM_FILTER, value_size=8, max_entries=1000, map_extra=3)
    except BPFError as error:
        pytest.skip(f"bloom filters came with Linux 5.16: {error}")


@contextlib.contextmanager
def signals(handler: Callable[[], object], delay: float) -> Iterator[None]:
    """Run the handler in a signal handler again and again, each time so many seconds after the last one."""
    running = True

    def on_signal(number: int, frame: object) -> None:
        if running:
            handler()
            signal.setitimer(signal.ITIMER_REAL, delay)

    before = signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        yield
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0)  # one that has come is handled now, by its own handler
        signal.signal(signal.SIGALRM, before)


def python(code: str, *, prefix: tuple[str, ...] = (), timeout: float = 60, **options: object) -> str:
    """Run code in another Python and give its output; its failure is this test's failure."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    command = [*prefix, sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(  # type: ignore[call-overload]
        command, env=environment, capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


class Watcher:
    """Keeps what it saw, and refuses what it was told to refuse."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.attrs: list[bytes] = []
        self.refusals: dict[str, list[int]] = {}

    def refuse(self, name: str, *errnos: int) -> None:
        """Let the next calls of this name fail, once for each errno."""
        self.refusals[name] = list(errnos)

    def before(self, call: Call) -> int | None:
        self.calls.append(call)
        self.attrs.append(call.attr)
        waiting = self.refusals.get(call.command or call.name)
        return waiting.pop(0) if waiting else None

    def after(self, call: Call) -> None:
        assert call.result is not None

    @property
    def names(self) -> list[str]:
        return [call.command or call.name for call in self.calls]

    def of(self, name: str) -> list[Call]:
        return [call for call in self.calls if (call.command or call.name) == name]
