"""Reading live perf buffers."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import struct
import threading
import time
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import pytest
from affinity import on_cpu
from emitters import Emitter, mixed_size, perf, perf_map, ring_map
from interrupts import interrupt_everywhere
from test_ringbuf import Fault, Producer, event_btf, in_child, number, resources

from pybpf import syscall
from pybpf.btf.codec import codec
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError, BPFExistsError, BPFNotFoundError, ClosedError
from pybpf.events import FlightRecorder, PerfBuffer, pages, perfbuf, source, waiting

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with perf(payload=20) as emitter:
        yield emitter


@pytest.fixture
def buffer(emitter: Emitter) -> Iterator[PerfBuffer]:
    with PerfBuffer(emitter, decode=number) as buffer:
        yield buffer


def run_on_cpu(cpu: int, emitter: Emitter, count: int) -> None:
    with on_cpu(cpu):
        emitter.run(count)


def test_samples_have_the_kernels_padding() -> None:
    with perf() as emitter, PerfBuffer(emitter, page_count=16) as buffer:
        received: list[bytes] = []
        while emitter.produced < 3000:
            emitter.run(50)
            received += buffer.consume()
        received.sort(key=number)
        assert [number(sample) for sample in received] == list(range(emitter.produced))
        for sample in received:
            size = mixed_size(number(sample))
            assert len(sample) == size + -(size + 4) % 8
        assert buffer.records == emitter.produced
        assert buffer.bytes == sum(map(len, received))
        assert buffer.lost == emitter.dropped == 0


def test_every_cpu_is_read(emitter: Emitter, buffer: PerfBuffer) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert set(cpus) <= set(buffer.cpus) == set(syscall.cpu_list("online"))
    for cpu in cpus:
        run_on_cpu(cpu, emitter, 100)
    assert sorted(buffer.poll(1)) == list(range(100 * len(cpus)))
    assert f"{len(buffer.cpus)} CPUs of 64 pages" in repr(buffer)


def test_the_cpu_of_each_sample(emitter: Emitter) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with PerfBuffer(emitter, decode=number, with_cpu=True, btf=event_btf()) as buffer:
        sent: list[int] = []
        for cpu in cpus * 2:
            run_on_cpu(cpu, emitter, 5)
            sent += [cpu] * 5
        events = buffer.consume(3)
        events += buffer.consume()
        assert sorted(events, key=itemgetter(1)) == [(cpu, number) for number, cpu in enumerate(sent)]
        run_on_cpu(cpus[0], emitter, 30)
        batch = buffer.read_batch()
        assert batch.cpu == cpus[0] and len(batch) == 30
        run_on_cpu(cpus[-1], emitter, 2)
        with buffer.borrow_batch() as batch:
            assert batch.cpu == cpus[-1]
        run_on_cpu(cpus[0], emitter, 1)
        ((cpu, event),) = buffer.of("event").poll(1)
        assert cpu == cpus[0] and event.number == emitter.produced - 1
        for cpu in reversed(cpus):
            run_on_cpu(cpu, emitter, 10)
        with buffer.in_order("number") as ordered:
            pairs = [pair for _ in range(2) for pair in ordered.poll(1)]
        assert [cpu for cpu, _ in pairs] == [cpu for cpu in reversed(cpus) for _ in range(10)]
    with FlightRecorder(emitter) as recorder:
        run_on_cpu(cpus[0], emitter, 1)
        assert {batch.cpu for batch in recorder.batches().values()} == set(recorder.cpus)


def test_an_error_does_not_shift_the_cpus(emitter: Emitter, one_cpu: int) -> None:
    def decode(sample: memoryview) -> int:
        if number(sample) % 3 == 1:
            raise KeyError(number(sample))
        return number(sample)

    with PerfBuffer(emitter, decode=decode, with_cpu=True) as buffer:
        emitter.run(9)
        received = []
        for _ in range(3):
            received += buffer.consume()
            with pytest.raises(KeyError):
                buffer.consume()
        received += buffer.consume()
        assert received == [(one_cpu, number) for number in (0, 2, 3, 5, 6, 8)]


def test_some_cpus_only(emitter: Emitter) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    with PerfBuffer(emitter, cpus=[cpus[-1]], decode=number) as buffer:
        assert buffer.cpus == (cpus[-1],)
        for cpu in cpus:
            run_on_cpu(cpu, emitter, 3)
        assert len(buffer.consume()) == 3
        assert emitter.dropped == 3 * (len(cpus) - 1), "a CPU without an event is refused to the program"


def test_a_small_map_limits_the_cpus() -> None:
    with perf_map(1) as small, PerfBuffer(small) as buffer:
        assert buffer.cpus == (0,)


def test_a_second_reader_is_refused(emitter: Emitter, one_cpu: int) -> None:
    """The kernel would give it the samples of the first one, and none to either when it is closed."""
    before = resources()
    with PerfBuffer(emitter, decode=number, cpus=[one_cpu]) as buffer:
        for make in (PerfBuffer, FlightRecorder):
            with pytest.raises(BPFExistsError, match="map 'events', CPU [0-9]+: .*EEXIST.*reader or recorder"):
                make(emitter)
        emitter.run(3)
        assert buffer.consume() == [0, 1, 2] and emitter.dropped == 0
        others = [cpu for cpu in syscall.cpu_list("online") if cpu != one_cpu]
        if others:
            with FlightRecorder(emitter, cpus=others) as recorder:
                assert recorder.cpus == tuple(others)
        emitter.run(1)
        assert buffer.consume() == [3]
    with PerfBuffer(emitter, decode=number) as buffer:
        emitter.run(1)
        assert buffer.consume() == [4]
    assert resources() == before


def test_a_child_may_take_over(emitter: Emitter, one_cpu: int) -> None:
    with PerfBuffer(emitter, decode=number) as buffer:

        def take_over() -> bool:
            try:
                PerfBuffer(emitter)
            except BPFExistsError:
                buffer.close()
                with PerfBuffer(emitter, decode=number) as own:
                    emitter.run(2)
                    return own.consume() == [0, 1]
            return False

        assert in_child(take_over) == 0


@pytest.mark.keeps_descriptors  # one that was made and not yet stored somewhere
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_interrupt_leaves_no_cpu_taken(emitter: Emitter, one_cpu: int) -> None:
    def use() -> None:
        with PerfBuffer(emitter, cpus=[one_cpu]):
            pass

    for places in interrupt_everywhere(use, perfbuf, pages, source, waiting):  # noqa: B007
        gc.collect()
        with PerfBuffer(emitter, decode=number) as buffer:
            emitter.run(1)
            assert buffer.consume() == [emitter.produced - 1]
    assert places > 30


def test_losses_are_counted(one_cpu: int) -> None:
    reported: list[tuple[int, int]] = []
    with perf() as emitter:
        with PerfBuffer(emitter, page_count=1, on_lost=lambda *loss: reported.append(loss)) as buffer:
            delivered = 0
            for _ in range(20):
                emitter.run(100)
                delivered += len(buffer.consume())
            # The kernel reports a loss with the next sample that finds room.
            emitter.run()
            delivered += len(buffer.consume())
            assert delivered == emitter.produced
            assert emitter.dropped > 0
            assert buffer.lost == emitter.dropped
            assert buffer.lost_by_cpu[one_cpu] == buffer.lost
            assert sum(count for _, count in reported) == buffer.lost
            assert {cpu for cpu, _ in reported} == {one_cpu}
        assert buffer.lost == emitter.dropped, "still known after close()"


def test_losses_are_known_at_once_on_new_kernels(one_cpu: int) -> None:
    with perf() as emitter, PerfBuffer(emitter, page_count=1) as buffer:
        if not all(cpu._counts_lost for cpu in buffer._buffers):
            pytest.skip("the kernel has no PERF_FORMAT_LOST (Linux 6.0)")
        emitter.run(200)
        assert emitter.dropped == buffer.lost > 0


def test_an_error_in_on_lost_loses_no_samples(one_cpu: int) -> None:
    def on_lost(cpu: int, count: int) -> None:
        raise KeyError(count)

    with perf(payload=12) as emitter, PerfBuffer(emitter, page_count=1, decode=number, on_lost=on_lost) as buffer:
        emitter.run(1000)
        received = buffer.consume()
        emitter.run(10)
        with pytest.raises(KeyError):
            buffer.consume()
        received += buffer.consume()
        assert received == list(range(emitter.produced))


def test_a_producer_on_another_cpu() -> None:
    with perf(payload=20) as emitter:
        producer = Producer(emitter, 100_000, burst=1000)
        with PerfBuffer(emitter, page_count=256, decode=number, watermark=1 << 16) as buffer:
            producer.start()
            received = 0
            last = -1
            while producer.is_alive() or buffer._available():
                for serial in buffer.poll(0.2):
                    received += 1
                    last = max(last, serial)
            producer.join()
            assert received == emitter.produced == 100_000
            assert last == emitter.produced - 1
            assert buffer.lost == emitter.dropped


def test_typed_samples(emitter: Emitter) -> None:
    btf = event_btf()
    with PerfBuffer(emitter, decode=codec(btf, btf.find("event").id)) as buffer:
        emitter.run(500)
        assert sorted(event.number for event in buffer.poll(1)) == list(range(500))
    with PerfBuffer(emitter, btf=btf) as buffer:
        emitter.run()
        (event,) = buffer.of("event").poll(1)
        assert event.number == 500
    with PerfBuffer(emitter, decode=codec(btf, btf.find("large").id)) as buffer:
        emitter.run()
        with pytest.raises(ValueError, match=r"20 bytes.*struct large has 32"):
            buffer.poll(1)


def test_an_array_without_a_length_has_the_padding(one_cpu: int) -> None:
    builder = BTFBuilder()
    u64, u8 = builder.add_int("u64", 8, 64, 0), builder.add_int("u8", 1, 8, 0)
    builder.add_struct("text", 8, [("number", u64, 0, 0), ("data", builder.add_array(u8, u64, 0), 64, 0)])
    btf = BTF.from_bytes(builder.to_bytes())
    with perf() as emitter, PerfBuffer(emitter, decode=codec(btf, btf.find("text").id)) as buffer:
        emitter.run(50)
        for event in buffer.consume():
            size = mixed_size(event.number)
            assert len(event.data) == size - 8 + -(size + 4) % 8


def test_waiting(emitter: Emitter, buffer: PerfBuffer) -> None:
    start = time.monotonic()
    assert buffer.poll(0) == [] and buffer.poll(0.03) == []
    assert time.monotonic() - start < 2
    for expected in range(20):
        timer = threading.Timer(0.002, emitter.run)
        timer.start()
        assert buffer.poll(10) == [expected]
        timer.join()


def test_samples_that_came_before_the_wait(emitter: Emitter, buffer: PerfBuffer) -> None:
    emitter.run(10)
    assert buffer.poll(limit=4) == [0, 1, 2, 3]
    assert buffer.poll() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("option", [{"wakeup_events": 50}, {"watermark": 1200}])
def test_fewer_wake_ups(emitter: Emitter, one_cpu: int, option: dict[str, int]) -> None:
    with PerfBuffer(emitter, decode=number, **option) as buffer:
        timer = threading.Timer(0.01, emitter.run, (20,))
        timer.start()
        start = time.monotonic()
        assert buffer.poll(0.2) == list(range(20)), "what is there when time is up is given"
        assert time.monotonic() - start >= 0.2
        timer.join()
        timer = threading.Timer(0.01, emitter.run, (100,))
        timer.start()
        assert len(buffer.poll(30)) > 0
        assert time.monotonic() - start < 20
        timer.join()


def test_closing(emitter: Emitter) -> None:
    buffer = PerfBuffer(emitter, decode=number)
    received: list[int] = []
    reader = threading.Thread(target=lambda: received.extend(buffer))
    reader.start()
    emitter.run(3)
    deadline = time.monotonic() + 10
    while buffer.records < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    buffer.close()
    reader.join(10)
    assert not reader.is_alive() and received == [0, 1, 2]
    assert not buffer._unreleased and "closed" in repr(buffer)
    for use in (buffer.fileno, buffer.poll, buffer.read_batch):
        with pytest.raises(ClosedError):
            use()
    emitter.run(5)
    assert emitter.dropped == 5, "the slots of the map are empty again"


def test_a_child_leaves_the_events_alone(emitter: Emitter, buffer: PerfBuffer) -> None:
    emitter.run(2)

    def close() -> bool:
        try:
            buffer.consume()
        except RuntimeError:
            buffer.close()
            return True
        return False

    assert in_child(close) == 0
    emitter.run(2)
    assert sorted(buffer.poll(1)) == [0, 1, 2, 3]  # the second run may have been on another CPU
    assert emitter.dropped == 0


def test_refusals(emitter: Emitter) -> None:
    with ring_map(4096) as other, pytest.raises(ValueError, match="'events' is not a perf event array"):
        PerfBuffer(other)
    for arguments in ({"page_count": 0}, {"page_count": 48}, {"wakeup_events": 0}, {"watermark": -1}):
        with pytest.raises(ValueError, match=r"must be"):
            PerfBuffer(emitter, **arguments)
    before = resources()
    with pytest.raises((BPFError, OverflowError, ValueError, OSError)):
        PerfBuffer(emitter, page_count=1 << 30)
    assert resources() == before


@pytest.mark.parametrize(
    ("cpus", "error", "message"),
    [
        ([], ValueError, r"at least one CPU, and none twice, not \[\]"),
        ([0, 0], ValueError, r"none twice, not \[0, 0\]"),
        ([0, -1], ValueError, "map 'events' of [0-9]+ entries has no place for CPU -1"),
        ([100_000], ValueError, "has no place for CPU 100000"),
        ([1 << 40], ValueError, "has no place for CPU 1099511627776"),
        (["0"], TypeError, r"numbers of CPUs, not \['0'\]"),
        ("0-1", TypeError, "numbers of CPUs, not '0-1'"),
        (0, TypeError, "numbers of CPUs, not 0"),
    ],
)
def test_cpus_that_there_are_not(emitter: Emitter, cpus: Any, error: type[Exception], message: str) -> None:
    before = resources()
    for make in (PerfBuffer, FlightRecorder):
        with pytest.raises(error, match=message):
            make(emitter, cpus=cpus)
    assert resources() == before


def test_a_cpu_that_is_not_online() -> None:
    with perf_map(8192) as large:
        before = resources()
        with pytest.raises(BPFNotFoundError, match="CPU 8191 is not online"):
            PerfBuffer(large, cpus=[0, 8191])
        assert resources() == before
        with PerfBuffer(large, cpus=iter([0])) as buffer:
            assert buffer.cpus == (0,)


def test_nothing_is_left_behind(emitter: Emitter, one_cpu: int) -> None:
    with PerfBuffer(emitter) as buffer:
        steps = 6 * len(buffer.cpus)  # open, map, enable, update; delete, disable
        buffer.poll(0)
    before = resources()
    failures = 0
    for at in itertools.count():
        fault = Fault(at)
        syscall.add_observer(fault)
        try:
            PerfBuffer(emitter).close()
        except BPFError as error:
            assert "ENOMEM" in str(error)
            failures += 1
        finally:
            syscall.remove_observer(fault)
        gc.collect()
        dropped = emitter.dropped
        emitter.run()
        assert emitter.dropped == dropped + 1, "no event is left in the map"
        if fault.left >= 0:
            break
    assert failures > steps
    for _ in range(50):
        with PerfBuffer(emitter) as buffer:
            emitter.run(3)
            assert len(buffer.poll(1)) == 3
    assert resources() == before


def test_the_number_in_a_sample_is_the_programs() -> None:
    with perf(payload=8) as emitter, PerfBuffer(emitter) as buffer:
        emitter.run()
        assert buffer.poll(1)[0][:8] == struct.pack("Q", 0)


@pytest.mark.kernel
def test_a_failing_read_of_the_losses_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "no losses today")

    with perf() as emitter:
        before = resources()
        reader = PerfBuffer(emitter)
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", fail)
            with pytest.raises(OSError, match="no losses today"):
                reader.close()
        assert resources() == before
