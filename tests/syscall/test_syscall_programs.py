"""The program commands against the kernel."""

from __future__ import annotations

import errno
import os
import struct
import time

import pytest
from syscall_programs import BAD, NEEDS_ROOT, hash_map, insn, load, move, python, returns, u32, u64

from pybpf import syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import (
    BPF_CGROUP_INET_EGRESS,
    BPF_F_ALLOW_MULTI,
    BPF_F_QUERY_EFFECTIVE,
    BPF_F_REPLACE,
    BPF_PROG_TYPE_CGROUP_SKB,
    BPF_PROG_TYPE_RAW_TRACEPOINT,
    BPF_PROG_TYPE_SCHED_CLS,
    BPF_PROG_TYPE_SOCKET_FILTER,
    BPF_PROG_TYPE_SYSCALL,
    BPF_PROG_TYPE_XDP,
    BPF_PSEUDO_MAP_IDX,
    BPF_STREAM_STDERR,
    BPF_STREAM_STDOUT,
)
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError, NotSupportedError
from pybpf.syscall import LogBuffer

pytestmark = NEEDS_ROOT


def test_load_and_run() -> None:
    with load(BPF_PROG_TYPE_XDP, 2, name="pass") as fd:
        result = syscall.prog_test_run(fd, data_in=bytes(range(60)), data_size_out=100, repeat=10)
        assert result.retval == 2
        assert result.data == bytes(range(60))
        assert result.duration_ns >= 0
        assert "retval=2" in repr(result)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_instructions_may_be_any_buffer(make: type) -> None:
    with syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, make(returns(5))) as fd:
        assert syscall.prog_info(fd, xlated=True).xlated[:8] == returns(5)[:8]


def test_data_out_that_is_too_small() -> None:
    with load(BPF_PROG_TYPE_XDP, 2) as fd, pytest.raises(BPFError) as error:
        syscall.prog_test_run(fd, data_in=bytes(60), data_size_out=10)
    assert error.value.errno == errno.ENOSPC
    assert error.value.hint == "The output has 60 bytes of data and 0 bytes of context"


def test_context_of_a_packet() -> None:
    """__sk_buff.mark is 8 bytes in: the program adds one."""
    code = insn(0x61, 2, 1, 8) + insn(0x07, 2, imm=1) + insn(0x63, 1, 2, 8) + returns(0)
    with syscall.prog_load(BPF_PROG_TYPE_SCHED_CLS, code) as fd:
        context = bytearray(192)
        context[8:12] = u32(41)
        result = syscall.prog_test_run(fd, data_in=bytes(20), ctx_in=context, ctx_size_out=192)
    assert result.ctx[8:12] == u32(42)
    assert context[8:12] == u32(41)


def test_context_of_a_syscall_program() -> None:
    """``ctx[0] = 7``; it is written where it was read."""
    code = insn(0x7A, 1, imm=7) + returns(3)
    try:
        fd = syscall.prog_load(BPF_PROG_TYPE_SYSCALL, code, prog_flags=0x10)
    except BPFError as error:
        pytest.skip(f"no SYSCALL programs before Linux 5.14: {error}")
    with fd:
        result = syscall.prog_test_run(fd, ctx_in=bytes(16))
    assert result.retval == 3 and result.ctx == u64(7) + bytes(8)


def test_a_type_that_cannot_be_run() -> None:
    with syscall.prog_load(2, returns(0)) as fd, pytest.raises(NotSupportedError):
        syscall.prog_test_run(fd)


def test_the_verifier_says_no() -> None:
    log = LogBuffer(1 << 16)
    with pytest.raises(BPFPermissionError) as rejected:
        syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, BAD, name="bad", log_level=1, log_buffer=log)
    assert rejected.value.errno == errno.EACCES
    assert "program 'bad': BPF_PROG_LOAD" in str(rejected.value)
    assert "R5 !read_ok" in log.text
    if log.true_size:  # Linux 6.4
        assert log.true_size == len(log.text) + 1
    log.extend(b"no buffer is held by the traceback")


