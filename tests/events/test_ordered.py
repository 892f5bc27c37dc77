"""Several buffers merged by a time that their records carry."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emitters import SIZE, Emitter, output_ring, perf, uniform_ring
from test_perfbuf import run_on_cpu
from test_ringbuf import event_btf, in_child, number

from pybpf.btf.codec import codec
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import ClosedError
from pybpf.events import EventReader, OrderedReader, PerfBuffer, RingBuffer

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]

HOLD = 0.02


def identity(value: int) -> int:
    return value


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with perf(payload=12) as emitter:
        yield emitter


@pytest.fixture
def ordered(emitter: Emitter) -> Iterator[OrderedReader]:
    with PerfBuffer(emitter, decode=number).in_order(identity, HOLD) as ordered:
        yield ordered


def on_every_cpu(emitter: Emitter, rounds: int, count: int) -> int:
    """Events from one CPU after the other. How many."""
    cpus = sorted(os.sched_getaffinity(0))
    for _ in range(rounds):
        for cpu in cpus:
            run_on_cpu(cpu, emitter, count)
    return rounds * len(cpus) * count


def test_cpus_are_merged(emitter: Emitter, ordered: OrderedReader) -> None:
    total = on_every_cpu(emitter, 20, 7)
    received: list[int] = []
    while len(received) < total:
        received += ordered.poll(5)
    assert received == list(range(total))
    assert ordered.late == ordered.held == 0


def test_without_it_cpus_come_one_after_the_other(emitter: Emitter) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one CPU")
    with PerfBuffer(emitter, decode=number) as buffer:
        total = on_every_cpu(emitter, 3, 5)
        assert sorted(buffer.consume()) == list(range(total)) != buffer.consume()


def test_values_are_held_and_no_longer_than_told(emitter: Emitter, ordered: OrderedReader) -> None:
    emitter.run(3)
    start = time.monotonic()
    assert ordered.consume() == []
    assert ordered.held == 3
    assert ordered.poll(5) == [0, 1, 2]
    assert HOLD * 0.9 <= time.monotonic() - start < 2
    assert ordered.poll(0.01) == []


def test_a_timeout_shorter_than_the_hold(emitter: Emitter, ordered: OrderedReader) -> None:
    emitter.run(1)
    start = time.monotonic()
    early = ordered.poll(HOLD / 10)
    assert early == [] or time.monotonic() - start >= HOLD  # a busy machine may wake us late
    time.sleep(HOLD)
    assert early + ordered.consume() == [0]


def test_limits_and_loops(emitter: Emitter, ordered: OrderedReader) -> None:
    total = on_every_cpu(emitter, 5, 4)
    assert ordered.poll(5, 3) == [0, 1, 2]
    received = [0, 1, 2]
    for value in ordered:
        received.append(value)
        if len(received) == total:
            break
    assert received == list(range(total))


def test_a_value_that_comes_too_late_is_delivered_and_counted() -> None:
    with (
        uniform_ring() as emitter,
        RingBuffer(emitter, decode=lambda view: -number(view)).in_order(identity, 0) as ring,
    ):
        emitter.run(3)
        assert ring.poll(1) == [-2, -1, 0]
        emitter.run(2)
        assert ring.poll(1) == [-4, -3]
        assert ring.late == 2


def test_several_buffers_by_the_name_of_a_member() -> None:
    btf = event_btf()
    decode = codec(btf, btf.find("event").id)
    with uniform_ring() as one, output_ring() as two:
        two.control[SIZE] = 16
        sources = {"one": RingBuffer(one, decode=decode), "two": RingBuffer(two, decode=decode)}
        with EventReader(sources).in_order("number", HOLD) as ordered:
            one.run(10)
            two.run(10)
            received: list[tuple[str, int]] = []
            while len(received) < 20:
                received += [(name, event.number) for name, event in ordered.poll(5)]
            assert [stamp for _, stamp in received] == sorted([*range(10)] * 2)
            assert {name for name, _ in received} == {"one", "two"}


def test_a_key_that_fails_loses_that_value_only() -> None:
    def key(value: int) -> int:
        if value == 3:
            raise ZeroDivisionError
        return value

    with uniform_ring() as emitter, RingBuffer(emitter, decode=number).in_order(key, 0) as ordered:
        emitter.run(6)
        with pytest.raises(ZeroDivisionError):
            ordered.poll(1)
        assert ordered.poll(1) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("bad", [None, float("nan"), "three"])
def test_a_key_that_cannot_be_compared_loses_that_value_only(bad: Any) -> None:
    keys = {3: bad, 4: bad}
    with (
        uniform_ring() as emitter,
        RingBuffer(emitter, decode=number).in_order(lambda value: keys.get(value, value), 0) as ordered,
    ):
        emitter.run(6)
        received: list[int] = []
        notes: list[str] = []
        for _ in range(4):
            try:
                received += ordered.consume()
            except (TypeError, ValueError) as error:
                notes += error.__notes__
        assert received == [0, 1, 2, 5]
        assert notes == ["This was the key of 3.", "This was the key of 4."]
        emitter.run(2)
        assert ordered.poll(1) == [6, 7]


def test_a_member_that_the_type_has_not_is_told_at_once() -> None:
    btf = event_btf()
    with uniform_ring() as emitter, RingBuffer(emitter, decode=codec(btf, btf.find("event").id)) as ring:
        with pytest.raises(KeyError, match="struct event has no member 'time'"):
            ring.in_order("time")
        with EventReader({"one": ring}) as reader, pytest.raises(KeyError, match="has no member 'time'"):
            reader.in_order("time")


def test_members_are_named_as_in_c() -> None:
    builder = BTFBuilder()
    word = builder.add_int("u64", 8, 64, 0)
    event = builder.add_struct("event", 16, [("class", word, 0, 0), ("other", word, 64, 0)])
    decode = codec(BTF.from_bytes(builder.to_bytes()), event)
    with uniform_ring() as emitter, RingBuffer(emitter, decode=decode).in_order("class", 0) as ordered:
        emitter.run(3)
        assert [event.class_ for event in ordered.poll(1)] == [0, 1, 2]


def test_what_is_not_fetched_stays_in_the_buffer() -> None:
    """Behind a slow consumer the buffer loses events and counts them; the reader does not hold ever more."""
    with uniform_ring(4096) as emitter, RingBuffer(emitter, decode=number).in_order(identity, 0) as ordered:
        received: list[int] = []
        for _ in range(50):
            emitter.run(100)
            received += ordered.consume(1)
            assert ordered.held <= 2 * 4096 // 24
        assert emitter.dropped > 3000
        while values := ordered.consume():
            received += values
        assert received == list(range(emitter.produced))


def test_losses_statistics_and_recordings_are_those_of_the_source(emitter: Emitter, tmp_path: Path) -> None:
    with PerfBuffer(emitter, decode=number).in_order(identity, 0) as ordered:
        with ordered.record(tmp_path / "x.bpfcap") as capture:
            emitter.run(3)
            assert ordered.poll(1) == [0, 1, 2]
            assert capture.records == 3
        assert ordered.lost == 0
        assert ordered.statistics()["records"] == 3


@pytest.mark.filterwarnings("ignore:unclosed")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_one_touches_no_other_descriptor() -> None:
    """The garbage collector ends the source first, and its numbers may belong to somebody else by then."""
    files: list[Any] = []

    class Opens:
        def __del__(self) -> None:
            files.extend(tempfile.TemporaryFile(buffering=0) for _ in range(8))  # noqa: SIM115 - closed below

    with uniform_ring() as emitter:
        source = RingBuffer(emitter)
        knot: list[Any] = [source, Opens(), source.in_order(identity)]
        knot.append(knot)
        del knot, source
        gc.collect()
        assert len(files) == 8
        for file in files:
            assert os.fstat(file.fileno()).st_size == 0
            file.close()


def test_async(emitter: Emitter, ordered: OrderedReader) -> None:
    async def read(count: int) -> list[int]:
        received: list[int] = []
        async for value in ordered:
            received.append(value)
            if len(received) == count:
                break
        return received

    total = on_every_cpu(emitter, 5, 4)
    timer = threading.Timer(2 * HOLD, emitter.run, [3])
    timer.start()
    received = asyncio.run(asyncio.wait_for(read(total + 3), 20))
    timer.join()
    assert received == list(range(total + 3))


def test_closing(emitter: Emitter) -> None:
    ordered = PerfBuffer(emitter, decode=number).in_order(identity, HOLD)
    thread = threading.Thread(target=lambda: list(ordered))
    thread.start()
    time.sleep(0.02)
    ordered.close()
    thread.join(5)
    assert not thread.is_alive()
    assert ordered.source.closed
    with pytest.raises(ClosedError):
        ordered.poll(0)


def test_a_source_that_closes_gives_what_is_held(emitter: Emitter, ordered: OrderedReader) -> None:
    emitter.run(4)
    assert ordered.consume() == []
    ordered.source.close()
    assert ordered.consume() == [0, 1, 2, 3]
    assert ordered.consume() == []
    assert ordered.closed


def test_who_waits_is_woken_when_the_source_closes() -> None:
    with uniform_ring() as emitter:
        ordered = RingBuffer(emitter, decode=number).in_order(identity, HOLD)
    threads = [threading.Thread(target=lambda: list(ordered)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    ordered.source.close()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert ordered.closed


def test_a_child_may_only_close_it(emitter: Emitter, ordered: OrderedReader) -> None:
    emitter.run(2)

    def child() -> bool:
        try:
            ordered.consume()
        except RuntimeError:
            ordered.close()
            return True
        return False

    assert in_child(child) == 0
    assert ordered.poll(5) == [0, 1]


def test_a_foreign_loop(emitter: Emitter, ordered: OrderedReader) -> None:
    poller = select.epoll()
    poller.register(ordered.fileno(), select.EPOLLIN)
    assert ordered.consume() == []
    emitter.run(2)
    assert poller.poll(5)
    assert ordered.consume() == []
    time.sleep(HOLD)
    assert ordered.consume() == [0, 1]
    poller.close()
    assert "PerfBuffer" in repr(ordered)


def test_wrong_arguments(emitter: Emitter) -> None:
    with (
        PerfBuffer(emitter) as buffer,
        pytest.raises(ValueError, match="not negative, not -1"),
    ):
        buffer.in_order(identity, -1)
