"""Reading live ring buffers."""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import children
import pytest
from emitters import BUFFER_SIZE, SIZE, Emitter, mixed_ring, mixed_size, output_ring, perf_map, ring_map, uniform_ring

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf.codec import codec
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError, BTFError, ClosedError
from pybpf.events import RingBuffer

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


def number(record: bytes | memoryview) -> int:
    return int(struct.unpack_from("Q", record)[0])


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with uniform_ring() as emitter:
        yield emitter


@pytest.fixture
def ring(emitter: Emitter) -> Iterator[RingBuffer]:
    with RingBuffer(emitter, decode=number) as ring:
        yield ring


class Producer(threading.Thread):
    """Runs an emitter until so many events are in the buffer, or until it is stopped."""

    def __init__(self, emitter: Emitter, count: int, burst: int = 2000) -> None:
        super().__init__(daemon=True)
        self.emitter = emitter
        self.count = count
        self.burst = burst
        self._stopped = False

    def run(self) -> None:
        while not self._stopped and (left := self.count - self.emitter.produced) > 0:
            self.emitter.run(min(self.burst, left))

    def stop(self) -> None:
        """The end, also when nobody makes room. The program's own count cannot say it: the program writes it too."""
        self._stopped = True
        self.join(60)
        assert not self.is_alive()


# What comes out.


def test_every_size_comes_out_as_it_went_in() -> None:
    sizes = [*range(40), 63, 64, 65, 255, 4088, 4095, 4096, 4097, BUFFER_SIZE]
    with output_ring(1 << 17) as emitter, RingBuffer(emitter) as ring:
        for serial, size in enumerate(sizes):
            emitter.control[SIZE] = size
            emitter.run()
            (record,) = ring.consume()
            assert len(record) == size
            assert record[:8] == struct.pack("Q", serial)[:size]
        assert ring.records == len(sizes) and ring.bytes == sum(sizes)
        assert ring.consumer_pos == ring.producer_pos and ring.available == 0
        assert ring.size == 1 << 17


def test_equal_records_over_many_ring_lengths() -> None:
    with uniform_ring(4096, payload=40) as emitter, RingBuffer(emitter, decode=number) as ring:
        received: list[int] = []
        while emitter.produced < 5000:
            emitter.run(200)
            received += ring.consume()
        assert received == list(range(emitter.produced))
        assert emitter.dropped > 0, "the ring was full now and then"
        assert ring.producer_pos > 40 * ring.size


def test_mixed_records_over_many_ring_lengths() -> None:
    with mixed_ring(4096) as emitter, RingBuffer(emitter) as ring:
        received: list[bytes] = []
        while emitter.produced < 3000:
            emitter.run(7)
            received += ring.consume()
        assert [number(record) for record in received] == list(range(emitter.produced))
        assert [len(record) for record in received] == [mixed_size(n) for n in range(emitter.produced)]


def test_discarded_records_do_not_show() -> None:
    with uniform_ring(discard_odd=True) as emitter, RingBuffer(emitter, decode=number) as ring:
        emitter.run(100)
        assert ring.poll(0) == list(range(0, 100, 2))
        assert ring.discarded == 50 and ring.records == 50


@pytest.mark.parametrize(("mixed", "count"), [(False, 1_000_000), (True, 300_000)])
def test_a_producer_on_another_cpu(mixed: bool, count: int) -> None:
    with mixed_ring(1 << 20) if mixed else uniform_ring(1 << 20) as emitter:
        producer = Producer(emitter, count)
        expected = 0
        with RingBuffer(emitter) as ring:
            producer.start()
            while expected < count:
                batch = ring.poll(10)
                assert batch, "nothing for ten seconds"
                for record in batch:
                    assert number(record) == expected
                    expected += 1
            producer.join()
            assert expected == count == emitter.produced == ring.records
            assert ring.consume() == []