def test_a_log_that_is_too_small() -> None:
    code = move(0, 1) * 50 + BAD
    log = LogBuffer(130)
    with pytest.raises(BPFError) as error:
        syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, code, log_level=2, log_buffer=log)
    assert error.value.errno == errno.ENOSPC
    if not log.true_size:
        pytest.skip("log_true_size came with Linux 6.4")
    assert log.true_size > len(log)
    enough = LogBuffer(log.true_size)
    with pytest.raises(BPFPermissionError):
        syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, code, log_level=2, log_buffer=enough)
    assert enough.true_size == len(enough) and "read_ok" in enough.text


def test_a_plain_bytearray_takes_the_log_too() -> None:
    log = bytearray(4096)
    load(log_level=4, log_buffer=log).close()
    assert b"processed 2 insns" in log


def test_load_with_maps_by_index() -> None:
    """``r1 = map [index 1]; return 0``"""
    wide = insn(0x18, 1, BPF_PSEUDO_MAP_IDX, 0, 1) + insn(0)
    with hash_map() as first, hash_map() as second:
        try:
            fd = syscall.prog_load(
                BPF_PROG_TYPE_SOCKET_FILTER, wide + returns(0), fd_array=[first.fileno(), second.fileno()]
            )
        except BPFError as error:
            pytest.skip(f"fd_array came with Linux 5.14: {error}")
        with fd:
            assert syscall.prog_info(fd, map_ids=True).map_ids == [syscall.map_info(second).id]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="insns has 9 bytes"):
        syscall.prog_load(1, bytes(9))
    with pytest.raises(ValueError, match="func_info has 7 bytes"):
        syscall.prog_load(1, returns(0), func_info=bytes(7))
    with pytest.raises(ValueError, match="share one field"):
        syscall.prog_load(1, returns(0), attach_prog_fd=5, attach_btf_obj_fd=6)
    with pytest.raises(BPFError) as error:
        syscall.prog_load(1, b"")
    assert error.value.errno in (errno.E2BIG, errno.EINVAL)


def test_types_of_a_program() -> None:
    """func_info and line_info are taken and given back, and CO-RE records are read by the kernel."""
    builder = BTFBuilder()
    number = builder.add_int("int", 4, 32, 1)
    function = builder.add_func("main", builder.add_func_proto(number, []), 0)
    line = builder.add_string("return 0;"), builder.add_string("main.c")
    with syscall.btf_load(builder.to_bytes()) as btf:
        options = {
            "btf_fd": btf,
            "func_info": struct.pack("=II", 0, function),
            "line_info": struct.pack("=IIII", 0, line[1], line[0], 7 << 10 | 3),
        }
        with syscall.prog_load(1, returns(0), **options) as program:
            info = syscall.prog_info(
                program, func_info=True, line_info=True, jited_line_info=True, jited_func_lens=True
            )
            assert info.btf_id == syscall.btf_info(btf).id
            assert (info.nr_func_info, info.func_info) == (1, options["func_info"])
            assert (info.nr_line_info, info.line_info) == (1, options["line_info"])
            assert len(info.jited_line_info) in (0, 1) and len(info.jited_func_lens) in (0, 1)
        with pytest.raises(BPFError) as error:
            syscall.prog_load(1, returns(0), core_relos=struct.pack("=IIII", 0, number, 1 << 20, 0), **options)
        assert error.value.errno in (errno.EINVAL, errno.E2BIG)  # E2BIG before Linux 5.17


