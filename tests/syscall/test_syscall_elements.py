"""Prepared element calls."""

from __future__ import annotations

import errno
import os
import struct
import threading

import pytest
from syscall_programs import NEEDS_ROOT, bloom_filter, hash_map, pops_elements, signals, u32, u64

from pybpf import syscall
from pybpf.constants import (
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_MAP_TYPE_ARRAY,
    BPF_MAP_TYPE_HASH,
    BPF_MAP_TYPE_PERCPU_HASH,
    BPF_MAP_TYPE_QUEUE,
    BPF_NOEXIST,
)
from pybpf.errors import BPFError, BPFExistsError, BPFPermissionError, ClosedError
from pybpf.syscall import ElementCalls, elements, foreign, possible_cpus

pytestmark = NEEDS_ROOT


def test_bytes() -> None:
    with hash_map(5) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        assert calls.lookup(u64(3)) == u64(30)
        assert calls.lookup(u64(9)) is None
        calls.update(u64(9), u64(90))
        calls.update(bytearray(u64(3)), memoryview(u64(31)), BPF_EXIST)
        assert calls.lookup(u64(9)) == u64(90) and calls.lookup(u64(3)) == u64(31)
        with pytest.raises(BPFExistsError) as exists:
            calls.update(u64(9), u64(1), BPF_NOEXIST)
        assert exists.value.command == "BPF_MAP_UPDATE_ELEM"
        assert calls.lookup(u64(9)) == u64(90), "flags must not stay"
        calls.update(u64(9), u64(91))
        assert calls.delete(u64(9)) is True and calls.delete(u64(9)) is False
        if pops_elements():
            assert calls.lookup_and_delete(u64(3)) == u64(31) and calls.lookup_and_delete(u64(3)) is None


@pytest.mark.parametrize(
    ("key_format", "value_format", "key_size", "value_size", "key", "value"),
    [
        ("Q", "Q", 8, 8, 2**64 - 1, 2**63),
        ("i", "h", 4, 2, -5, -32768),
        ("B", "d", 1, 8, 255, 0.5),
        ("", "I", 3, 4, b"abc", 7),
        ("H", "", 2, 5, 65535, b"hello"),
        ("I", "?", 4, 1, 1, True),
    ],
)
def test_numbers(
    key_format: str, value_format: str, key_size: int, value_size: int, key: object, value: object
) -> None:
    with syscall.map_create(BPF_MAP_TYPE_HASH, key_size=key_size, value_size=value_size, max_entries=9) as fd:
        calls = ElementCalls(fd.fileno(), key_size, value_size, key_format=key_format, value_format=value_format)
        calls.update(key, value)
        assert calls.lookup(key) == value
        assert calls.next_key(None) == key
        assert calls.next_key(key) is None
        raw = key if isinstance(key, bytes) else struct.pack("=" + key_format, key)
        assert syscall.map_get_next_key(fd, None, key_size) == raw
        assert calls.delete(key) is True
        assert calls.next_key(None) is None
        if pops_elements():
            calls.update(key, value)
            assert calls.lookup_and_delete(key) == value


def test_numbers_out_of_range() -> None:
    with hash_map(1) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8, key_format="Q", value_format="Q")
        for bad in (-1, 2**64):
            with pytest.raises(ValueError, match="invalid value"):
                calls.lookup(bad)
            with pytest.raises(ValueError, match="invalid value"):
                calls.update(0, bad)
        with pytest.raises(TypeError):
            calls.lookup("0")
        assert calls.lookup(0) == 0


def test_wrong_sizes() -> None:
    with hash_map(1) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        for bad in (b"", b"1234567", b"123456789"):
            for call in (calls.lookup, calls.delete, calls.next_key, calls.lookup_and_delete):
                with pytest.raises(ValueError, match="structures|size|length"):
                    call(bad)
            with pytest.raises(ValueError, match="structures|size|length"):
                calls.update(u64(0), bad)
        assert calls.lookup(u64(0)) == u64(0)
        with pytest.raises(ValueError, match="a value of this map takes 8 bytes, not 4"):
            ElementCalls(fd.fileno(), 8, 4).lookup(u64(0))
        with pytest.raises(ValueError, match="a key of this map takes 8 bytes, not 4"):
            ElementCalls(fd.fileno(), 4, 8).lookup(u32(0))


def test_walk() -> None:
    with hash_map(40) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        found = []
        key = calls.next_key(None)
        while key is not None:
            found.append(key)
            key = calls.next_key(key)
        assert sorted(found) == sorted(u64(number) for number in range(40))
        assert calls.lookup(u64(1)) == u64(10), "the pointer to the key is there again"


def test_keys_larger_than_values() -> None:
    with syscall.map_create(BPF_MAP_TYPE_HASH, key_size=100, value_size=1, max_entries=9) as fd:
        calls = ElementCalls(fd.fileno(), 100, 1)
        calls.update(b"k" * 100, b"v")
        assert calls.next_key(None) == b"k" * 100 and calls.lookup(b"k" * 100) == b"v"


def test_queue() -> None:
    with syscall.map_create(BPF_MAP_TYPE_QUEUE, value_size=4, max_entries=3) as fd:
        calls = ElementCalls(fd.fileno(), 0, 4, value_format="I")
        assert calls.lookup(None) is None and calls.lookup_and_delete(None) is None
        calls.update(None, 5)
        calls.update(None, 6)
        assert calls.lookup(None) == 5
        assert calls.lookup_and_delete(None) == 5
        assert calls.lookup_and_delete(None) == 6


