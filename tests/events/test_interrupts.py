"""A signal handler that raises, at every place where one can run: no event is lost, none comes twice.

CPython runs signal handlers behind calls of C functions, on entry of Python functions and when a loop goes round.
`sys.setprofile` reports the first two, and an exception that the profile function raises goes the same way as that of
a signal handler, also where a call is the last thing in a ``try``. So each call is made again and again, interrupted at
the first such place, the second, and so on, until it comes through. `interrupts` finds the third with `sys.settrace`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from emitters import SIZE, Emitter, mixed_ring, output_ring, perf, uniform_ring
from interrupts import Interrupt, in_finalizer, interrupt_everywhere
from test_ringbuf import event_btf, number

from pybpf.btf.codec import codec
from pybpf.events import (
    Batch,
    Capture,
    EventReader,
    FlightRecorder,
    PerfBuffer,
    Replay,
    RingBuffer,
    UserRingBuffer,
)
from pybpf.events.source import EventSource

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]

MODULES = (
    "source",
    "records",
    "loan",
    "reader",
    "ordered",
    "waiting",
    "ringbuf",
    "ring",
    "perfbuf",
    "perfring",
    "batch",
)
COUNT = 25
"""Events of a round: more than the first chunk of a loop, and than a run of equal records needs."""


class Striker:
    """Raises at the place of that number. `struck` tells whether it came so far, `where` at which one."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or f"{os.sep}pybpf{os.sep}events{os.sep}" not in code.co_filename:
            return
        # asyncio and Python print what is raised in these, and go on.
        if code.co_name == "_set" or in_finalizer(frame):
            return
        self.left -= 1
        if self.left < 0 and not self.where:
            what = getattr(argument, "__name__", "") if event == "c_return" else "entry"
            self.where = f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name}, {what}"
            raise Interrupt

    def run(self, call: Callable[[], object]) -> None:
        sys.setprofile(self)
        try:
            call()
        except Interrupt:
            pass
        finally:
            sys.setprofile(None)


def every_place(prepare: Callable[[], object], call: Callable[[], object]) -> Iterator[str]:
    """Interrupt the call everywhere, one place after the other; what was prepared before is made anew for each."""
    for at in range(5000):
        prepare()
        striker = Striker(at)
        striker.run(call)
        yield striker.where
        if not striker.where:
            assert at > 5
            return
    raise AssertionError("the call never came through")


def unlocked(source: EventSource | FlightRecorder | UserRingBuffer) -> bool:
    """Whether another thread may use it now."""
    found: list[bool] = []

    def look() -> None:
        if free := source._lock.acquire(timeout=0):
            source._lock.release()
        found.append(free)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def is_at_rest(source: EventSource) -> bool:
    inner = getattr(source, "sources", {}).values() or [one for one in [getattr(source, "source", None)] if one]
    return not source._inside and not source._reading and unlocked(source) and all(is_at_rest(one) for one in inner)


class Case:
    """A source, and the events that were sent and came."""

    patience = 1.0
    """Seconds to wait for what has not come: an ordered reader holds it back, and machines may be slow."""

    def __init__(self, source: EventSource, *emitters: Emitter, unwrap: Callable[[Any], int] = lambda value: value):
        self.source = source
        self.emitters = emitters
        self.unwrap = unwrap
        self.received: list[int] = []
        self.sent = 0
        self.left: Iterator[Any] = iter(())

    def emit(self) -> None:
        self.left = iter(())
        for emitter in self.emitters:
            emitter.run(COUNT)
        self.sent += COUNT

    # What is interrupted. Each takes the values as a caller does who loses none.

    def poll(self) -> None:
        values = self.source.poll(5, 10)
        self.keep(values)

    def loop(self) -> None:
        self.left = iter(self.source)  # kept, so that it does not come to its end here
        for count, value in enumerate(self.left):
            self.keep([value])
            if count == 2 * COUNT // 3:
                break

    def tasks(self) -> None:
        async def read() -> None:
            count = 0
            async for value in self.source:
                self.keep([value])
                count += 1
                if count == COUNT // 2:
                    break

        # Not asyncio.run(): what a signal handler does to a loop is asyncio's affair. Here only `pybpf` is on trial.
        coroutine = read()
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(coroutine)
        finally:
            loop.close()

    def batch(self) -> None:
        found = self.source.read_batch(10, 5)  # type: ignore[attr-defined]
        self.keep_batch(found[1] if isinstance(found, tuple) else found)

    def batches(self) -> None:
        self.left = iter(self.source.batches(5))  # type: ignore[attr-defined]
        for batch in self.left:
            self.keep_batch(batch)
            break

    def borrow(self) -> None:
        with self.source.borrow_batch(10) as batch:  # type: ignore[attr-defined]
            self.keep_batch(batch)

    def keep_batch(self, batch: Batch) -> None:
        """Not with its methods, which would be interrupted too: that would be the caller's loss."""
        self.received += [number(batch.data[start : start + 8]) for start in batch.starts]

    def keep(self, values: list[Any]) -> None:
        self.received += map(self.unwrap, values)

    def drain(self) -> None:
        while values := self.source.poll(
            self.patience if len(self.received) < self.sent * len(self.emitters) else 0.002
        ):
            self.keep(values)
        if hasattr(self.source, "read_batch"):
            while found := self.source.read_batch():
                self.keep_batch(found[1] if isinstance(found, tuple) else found)


