"""Pins, ids, information, BTF, statistics and tokens against the kernel."""

from __future__ import annotations

import errno
import hashlib
import os
import struct

import pytest
from syscall_programs import NEEDS_ROOT, hash_map, load, python, returns, u32, u64

from pybpf import syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import (
    BPF_F_RDONLY,
    BPF_MAP_TYPE_ARRAY,
    BPF_PROG_TYPE_RAW_TRACEPOINT,
    BPF_PROG_TYPE_XDP,
    BPF_STATS_RUN_TIME,
)
from pybpf.errors import (
    BPFError,
    BPFExistsError,
    BPFNotFoundError,
    BPFPermissionError,
    NotSupportedError,
)
from pybpf.syscall import BTFInfo, LinkInfo, LogBuffer, MapInfo, ProgramInfo, TokenInfo
from pybpf.syscall.attrs import LAYOUTS, POINTERS

pytestmark = NEEDS_ROOT


def btf_bytes() -> bytes:
    builder = BTFBuilder()
    builder.add_int("int", 4, 32, 1)
    return bytes(builder.to_bytes())


def test_pins(bpffs: str) -> None:
    path = f"{bpffs}/table"
    with hash_map(2) as fd:
        syscall.obj_pin(path, fd)
        with pytest.raises(BPFExistsError) as exists:
            syscall.obj_pin(path.encode(), fd)
        assert f"pin {path.encode()!r}" in str(exists.value)
        with syscall.obj_get(path) as again:
            assert syscall.map_info(again).id == syscall.map_info(fd).id
            assert syscall.map_lookup_elem(again, u64(1), 8) == u64(10)
        with syscall.obj_get(path, flags=BPF_F_RDONLY) as reader:
            assert syscall.map_lookup_elem(reader, u64(1), 8) == u64(10)
            with pytest.raises(BPFPermissionError):
                syscall.map_update_elem(reader, u64(1), u64(0))
    with pytest.raises(BPFNotFoundError):
        syscall.obj_get(f"{bpffs}/nothing")
    with pytest.raises(BPFPermissionError), load() as program:
        syscall.obj_pin(f"{bpffs}/a.b", program)
    with pytest.raises(ValueError, match="NUL"):
        syscall.obj_get("a\0b")


def test_pins_relative_to_a_directory(bpffs: str) -> None:
    directory = os.open(bpffs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with load() as program:
            try:
                syscall.obj_pin("relative", program, path_fd=directory)
            except BPFError as error:
                pytest.skip(f"path_fd came with Linux 6.5: {error}")
            with syscall.obj_get("relative", path_fd=directory) as again:
                assert syscall.prog_info(again).id == syscall.prog_info(program).id
    finally:
        os.close(directory)


def test_pins_outside_of_bpffs_are_refused(tmp_path: object) -> None:
    with load() as program, pytest.raises(BPFPermissionError):
        syscall.obj_pin(f"{tmp_path}/pin", program)


def walk(following: object) -> list[int]:
    found, number = [], 0
    while (number_or_none := following(number)) is not None:  # type: ignore[operator]
        number = number_or_none
        found.append(number)
    return found


def test_ids() -> None:
    with hash_map() as map_fd, load() as program, syscall.btf_load(btf_bytes()) as btf:
        for fd, following, open_by_id, info in (
            (map_fd, syscall.map_get_next_id, syscall.map_get_fd_by_id, syscall.map_info),
            (program, syscall.prog_get_next_id, syscall.prog_get_fd_by_id, syscall.prog_info),
            (btf, syscall.btf_get_next_id, syscall.btf_get_fd_by_id, syscall.btf_info),
        ):
            number = info(fd).id
            ids = walk(following)
            assert number in ids and ids == sorted(ids)
            with open_by_id(number) as again:
                assert info(again).id == number
            with pytest.raises(BPFNotFoundError):
                open_by_id(0x7FFFFFF0)
            assert following(0x7FFFFFF0) is None
    with (
        syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1) as fd,
        syscall.map_get_fd_by_id(syscall.map_info(fd).id, BPF_F_RDONLY) as reader,
        pytest.raises(BPFPermissionError),
    ):
        syscall.map_update_elem(reader, u32(0), u32(0))
    assert walk(syscall.link_get_next_id) == sorted(walk(syscall.link_get_next_id))
    with pytest.raises(BPFNotFoundError):
        syscall.link_get_fd_by_id(0x7FFFFFF0)


def test_program_info() -> None:
    with load(BPF_PROG_TYPE_XDP, 2, name="a_name") as fd:
        info = syscall.prog_info(fd)
        assert (info.type, info.name, info.gpl_compatible) == (BPF_PROG_TYPE_XDP, "a_name", 1)
        assert len(info.tag) == 8 and info.created_by_uid == 0 and info.load_time > 0
        assert info.xlated_prog_len == 16 and info.xlated == b"" and info.map_ids == []
        full = syscall.prog_info(fd, xlated=True, jited=True, jited_ksyms=True, jited_func_lens=True, prog_tags=True)
        assert full.xlated == returns(2)
        # The tag is the beginning of a hash over the instructions: SHA-1, since Linux 6.18 SHA-256.
        assert info.tag in (hashlib.sha1(returns(2)).digest()[:8], hashlib.sha256(returns(2)).digest()[:8])
        assert full.prog_tags in ([], [info.tag])
        if info.jited_prog_len:
            assert len(full.jited) == info.jited_prog_len == sum(full.jited_func_lens)
            assert len(full.jited_ksyms) == 1
        assert repr(info).startswith("<ProgramInfo type=6 id=")


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (ProgramInfo, "bpf_prog_info"),
        (MapInfo, "bpf_map_info"),
        (BTFInfo, "bpf_btf_info"),
        (TokenInfo, "bpf_token_info"),
    ],
)
def test_every_field_has_a_type(kind: type, title: str) -> None:
    scalars = {name for name in LAYOUTS[title] if name not in POINTERS.get(title, ())}
    assert scalars <= set(kind.__annotations__)


