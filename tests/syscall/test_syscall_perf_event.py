"""perf_event_open(2), its ioctls, mapped memory and sockets against the kernel."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from syscall_programs import NEEDS_ROOT, load, returns, u32, u64

from pybpf import syscall
from pybpf.constants import (
    BPF_F_MMAPABLE,
    BPF_F_RDONLY_PROG,
    BPF_MAP_TYPE_ARRAY,
    BPF_MAP_TYPE_RINGBUF,
    BPF_PROG_TYPE_PERF_EVENT,
    BPF_PROG_TYPE_SOCKET_FILTER,
    BPF_PROG_TYPE_TRACEPOINT,
    PERF_COUNT_SW_BPF_OUTPUT,
    PERF_COUNT_SW_CPU_CLOCK,
    PERF_COUNT_SW_DUMMY,
    PERF_COUNT_SW_PAGE_FAULTS,
    PERF_SAMPLE_RAW,
    PERF_TYPE_SOFTWARE,
    PERF_TYPE_TRACEPOINT,
)
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError
from pybpf.syscall import FD, memory, perf_event
from pybpf.syscall.attrs import PERF_IOCTLS
from pybpf.syscall.memory import PAGE_SIZE, barrier, map_memory

pytestmark = NEEDS_ROOT


def page_faults(**fields: int) -> FD:
    """A counter of this process's page faults."""
    return syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS, pid=0, cpu=-1, disabled=1, **fields)


def count(event: FD) -> int:
    return int(struct.unpack("=Q", os.read(event.fileno(), 8))[0])


def fault(pages: int = 100) -> None:
    with mmap.mmap(-1, pages * PAGE_SIZE) as fresh:
        for place in range(0, len(fresh), PAGE_SIZE):
            fresh[place] = 1


def test_a_counter_is_switched_on_and_off() -> None:
    with page_faults() as event:
        assert not os.get_inheritable(event.fileno())
        fault()
        assert count(event) == 0
        syscall.perf_enable(event)
        fault()
        syscall.perf_disable(event)
        counted = count(event)
        assert counted >= 100
        fault()
        assert count(event) == counted
        syscall.perf_reset(event)
        assert count(event) == 0
        assert syscall.perf_id(event) > 0


def test_periods_and_overflows() -> None:
    with page_faults(sample_period=1000) as event:
        syscall.perf_period(event, 10)
        syscall.perf_refresh(event, 1)
        fault()
        time.sleep(0.01)
        assert count(event) > 0
        with pytest.raises(BPFError) as error:
            syscall.perf_period(event, 2**63)
        assert error.value.errno == errno.EINVAL


def test_a_clock_runs_a_program() -> None:
    with (
        syscall.prog_load(BPF_PROG_TYPE_PERF_EVENT, returns(0)) as program,
        syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK, sample_period=1_000_000) as event,
        syscall.enable_stats(),
    ):
        syscall.perf_set_bpf(event, program)
        syscall.perf_enable(event)
        os.sched_setaffinity(0, {0})
        try:
            deadline = time.monotonic() + 5
            while syscall.prog_info(program).run_cnt < 3 and time.monotonic() < deadline:
                sum(range(10000))
        finally:
            os.sched_setaffinity(0, set(syscall.cpu_list("online")))
        assert syscall.prog_info(program).run_cnt >= 3


def test_a_buffer_for_output_of_programs() -> None:
    with syscall.perf_event_open(
        PERF_TYPE_SOFTWARE, PERF_COUNT_SW_BPF_OUTPUT, sample_type=PERF_SAMPLE_RAW, sample_period=1, wakeup_events=1
    ) as event:
        with pytest.raises(BPFError) as error:
            syscall.perf_pause_output(event, True)
        assert error.value.errno == errno.EINVAL
        with map_memory(event, 9 * PAGE_SIZE, writable=True) as buffer:
            assert struct.unpack_from("=QQQQ", buffer, 1024)[2:] == (PAGE_SIZE, 8 * PAGE_SIZE)
            syscall.perf_pause_output(event, True)
            syscall.perf_pause_output(event, False)
            with syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY) as other:
                syscall.perf_set_output(other, event)
                syscall.perf_set_output(other, None)