class Failing(Case):
    """Passes over what cannot be decoded."""

    patience = 0.002
    emitted = range(0)

    def poll(self) -> None:
        with suppress(ValueError):
            super().poll()

    def drain(self) -> None:
        while self.source.available:  # type: ignore[attr-defined]
            with suppress(ValueError):
                super().drain()
        for _ in range(20):
            with suppress(ValueError):
                self.keep(self.source.consume())
        # Each error was raised, or an interrupt came in its place.
        self.received += [serial for serial in range(len(self.emitted), self.sent) if serial % 7 == 3]
        self.emitted = range(self.sent)


def ring(cases: list[Any]) -> Case:
    cases.append(emitter := uniform_ring())
    return Case(RingBuffer(emitter, decode=number), emitter)


def typed_ring(cases: list[Any]) -> Case:
    cases.append(emitter := uniform_ring())
    btf = event_btf()
    decode = codec(btf, btf.find("event").id)
    return Case(RingBuffer(emitter, decode=decode), emitter, unwrap=lambda event: event.number)


def mixed(cases: list[Any]) -> Case:
    cases.append(emitter := mixed_ring())
    return Case(RingBuffer(emitter, decode=number), emitter)


def perf_buffer(cases: list[Any]) -> Case:
    cases.append(emitter := perf(payload=12))
    return Case(PerfBuffer(emitter, decode=number), emitter)


def failing(cases: list[Any]) -> Case:
    """Some of its records raise an error when they are decoded, and count as read."""

    def decode(record: memoryview) -> int:
        if number(record) % 7 == 3:
            raise ValueError
        return number(record)

    cases.append(emitter := uniform_ring())
    return Failing(RingBuffer(emitter, decode=decode), emitter)


def reader(cases: list[Any]) -> Case:
    one, two = uniform_ring(), output_ring()
    cases += [one, two]
    two.control[SIZE] = 8
    sources = {"one": RingBuffer(one, decode=number), "two": RingBuffer(two, decode=number)}
    return Case(EventReader(sources), one, two, unwrap=lambda pair: pair[1])


def ordered(cases: list[Any]) -> Case:
    cases.append(emitter := uniform_ring())
    return Case(RingBuffer(emitter, decode=number).in_order(lambda value: value, 0.0001), emitter)


def ordered_reader(cases: list[Any]) -> Case:
    case = reader(cases)
    case.source = case.source.in_order(lambda pair: pair[1], 0)
    return case


BUFFERS = [ring, typed_ring, mixed, perf_buffer]
READERS = [reader, ordered, ordered_reader]


@pytest.fixture
def emitters() -> Iterator[list[Any]]:
    emitters: list[Any] = []
    yield emitters
    for emitter in emitters:
        emitter.close()


def check(case: Case, place: str) -> str:
    """What is wrong after an interrupt there."""
    case.drain()
    expected = [serial for serial in range(case.sent) for _ in case.emitters]
    received, case.received = sorted(case.received), expected
    assert is_at_rest(case.source), place
    missing = len(set(expected) - set(received))
    return "" if received == expected else f"{place}: {missing} missing, {len(received) - len(expected)} too many"


def is_known(how: Callable[[Case], None], wrong: list[str]) -> bool:
    """Whether it is only that where a block is left it is not known if it has read its records: they come again."""
    return not wrong or (how is Case.borrow and len(wrong) == 1 and " 0 missing" in wrong[0])


WAYS = [
    *((make, how) for make in BUFFERS for how in (Case.poll, Case.loop, Case.tasks, Case.batch, Case.borrow)),
    (failing, Failing.poll),
    (reader, Case.batch),
    *((make, how) for make in READERS for how in (Case.poll, Case.loop, Case.tasks)),
]