def test_bloom_filter() -> None:
    with bloom_filter() as fd:
        calls = ElementCalls(fd.fileno(), 0, 8, value_format="Q")
        calls.update(None, 77)
        assert calls.contains(77) is True
        assert not all(calls.contains(number) for number in range(100, 120))


def test_per_cpu() -> None:
    cpus = possible_cpus()
    with syscall.map_create(BPF_MAP_TYPE_PERCPU_HASH, key_size=4, value_size=8, max_entries=3) as fd:
        calls = ElementCalls(fd.fileno(), 4, 8 * cpus, key_format="I")
        values = struct.pack(f"={cpus}Q", *range(1, cpus + 1))
        calls.update(3, values)
        assert calls.lookup(3) == values


def test_refusals_are_told_from_absence() -> None:
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=3) as fd:
        calls = ElementCalls(fd.fileno(), 4, 4, key_format="I", value_format="I")
        assert calls.lookup(3) is None
        with pytest.raises(BPFError) as error:
            calls.update(3, 1)
        assert error.value.errno == errno.E2BIG
        with pytest.raises(BPFError) as error:
            calls.delete(1)
        assert (error.value.errno, error.value.command) == (errno.EINVAL, "BPF_MAP_DELETE_ELEM")
        with pytest.raises(BPFError) as error:
            calls.lookup(1, BPF_F_LOCK)
        assert error.value.errno == errno.EINVAL
        assert calls.lookup(1) == 0
        syscall.map_freeze(fd)
        with pytest.raises(BPFPermissionError):
            calls.update(1, 1)


def test_closed() -> None:
    with hash_map(3) as fd, hash_map(3) as other:
        used, unused = ElementCalls(fd.fileno(), 8, 8), ElementCalls(fd.fileno(), 8, 8)
        assert used.lookup(u64(1)) == u64(10)
        lookup = used.lookup
        used.close()
        unused.close()
        for calls in (used, unused):
            for call in (calls.lookup, calls.delete, calls.next_key, calls.lookup_and_delete):
                with pytest.raises(ClosedError):
                    call(u64(1))
            with pytest.raises(ClosedError):
                calls.update(u64(1), u64(1))
        with pytest.raises(ClosedError):
            lookup(u64(1))
        assert syscall.map_lookup_elem(fd, u64(1), 8) == u64(10)
        assert ElementCalls(other.fileno(), 8, 8).lookup(u64(1)) == u64(10)


def test_a_bad_descriptor() -> None:
    with pytest.raises(BPFError) as error:
        ElementCalls(987654, 8, 8).lookup(u64(1))
    assert error.value.errno == errno.EBADF


def test_threads_do_not_mix_their_elements() -> None:
    workers, rounds = 8, 3000
    wrong: list[object] = []
    with hash_map(capacity=workers) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8, key_format="Q", value_format="Q")
        started = threading.Barrier(workers)

        def work(number: int) -> None:
            started.wait()
            for turn in range(rounds):
                calls.update(number, turn)
                found = calls.lookup(number)
                if found != turn:
                    wrong.append((number, turn, found))
                if calls.lookup(1000 + number) is not None:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_signal_handlers_do_not_disturb_the_call_they_interrupt() -> None:
    """Signals mostly arrive while the kernel works: the handler runs between the call and the reading of its errno."""
    seen: set[object] = set()
    with hash_map(3) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8, key_format="Q", value_format="Q")

        def handler() -> None:
            assert calls.lookup(2) == 20
            assert calls.lookup(99) is None
            with pytest.raises(BPFExistsError):
                calls.update(1, 1, BPF_NOEXIST)
            handled.append(1)

        handled: list[int] = []
        with signals(handler, 0.0001):
            while len(handled) < 1000:
                seen.add(calls.lookup(1))
                seen.add(calls.lookup(77))
                seen.add(calls.delete(78))
                try:
                    calls.update(79, 1, BPF_EXIST)
                except BPFError as error:
                    seen.add(error.errno)
    assert seen == {10, None, False, errno.ENOENT}


def test_an_errno_that_another_call_overwrote_is_not_believed() -> None:
    foreign.set_errno(errno.EPERM)
    assert elements._errno() == errno.EPERM
    assert elements._errno() == 0  # as the one finds it whom the other has interrupted


def test_slots_are_used_again() -> None:
    with hash_map(3) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        for _ in range(10):
            calls.lookup(u64(1))
            with pytest.raises(ValueError, match="structures|size|length"):
                calls.lookup(b"x")
        cells = dict(zip(calls.lookup.__code__.co_freevars, calls.lookup.__closure__, strict=True))  # type: ignore[attr-defined]
        free = cells["pop"].cell_contents.__self__
        assert len(free) == 1


def test_fork_has_slots_of_its_own() -> None:
    with hash_map(3) as fd:
        calls = ElementCalls(fd.fileno(), 8, 8)
        assert calls.lookup(u64(1)) == u64(10)
        child = os.fork()
        if child == 0:
            os._exit(0 if calls.lookup(u64(2)) == u64(20) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert calls.lookup(u64(1)) == u64(10)
