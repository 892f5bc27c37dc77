"""Programs on trampolines that decide (LSM, fmod_ret) and that may sleep."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lacking import trampolines_needed
from link_helpers import eventually, function_id, needs_attach_type
from link_programs import Code, Counter, exit_with, load_map, only_for_this_process

from pybpf import constants as c
from pybpf import links
from pybpf.errors import BPFError
from pybpf.program import Program

COPY_FROM_USER = 148
MAP_LOOKUP_ELEM = 1


@pytest.fixture
def on_trampoline(loader: Callable[..., Program]) -> Callable[..., Program]:
    """Loads a program; the test is skipped where the kernel makes no trampolines."""

    def make(prog_type: int, code: Code, **options: object) -> Program:
        with trampolines_needed():
            return loader(prog_type, code, **options)

    return make


def is_denied(operation: Callable[[], object]) -> bool:
    try:
        operation()
    except PermissionError:
        return True
    return False


def get_sid() -> None:
    os.getsid(os.getpid())


HOOKS = [
    pytest.param(c.BPF_PROG_TYPE_LSM, c.BPF_LSM_MAC, "bpf_lsm_task_getsid", id="lsm"),
    pytest.param(c.BPF_PROG_TYPE_TRACING, c.BPF_MODIFY_RETURN, "security_task_getsid", id="fmod_ret"),
]


@pytest.mark.parametrize(("prog_type", "attach_type", "function"), HOOKS)
def test_what_a_program_denies_fails(
    on_trampoline: Callable[..., Program], prog_type: int, attach_type: int, function: str
) -> None:
    program = on_trampoline(
        prog_type,
        [*only_for_this_process(0), *exit_with(-errno.EPERM)],
        attach_type=attach_type,
        attach_btf_id=function_id(function),
    )
    assert not is_denied(get_sid)
    with links.attach_trace(program):
        assert is_denied(get_sid)
    assert eventually(lambda: not is_denied(get_sid))


@pytest.fixture
def may_sleep(on_trampoline: Callable[..., Program]) -> Callable[[Code], Program]:
    """Loads a sleepable program for the hook that unlink(2) asks."""

    def make(code: Code) -> Program:
        try:
            return on_trampoline(
                c.BPF_PROG_TYPE_LSM,
                code,
                attach_type=c.BPF_LSM_MAC,
                attach_btf_id=function_id("bpf_lsm_inode_unlink"),
                prog_flags=c.BPF_F_SLEEPABLE,
            )
        except BPFError as error:
            if error.errno != errno.EINVAL:
                raise
            pytest.skip(f"most hooks cannot sleep before Linux 5.11: {error}")

    return make


def test_a_sleepable_lsm_program_denies(may_sleep: Callable[[Code], Program], tmp_path: Path) -> None:
    path = tmp_path / "guarded"
    path.touch()

    def unlink() -> None:
        path.unlink()
        path.touch()

    program = may_sleep([*only_for_this_process(0), *exit_with(-errno.EPERM)])
    assert not is_denied(unlink)
    with links.attach_trace(program):
        assert is_denied(unlink)
    assert eventually(lambda: not is_denied(unlink))


def test_lsm_of_a_cgroup_denies_its_processes_only(on_trampoline: Callable[..., Program], cgroup: Path) -> None:
    needs_attach_type("BPF_LSM_CGROUP")
    program = on_trampoline(
        c.BPF_PROG_TYPE_LSM,
        exit_with(0),
        attach_type=c.BPF_LSM_CGROUP,
        attach_btf_id=function_id("bpf_lsm_socket_create"),
    )
    assert not is_denied_in(cgroup, make_socket)
    with links.attach_cgroup(program, cgroup):
        assert is_denied_in(cgroup, make_socket)
        assert not is_denied(make_socket)
    assert eventually(lambda: not is_denied_in(cgroup, make_socket))


def make_socket() -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()


def is_denied_in(cgroup: Path, operation: Callable[[], None]) -> bool:
    """Whether a process of the cgroup may not do something."""
    child = os.fork()
    if not child:
        status = 2
        try:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            status = int(is_denied(operation))
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 1


def copy_from_user(map_fd: int, address: int) -> Code:
    """Copies eight bytes of this process into element 0: only one that may sleep can wait for a page."""
    return [
        *only_for_this_process(0),
        (0x62, 10, 0, -4, 0),
        (0xBF, 2, 10, 0, 0),
        (0x07, 2, 0, 0, -4),
        *load_map(1, map_fd),
        (0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
        (0x15, 0, 0, 5, 0),
        (0xBF, 1, 0, 0, 0),
        (0xB7, 2, 0, 0, 8),
        (0x18, 3, 0, 0, address & 0xFFFFFFFF),
        (0, 0, 0, 0, address >> 32),
        (0x85, 0, 0, 0, COPY_FROM_USER),
        *exit_with(0),
    ]


@pytest.fixture
def memory() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(b"pageable", 8)


def test_a_sleepable_lsm_program_reads_memory_of_the_process(
    may_sleep: Callable[[Code], Program], counter: Counter, memory: ctypes.Array[ctypes.c_char], tmp_path: Path
) -> None:
    program = may_sleep(copy_from_user(counter.fileno(), ctypes.addressof(memory)))
    with links.attach_trace(program):
        path = tmp_path / "file"
        path.touch()
        path.unlink()
    assert counter.value.to_bytes(8, sys.byteorder) == memory.raw


def test_a_sleepable_uprobe_reads_memory_of_the_process(
    loader: Callable[..., Program], counter: Counter, memory: ctypes.Array[ctypes.c_char]
) -> None:
    code = copy_from_user(counter.fileno(), ctypes.addressof(memory))
    try:
        program = loader(c.BPF_PROG_TYPE_KPROBE, code, prog_flags=c.BPF_F_SLEEPABLE)
    except BPFError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip(f"uprobes that sleep came with Linux 6.0: {error}")
    with links.attach_uprobe(program, "libc.so.6", "getppid", pid=0):
        os.getppid()
    assert counter.value.to_bytes(8, sys.byteorder) == memory.raw