def test_a_tracepoint_with_programs() -> None:
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        place = Path(root, "events/sched/sched_switch/id")
        if place.exists():
            break
    else:
        pytest.skip("tracefs is not mounted")
    with (
        syscall.perf_event_open(PERF_TYPE_TRACEPOINT, int(place.read_text()), sample_period=1) as event,
        load(BPF_PROG_TYPE_TRACEPOINT) as program,
    ):
        assert syscall.perf_query_bpf(event) == []
        with pytest.raises(BPFError) as error:
            syscall.perf_set_filter(event, "no_such_field == 1")
        assert error.value.errno == errno.EINVAL
        syscall.perf_set_filter(event, "prev_pid == 1")
        syscall.perf_set_bpf(event, program)
        assert syscall.perf_query_bpf(event) == [syscall.prog_info(program).id]
        found = syscall.task_fd_query(os.getpid(), event.fileno())
        assert found.name == "sched_switch"
        with load(BPF_PROG_TYPE_SOCKET_FILTER) as wrong, pytest.raises(BPFError) as error:
            syscall.perf_set_bpf(event, wrong)
        assert error.value.errno == errno.EINVAL and error.value.command == "PERF_EVENT_IOC_SET_BPF"


def test_a_name_is_handed_over() -> None:
    """A uprobe's path goes through config1 as a pointer; the kernel reads it."""
    kind = Path("/sys/bus/event_source/devices/uprobe/type")
    if not kind.exists():
        pytest.skip("this kernel has no uprobe PMU")
    with pytest.raises(BPFNotFoundError):
        syscall.perf_event_open(int(kind.read_text()), 0, config1=b"/no/such/file", config2=0x100)


def test_bad_fields() -> None:
    with pytest.raises(TypeError, match="no field 'colour'"):
        syscall.perf_event_open(1, 0, colour=1)
    with pytest.raises(ValueError, match="disabled = 2"):
        syscall.perf_event_open(1, 0, disabled=2)
    with pytest.raises(BPFError) as error:
        syscall.perf_event_open(PERF_TYPE_SOFTWARE, 1234)
    assert error.value.command == "perf_event_open" and error.value.errno == errno.ENOENT
    with pytest.raises(BPFError):
        syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, cpu=100000)


# linux/perf_event.h with asm/ioctl.h of each machine.
@pytest.mark.parametrize(
    ("name", "generic", "other"),
    [
        ("PERF_EVENT_IOC_ENABLE", 0x2400, 0x20002400),
        ("PERF_EVENT_IOC_REFRESH", 0x2402, 0x20002402),
        ("PERF_EVENT_IOC_PERIOD", 0x40082404, 0x80082404),
        ("PERF_EVENT_IOC_SET_FILTER", 0x40082406, 0x80082406),
        ("PERF_EVENT_IOC_ID", 0x80082407, 0x40082407),
        ("PERF_EVENT_IOC_SET_BPF", 0x40042408, 0x80042408),
        ("PERF_EVENT_IOC_PAUSE_OUTPUT", 0x40042409, 0x80042409),
        ("PERF_EVENT_IOC_QUERY_BPF", 0xC008240A, 0xC008240A),
        ("PERF_EVENT_IOC_MODIFY_ATTRIBUTES", 0x4008240B, 0x8008240B),
    ],
)
def test_ioctl_numbers(name: str, generic: int, other: int) -> None:
    assert name in PERF_IOCTLS
    assert perf_event.ioctl_number(name, "x86_64", 8) == generic
    assert perf_event.ioctl_number(name, "ppc64", 8) == other
    assert perf_event.ioctl_number("PERF_EVENT_IOC_SET_FILTER", "arm", 4) == 0x40042406
    assert perf_event.ioctl_number("PERF_EVENT_IOC_SET_BPF", "parisc", 4) == 0x80042408


