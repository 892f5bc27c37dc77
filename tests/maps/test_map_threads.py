"""One map in many threads, closed while others use it: clear errors, no call on a later file of the same number."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from children import another_thread_in, in_child
from threads import run_all

import pybpf
from pybpf.constants import BPF_F_MMAPABLE
from pybpf.errors import ClosedError
from pybpf.syscall import FD, Call, add_observer, remove_observer
from pybpf.syscall.fd import lend


def test_many_threads_one_map() -> None:
    with pybpf.HashMap(key="u32", value="u64", max_entries=10_000) as made:

        def work(number: int) -> Callable[[], None]:
            def turn() -> None:
                for step in range(400):
                    key = number * 1000 + step
                    made[key] = step
                    assert made[key] == step
                    assert made.get(key + 500_000) is None
                    if not step % 50:
                        mine = {k: v for k, v in made.items() if k // 1000 == number}
                        assert mine == {number * 1000 + k: k for k in range(step + 1)}
                        assert made.pop(key) == step
                        made[key] = step

            return turn

        assert run_all(*(work(number) for number in range(8))) == []
        assert len(made) == 8 * 400


def test_threads_that_use_it_first_prepare_it_once() -> None:
    for _ in range(30):
        with pybpf.HashMap(key="u32", value="u64", max_entries=8) as made:
            barrier = threading.Barrier(4)

            def first(made: pybpf.HashMap = made, barrier: threading.Barrier = barrier) -> object:
                barrier.wait()
                made[1] = 2
                return made._calls

            assert run_all(*[first] * 4) == []
            assert made[1] == 2


USES: dict[str, Callable[[pybpf.HashMap], object]] = {
    "lookup": lambda m: m[1],
    "update": lambda m: m.put(1, 5),
    "items": lambda m: list(m.items()),
    "get_many": lambda m: m.get_many([1] * 50),
    "update_many": lambda m: m.update_many([1, 2], [5, 5]),
    "info": lambda m: m.info(),
    "delete": lambda m: m.delete_many([77]),
}


@pytest.mark.parametrize("name", USES)
def test_closing_while_others_use_it(name: str) -> None:
    """Every user ends with ClosedError, and none reaches the map that gets the number of the closed one."""
    use = USES[name]
    for _ in range(6):
        made = pybpf.HashMap(key="u32", value="u64", max_entries=64)
        made.update({1: 5, 2: 5})
        number, started = made.fileno(), threading.Barrier(4)
        later: list[pybpf.HashMap] = []

        def user(made: pybpf.HashMap = made, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                use(made)

        def closer(
            made: pybpf.HashMap = made, started: threading.Barrier = started, later: list[pybpf.HashMap] = later
        ) -> None:
            started.wait()
            time.sleep(0.002)
            made.close()
            later.extend(pybpf.HashMap(key="u32", value="u64", max_entries=64) for _ in range(8))

        raised = run_all(user, user, user, closer)
        assert [type(error) for error in raised] == [ClosedError] * 3, raised
        assert all(len(one) == 0 for one in later)
        for one in later:
            one.close()
        with pytest.raises(OSError, match="Bad file"):  # nobody holds the number any more
            os.fstat(number)


def test_closing_a_mapped_array_while_others_read_it() -> None:
    for _ in range(10):
        made = pybpf.ArrayMap(value="u64", max_entries=4096, flags=BPF_F_MMAPABLE)

        def reader(made: pybpf.ArrayMap = made) -> None:
            while True:
                for index in range(4096):
                    made[index]
                sum(made.values())

        def closer(made: pybpf.ArrayMap = made) -> None:
            time.sleep(0.002)
            made.close()

        raised = run_all(reader, reader, closer)
        assert [type(error) for error in raised] == [ClosedError] * 2, raised


def test_many_threads_close_it_once() -> None:
    for _ in range(50):
        made = pybpf.HashMap(key="u32", value="u64", max_entries=4)
        made[1] = 1
        assert run_all(*[made.close] * 4) == []
        assert made.closed


def test_closed_by_the_handler_of_a_signal_in_the_middle_of_a_call() -> None:
    made = pybpf.HashMap(key="u32", value="u64", max_entries=4)
    made[1] = 1
    before = signal.signal(signal.SIGALRM, lambda *_: made.close())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        with pytest.raises(ClosedError):
            while True:
                made[1]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_child_may_close_its_own() -> None:
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
        made[1] = 1
        child = os.fork()
        if child == 0:
            made[2] = 2
            made.close()
            os._exit(0 if made.closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert made.to_dict() == {1: 1, 2: 2}


class Waiting:
    """An observer in which one call waits."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self.wait = wait

    def before(self, call: Call) -> None:
        self.wait()

    def after(self, call: Call) -> None:
        pass


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["lookup", "delete", "info", "items"])
def test_a_child_waits_for_no_call_of_another_thread(name: str) -> None:
    use: Callable[[pybpf.HashMap], object] = {"delete": lambda m: m.pop(1)}.get(name) or USES[name]
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
        made[1] = 1
        use(made)

        def call(wait: Callable[[], object]) -> None:
            observer = Waiting(wait)
            add_observer(observer)
            try:
                use(made)
            finally:
                remove_observer(observer)

        def close() -> None:
            number = made.fileno()
            made.close()
            assert not is_open(number)

        made[1] = 1
        with another_thread_in(call):
            assert in_child(close) == 0


class TestLeases:
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_has_those_of_the_thread_that_forked(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))
        number = fd.fileno()

        def other(wait: Callable[[], object]) -> None:
            with fd.lend():
                wait()

        def close() -> None:
            fd.close()
            assert is_open(number)
            mine.end()
            assert not is_open(number)

        with another_thread_in(other):
            with fd.lend():
                pass
            mine = fd.lend()
            assert in_child(close) == 0
            mine.end()
            fd.close()
            assert is_open(number)

            def is_closed() -> None:
                assert not is_open(number)

            assert in_child(is_closed) == 0
        is_closed()

    def test_the_number_is_kept_until_the_last_lease_ends(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))
        number = fd.fileno()
        first, second = fd.lend(), lend(fd)
        assert first.number == second.number == number
        fd.close()
        assert fd.closed
        with pytest.raises(ClosedError):
            fd.fileno()
        with pytest.raises(ClosedError):
            fd.lend()
        first.end()
        first.end()
        os.fstat(number)
        second.end()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)

    def test_nothing_is_kept_without_leases(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))
        with fd.lend() as number:
            assert number == fd.fileno()
        fd.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(number)
        fd.close()

    def test_of_numbers_and_other_objects(self) -> None:
        with lend(5) as number:
            assert number == 5
        with open("/dev/null") as file, lend(file) as number:
            assert number == file.fileno()

    def test_a_detached_one_is_not_closed(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))
        with fd.lend():
            number = fd.detach()
        os.close(number)