def test_batches_are_raw(emitter: Emitter) -> None:
    with RingBuffer(emitter) as ring:
        assert len(ring.read_batch()) == 0
        emitter.run(3000)
        batch = ring.read_batch(5)
        assert [number(record) for record in batch] == [0, 1, 2, 3, 4]
        batch = ring.read_batch()
        assert batch.stride == 24 and len(batch) == 2048
        assert [row[0] for row in struct.iter_unpack("Q16x", batch.data)] == list(range(5, 2053))
        assert number(ring.poll()[0]) == 2053
        assert ring.records == emitter.produced


# Overwrite mode.


def test_overwrite_mode_keeps_the_newest() -> None:
    try:
        emitter = uniform_ring(4096, flags=c.BPF_F_RB_OVERWRITE)
    except BPFError as error:
        pytest.skip(f"no BPF_F_RB_OVERWRITE on this kernel: {error}")
    with emitter, RingBuffer(emitter, decode=number) as ring:
        emitter.run(10)
        assert ring.poll(1) == list(range(10))
        emitter.run(1000)
        records = ring.poll(1)
        assert records == list(range(1010 - len(records), 1010)) and len(records) > 100
        assert ring.overwritten == (1010 - 10 - len(records)) * 24
        assert ring.poll(0) == []


# Values.


def event_btf() -> BTF:
    builder = BTFBuilder()
    u64 = builder.add_int("u64", 8, 64, 0)
    builder.add_struct("event", 16, [("number", u64, 0, 0), ("other", u64, 64, 0)])
    builder.add_struct("large", 32, [("number", u64, 0, 0), ("last", u64, 192, 0)])
    return BTF.from_bytes(builder.to_bytes())


def test_codecs_give_typed_records(emitter: Emitter) -> None:
    btf = event_btf()
    with RingBuffer(emitter, decode=codec(btf, btf.find("event").id)) as ring:
        emitter.run(3000)
        assert [event.number for event in ring.poll()] == list(range(3000))
        emitter.run(2)
        assert [event.number for event in ring.poll()] == [3000, 3001]


def test_of_names_the_type(emitter: Emitter) -> None:
    with RingBuffer(emitter, btf=event_btf()) as ring:
        emitter.run(2)
        assert [event.number for event in ring.of("struct event").poll()] == [0, 1]
        with pytest.raises(BTFError, match="no type 'nothing'"):
            ring.of("nothing")
        emitter.run(1)
        assert isinstance(ring.poll()[0], tuple)
    with RingBuffer(emitter) as ring, pytest.raises(BTFError, match="no type information"):
        ring.of("event")


def test_of_holds_for_what_was_taken_and_not_decoded(emitter: Emitter) -> None:
    def decode(record: memoryview) -> int:
        raise KeyError(number(record))

    with RingBuffer(emitter, decode=decode, btf=event_btf()) as ring:
        emitter.run(10)
        with pytest.raises(KeyError):
            ring.poll()
        assert ring.available == 0
        assert [event.number for event in ring.of("event").poll()] == list(range(1, 10))


def test_a_short_record_is_an_error_and_counts_as_read() -> None:
    btf = event_btf()
    with mixed_ring() as emitter, RingBuffer(emitter, decode=codec(btf, btf.find("large").id)) as ring:
        emitter.run(200)
        received, failures = [], 0
        while ring.available or failures + len(received) < 200:
            try:
                received += ring.consume()
            except ValueError as error:
                assert "struct large" in str(error) and "32" in str(error)
                failures += 1
        assert failures == sum(mixed_size(n) < 32 for n in range(200)) > 0
        assert [event.number for event in received] == [n for n in range(200) if mixed_size(n) >= 32]
        assert ring.records == 200


def test_a_short_record_is_bytes_when_the_type_is_only_a_guess() -> None:
    btf = event_btf()
    with mixed_ring() as emitter:
        with RingBuffer(emitter, decode=codec(btf, btf.find("large").id), strict=False) as ring:
            emitter.run(200)
            values = ring.poll()
        assert [number(v) if isinstance(v, bytes) else v.number for v in values] == list(range(200))
        assert {isinstance(v, bytes) for v in values} == {True, False}


