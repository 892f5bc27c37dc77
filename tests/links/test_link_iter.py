"""Iterators: making them and reading them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_helpers import function_id, has_enumerator, has_member
from link_programs import Code, exit_with, write_from_stack

from pybpf import abi, links, syscall
from pybpf import constants as c
from pybpf.btf.codec import codec
from pybpf.btf.kernel import vmlinux
from pybpf.btf.kinds import KIND_STRUCT
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError, BPFPermissionError, ObjectError
from pybpf.links import IterLink
from pybpf.program import Program

SEQ_OF_CONTEXT: Code = [(0x79, 1, 8, 0, 0), (0x79, 1, 1, 0, 0)]
"""Register 1 = ((struct bpf_iter__... *) register 8)->meta->seq."""


def pid_offset() -> int:
    task = vmlinux().find("task_struct", KIND_STRUCT)
    return next(member.bit_offset // 8 for member in task.members if member.name == "tgid")


@pytest.fixture
def task_iterator(loader: Callable[..., Program]) -> Program:
    """Writes the process id of each task, as eight bytes."""
    code = [
        (0xBF, 8, 1, 0, 0),
        (0x79, 7, 8, 8, 0),
        (0x55, 7, 0, 2, 0),
        *exit_with(0),
        (0x61, 7, 7, pid_offset(), 0),
        (0x7B, 10, 7, -8, 0),
        *write_from_stack(SEQ_OF_CONTEXT, 8),
        *exit_with(0),
    ]
    return load_iterator(loader, code, "task")


def load_iterator(loader: Callable[..., Program], code: Code, target: str) -> Program:
    btf_id = function_id(f"bpf_iter_{target}")
    return loader(c.BPF_PROG_TYPE_TRACING, code, attach_type=c.BPF_TRACE_ITER, attach_btf_id=btf_id)


def processes(link: IterLink) -> list[int]:
    data = link.read()
    assert data
    return [int.from_bytes(data[at : at + 8], sys.byteorder) for at in range(0, len(data), 8)]


def test_task(task_iterator: Program) -> None:
    with links.attach_iter(task_iterator) as link:
        assert link.type is abi.LinkType.ITER
        assert link.info().target_name == "task"
        assert os.getpid() in set(processes(link))
        assert os.getpid() in processes(link)  # each reading starts anew


@pytest.mark.parametrize("by", ["pid", "tid", "pidfd"])
def test_task_of_one_process(task_iterator: Program, by: str) -> None:
    if not has_member("bpf_iter_aux_info", "task"):
        with pytest.raises(BPFError, match=r"attaching 'probe' to iter.*Linux 6.1"):
            links.attach_iter(task_iterator, pid=os.getpid())
        return
    number = os.pidfd_open(os.getpid()) if by == "pidfd" else os.getpid()
    try:
        with links.attach_iter(task_iterator, **{by: number}) as link:
            assert set(processes(link)) == {os.getpid()}
    finally:
        if by == "pidfd":
            os.close(number)


def test_more_than_one_buffer_is_read_whole(task_iterator: Program) -> None:
    """Every run is cut into reads of the kernel's choice; the records come out whole."""
    builder = BTFBuilder(sys.byteorder)
    number = builder.add_int("long", 8, 64, 1)
    builder.add_struct("entry", 8, [("pid", number, 0, 0)])
    btf = BTF.from_bytes(builder.to_bytes())
    with links.attach_iter(task_iterator) as link:
        found = [entry.pid for entry in link.records(codec(btf, btf.find("entry", KIND_STRUCT).id))]
        assert os.getpid() in set(found)


def test_records_by_name(task_iterator: Program) -> None:
    """The name of a struct of the program's object."""
    builder = BTFBuilder(sys.byteorder)
    builder.add_struct("entry", 8, [("pid", builder.add_int("long", 8, 64, 1), 0, 0)])
    with links.attach_iter(task_iterator) as link, pytest.raises(ObjectError, match="object has no struct 'entry'"):
        list(link.records("entry"))
    task_iterator.btf = BTF.from_bytes(builder.to_bytes())
    with links.attach_iter(task_iterator) as link:
        assert os.getpid() in {entry.pid for entry in link.records("entry")}
        with pytest.raises(ObjectError, match="object has no struct 'other'"):
            list(link.records("other"))


