"""Small programs that write events, loaded from raw instructions and run by BPF_PROG_TEST_RUN: nothing is attached."""

from __future__ import annotations

import mmap
import struct
import sys
from types import TracebackType
from typing import Self

import pytest

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError

PACKET = bytes(64)
BUFFER_SIZE = 1 << 15
"""The largest event that `Emitter.emit` can send."""

RINGBUF_OUTPUT, RINGBUF_RESERVE, RINGBUF_SUBMIT, RINGBUF_DISCARD = 130, 131, 132, 133
PERF_EVENT_OUTPUT, USER_RINGBUF_DRAIN, DYNPTR_READ = 25, 209, 201

LDX_DW, STX_DW, ADD_K, MOV_K, MOV_X, EXIT, CALL = 0x79, 0x7B, 0x07, 0xB7, 0xBF, 0x95, 0x85
JEQ_K, JNE_K, JLE_K, AND_K, MUL32_K, RSH32_K, JSET_K, ST_DW = 0x15, 0x55, 0xB5, 0x57, 0x24, 0x74, 0x45, 0x7A


def insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    registers = dst | src << 4 if sys.byteorder == "little" else dst << 4 | src
    return struct.pack("=BBhi", code, registers, off, imm if imm < 1 << 31 else imm - (1 << 32))


def load_map(dst: int, fd: syscall.FD) -> bytes:
    return insn(0x18, dst, c.BPF_PSEUDO_MAP_FD, imm=fd.fileno()) + insn(0)


def load_value(dst: int, fd: syscall.FD) -> bytes:
    return insn(0x18, dst, c.BPF_PSEUDO_MAP_VALUE, imm=fd.fileno()) + insn(0)


def call(helper: int) -> bytes:
    return insn(CALL, imm=helper)


def increment(offset: int) -> bytes:
    """control[offset] += 1, with the control area in r7."""
    return insn(LDX_DW, 1, 7, offset) + insn(ADD_K, 1, imm=1) + insn(STX_DW, 7, 1, offset)