def test_memory_of_an_array() -> None:
    with syscall.map_create(
        BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=4, map_flags=BPF_F_MMAPABLE
    ) as fd:
        with map_memory(fd, PAGE_SIZE, writable=True) as shared:
            shared[8:16] = u64(77)
            assert syscall.map_lookup_elem(fd, u32(1), 8) == u64(77)
            syscall.map_update_elem(fd, u32(2), u64(5))
            assert shared[16:24] == u64(5)
        with map_memory(fd, PAGE_SIZE) as reader:
            assert reader[8:16] == u64(77)
            with pytest.raises(TypeError):
                reader[0] = 1


def test_memory_of_a_ring_buffer() -> None:
    size = PAGE_SIZE
    with syscall.map_create(BPF_MAP_TYPE_RINGBUF, max_entries=size) as fd:
        with map_memory(fd, PAGE_SIZE, writable=True) as consumer:
            assert consumer[:8] == bytes(8)
        with map_memory(fd, PAGE_SIZE + 2 * size, offset=PAGE_SIZE) as producer:
            assert len(producer) == 3 * PAGE_SIZE
        with pytest.raises(BPFPermissionError):
            map_memory(fd, PAGE_SIZE, offset=PAGE_SIZE, writable=True)


def test_memory_that_cannot_be_mapped() -> None:
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=4) as fd:
        with pytest.raises(BPFError) as error:
            map_memory(fd, PAGE_SIZE)
        assert error.value.errno in (errno.ENOTSUP, errno.EINVAL, errno.ENODEV, 524) and error.value.command == "mmap"
    with syscall.map_create(
        BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=4, map_flags=BPF_F_MMAPABLE | BPF_F_RDONLY_PROG
    ) as fd:
        syscall.map_freeze(fd)
        with pytest.raises(BPFPermissionError):
            map_memory(fd, PAGE_SIZE, writable=True)
    gc.collect()


def test_barriers() -> None:
    assert os.sysconf("SC_PAGE_SIZE") == PAGE_SIZE
    ordered = os.uname().machine in ("x86_64", "s390x")
    assert barrier is (memory._no_barrier if ordered else memory._full_barrier)
    for _ in range(1000):
        memory._full_barrier()
        barrier()


def test_a_socket_filter() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        load(BPF_PROG_TYPE_SOCKET_FILTER, 0) as drop,
        load(BPF_PROG_TYPE_SOCKET_FILTER, 8 + 3) as cut,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        sender.connect(receiver.getsockname())
        syscall.attach_socket_filter(receiver, drop)
        sender.send(b"dropped")
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
        syscall.attach_socket_filter(receiver.fileno(), cut)
        sender.send(b"shortened")
        assert receiver.recv(100) == b"sho"
        syscall.detach_socket_filter(receiver)
        sender.send(b"whole")
        assert receiver.recv(100) == b"whole"
        with pytest.raises(BPFNotFoundError) as error:
            syscall.detach_socket_filter(receiver)
        assert error.value.command == "setsockopt SO_DETACH_BPF"
        receiver.getsockname()


def test_choice_among_sockets_of_a_port() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        load(BPF_PROG_TYPE_SOCKET_FILTER, 1) as to_second,
    ):
        for sock in (first, second):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.settimeout(2)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        syscall.attach_reuseport(first, to_second)
        for _ in range(5):
            sender.sendto(b"x", first.getsockname())
            assert second.recv(10) == b"x"
        syscall.detach_reuseport(first)
        with pytest.raises(BPFNotFoundError):
            syscall.detach_reuseport(first)


def test_not_a_socket() -> None:
    with open("/dev/null") as file, load() as program, pytest.raises(BPFError) as error:
        syscall.attach_socket_filter(file, program)
    assert error.value.errno == errno.ENOTSOCK