def test_attach_to_a_cgroup_without_a_link(cgroup: int) -> None:
    with load(BPF_PROG_TYPE_CGROUP_SKB, 1) as first, load(BPF_PROG_TYPE_CGROUP_SKB, 1) as second:
        ids = [syscall.prog_info(fd).id for fd in (first, second)]
        syscall.prog_attach(cgroup, first, BPF_CGROUP_INET_EGRESS, flags=BPF_F_ALLOW_MULTI)
        found = syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS)
        assert found.prog_ids == ids[:1] and found.attach_flags == BPF_F_ALLOW_MULTI
        assert found.prog_attach_flags == [] and "1 programs" in repr(found)
        try:
            found = syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS, prog_attach_flags=True)
            assert found.prog_attach_flags == [BPF_F_ALLOW_MULTI]
        except BPFError as error:
            assert error.errno in (errno.E2BIG, errno.EINVAL)  # before Linux 6.1
        syscall.prog_attach(
            cgroup, second, BPF_CGROUP_INET_EGRESS, flags=BPF_F_ALLOW_MULTI | BPF_F_REPLACE, replace_bpf_fd=first
        )
        assert syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS).prog_ids == ids[1:]
        effective = syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS, query_flags=BPF_F_QUERY_EFFECTIVE)
        assert ids[1] in effective.prog_ids
        with pytest.raises(BPFNotFoundError):
            syscall.prog_detach(cgroup, BPF_CGROUP_INET_EGRESS, prog_fd=first)
        syscall.prog_detach(cgroup, BPF_CGROUP_INET_EGRESS, prog_fd=second)
        assert syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS).prog_ids == []


def test_query_of_more_programs_than_there_was_room_for(cgroup: int) -> None:
    programs = [load(BPF_PROG_TYPE_CGROUP_SKB, 1) for _ in range(40)]
    ids = [syscall.prog_info(fd).id for fd in programs]
    for fd in programs:
        syscall.prog_attach(cgroup, fd, BPF_CGROUP_INET_EGRESS, flags=BPF_F_ALLOW_MULTI)
    assert syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS).prog_ids == ids
    for fd in programs:
        syscall.prog_detach(cgroup, BPF_CGROUP_INET_EGRESS, prog_fd=fd)
        fd.close()


TCX = """
import errno
from syscall_programs import load
from pybpf import syscall
from pybpf.constants import *
with load(BPF_PROG_TYPE_SCHED_CLS, 0) as first, load(BPF_PROG_TYPE_SCHED_CLS, 0) as second:
    a, b = (syscall.prog_info(fd).id for fd in (first, second))
    try:
        syscall.prog_attach(1, first, BPF_TCX_INGRESS)
    except OSError as error:
        print("unsupported", error)
        raise SystemExit
    revision = syscall.prog_query(1, BPF_TCX_INGRESS).revision
    syscall.prog_attach(1, second, BPF_TCX_INGRESS, flags=BPF_F_BEFORE, relative_fd=first, expected_revision=revision)
    found = syscall.prog_query(1, BPF_TCX_INGRESS)
    assert found.prog_ids == [b, a], found.prog_ids
    assert found.link_ids == [0, 0] and found.revision == revision + 1
    syscall.prog_detach(1, BPF_TCX_INGRESS, prog_fd=second)
    syscall.prog_attach(1, second, BPF_TCX_INGRESS, flags=BPF_F_AFTER, relative_id=a)
    assert syscall.prog_query(1, BPF_TCX_INGRESS).prog_ids == [a, b]
    try:
        syscall.prog_detach(1, BPF_TCX_INGRESS, prog_fd=second, expected_revision=1)
    except OSError as error:
        assert error.errno == errno.ESTALE
    with load(BPF_PROG_TYPE_SCHED_CLS, 1) as third, syscall.link_create(third, 1, BPF_TCX_INGRESS) as link:
        found = syscall.prog_query(1, BPF_TCX_INGRESS)
        assert found.link_ids[2] == syscall.link_info(link).id
        assert len(found.link_attach_flags) == len(found.prog_attach_flags) == 3
    print("done")
"""


def test_tcx() -> None:
    out = python(TCX, prefix=("unshare", "-n"))
    if out.startswith("unsupported"):
        pytest.skip(f"tcx came with Linux 6.6: {out}")
    assert out.split() == ["done"]


