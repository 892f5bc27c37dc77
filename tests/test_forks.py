"""A forked child: locks that other threads held are free, and one that this thread holds is still its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import another_thread_in, in_child

import pybpf
from pybpf.forks import ForkLock
from pybpf.maps import base, eventmap

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
HELLO = "hello.bpf.o" if sys.byteorder == "little" else "hello.eb.bpf.o"
OBJECT = Path(__file__).resolve().parent.parent / "kernels" / HELLO


def held(lock: ForkLock) -> Callable[[Callable[[], object]], object]:
    def hold(wait: Callable[[], object]) -> None:
        with lock:
            wait()

    return hold


def take(lock: ForkLock) -> None:
    with lock:
        pass


def test_a_lock_that_another_thread_holds_is_free() -> None:
    lock = ForkLock()
    with another_thread_in(held(lock)):
        assert not lock.acquire(blocking=False)
        assert in_child(lambda: take(lock)) == 0
        assert not lock.acquire(blocking=False)


def test_a_lock_that_this_thread_holds_is_still_held() -> None:
    lock = ForkLock()

    def child() -> None:
        def other(wait: Callable[[], object]) -> None:
            assert not lock.acquire(blocking=False)
            wait()

        with another_thread_in(other):
            pass
        lock.release()
        take(lock)

    with lock:
        assert in_child(child) == 0


def test_a_lock_is_forgotten_with_its_owner() -> None:
    from pybpf import forks

    before = len(forks._INHERITED)
    lock = ForkLock()
    assert len(forks._INHERITED) == before + 1
    del lock
    assert len(forks._INHERITED) == before


@contextmanager
def first_use() -> Iterator[tuple[ForkLock, Callable[[], object]]]:
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
        yield base.PREPARING, lambda: made.get(1)


@contextmanager
def first_events() -> Iterator[tuple[ForkLock, Callable[[], object]]]:
    from pybpf.maps.ringbuf import RingBufferMap

    with RingBufferMap(max_entries=4096) as warm:  # Python's locks of imports are not ours
        warm.consume()
    with RingBufferMap(max_entries=4096) as made:
        yield eventmap._OPENING, made.consume


@contextmanager
def first_map_of_an_object() -> Iterator[tuple[ForkLock, Callable[[], object]]]:
    with pybpf.load(OBJECT) as obj:
        maps = obj.maps
        *_, name = maps
        yield maps.lock, lambda: maps[name]


@contextmanager
def explained() -> Iterator[tuple[ForkLock, Callable[[], object]]]:
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made, pybpf.explain("/dev/null") as story:
        made.get(1)
        yield story._teller._lock, lambda: made.get(1)


@NEEDS_ROOT
@pytest.mark.kernel
@pytest.mark.parametrize("uses", [first_use, first_events, first_map_of_an_object, explained])
def test_a_child_waits_for_no_thread_of_its_parent(uses: Callable[[], object]) -> None:
    with uses() as (lock, use), another_thread_in(held(lock)):  # type: ignore[attr-defined]
        assert in_child(use) == 0