def skip(code: int, dst: int, imm: int, body: bytes) -> bytes:
    """Jump over `body` when the condition holds."""
    return insn(code, dst, off=len(body) // 8, imm=imm) + body


LEAVE = insn(MOV_K, 0) + insn(EXIT)
SEQUENCE, DROPPED, SIZE, COUNT, LAST, SUM = range(0, 48, 8)


class Control:
    """Numbers that a program shares with the test: an array of one value, mapped."""

    def __init__(self, size: int = 64) -> None:
        self.map = syscall.map_create(
            c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=size, max_entries=1, map_flags=c.BPF_F_MMAPABLE, name="control"
        )
        self.memory = mmap.mmap(self.map.fileno(), max(mmap.PAGESIZE, size))
        self.view = memoryview(self.memory)
        self.words = self.view[:64].cast("Q")

    def __getitem__(self, offset: int) -> int:
        return self.words[offset // 8]

    def __setitem__(self, offset: int, value: int) -> None:
        self.words[offset // 8] = value

    def close(self) -> None:
        self.words.release()
        self.view.release()
        self.memory.close()
        self.map.close()


class Emitter:
    """A map for events and a program that writes numbered ones into it.

    Each run writes one event which begins with a u64 sequence number, or counts it as dropped.
    """

    def __init__(self, map_fd: syscall.FD, body: bytes, control: Control, *others: syscall.FD) -> None:
        self.map = map_fd
        self.control = control
        self.others = others
        self.program = syscall.prog_load(c.BPF_PROG_TYPE_SCHED_CLS, body, name="emitter")

    def fileno(self) -> int:
        return self.map.fileno()

    def run(self, count: int = 1) -> None:
        syscall.prog_test_run(self.program, data_in=PACKET, repeat=count)

    @property
    def produced(self) -> int:
        """Events that went into the buffer."""
        return self.control[SEQUENCE]

    @property
    def dropped(self) -> int:
        return self.control[DROPPED]

    def close(self) -> None:
        for fd in (self.map, self.program, *self.others):
            fd.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ring_map(size: int, flags: int = 0) -> syscall.FD:
    return syscall.map_create(c.BPF_MAP_TYPE_RINGBUF, max_entries=size, map_flags=flags, name="events")


def uniform_ring(size: int = 1 << 17, *, payload: int = 16, discard_odd: bool = False, flags: int = 0) -> Emitter:
    """reserve, write the number, submit. With `discard_odd` every other one is discarded."""
    ring, control = ring_map(size, flags), Control()
    drop = increment(DROPPED) + LEAVE
    submit = insn(MOV_K, 2) + call(RINGBUF_SUBMIT) + LEAVE
    discard = insn(MOV_K, 2) + call(RINGBUF_DISCARD) + LEAVE
    choose = skip(JSET_K, 8, 1, submit) + discard if discard_odd else submit
    body = (
        load_value(7, control.map)
        + load_map(1, ring)
        + insn(MOV_K, 2, imm=payload)
        + insn(MOV_K, 3)
        + call(RINGBUF_RESERVE)
        + skip(JNE_K, 0, 0, drop)
        + insn(LDX_DW, 8, 7, SEQUENCE)
        + insn(STX_DW, 0, 8)
        + insn(MOV_X, 6, 0)
        + increment(SEQUENCE)
        + insn(MOV_X, 1, 6)
        + choose
    )
    return Emitter(ring, body, control)


def output_ring(size: int = 1 << 16, *, flags: int = 0) -> Emitter:
    """bpf_ringbuf_output of control[SIZE] bytes, which the number begins."""
    ring, control = ring_map(size, flags), Control(BUFFER_SIZE + 64)
    buffer = insn(MOV_X, 2, 7) + insn(ADD_K, 2, imm=64) + insn(STX_DW, 2, 8)
    body = (
        load_value(7, control.map)
        + insn(LDX_DW, 8, 7, SEQUENCE)
        + buffer
        + insn(LDX_DW, 3, 7, SIZE)
        + skip(JLE_K, 3, BUFFER_SIZE, LEAVE)
        + load_map(1, ring)
        + insn(MOV_K, 4)
        + call(RINGBUF_OUTPUT)
        + skip(JEQ_K, 0, 0, increment(DROPPED) + LEAVE)
        + increment(SEQUENCE)
        + LEAVE
    )
    return Emitter(ring, body, control)


def mixed_size(sequence: int) -> int:
    """The size of the event with that number from `mixed_ring` and `mixed_perf`."""
    return 8 + (((sequence * 0x9E3779B1) & 0xFFFFFFFF) >> 16 & 0xFF)


def mixed(output: bytes, control: Control) -> bytes:
    """Write the number to the buffer, put its size into r9, and go on with `output`, which leaves an error in r0."""
    return (
        insn(MOV_X, 6, 1)
        + load_value(7, control.map)
        + insn(LDX_DW, 8, 7, SEQUENCE)
        + insn(STX_DW, 7, 8, 64)
        + insn(MOV_X, 9, 8)
        + insn(MUL32_K, 9, imm=0x9E3779B1)
        + insn(RSH32_K, 9, imm=16)
        + insn(AND_K, 9, imm=0xFF)
        + insn(ADD_K, 9, imm=8)
        + output
        + skip(JEQ_K, 0, 0, increment(DROPPED) + LEAVE)
        + increment(SEQUENCE)
        + LEAVE
    )


def mixed_ring(size: int = 1 << 16) -> Emitter:
    """bpf_ringbuf_output of 8 to 263 bytes."""
    ring, control = ring_map(size), Control(1024)
    output = (
        load_map(1, ring)
        + insn(MOV_X, 2, 7)
        + insn(ADD_K, 2, imm=64)
        + insn(MOV_X, 3, 9)
        + insn(MOV_K, 4)
        + call(RINGBUF_OUTPUT)
    )
    return Emitter(ring, mixed(output, control), control)


def perf_map(entries: int | None = None) -> syscall.FD:
    return syscall.map_create(
        c.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        key_size=4,
        value_size=4,
        max_entries=entries or syscall.possible_cpus(),
        name="events",
    )


def perf(*, payload: int | None = None) -> Emitter:
    """bpf_perf_event_output to the current CPU: `payload` bytes, or 8 to 263."""
    events, control = perf_map(), Control(1024)
    output = (
        insn(MOV_X, 1, 6)
        + load_map(2, events)
        + insn(0x18, 3, imm=c.BPF_F_CURRENT_CPU)
        + insn(0)
        + insn(MOV_X, 4, 7)
        + insn(ADD_K, 4, imm=64)
        + (insn(MOV_X, 5, 9) if payload is None else insn(MOV_K, 5, imm=payload))
        + call(PERF_EVENT_OUTPUT)
    )
    return Emitter(events, mixed(output, control), control)


class Drain:
    """A user ring buffer and a program that drains it: control[COUNT] samples, the LAST u64, the SUM of all."""

    def __init__(self, size: int = 4096) -> None:
        try:
            self.map = syscall.map_create(c.BPF_MAP_TYPE_USER_RINGBUF, max_entries=size, name="requests")
        except BPFError as error:
            pytest.skip(f"no user ring buffers on this kernel (Linux 6.1): {error}")
        self.control = Control()
        main = insn(MOV_K, 3) + insn(MOV_K, 4) + call(USER_RINGBUF_DRAIN) + insn(EXIT)
        head = load_map(1, self.map)
        callback = (
            insn(MOV_X, 3, 1)
            + insn(ST_DW, 10, off=-8)
            + insn(MOV_X, 1, 10)
            + insn(ADD_K, 1, imm=-8)
            + insn(MOV_K, 2, imm=8)
            + insn(MOV_K, 4)
            + insn(MOV_K, 5)
            + call(DYNPTR_READ)
            + load_value(7, self.control.map)
            + increment(COUNT)
            + insn(LDX_DW, 1, 10, -8)
            + insn(STX_DW, 7, 1, LAST)
            + insn(LDX_DW, 2, 7, SUM)
            + insn(0x0F, 2, 1)
            + insn(STX_DW, 7, 2, SUM)
            + LEAVE
        )
        # ldimm64 of the callback: the distance from the slot behind its first half.
        distance = (len(main) + 8) // 8
        body = head + insn(0x18, 2, c.BPF_PSEUDO_FUNC, imm=distance) + insn(0) + main + callback
        builder = BTFBuilder()
        number = builder.add_int("long", 8, 64, 1)
        pointer = builder.add_ptr(0)
        entry = builder.add_func("drain", builder.add_func_proto(number, [("ctx", pointer)]), 1)
        inner = builder.add_func("each", builder.add_func_proto(number, [("sample", pointer), ("data", pointer)]), 0)
        start = (len(body) - len(callback)) // 8
        log = syscall.LogBuffer(1 << 16)
        try:
            with syscall.btf_load(builder.to_bytes()) as btf:
                self.program = syscall.prog_load(
                    c.BPF_PROG_TYPE_SCHED_CLS,
                    body,
                    name="drain",
                    btf_fd=btf,
                    func_info=struct.pack("IIII", 0, entry, start, inner),
                    func_info_rec_size=8,
                    log_level=1,
                    log_buffer=log,
                )
        except BPFError:
            self.map.close()
            self.control.close()
            if "JIT" in log.text:
                pytest.skip(f"this kernel has no JIT: {log.text.splitlines()[0]}")
            raise

    def run(self) -> int:
        """How many samples were drained, or a negative errno."""
        result = syscall.prog_test_run(self.program, data_in=PACKET).retval
        return result - (1 << 32) if result >> 31 else result

    def close(self) -> None:
        for fd in (self.map, self.program):
            fd.close()
        self.control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