def test_bind_map() -> None:
    with load() as program, hash_map() as bound:
        assert syscall.prog_info(program, map_ids=True).map_ids == []
        syscall.prog_bind_map(program, bound)
        assert syscall.prog_info(program, map_ids=True).map_ids == [syscall.map_info(bound).id]
        with pytest.raises(BPFError) as error:
            syscall.prog_bind_map(program, bound, flags=1)
        assert error.value.errno == errno.EINVAL


def test_assoc_struct_ops_wants_a_struct_ops_map() -> None:
    with load() as program, hash_map() as other, pytest.raises(BPFError) as error:
        syscall.prog_assoc_struct_ops(other, program)
    assert error.value.errno == errno.EINVAL


def test_streams() -> None:
    with load() as program:
        try:
            assert syscall.prog_stream_read_by_fd(program, BPF_STREAM_STDOUT) == b""
        except BPFError as error:
            assert error.errno == errno.EINVAL
            pytest.skip("program output came with Linux 6.17")
        assert syscall.prog_stream_read_by_fd(program, BPF_STREAM_STDERR) == b""
        with pytest.raises(BPFNotFoundError):
            syscall.prog_stream_read_by_fd(program, 77)


COUNT_ONE = (
    move(1, 0)
    + insn(0x7B, 10, 1, -8)
    + insn(0xBF, 2, 10)
    + insn(0x07, 2, imm=-8)
    + insn(0x18, 1, 1, 0, 0)
    + insn(0)
    + insn(0x85, imm=1)
    + insn(0x15, 0, off=2)
    + move(1, 1)
    + insn(0xDB, 0, 1, 0, 0)
    + returns(0)
)
"""``value = lookup(&map, &(u64){0}); if (value) __sync_fetch_and_add(value, 1); return 0``"""


def counter(map_fd: int) -> bytes:
    at = COUNT_ONE.index(insn(0x18, 1, 1, 0, 0))
    return COUNT_ONE[:at] + insn(0x18, 1, 1, 0, map_fd) + COUNT_ONE[at + 8 :]


def test_raw_tracepoint() -> None:
    with hash_map(1) as counts:
        syscall.map_update_elem(counts, u64(0), u64(0))
        with syscall.prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, counter(counts.fileno())) as program:
            with syscall.raw_tracepoint_open(program, "sys_enter") as link:
                os.getppid()
                info = syscall.link_info(link)
                assert info.tp_name == "sys_enter" and info.prog_id == syscall.prog_info(program).id
                found = syscall.task_fd_query(os.getpid(), link.fileno())
                assert (found.name, found.prog_id, found.fd_type) == ("sys_enter", info.prog_id, 0)
                assert "sys_enter" in repr(found)
            seen = syscall.map_lookup_elem(counts, u64(0), 8)
            assert struct.unpack("=Q", seen)[0] > 0
            time.sleep(0.05)
            settled = syscall.map_lookup_elem(counts, u64(0), 8)
            os.getppid()
            assert syscall.map_lookup_elem(counts, u64(0), 8) == settled


def test_raw_tracepoint_with_a_cookie() -> None:
    with syscall.prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, returns(0)) as program:
        try:
            link = syscall.raw_tracepoint_open(program, "sched_switch", cookie=0x1234567890)
        except BPFError as error:
            pytest.skip(f"cookies of raw tracepoints came with Linux 6.10: {error}")
        with link:
            assert syscall.link_info(link).cookie in (0x1234567890, 0)  # it is told since Linux 6.16


def test_raw_tracepoint_that_does_not_exist() -> None:
    with syscall.prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, returns(0)) as program:
        with pytest.raises(BPFNotFoundError) as error:
            syscall.raw_tracepoint_open(program, "no_such_tracepoint")
        assert "raw tracepoint 'no_such_tracepoint'" in str(error.value)


def test_every_descriptor_closes_on_exec() -> None:
    with load() as fd:
        assert not os.get_inheritable(fd.fileno())
