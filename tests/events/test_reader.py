"""Many sources behind one wait."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator

import pytest
from emitters import SIZE, Emitter, output_ring, perf, uniform_ring
from test_ringbuf import event_btf, in_child, number, resources

from pybpf.btf.codec import codec
from pybpf.errors import ClosedError
from pybpf.events import EventReader, PerfBuffer, RingBuffer
from pybpf.maps import RingBufferMap

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


@pytest.fixture
def emitters(one_cpu: int) -> Iterator[dict[str, Emitter]]:
    """On one CPU: between the perf buffers of several there is no order."""
    with uniform_ring() as one, output_ring() as two, perf(payload=12) as three:
        two.control[SIZE] = 8
        yield {"one": one, "two": two, "perf": three}


@pytest.fixture
def reader(emitters: dict[str, Emitter]) -> Iterator[EventReader]:
    with EventReader(
        {
            "one": RingBuffer(emitters["one"], decode=number),
            "two": RingBuffer(emitters["two"], decode=number),
            "perf": PerfBuffer(emitters["perf"], decode=number),
        }
    ) as reader:
        yield reader


def test_each_value_comes_with_its_source(emitters: dict[str, Emitter], reader: EventReader) -> None:
    assert reader.poll(0) == []
    for count, emitter in enumerate(emitters.values(), 1):
        emitter.run(count)
    assert sorted(reader.poll(1)) == [("one", 0), ("perf", 0), ("perf", 1), ("perf", 2), ("two", 0), ("two", 1)]
    assert reader.lost == {"one": None, "two": None, "perf": 0}
    assert "RingBuffer 'events'" in repr(reader)


def test_any_source_wakes_it(emitters: dict[str, Emitter], reader: EventReader) -> None:
    for serial in range(10):
        for name, emitter in emitters.items():
            timer = threading.Timer(0.002, emitter.run)
            timer.start()
            assert reader.poll(10) == [(name, serial)]
            timer.join()


def test_a_busy_source_does_not_starve_the_others(emitters: dict[str, Emitter], reader: EventReader) -> None:
    for emitter in emitters.values():
        emitter.run(500)
    received = []
    while values := reader.consume(100):
        assert len(values) <= 100
        received += values
    assert {name for name, _ in received[:300]} == set(emitters)
    for name in emitters:
        assert [serial for source, serial in received if source == name] == list(range(500))


def test_a_loop_over_all(emitters: dict[str, Emitter], reader: EventReader) -> None:
    for emitter in emitters.values():
        emitter.run(1000)
    received = []
    for pair in reader:
        received.append(pair)
        if len(received) == 1234:
            break
    received += reader.consume()
    for name in emitters:
        assert [serial for source, serial in received if source == name] == list(range(1000))


def test_an_error_names_its_source_and_loses_nothing(emitters: dict[str, Emitter]) -> None:
    btf = event_btf()
    with EventReader(
        {
            "one": RingBuffer(emitters["one"], decode=number),
            "two": RingBuffer(emitters["two"], decode=codec(btf, btf.find("event").id)),
        }
    ) as reader:
        emitters["two"].run(2)
        emitters["one"].run(3)
        received: list[object] = []
        notes: list[str] = []
        for _ in range(6):
            try:
                received += reader.poll(0)
            except ValueError as error:
                notes += error.__notes__
        assert received == [("one", 0), ("one", 1), ("one", 2)]
        assert notes == ["This was an event of 'two'."] * 2


def test_a_source_that_closes_is_left_out(emitters: dict[str, Emitter], reader: EventReader) -> None:
    emitters["one"].run()
    reader.sources["one"].close()
    emitters["two"].run()
    assert reader.poll(1) == [("two", 0)]
    start = time.process_time()
    assert reader.poll(0.2) == []
    assert time.process_time() - start < 0.1, "what is left in the closed one's ring does not wake us"
    reader.sources["two"].close()
    reader.sources["perf"].close()
    with pytest.raises(ClosedError):
        reader.poll(1)
    assert reader.closed and not reader._unreleased


def test_batches_come_with_their_source(emitters: dict[str, Emitter], reader: EventReader) -> None:
    assert reader.read_batch() is None
    assert reader.read_batch(timeout=0.01) is None
    for emitter in emitters.values():
        emitter.run(100)
    received: dict[str, list[int]] = {}
    names = []
    while pair := reader.read_batch(40):
        name, batch = pair
        assert len(batch) <= 40
        names.append(name)
        received.setdefault(name, []).extend(map(number, batch))
    assert received == {name: list(range(100)) for name in emitters}
    assert set(names[:3]) == set(emitters)
    timer = threading.Timer(0.02, emitters["two"].run)
    timer.start()
    name, batch = reader.read_batch(timeout=10) or ("", ())
    assert (name, [number(record) for record in batch]) == ("two", [100])
    timer.join()


def test_a_source_that_comes_later(emitters: dict[str, Emitter]) -> None:
    with EventReader({"one": RingBuffer(emitters["one"], decode=number)}) as reader:
        emitters["two"].run(2)
        timer = threading.Timer(0.02, lambda: reader.add("two", RingBuffer(emitters["two"], decode=number)))
        timer.start()
        assert reader.poll(10) == [("two", 0), ("two", 1)]
        timer.join()
        emitters["one"].run()
        assert reader.poll(1) == [("one", 0)]
        assert reader.lost == {"one": None, "two": None}
        with RingBuffer(emitters["one"]) as other, pytest.raises(ValueError, match="a source 'two' already"):
            reader.add("two", other)


def test_of_a_map_it_opens_a_reader() -> None:
    with RingBufferMap(max_entries=4096, name="events") as events:
        before = resources()
        with EventReader({"events": events}) as reader:
            assert reader.poll(0) == []
            assert reader.sources["events"].name == "events"  # type: ignore[attr-defined]
        assert events.consume() == []
        events._events.close()
        with pytest.raises(TypeError, match="'other': an event reader takes ring and perf buffers, not list"):
            EventReader({"events": events, "other": []})  # type: ignore[dict-item]
        assert resources() == before


def test_what_is_no_source_is_refused_and_stays_open(emitters: dict[str, Emitter]) -> None:
    with RingBuffer(emitters["one"]) as ring, RingBuffer(emitters["two"]).in_order(lambda value: value) as ordered:
        with pytest.raises(TypeError, match="takes a dict of sources by name, not list"):
            EventReader([ring])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not OrderedReader"):
            EventReader({"one": ring, "two": ordered})  # type: ignore[dict-item]
        assert ring.consume() == ordered.consume() == []


def test_closing_closes_all(reader: EventReader) -> None:
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(list(reader)))
    waiting.start()
    time.sleep(0.03)
    reader.close()
    waiting.join(10)
    assert ended == [[]]
    assert all(source.closed for source in reader.sources.values())
    assert "closed" in repr(reader)
    for use in (reader.poll, reader.fileno):
        with pytest.raises(ClosedError):
            use()


def test_a_foreign_loop_watches_the_descriptor(emitters: dict[str, Emitter], reader: EventReader) -> None:
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    assert reader.consume() == [] and poll.poll(0) == []
    for name, emitter in emitters.items():
        emitter.run()
        assert poll.poll(1) != []
        assert reader.consume() == [(name, 0)]
    poll.close()


def test_a_child_may_only_close_it(emitters: dict[str, Emitter], reader: EventReader) -> None:
    def close() -> bool:
        try:
            reader.poll(0)
        except RuntimeError:
            reader.close()
            return all(source.closed for source in reader.sources.values())
        return False

    assert in_child(close) == 0
    for emitter in emitters.values():
        emitter.run()
    assert len(reader.poll(1)) == 3


def test_nothing_is_left_behind(emitters: dict[str, Emitter]) -> None:
    with pytest.raises(ValueError, match="at least one source"):
        EventReader({})
    EventReader({"one": RingBuffer(emitters["one"])}).close()
    before = resources()
    for _ in range(50):
        with EventReader({name: RingBuffer(emitters[name]) for name in ("one", "two")}) as reader:
            emitters["one"].run()
            assert len(reader.poll(1)) == 1
    with RingBuffer(emitters["one"]) as ring:
        closed = RingBuffer(emitters["two"])
        closed.close()
        with pytest.raises(ClosedError):
            EventReader({"one": ring, "two": closed})
    assert resources() == before