def test_every_field_of_links_has_a_type() -> None:
    renamed = {"type": "perf_type", "perf_event.event.type": "event_type", "perf_event.type": "perf_type"}
    lengths = {"tp_name_len", "target_name_len", "path_size", "name_len"}
    for name in LAYOUTS["bpf_link_info"]:
        field = renamed.get(name, name.rpartition(".")[2])
        assert field in lengths or field in LinkInfo.__annotations__, name


def test_map_hash() -> None:
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=2) as fd:
        syscall.map_update_elem(fd, u32(0), u64(1))
        syscall.map_freeze(fd)
        try:
            info = syscall.map_info(fd, hash=True)
        except BPFError as error:
            assert error.errno in (errno.E2BIG, errno.EINVAL)
            pytest.skip(f"hashes of maps came with Linux 6.18: {error}")
        assert info.hash == hashlib.sha256(u64(1) + u64(0)).digest()
        assert syscall.map_info(fd).hash == b""


def test_raw_info() -> None:
    with hash_map() as fd:
        info = bytearray(24)
        assert syscall.obj_get_info_by_fd(fd, info) == 24
        assert struct.unpack("=6I", info)[2:4] == (8, 8)
        long = bytearray(4000)
        assert 80 <= syscall.obj_get_info_by_fd(fd, long) < 4000
        long[-1] = 1
        with pytest.raises(BPFError) as error:
            syscall.obj_get_info_by_fd(fd, long)
        assert error.value.errno == errno.E2BIG
        long.extend(b"not held")


def test_btf() -> None:
    data = btf_bytes()
    for make in (bytes, bytearray, memoryview):
        with syscall.btf_load(make(data)) as fd:
            info = syscall.btf_info(fd, data=True)
            assert info.data == data and info.btf_size == len(data)
            assert (info.name, info.kernel_btf) == ("", 0)
    log = LogBuffer(4096)
    with pytest.raises(BPFError) as error:
        syscall.btf_load(data[:-1], log_level=1, log_buffer=log)
    assert error.value.errno == errno.EINVAL and "section" in log.text.lower()
    assert log.true_size in (0, len(log.text) + 1)


def test_kernel_btf() -> None:
    for number in walk(syscall.btf_get_next_id):
        with syscall.btf_get_fd_by_id(number) as fd:
            info = syscall.btf_info(fd)
        if info.kernel_btf and info.name == "vmlinux":
            assert info.btf_size > 1 << 20
            return
    pytest.skip("the kernel's own BTF has an id since Linux 5.11")


def test_stats() -> None:
    with load(BPF_PROG_TYPE_RAW_TRACEPOINT) as program, syscall.raw_tracepoint_open(program, "sys_enter"):
        with syscall.enable_stats(BPF_STATS_RUN_TIME):
            for _ in range(10):
                os.getppid()
            info = syscall.prog_info(program)
            assert info.run_cnt >= 10 and info.run_time_ns > 0
        with pytest.raises(BPFError) as error:
            syscall.enable_stats(99)
        assert error.value.errno == errno.EINVAL


def test_task_fd_query_of_something_else() -> None:
    with open("/dev/null") as file:
        with pytest.raises(NotSupportedError):
            syscall.task_fd_query(os.getpid(), file.fileno())
        with pytest.raises(BPFError) as error:
            syscall.task_fd_query(os.getpid(), 987654)
        assert error.value.errno == errno.EBADF
    with pytest.raises(BPFNotFoundError):
        syscall.task_fd_query(0x3FFFFF, 0)


def test_the_first_user_namespace_gives_no_tokens(bpffs: str) -> None:
    directory = os.open("/sys/fs/bpf", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with pytest.raises(BPFError) as error:
            syscall.token_create(directory)
        # EINVAL: the kernel does not know the command (before Linux 6.9).
        assert error.value.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
        with pytest.raises(BPFError):
            syscall.token_create(directory, flags=1)
    finally:
        os.close(directory)


UNPRIVILEGED = """
import errno, os
from pybpf import syscall
from pybpf.errors import BPFPermissionError
from syscall_programs import returns
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
refused = []
for name, call in {
    "map_create": lambda: syscall.map_create(11, key_size=8, value_size=4, max_entries=1, map_flags=1),
    "prog_load": lambda: syscall.prog_load(6, returns(2)),
    "btf_load": lambda: syscall.btf_load(bytes(24)),
    "prog_get_next_id": lambda: syscall.prog_get_next_id(0),
    "map_get_fd_by_id": lambda: syscall.map_get_fd_by_id(1),
    "enable_stats": lambda: syscall.enable_stats(0),
    "perf_event_open": lambda: syscall.perf_event_open(2, 1),
}.items():
    try:
        call()
    except BPFPermissionError as error:
        assert isinstance(error, PermissionError) and error.errno in (errno.EPERM, errno.EACCES)
        refused.append(name)
print(*refused)
"""


def test_without_privileges() -> None:
    assert python(UNPRIVILEGED).split() == [
        "map_create",
        "prog_load",
        "btf_load",
        "prog_get_next_id",
        "map_get_fd_by_id",
        "enable_stats",
        "perf_event_open",
    ]