def test_an_error_in_decoding_loses_nothing(emitter: Emitter) -> None:
    calls: list[int] = []

    def decode(record: memoryview) -> int:
        calls.append(number(record))
        if number(record) % 10 == 3:
            raise KeyError(number(record))
        return number(record)

    with RingBuffer(emitter, decode=decode) as ring:
        emitter.run(25)
        assert ring.poll() == [0, 1, 2]
        with pytest.raises(KeyError, match="3"):
            ring.poll()
        seen: list[int] = []
        with pytest.raises(KeyError, match="13"):
            seen.extend(iter_into(ring, seen))
        assert seen == list(range(4, 13))
        assert ring.poll() == list(range(14, 23))
        with pytest.raises(KeyError, match="23"):
            ring.poll(0)
        assert ring.poll() == [24]
        assert calls == list(range(25)), "each record is decoded once"


def test_an_end_of_iteration_in_decoding_is_an_error(emitter: Emitter) -> None:
    def decode(record: memoryview) -> int:
        if number(record) == 3:
            raise StopIteration
        return number(record)

    with RingBuffer(emitter, decode=decode) as ring:
        emitter.run(6)
        assert ring.poll(limit=2) == [0, 1]
        assert ring.poll() == [2]
        with pytest.raises(RuntimeError, match="StopIteration"):
            ring.poll()
        assert ring.poll() == [4, 5]


def iter_into(ring: RingBuffer, seen: list[int]) -> Iterator[int]:
    for value in ring:
        seen.append(value)
    yield from ()


def test_ctrl_c_in_decoding_loses_nothing(emitter: Emitter) -> None:
    interrupts = [5, 300]

    def decode(record: memoryview) -> int:
        if interrupts and number(record) == interrupts[0]:
            interrupts.pop(0)
            raise KeyboardInterrupt
        return number(record)

    with RingBuffer(emitter, decode=decode) as ring:
        emitter.run(1000)
        with pytest.raises(KeyboardInterrupt):
            ring.poll()
        assert ring.poll(limit=3) == [0, 1, 2]
        with pytest.raises(KeyboardInterrupt):
            ring.poll()
        assert ring.poll() == list(range(3, 1000))


class Interrupt(Exception):
    """What the signal handler below raises."""


def test_interrupts_anywhere_repeat_nothing_and_break_nothing(emitter: Emitter) -> None:
    """An alarm that raises hits the reader in all kinds of places; only what was on its way to us may be gone."""

    def strike(signum: int, frame: FrameType | None) -> None:
        raise Interrupt

    received: list[int] = []
    hits = 0
    btf = event_btf()
    before = signal.signal(signal.SIGALRM, strike)
    try:
        with RingBuffer(emitter, decode=codec(btf, btf.find("event").id)) as ring:
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline and hits < 400:
                emitter.run(500)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.0003 * (hits % 7) / 7)
                    while True:
                        received += [event.number for event in ring.poll(0.001, 100)]
                except Interrupt:
                    hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            received += [event.number for event in ring.consume()]
            assert ring.records == emitter.produced
            assert ring.available == 0 and not ring._inside and not ring._reading
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert hits > 20
    assert received == sorted(set(received))
    assert len(received) >= emitter.produced - 100 * hits


def interrupt_when_it_waits() -> None:
    """SIGINT for the process once its main thread waits in epoll_wait(2)."""
    wchan = Path(f"/proc/self/task/{os.getpid()}/wchan")
    end = time.monotonic() + 5
    while "poll" not in wchan.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_while_waiting_is_immediate(emitter: Emitter, ring: RingBuffer) -> None:
    """SIGINT interrupts each way of waiting, and the ring works on afterwards."""
    for serial, wait in enumerate((ring.poll, lambda: ring.poll(30), lambda: list(ring))):
        timer = threading.Thread(target=interrupt_when_it_waits)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            wait()
        timer.join()
        assert time.monotonic() - start < 10
        emitter.run()
        assert ring.poll(1) == [serial]
    ring.close()
    assert not ring._unreleased