def test_records_that_are_cut_short(task_iterator: Program) -> None:
    builder = BTFBuilder(sys.byteorder)
    builder.add_struct("odd", 7, [])
    btf = BTF.from_bytes(builder.to_bytes())
    wanted = codec(btf, btf.find("odd", KIND_STRUCT).id)
    if not has_member("bpf_iter_aux_info", "task"):
        pytest.skip("the kernel has no iterators of one task (Linux 6.1)")
    with links.attach_iter(task_iterator, tid=os.getpid()) as link, pytest.raises(ObjectError, match="last 1 bytes"):
        list(link.records(wanted))


@pytest.fixture
def map_iterator(loader: Callable[..., Program]) -> Program:
    """Writes the first eight bytes of each value."""
    code = [
        (0xBF, 8, 1, 0, 0),
        (0x79, 7, 8, 24, 0),
        (0x55, 7, 0, 2, 0),
        *exit_with(0),
        (0x79, 7, 7, 0, 0),
        (0x7B, 10, 7, -8, 0),
        *write_from_stack(SEQ_OF_CONTEXT, 8),
        *exit_with(0),
    ]
    return load_iterator(loader, code, "bpf_map_elem")


@pytest.fixture
def numbers() -> Iterator[syscall.FD]:
    with syscall.map_create(c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=3) as fd:
        for key, text in enumerate((b"first \n\n", b"second\n\n", b"third")):
            syscall.map_update_elem(fd, key.to_bytes(4, sys.byteorder), text.ljust(8, b"."))
        yield fd


def test_map(map_iterator: Program, numbers: syscall.FD) -> None:
    with links.attach_iter(map_iterator, map=numbers) as link:
        assert link.read() == b"first \n\nsecond\n\nthird..."
        assert list(link.lines()) == ["first ", "", "second", "", "third..."]
        assert link.info().map_id == syscall.map_info(numbers).id


def test_map_iterator_without_a_map(map_iterator: Program) -> None:
    with pytest.raises(BPFError, match="map="):
        links.attach_iter(map_iterator)


def test_arguments(task_iterator: Program) -> None:
    with pytest.raises(ValueError, match="give one of"):
        links.attach_iter(task_iterator, pid=1, tid=1)
    with pytest.raises(ValueError, match="order is one of"):
        links.attach_iter(task_iterator, order="up")
    with pytest.raises(ValueError, match="pid is the number of a process or thread, not -1"):
        links.attach_iter(task_iterator, pid=-1)


def test_cgroup(loader: Callable[..., Program], cgroup: Path) -> None:
    if not has_enumerator("bpf_cgroup_iter_order", "BPF_CGROUP_ITER_SELF_ONLY"):
        pytest.skip("the kernel has no cgroup iterators (Linux 6.1)")
    code = [
        (0xBF, 8, 1, 0, 0),
        (0x79, 7, 8, 8, 0),
        (0x55, 7, 0, 2, 0),
        *exit_with(0),
        (0x7A, 10, 0, -8, 1),
        *write_from_stack(SEQ_OF_CONTEXT, 8),
        *exit_with(0),
    ]
    program = load_iterator(loader, code, "cgroup")
    inner = cgroup / "inner"
    inner.mkdir()
    try:
        for order, count in (("self", 1), ("descendants_pre", 2), ("descendants_post", 2)):
            with links.attach_iter(program, cgroup=cgroup, order=order) as link:
                assert len(link.read()) == 8 * count
                assert link.info().cgroup_id == cgroup.stat().st_ino
        fd = os.open(inner, os.O_RDONLY)
        try:
            with links.attach_iter(program, cgroup=fd, order="ancestors") as link:
                assert len(link.read()) >= 8 * 3
        finally:
            os.close(fd)
    finally:
        inner.rmdir()


def test_pinned_iterator_is_a_file(task_iterator: Program) -> None:
    path = f"/sys/fs/bpf/pybpf_test_iter_{os.getpid()}"
    with links.attach_iter(task_iterator) as link:
        link.pin(path)
    try:
        assert len(Path(path).read_bytes()) >= 16
        with links.Link.open_pinned(path) as again:
            assert isinstance(again, IterLink)
            assert os.getpid() in processes(again)
    finally:
        Path(path).unlink()


def test_iterator_without_rights(task_iterator: Program) -> None:
    import errno

    from link_helpers import Refuse

    with Refuse("BPF_LINK_CREATE", errno.EPERM), pytest.raises(BPFPermissionError, match="attaching 'probe' to iter"):
        links.attach_iter(task_iterator)
