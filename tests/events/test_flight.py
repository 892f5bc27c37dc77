"""Perf buffers that overwrite themselves."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator

import pytest
from emitters import Emitter, mixed_size, perf, uniform_ring
from interrupts import interrupt_everywhere
from test_interrupts import every_place, unlocked
from test_perfbuf import run_on_cpu
from test_ringbuf import event_btf, in_child, number, resources

from pybpf.constants import PERF_RECORD_SAMPLE
from pybpf.errors import BTFError, ClosedError
from pybpf.events import FlightRecorder, PerfBuffer, flight, waiting
from pybpf.events.perfring import PerfRing


class Backward:
    """A buffer that is written backwards, as the kernel does it."""

    def __init__(self, size: int = 4096) -> None:
        self.size = size
        self.control = bytearray(4096)
        self.data = bytearray(size)
        self.head = memoryview(self.control)[1024:1032].cast("Q")
        self.ring = PerfRing(memoryview(self.control).toreadonly(), memoryview(self.data).toreadonly(), 0)

    def put(self, payload: bytes) -> None:
        padded = payload + bytes(-(len(payload) + 4) % 8)
        record = struct.pack("IHHI", PERF_RECORD_SAMPLE, 0, 12 + len(padded), len(padded)) + padded
        head = (self.head[0] - len(record)) % (1 << 64)
        for index, byte in enumerate(record):
            self.data[(head + index) % self.size] = byte
        self.head[0] = head


@pytest.mark.parametrize(
    "sizes", [[4], [12] * 50, [4, 100, 20, 36, 4], [60] * 500, [4 + 8 * (n % 40) for n in range(300)]]
)
def test_the_newest_records_come_oldest_first(sizes: list[int]) -> None:
    buffer = Backward()
    sent = [struct.pack("I", n).ljust(size, b"x") for n, size in enumerate(sizes)]
    seen = 0
    for n, one in enumerate(sent):
        buffer.put(one)
        if n == len(sent) // 2:
            seen = buffer.ring.look_back(0).end
    batch = buffer.ring.look_back(0)
    kept = list(batch)
    assert kept == sent[-len(kept) :]
    written = sum(12 + len(one) for one in sent)
    assert batch.end == written
    assert batch.extent + batch.overwritten == written
    assert written <= buffer.size or batch.extent > buffer.size - 400
    later = list(buffer.ring.look_back(seen))
    assert later == sent[len(sent) // 2 + 1 :][-len(later) :] if later else len(sent) == 1


def test_an_empty_buffer() -> None:
    batch = Backward().ring.look_back(0)
    assert len(batch) == batch.extent == batch.overwritten == batch.end == 0


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
class TestKernel:
    @pytest.fixture
    def emitter(self, one_cpu: int) -> Iterator[Emitter]:
        with perf() as emitter:
            yield emitter

    def test_a_snapshot(self, emitter: Emitter) -> None:
        with FlightRecorder(emitter, page_count=4, decode=number) as recorder:
            assert recorder.snapshot() == []
            emitter.run(20)
            assert recorder.snapshot() == list(range(20))
            assert recorder.snapshot() == []
            assert recorder.snapshot(again=True) == list(range(20))
            emitter.run(5)
            assert recorder.snapshot() == list(range(20, 25))
            assert recorder.overwritten == emitter.dropped == 0

    def test_the_newest_stay(self, emitter: Emitter) -> None:
        with FlightRecorder(emitter, page_count=2) as recorder:
            emitter.run(5000)
            assert emitter.dropped == 0
            values = recorder.snapshot()
            numbers = [number(value) for value in values]
            assert numbers == list(range(5000 - len(numbers), 5000))
            assert 20 < len(numbers) < 1000
            for value in values:
                size = mixed_size(number(value))
                assert len(value) == size + -(size + 4) % 8
            assert recorder.overwritten > 5000 * 100

    def test_cpus_by_key(self, emitter: Emitter, one_cpu: int) -> None:
        with FlightRecorder(emitter, decode=number) as recorder:
            for cpu in (0, os.cpu_count() or 1, 0):
                run_on_cpu(min(cpu, (os.cpu_count() or 1) - 1), emitter, 10)
            assert recorder.snapshot(key=lambda value: value) == list(range(30))
            assert sum(map(len, recorder.batches(again=True).values())) == 30

    def test_an_error_leaves_every_sample(self, emitter: Emitter) -> None:
        spoilt = {2}

        def decode(sample: memoryview) -> int:
            if number(sample) in spoilt:
                raise ValueError("spoilt")
            return number(sample)

        with FlightRecorder(emitter, page_count=2, decode=decode) as recorder:
            emitter.run(4)
            for _ in range(2):
                with pytest.raises(ValueError, match="spoilt"):
                    recorder.snapshot()
            spoilt.clear()
            with pytest.raises(ZeroDivisionError):
                recorder.snapshot(key=lambda value: value // 0)
            assert recorder.snapshot() == [0, 1, 2, 3]
            assert recorder.snapshot() == []
            emitter.run(5000)
            spoilt.add(emitter.produced - 1)
            with pytest.raises(ValueError, match="spoilt"):
                recorder.snapshot()
            assert recorder.overwritten == 0
            (batch,) = (batch for batch in recorder.batches().values() if len(batch))
            assert number(batch[-1]) == emitter.produced - 1
            assert recorder.overwritten == batch.overwritten > 0

    def test_typed_samples(self, one_cpu: int) -> None:
        with perf(payload=20) as emitter, FlightRecorder(emitter, btf=event_btf(), decode=number) as recorder:
            with pytest.raises(BTFError, match="no type 'nothing'"):
                recorder.of("nothing")
            assert recorder.of("event") is recorder
            emitter.run(3)
            assert [event.number for event in recorder.snapshot(key="number")] == [0, 1, 2]
            with pytest.raises(AttributeError, match="nonsense"):
                recorder.snapshot(key="nonsense", again=True)
            batch = recorder.batches(again=True)[one_cpu]
            assert list(batch.column("number")) == [0, 1, 2]
            recorder.of_several(lambda record: "event" if number(record) % 2 else None)
            values = recorder.snapshot(again=True)
            assert [getattr(value, "number", None) for value in values] == [None, 1, None]
        with perf() as emitter, FlightRecorder(emitter) as recorder, pytest.raises(BTFError, match="no type infor"):
            recorder.of("event")

    def test_a_snapshot_within_a_snapshot_is_refused(self, emitter: Emitter, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a signal handler would take it, which must not wait for what it interrupted."""
        refused = []

        def in_handler(*arguments: object) -> None:
            for use in (recorder.snapshot, recorder.pause):
                try:
                    use()
                except RuntimeError as error:
                    refused.append(str(error))

        with FlightRecorder(emitter, decode=number) as recorder:
            emitter.run(2)
            monkeypatch.setattr(flight, "perf_pause_output", in_handler)
            thread = threading.Thread(target=recorder.snapshot, daemon=True)
            thread.start()
            thread.join(10)
            assert not thread.is_alive()
            assert len(refused) >= 4 and "further up the stack" in refused[0]
            monkeypatch.undo()
            emitter.run(1)
            assert recorder.snapshot() == [2]

    def test_an_interrupt_never_ends_the_recording(self, emitter: Emitter) -> None:
        with FlightRecorder(emitter, page_count=1, decode=number) as recorder:
            for places in interrupt_everywhere(recorder.snapshot, flight, waiting):  # noqa: B007
                emitter.run(2)
                assert recorder.snapshot()[-2:] == [emitter.produced - 2, emitter.produced - 1]
                assert emitter.dropped == 0
            assert places > 10
            assert all(unlocked(recorder) for _ in every_place(lambda: None, recorder.snapshot))

    def test_pausing(self, emitter: Emitter) -> None:
        with FlightRecorder(emitter, decode=number) as recorder:
            recorder.pause()
            emitter.run(3)
            assert recorder.snapshot() == []
            emitter.run(3)  # the snapshot did not resume
            assert recorder.snapshot() == []
            recorder.resume()
            count = emitter.produced
            emitter.run(3)
            assert recorder.snapshot() == list(range(count, count + 3))

    def test_pausing_a_perf_buffer_counts_as_loss(self, emitter: Emitter) -> None:
        with PerfBuffer(emitter, decode=number) as buffer:
            emitter.run(2)
            buffer.pause()
            emitter.run(5)
            assert emitter.dropped == 5
            buffer.resume()
            emitter.run(1)
            assert buffer.consume() == [0, 1, 2]
            assert buffer.lost == 5
        with pytest.raises(ClosedError):
            buffer.pause()

    def test_closing(self, emitter: Emitter) -> None:
        before = resources()
        with FlightRecorder(emitter, decode=number) as recorder:
            emitter.run(2)
            thread = threading.Thread(target=recorder.close)
            thread.start()
            thread.join()
        for use in (recorder.snapshot, recorder.pause, recorder.resume):
            with pytest.raises(ClosedError):
                use()
        assert "closed" in repr(recorder)
        assert resources() == before

    def test_a_child_may_only_close_it(self, emitter: Emitter) -> None:
        with FlightRecorder(emitter, decode=number) as recorder:
            emitter.run(2)

            def child() -> bool:
                try:
                    recorder.snapshot()
                except RuntimeError:
                    recorder.close()
                    return True
                return False

            assert in_child(child) == 0
            emitter.run(1)
            assert recorder.snapshot() == [0, 1, 2]

    def test_refusals(self, emitter: Emitter) -> None:
        before = resources()
        with pytest.raises(ValueError, match="power of two"):
            FlightRecorder(emitter, page_count=3)
        with uniform_ring() as ring, pytest.raises(ValueError, match="is not a perf event array"):
            FlightRecorder(ring)
        assert resources() == before