@pytest.mark.parametrize(("make", "how"), [*WAYS, *((make, Case.batches) for make in BUFFERS)])
def test_every_event_comes_once(
    one_cpu: int, emitters: list[Any], make: Callable[[list[Any]], Case], how: Callable[[Case], None]
) -> None:
    case = make(emitters)
    with case.source:
        wrong = list(filter(None, (check(case, place) for place in every_place(case.emit, lambda: how(case)))))
    assert is_known(how, wrong), wrong
    assert not case.source._unreleased


@pytest.mark.parametrize(("make", "how"), WAYS)
def test_every_event_comes_once_also_where_loops_go_round(
    one_cpu: int, emitters: list[Any], make: Callable[[list[Any]], Case], how: Callable[[Case], None]
) -> None:
    case = make(emitters)

    def act() -> None:
        case.emit()
        how(case)

    modules = [import_module(f"pybpf.events.{name}") for name in MODULES]
    with case.source:
        wrong = list(filter(None, (check(case, f"place {number}") for number in interrupt_everywhere(act, *modules))))
    assert is_known(how, wrong), wrong


def test_a_source_is_added_or_not(emitters: list[Any]) -> None:
    one, two = ring(emitters), ring(emitters)
    two.emit()
    readers: list[EventReader] = []
    added = 0

    def prepare() -> None:
        readers.append(EventReader({"one": RingBuffer(one.emitters[0])}))

    for place in every_place(prepare, lambda: readers[-1].add("two", two.source)):  # type: ignore[arg-type]
        reader = readers.pop()
        is_added = "two" in reader._watched
        assert is_added == ("two" in reader.sources), place
        assert bool(reader._epoll.poll(0)) == is_added, place
        if not is_added:
            assert not two.source.closed
            reader.close()
            continue
        added += 1
        assert len(reader.consume()) == COUNT
        reader.close()
        two.source = RingBuffer(two.emitters[0])
        two.emit()
    assert added
    two.source.close()
    one.source.close()


@pytest.mark.parametrize("is_closed_first", [False, True])
def test_a_loan_that_nobody_can_give_back(emitters: list[Any], *, is_closed_first: bool) -> None:
    case = ring(emitters)
    case.emit()
    loan = case.source.borrow_batch()  # type: ignore[attr-defined]
    assert len(loan.__enter__()) == COUNT
    with pytest.raises(RuntimeError, match="is being read by this thread already"):
        case.source.consume()
    assert not unlocked(case.source)
    if is_closed_first:
        case.source.close()
        assert case.source._unreleased, "the loan keeps its memory"
    del loan
    if not is_closed_first:
        assert case.source.consume() == list(range(COUNT))
        assert is_at_rest(case.source)
    case.source.close()
    assert not case.source._unreleased
    assert unlocked(case.source)


@pytest.mark.parametrize("how", [Case.poll, Case.loop, Case.batch])
@pytest.mark.parametrize("make", [ring, mixed])
def test_a_recording_has_what_was_delivered(
    tmp_path: Path, emitters: list[Any], make: Callable[[list[Any]], Case], how: Callable[[Case], None]
) -> None:
    """Or it ended, with the interrupt. A batch may be in it twice, none is missing."""
    case = make(emitters)
    path = tmp_path / "x.bpfcap"
    captures: list[Capture] = []
    ended = 0

    def prepare() -> None:
        captures.append(case.source.record(path))
        case.emit()

    with case.source:
        for place in every_place(prepare, lambda: how(case)):
            assert not check(case, place)
            capture = captures.pop()
            capture.close()
            ended += capture.failed is not None
            if capture.failed is None:
                with Replay(path) as replay:
                    recorded = {number(record) for _, record in replay}
                assert recorded == set(range(case.sent - COUNT, case.sent)), place
    assert ended > 3


@pytest.mark.parametrize("make", [ring, mixed, *READERS])
def test_a_close_that_was_interrupted_is_finished_by_the_next(
    emitters: list[Any], make: Callable[[list[Any]], Case]
) -> None:
    cases: list[Case] = []
    before = len(os.listdir("/proc/self/fd"))
    for place in every_place(lambda: cases.append(make(emitters)), lambda: cases[-1].source.close()):
        case = cases.pop()
        case.source.close()
        assert not case.source._unreleased, place
        while emitters:
            emitters.pop().close()
        assert len(os.listdir("/proc/self/fd")) == before, place