def test_a_signal_just_before_the_wait_is_noticed_too(ring: RingBuffer) -> None:
    """Python runs handlers between its instructions: in one of seven of these shots the wait begins first."""

    def strike(signum: int, frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        for shot in range(40):
            start = time.monotonic()
            with pytest.raises(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, 1e-6 + shot * 1e-6)
                ring.poll(None)
            assert time.monotonic() - start < 30
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ring.poll(0) == []


# Waiting.


def test_poll_waits_no_longer_than_told(ring: RingBuffer) -> None:
    start = time.monotonic()
    assert ring.poll(0) == []
    assert ring.poll(0.05) == []
    assert 0.05 <= time.monotonic() - start < 2


def test_poll_wakes_up(emitter: Emitter, ring: RingBuffer) -> None:
    for expected in range(20):
        timer = threading.Timer(0.002, emitter.run)
        timer.start()
        assert ring.poll(10) == [expected]
        timer.join()


@pytest.mark.parametrize("timeout", [40 * 86400, float("inf")])
def test_poll_takes_more_time_than_the_kernel_does(emitter: Emitter, ring: RingBuffer, timeout: float) -> None:
    timer = threading.Timer(0.05, emitter.run)
    timer.start()
    assert ring.poll(timeout) == [0]
    timer.join()


def test_poll_waits_over_discarded_records() -> None:
    with uniform_ring(discard_odd=True) as emitter, RingBuffer(emitter, decode=number) as ring:
        emitter.run()
        assert ring.poll() == [0]
        timer = threading.Timer(0.01, lambda: (emitter.run(), time.sleep(0.02), emitter.run()))
        timer.start()
        assert ring.poll(10) == [2]
        timer.join()
        assert ring.discarded == 1


@pytest.mark.parametrize("limit", [1, 7, 5000])
def test_limits_leave_the_rest_in_the_ring(emitter: Emitter, ring: RingBuffer, limit: int) -> None:
    emitter.run(1000)
    received: list[int] = []
    while values := ring.consume(limit):
        assert len(values) <= limit
        received += values
        assert ring.available == 24 * (1000 - len(received))
    assert received == list(range(1000))
    with pytest.raises(ValueError, match="limit"):
        ring.poll(0, 0)


def test_a_loop_that_was_left_can_be_taken_up_again(emitter: Emitter, ring: RingBuffer) -> None:
    emitter.run(1000)
    received = []
    for value in ring:
        received.append(value)
        if len(received) == 10:
            break
    received += ring.consume(5)
    for value in ring:
        received.append(value)
        if len(received) == 700:
            break
    assert received == list(range(700))
    assert ring.poll() == list(range(700, 1000))


def test_a_foreign_loop_watches_the_descriptor(emitter: Emitter, ring: RingBuffer) -> None:
    poll = select.poll()
    poll.register(ring, select.POLLIN)
    assert poll.poll(0) == []
    emitter.run()
    assert poll.poll(1000) == [(ring.fileno(), select.POLLIN)]
    assert ring.consume() == [0]
    assert poll.poll(0) == []


def test_threads_share_a_ring(emitter: Emitter) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        share_a_ring(emitter)
    finally:
        sys.setswitchinterval(interval)


def share_a_ring(emitter: Emitter) -> None:
    with RingBuffer(emitter, decode=number) as ring:
        received: list[int] = []

        def read() -> None:
            for value in ring:
                received.append(value)

        def poll() -> None:
            with suppress(ClosedError):
                while True:
                    received.extend(ring.poll(None, 3))

        readers = [threading.Thread(target=target) for target in (read, read, poll)]
        for reader in readers:
            reader.start()
        for _ in range(20):
            emitter.run(500)
            time.sleep(0.002)
        deadline = time.monotonic() + 10
        while len(received) < emitter.produced and time.monotonic() < deadline:
            time.sleep(0.01)
        ring.close()
        for reader in readers:
            reader.join(10)
        assert sorted(received) == list(range(emitter.produced))


def test_reading_inside_decode_is_refused(emitter: Emitter) -> None:
    ring: RingBuffer

    def decode(record: memoryview) -> list[int]:
        return ring.consume()

    with RingBuffer(emitter, decode=decode) as ring:
        emitter.run()
        with pytest.raises(RuntimeError, match="further up the stack"):
            ring.poll()
        assert ring.poll(0) == []


# Closing.


def test_use_after_close(emitter: Emitter) -> None:
    ring = RingBuffer(emitter)
    assert not ring.closed and "131072" in repr(ring)
    started = iter(ring)
    ring.close()
    ring.close()
    assert ring.closed and "closed" in repr(ring)
    for use in (
        ring.fileno,
        ring.poll,
        ring.consume,
        ring.read_batch,
        ring.__iter__,
        ring.__aiter__,
        lambda: ring.available,
        lambda: ring.consumer_pos,
        lambda: ring.producer_pos,
    ):
        with pytest.raises(ClosedError):
            use()
    assert list(started) == []
    assert ring.records == 0 and ring.lost is None


def test_the_reader_outlives_the_map_object() -> None:
    emitter = uniform_ring()
    with RingBuffer(emitter, decode=number) as ring:
        emitter.run(3)
        emitter.close()
        assert ring.poll() == [0, 1, 2]


def test_closing_ends_a_loop_in_another_thread(emitter: Emitter) -> None:
    ring = RingBuffer(emitter, decode=number)
    received: list[int] = []
    reader = threading.Thread(target=lambda: received.extend(ring))
    reader.start()
    emitter.run(3)
    deadline = time.monotonic() + 10
    while ring.records < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    ring.close()
    reader.join(10)
    assert not reader.is_alive()
    assert received == [0, 1, 2]
    assert not ring._unreleased, "the last one out has let go"


def test_closing_wakes_poll_in_another_thread(emitter: Emitter) -> None:
    ring = RingBuffer(emitter)
    raised: list[Exception] = []

    def wait() -> None:
        try:
            ring.poll()
        except ClosedError as error:
            raised.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    ring.close()
    waiter.join(10)
    assert len(raised) == 1 and not ring._unreleased


def test_closing_in_the_loop_ends_it(emitter: Emitter, ring: RingBuffer) -> None:
    emitter.run(100)
    received = []
    for value in ring:
        received.append(value)
        if value == 4:
            ring.close()
    assert received == [0, 1, 2, 3, 4]


def test_closing_in_a_signal_handler(emitter: Emitter) -> None:
    ring = RingBuffer(emitter, decode=number)
    before = signal.signal(signal.SIGALRM, lambda *_: ring.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        emitter.run(2)
        assert list(ring) == [0, 1]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ring.closed and not ring._unreleased


def test_closing_while_others_read_is_safe() -> None:
    for attempt in range(30):
        with uniform_ring(1 << 16) as emitter:
            ring = RingBuffer(emitter, decode=number)
            seen: list[int] = []
            reader = threading.Thread(target=lambda ring=ring, seen=seen: seen.extend(ring))
            reader.start()
            producer = Producer(emitter, 3000, burst=100)
            producer.start()
            time.sleep(0.0005 * (attempt % 10))
            ring.close()
            reader.join(10)
            producer.stop()
            assert not reader.is_alive() and not ring._unreleased
            assert seen == list(range(len(seen)))


def test_a_forgotten_ring_warns_and_is_closed(emitter: Emitter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ring = RingBuffer(emitter)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del ring
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning and "RingBuffer" in str(w.message)]
    assert len(os.listdir("/proc/self/fd")) == before


# Processes.


def in_child(function: Callable[[], object]) -> int:
    """As `children.in_child`, of a function that gives whether all is well."""

    def check() -> None:
        assert function()

    return children.in_child(check, 30)


def test_a_child_cannot_read_what_its_parent_reads(emitter: Emitter, ring: RingBuffer) -> None:
    emitter.run(5)

    def read() -> bool:
        for use in (ring.poll, ring.consume, ring.read_batch, lambda: next(iter(ring)), lambda: ring.available):
            try:
                use()
            except RuntimeError as error:
                if f"belongs to process {os.getppid()}" not in str(error):
                    return False
            else:
                return False
        fds = len(os.listdir("/proc/self/fd"))
        ring.close()
        return ring.closed and len(os.listdir("/proc/self/fd")) < fds

    assert in_child(read) == 0
    assert ring.available == 120 and not ring.closed
    assert ring.poll(1) == [0, 1, 2, 3, 4]
    assert ring.poll(0.01) == [], "the child's close() has not woken us for ever"
    emitter.run()
    assert ring.poll(1) == [5]


def test_a_child_that_a_signal_handler_forks_takes_nothing(emitter: Emitter, ring: RingBuffer) -> None:
    """It goes on where the parent waits."""
    statuses: list[int] = []
    pids: list[int] = []

    def fork(*_: object) -> None:
        pids.append(os.fork())
        if pids[-1]:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pids[-1], 0)[1]))
            emitter.run(5)

    before = signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        values = ring.poll(10)
    except RuntimeError as error:
        if pids[-1]:
            raise
        os._exit(0 if f"belongs to process {os.getppid()}" in str(error) else 1)
    finally:
        if pids and not pids[-1]:
            os._exit(2)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (statuses, values) == ([0], [0, 1, 2, 3, 4])


