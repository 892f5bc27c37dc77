"""Types for keys and values, programs to put into maps, and an observer that makes calls fail."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf.codec import Codec, codec
from pybpf.btf.kinds import INT_SIGNED
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError
from pybpf.syscall import FD
from pybpf.syscall.watch import Call, add_observer, remove_observer


class Types:
    """Codecs by C name: u32, u64, i32, pair, stats, event, name, words, addr, state, prefix."""

    def __init__(self) -> None:
        b = BTFBuilder()
        self.ids = ids = {"u32": b.add_int("u32", 4), "u64": b.add_int("u64", 8)}
        ids["i32"] = b.add_int("int", 4, 32, INT_SIGNED)
        ids["u8"] = b.add_int("unsigned char", 1)
        char = b.add_int("char", 1)

        def array(type_id: int, count: int) -> int:
            return b.add_array(type_id, ids["u32"], count)

        def make(name: str, size: int, *members: tuple[str, int, int]) -> None:
            ids[name] = b.add_struct(name, size, [(member, id, offset * 8) for member, id, offset in members])

        ids["name"] = array(char, 16)
        ids["words"] = array(ids["u32"], 4)
        ids["addr"] = array(ids["u8"], 4)
        ids["state"] = b.add_enum("state", 4, False, [("IDLE", 0), ("BUSY", 5)])
        make("pair", 8, ("a", ids["u32"], 0), ("b", ids["u32"], 4))
        make("stats", 16, ("packets", ids["u64"], 0), ("bytes", ids["u64"], 8))
        make("odd", 12, ("a", ids["u32"], 0), ("b", ids["u64"], 4))
        make("event", 24, ("pid", ids["u32"], 0), ("uid", ids["u32"], 4), ("comm", ids["name"], 8))
        make("prefix", 8, ("prefixlen", ids["u32"], 0), ("addr", ids["addr"], 4))
        self.data = b.to_bytes()
        self.btf = BTF.from_bytes(self.data)

    def __getitem__(self, name: str) -> Codec:
        return codec(self.btf, self.ids[name])


def instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, off, imm)


RETURN_0 = instruction(0xB7) + instruction(0x95)


def program(code: bytes = RETURN_0, prog_type: int = c.BPF_PROG_TYPE_SOCKET_FILTER, attach_type: int = 0) -> FD:
    """A loaded program."""
    return syscall.prog_load(prog_type, code, expected_attach_type=attach_type)


def store_words(*words: int) -> bytes:
    """Put 64-bit numbers on the stack, the first one lowest, and r2 at it."""
    size = 8 * len(words)
    stores = b"".join(instruction(0x7A, 10, off=8 * number - size, imm=word) for number, word in enumerate(words))
    return stores + instruction(0xBF, 2, 10) + instruction(0x07, 2, imm=-size)


def map_address(register: int, fd: int) -> bytes:
    return instruction(0x18, register, c.BPF_PSEUDO_MAP_FD, imm=fd) + instruction(0)


def run(fd: FD, times: int = 1) -> None:
    for _ in range(times):
        syscall.prog_test_run(fd, data_in=bytes(64))


class Failing:
    """Makes calls of some commands fail with an errno: all of them, or those that `when` picks by their count."""

    def __init__(self, number: int, commands: tuple[str, ...], when: Callable[[int], bool]) -> None:
        self.number = number
        self.commands = commands
        self.when = when
        self.seen: list[str] = []

    def before(self, call: Call) -> int | None:
        self.seen.append(call.command)
        if call.command in self.commands and self.when(self.seen.count(call.command)):
            return self.number
        return None

    def after(self, call: Call) -> None:
        pass


@contextmanager
def failing(number: int, *commands: str, when: Callable[[int], bool] = lambda count: True) -> Iterator[Failing]:
    observer = Failing(number, commands, when)
    add_observer(observer)
    try:
        yield observer
    finally:
        remove_observer(observer)


@contextmanager
def unless_unknown(what: str) -> Iterator[None]:
    """Skip the test when the kernel has no maps of this type."""
    try:
        yield
    except BPFError as error:
        if error.errno_name in ("EINVAL", "EOPNOTSUPP", "ENOTSUPP"):
            pytest.skip(f"this kernel has no {what}: {error}")
        raise
