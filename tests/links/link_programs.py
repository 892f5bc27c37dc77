"""Small programs for the tests of links, written as instructions: no compiler is needed where they run.

Most of them count: each run adds one to the only element of an array map.
"""

from __future__ import annotations

import os
import sys
from typing import Self

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm.instruction import Instruction, encode
from pybpf.program import Program

Code = list[tuple[int, int, int, int, int]]
"""Opcode, destination, source, offset, immediate."""

GET_CURRENT_PID_TGID, MAP_LOOKUP_ELEM, SEQ_WRITE, GET_ATTACH_COOKIE = 14, 1, 127, 174


def exit_with(value: int) -> Code:
    return [(0xB7, 0, 0, 0, value), (0x95, 0, 0, 0, 0)]


def load_map(register: int, fd: int) -> Code:
    """The register is the map."""
    return [(0x18, register, c.BPF_PSEUDO_MAP_FD, 0, fd), (0, 0, 0, 0, 0)]


def only_for_this_process(result: int) -> Code:
    """Return at once in any other process."""
    return [
        (0xBF, 6, 1, 0, 0),
        (0x85, 0, 0, 0, GET_CURRENT_PID_TGID),
        (0x77, 0, 0, 0, 32),
        (0x15, 0, 0, 2, os.getpid()),
        *exit_with(result),
        (0xBF, 1, 6, 0, 0),
    ]


def add_one(map_fd: int) -> Code:
    """Adds one to element 0."""
    return [
        (0x62, 10, 0, -4, 0),
        (0xBF, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -4),
        *load_map(1, map_fd),
        (0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
        (0x15, 0, 0, 2, 0),
        (0xB7, 1, 0, 0, 1),
        (0xDB, 0, 1, 0, 0),
    ]


def keep_cookie(map_fd: int) -> Code:
    """Puts the attach cookie into element 0. The context is in register 1."""
    return [
        (0x85, 0, 0, 0, GET_ATTACH_COOKIE),
        (0xBF, 7, 0, 0, 0),
        (0x62, 10, 0, -4, 0),
        (0xBF, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -4),
        *load_map(1, map_fd),
        (0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
        (0x15, 0, 0, 1, 0),
        (0x7B, 0, 7, 0, 0),
    ]


def write_from_stack(seq_in_register_1: Code, size: int) -> Code:
    """bpf_seq_write() of the lowest `size` bytes at the end of the stack."""
    return [
        *seq_in_register_1,
        (0xBF, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -size),
        (0xB7, 3, 0, 0, size),
        (0x85, 0, 0, 0, SEQ_WRITE),
    ]


def assemble(code: Code) -> bytes:
    instructions = []
    rows = iter(code)
    for opcode, destination, source, offset, immediate in rows:
        high = next(rows)[4] if opcode == 0x18 else 0
        instructions.append(Instruction(opcode, destination, source, offset, immediate, high))
    return encode(instructions, sys.byteorder)


class Counter:
    """An array map with one number. A context manager."""

    def __init__(self) -> None:
        self.fd = syscall.map_create(c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=1, name="counter")

    @property
    def value(self) -> int:
        return int.from_bytes(syscall.map_lookup_elem(self.fd, bytes(4), 8), sys.byteorder)

    def reset(self) -> None:
        syscall.map_update_elem(self.fd, bytes(4), bytes(8))

    def fileno(self) -> int:
        return self.fd.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fd.close()


def load(prog_type: int, code: Code, *, name: str = "probe", attach_type: int = 0, **options: object) -> Program:
    fd = syscall.prog_load(prog_type, assemble(code), name=name, expected_attach_type=attach_type, **options)
    return Program(fd, name=name, type_number=prog_type, attach_type_number=attach_type)