# Refusals.


def test_other_maps_are_refused() -> None:
    with perf_map() as other, pytest.raises(ValueError, match="'events' is not a ring buffer"):
        RingBuffer(other)
    read, write = os.pipe()
    try:
        with pytest.raises(BPFError):
            RingBuffer(read)
    finally:
        os.close(read)
        os.close(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        RingBuffer(1 << 20)
    with ring_map(4096) as fd, pytest.raises(TypeError, match="decode must be"):
        RingBuffer(fd, decode="event")  # type: ignore[arg-type]


class Fault:
    """Makes one call into the kernel fail."""

    def __init__(self, at: int) -> None:
        self.left = at

    def before(self, call: syscall.Call) -> int | None:
        self.left -= 1
        return 12 if self.left == -1 else None

    def after(self, call: syscall.Call) -> None:
        pass


def resources() -> tuple[int, int]:
    gc.collect()
    with open("/proc/self/maps") as file:
        return len(os.listdir("/proc/self/fd")), sum("anon_inode" in line for line in file)


def test_nothing_is_left_behind(emitter: Emitter) -> None:
    with RingBuffer(emitter) as ring:
        ring.poll(0)
    before = resources()
    for at in range(4):
        fault = Fault(at)
        syscall.add_observer(fault)
        try:
            if at < 3:
                with pytest.raises(BPFError, match="ENOMEM"):
                    RingBuffer(emitter)
            else:
                RingBuffer(emitter).close()
        finally:
            syscall.remove_observer(fault)
    for _ in range(200):
        with RingBuffer(emitter) as ring:
            emitter.run(3)
            assert len(ring.poll()) == 3
            for _ in zip(range(1), ring, strict=False) if emitter.run() is None else ():
                break
    assert resources() == before


def test_running_out_of_descriptors_leaves_nothing(emitter: Emitter) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resources()
    failures = 0
    try:
        for extra in range(12):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1 + extra, hard))
            try:
                RingBuffer(emitter).close()
            except OSError as error:
                assert error.errno == 24
                failures += 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 3 <= failures < 12
    assert resources() == before
