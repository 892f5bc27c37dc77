"""Observers of the door."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import threading

import pytest
from syscall_programs import NEEDS_ROOT, Watcher, hash_map, load, returns, u64

from pybpf import syscall
from pybpf.constants import BPF_MAP_TYPE_ARRAY, PERF_COUNT_SW_DUMMY, PERF_TYPE_SOFTWARE
from pybpf.errors import BPFBlockingError, BPFError, BPFPermissionError
from pybpf.syscall import Call, ElementCalls, add_observer, door, remove_observer, watch

pytestmark = NEEDS_ROOT


def test_every_field_is_seen(watcher: Watcher) -> None:
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=3, name="seen") as fd:
        (call,) = watcher.calls
        assert (call.name, call.command, call.number) == ("bpf", "BPF_MAP_CREATE", 0)
        fields = call.fields()
        assert fields["map_name"] == "seen" and fields["max_entries"] == 3 and fields["map_type"] == BPF_MAP_TYPE_ARRAY
        assert call.result == fd.fileno() and call.errno == 0
        assert len(call.attr) == 92
        assert repr(call) == f"<Call BPF_MAP_CREATE = {fd.fileno()}>"


def test_outputs_and_buffers_are_seen(watcher: Watcher) -> None:
    with load(value=7) as fd:
        syscall.prog_test_run(fd, data_in=bytes(20), data_size_out=20)
    load_call, run_call = watcher.of("BPF_PROG_LOAD")[0], watcher.of("BPF_PROG_TEST_RUN")[0]
    assert bytes(load_call.buffers["insns"]) == returns(7)
    assert bytes(load_call.buffers["license"]) == b"GPL\0"
    assert load_call.fields()["insns"] != 0
    assert run_call.fields()["retval"] == 7
    assert len(bytes(run_call.buffers["data_out"])) == 20


def test_failures_are_seen(watcher: Watcher) -> None:
    with pytest.raises(BPFError):
        syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=5, value_size=8, max_entries=3)
    (call,) = watcher.calls
    assert (call.result, call.errno) == (-1, errno.EINVAL)
    assert repr(call) == "<Call BPF_MAP_CREATE = -1, errno 22>"


def test_other_ways_into_the_kernel_are_seen(watcher: Watcher) -> None:
    with syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, disabled=1, wakeup_events=5) as event:
        syscall.perf_enable(event)
        syscall.map_memory(event, 2 * mmap.PAGESIZE, writable=True).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, load() as program:
        syscall.attach_socket_filter(sock, program)
        assert watcher.names == ["perf_event_open", "PERF_EVENT_IOC_ENABLE", "mmap", "BPF_PROG_LOAD", "SO_ATTACH_BPF"]
        opened, enabled, mapped, _, attached = watcher.calls
        assert opened.fields()["disabled"] == 1 and opened.fields()["wakeup_events"] == 5
        assert opened.fields()["pid"] == -1 and opened.fields()["config"] == PERF_COUNT_SW_DUMMY
        assert (enabled.name, enabled.fields()["fd"]) == ("ioctl", opened.result)
        assert mapped.fields()["length"] == 2 * mmap.PAGESIZE
        assert (attached.name, attached.fields()["value"]) == ("setsockopt", program.fileno())


def test_element_calls_are_seen(watcher: Watcher) -> None:
    with hash_map(3) as fd:
        number = fd.fileno()
        calls = ElementCalls(number, 8, 8)
        watcher.calls.clear()
        assert calls.lookup(u64(2)) == u64(20)
        calls.update(u64(2), u64(5), 2)
        assert calls.next_key(None) is not None
        assert not calls.delete(u64(77))
    assert watcher.names == [
        "BPF_OBJ_GET_INFO_BY_FD",
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_UPDATE_ELEM",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_MAP_DELETE_ELEM",
    ]
    assert watcher.calls[2].fields()["flags"] == 2
    assert watcher.calls[4].errno == errno.ENOENT
    assert watcher.calls[1].fields()["map_fd"] == number


def test_the_memory_of_an_element_call_is_seen() -> None:
    seen: list[tuple[bytes, bytes]] = []

    class Reader:
        def before(self, call: Call) -> None:
            pass

        def after(self, call: Call) -> None:
            if call.command == "BPF_MAP_LOOKUP_ELEM":
                seen.append((bytes(call.buffers["key"]), bytes(call.buffers["value"])))

    reader = Reader()
    with hash_map(3) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        add_observer(reader)
        try:
            calls.lookup(u64(2))
        finally:
            remove_observer(reader)
    assert seen == [(u64(2), u64(20))]


def test_an_errno_is_injected_and_the_kernel_not_entered(watcher: Watcher) -> None:
    before = syscall.map_get_next_id(0), len(os.listdir("/proc/self/fd"))
    watcher.refuse("BPF_MAP_CREATE", errno.EPERM)
    with pytest.raises(BPFPermissionError) as caught:
        syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, max_entries=3)
    assert caught.value.errno == errno.EPERM and caught.value.command == "BPF_MAP_CREATE"
    assert (syscall.map_get_next_id(0), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.parametrize("name", ["perf_event_open", "mmap", "PERF_EVENT_IOC_ENABLE", "SO_ATTACH_BPF"])
def test_an_errno_is_injected_everywhere(watcher: Watcher, name: str) -> None:
    watcher.refuse(name, errno.ENOMEM)
    with pytest.raises(BPFError) as caught, load() as program, socket.socket() as sock:
        syscall.attach_socket_filter(sock, program)
        with syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY) as event:
            syscall.perf_enable(event)
            syscall.map_memory(event, 2 * mmap.PAGESIZE, writable=True).close()
    assert caught.value.errno == errno.ENOMEM
    assert watcher.names[-1] == name


def test_element_calls_take_injected_errors(watcher: Watcher) -> None:
    with hash_map(1) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        assert calls.lookup(u64(0)) == u64(0)
        watcher.refuse("BPF_MAP_LOOKUP_ELEM", errno.ENOENT, errno.ENOMEM)
        assert calls.lookup(u64(0)) is None
        with pytest.raises(BPFError) as caught:
            calls.lookup(u64(0))
        assert caught.value.errno == errno.ENOMEM
        assert calls.lookup(u64(0)) == u64(0)


def test_prog_load_tries_five_times(watcher: Watcher) -> None:
    watcher.refuse("BPF_PROG_LOAD", *[errno.EAGAIN] * 4)
    load().close()
    assert len(watcher.of("BPF_PROG_LOAD")) == 5
    assert len(set(watcher.attrs)) == 1
    watcher.refuse("BPF_PROG_LOAD", *[errno.EAGAIN] * 6)
    with pytest.raises(BPFBlockingError):
        load()
    assert len(watcher.of("BPF_PROG_LOAD")) == 10


def test_other_errors_of_prog_load_are_not_retried(watcher: Watcher) -> None:
    watcher.refuse("BPF_PROG_LOAD", errno.EINTR)
    with pytest.raises(InterruptedError):
        load()
    assert len(watcher.calls) == 1


def test_test_runs_go_on_after_a_signal(watcher: Watcher) -> None:
    with load(value=3) as program:
        watcher.refuse("BPF_PROG_TEST_RUN", *[errno.EINTR] * 20)
        assert syscall.prog_test_run(program, data_in=bytes(14)).retval == 3
    assert len(watcher.of("BPF_PROG_TEST_RUN")) == 21


def test_an_observer_may_answer() -> None:
    class Answers:
        def before(self, call: Call) -> None:
            call.data[4:8] = (1234).to_bytes(4, "little" if u64(1)[0] else "big")
            call.result = 0

        def after(self, call: Call) -> None:
            pass

    answers = Answers()
    add_observer(answers)
    try:
        assert syscall.prog_get_next_id(77) == 1234
    finally:
        remove_observer(answers)


def test_order_of_observers() -> None:
    order: list[str] = []

    class Named:
        def __init__(self, name: str, refusal: int | None = None) -> None:
            self.name, self.refusal = name, refusal

        def before(self, call: Call) -> int | None:
            order.append(f"before {self.name}")
            return self.refusal

        def after(self, call: Call) -> None:
            order.append(f"after {self.name}: {call.errno}")

    first, second, third = Named("1"), Named("2", errno.EIO), Named("3")
    for one in (first, second, third):
        add_observer(one)
    try:
        with pytest.raises(BPFError):
            syscall.prog_get_next_id(0)
    finally:
        for one in (first, second, third):
            remove_observer(one)
    assert order == ["before 1", "before 2", "after 2: 5", "after 1: 5"]


def test_what_an_observer_calls_is_not_observed() -> None:
    class Curious:
        def __init__(self) -> None:
            self.count = 0

        def before(self, call: Call) -> None:
            self.count += 1
            syscall.prog_get_next_id(0)

        def after(self, call: Call) -> None:
            syscall.map_get_next_id(0)

    curious = Curious()
    add_observer(curious)
    try:
        hash_map().close()
    finally:
        remove_observer(curious)
    assert curious.count == 1
    assert not watch._inside


def test_an_observer_that_raises_leaks_nothing() -> None:
    class Fails:
        def before(self, call: Call) -> None:
            pass

        def after(self, call: Call) -> None:
            raise RuntimeError("observer")

    fails = Fails()
    before = sorted(os.listdir("/proc/self/fd"))
    add_observer(fails)
    try:
        for call in (hash_map, lambda: syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY)):
            with pytest.raises(RuntimeError, match="observer"):
                call()
    finally:
        remove_observer(fails)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_threads_are_observed_too(watcher: Watcher) -> None:
    thread = threading.Thread(target=lambda: hash_map().close())
    thread.start()
    thread.join()
    assert watcher.names == ["BPF_MAP_CREATE"]


def test_removing_a_stranger_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in list"):
        remove_observer(Watcher())


def test_nobody_watches_by_default() -> None:
    assert door.observers == []
