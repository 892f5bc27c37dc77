"""Reading a BPF ring buffer's pages, in ordinary memory."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import BpfRing
from thrift import few

from pybpf.events.ring import BATCH_RECORDS, BUSY, DISCARD, Ring


def test_an_empty_ring_gives_nothing() -> None:
    memory = BpfRing()
    assert memory.ring.scan() is None
    assert memory.ring.available == 0
    assert memory.ring.size == 4096


def test_records_come_in_order_with_their_exact_size() -> None:
    memory = BpfRing()
    sent = [bytes([n]) * n for n in (1, 0, 8, 7, 9, 64, 3)]
    assert all(memory.put(payload) for payload in sent)
    assert memory.read() == sent
    assert memory.consumed == memory.positions[0] == memory.ring.consumer_pos == memory.ring.producer_pos
    assert (memory.ring.records, memory.ring.payload, memory.ring.discarded) == (7, sum(map(len, sent)), 0)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 63, 64, 248])
def test_equal_records_are_one_table(size: int) -> None:
    memory = BpfRing()
    sent = [bytes([n]) * size for n in range(10)]
    assert all(memory.put(payload) for payload in sent)
    batch = memory.ring.scan()
    assert batch is not None
    assert batch.stride == (size + 15) // 8 * 8
    assert len(batch.data) == 10 * batch.stride
    assert list(batch) == sent == [batch[index] for index in range(10)] == [bytes(v) for v in batch.views()]
    assert batch.nbytes == 10 * size
    assert "10 records" in repr(batch)


def test_scanning_moves_nothing_and_committing_twice_counts_once() -> None:
    memory = BpfRing()
    memory.put(b"first")
    memory.put(b"second")
    for _ in range(2):
        batch = memory.ring.scan(1)
        assert batch is not None and list(batch) == [b"first"]
        assert memory.consumed == 0
    batch.commit()
    batch.commit()
    assert memory.consumed == 16 and memory.ring.records == 1
    assert memory.read() == [b"second"]
    batch.commit()
    assert memory.consumed == 32, "an old batch must not move the position back"


def test_a_busy_record_stops_the_reader() -> None:
    memory = BpfRing()
    memory.put(b"before")
    busy = memory.reserve(b"reserved")
    memory.put(b"after")
    assert busy is not None
    assert memory.read() == [b"before"]
    assert memory.ring.scan() is None
    assert memory.ring.available == 32
    memory.submit(busy)
    assert memory.read() == [b"reserved", b"after"]


def test_a_busy_record_inside_a_run_of_equal_ones_stops_it() -> None:
    memory = BpfRing()
    positions = [memory.reserve(struct.pack("Q", n)) for n in range(40)]
    for position in positions[:20] + positions[21:]:
        assert position is not None
        memory.submit(position)
    assert memory.read() == [struct.pack("Q", n) for n in range(20)]
    memory.submit(positions[20] or 0)
    assert memory.read() == [struct.pack("Q", n) for n in range(20, 40)]


@pytest.mark.parametrize("count", [1, 30])
def test_discarded_records_are_skipped_and_counted(count: int) -> None:
    memory = BpfRing()
    for n in range(count):
        memory.put(bytes([n]))
        memory.discard(bytes([n, n]))
    memory.discard(b"last")
    assert memory.read() == [bytes([n]) for n in range(count)]
    assert memory.ring.discarded == count + 1
    assert memory.consumed == memory.positions[0]


def test_a_ring_of_discarded_records_only_is_emptied() -> None:
    memory = BpfRing()
    for _ in range(20):
        memory.discard(b"12345678")
    assert memory.read() == []
    assert memory.consumed == memory.positions[0] and memory.ring.discarded == 20


def test_the_ring_can_be_filled_but_for_eight_bytes() -> None:
    memory = BpfRing(4096)
    sent = []
    while memory.put(struct.pack("Q", len(sent))):
        sent.append(struct.pack("Q", len(sent)))
    assert len(sent) == 255
    assert memory.read() == sent
    assert memory.put(bytes(4080))
    assert memory.read() == [bytes(4080)]


@pytest.mark.parametrize("size", [0, 8, 24, 100])
def test_many_times_around(size: int) -> None:
    memory = BpfRing(4096)
    sent = received = 0
    tail = bytes(max(size - 4, 0))
    while sent < 5000:
        while sent < 5000 and memory.put(struct.pack("I", sent)[:size] + tail):
            sent += 1
        for record in memory.read():
            assert record == struct.pack("I", received)[:size] + tail
            received += 1
    assert received == sent
    assert memory.positions[0] > 8 * memory.size or not size


@pytest.mark.parametrize(("word", "start"), [("I", 2**32 - 4096), ("I", 2**32 - 64), ("Q", 2**64 - 256)])
def test_positions_wrap_around(word: str, start: int) -> None:
    memory = BpfRing(4096, word=word, start=start)
    for n in range(200):
        assert memory.put(struct.pack("I", n) * 2)
        memory.discard(b"x")
        assert memory.read() == [struct.pack("I", n) * 2]
    assert memory.consumed == memory.positions[0] < start


def test_large_and_many_records_come_in_bounded_batches() -> None:
    memory = BpfRing(1 << 22)
    for _ in range(4000):
        memory.put(bytes(16))
    sizes = []
    while (batch := memory.ring.scan()) is not None:
        sizes.append(len(batch))
        batch.commit()
    assert sizes == [BATCH_RECORDS, 4000 - BATCH_RECORDS]
    for _ in range(6):
        memory.put(bytes(60_000))
    extents = []
    while (batch := memory.ring.scan()) is not None:
        extents.append(batch.extent)
        batch.commit()
    assert extents == [120_016] * 3, "a batch ends with the record that passes 112 KiB"
    memory.put(bytes(10))
    memory.put(bytes(3_000_000))
    assert [len(record) for record in memory.read()] == [10, 3_000_000]


def test_the_copy_survives_the_reuse_of_the_space() -> None:
    memory = BpfRing(4096)
    memory.put(b"A" * 100)
    memory.put(b"B" * 60)
    batch = memory.ring.scan()
    assert batch is not None
    batch.commit()
    memory.data[:] = b"\xff" * len(memory.data)
    assert list(batch) == [b"A" * 100, b"B" * 60]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_limit_leaves_the_rest_in_the_ring(limit: int) -> None:
    memory = BpfRing()
    sent = [bytes([n % 7]) * (n % 5) for n in range(20)]
    for payload in sent:
        memory.put(payload)
    received = []
    while (batch := memory.ring.scan(limit)) is not None:
        assert len(batch) <= limit
        batch.commit()
        received += batch
    assert received == sent


def test_positions_that_make_no_sense_are_refused() -> None:
    memory = BpfRing()
    memory.positions[0] = 5000
    with pytest.raises(RuntimeError, match="positions"):
        memory.ring.scan()
    memory = BpfRing()
    memory.put(b"12345678")
    memory.put(b"1")
    struct.pack_into("I", memory.data, 16, 500)
    with pytest.raises(RuntimeError, match="does something else read or write it"):
        memory.read()


@pytest.mark.parametrize("length", [0, 8, 4096, 24, 6144 * 2])
def test_a_data_area_that_cannot_be_one_is_refused(length: int) -> None:
    if length == 4096:
        Ring(memoryview(bytearray(64)), memoryview(bytearray(64)), memoryview(bytearray(length)))
        return
    with pytest.raises(ValueError, match="data area"):
        Ring(memoryview(bytearray(64)), memoryview(bytearray(64)), memoryview(bytearray(length)))


def test_release_lets_go_of_the_memory() -> None:
    memory = BpfRing()
    memory.put(b"1")
    memory.read()
    memory.ring.release()
    memory.positions.release()
    for area in (memory.consumer, memory.data):
        area.append(0)  # BufferError while a view of it is left
    with pytest.raises(ValueError, match="released"):
        memory.ring.scan()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "discard", "reserve"]), st.integers(0, 120)),
        st.tuples(st.just("equal"), st.integers(0, 24)),
        st.tuples(st.just("submit"), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(1, 30)),
    ),
    max_size=120,
)


@settings(max_examples=few(200), deadline=None)
@given(actions=ACTIONS, start=st.sampled_from([0, 8, 1000, 4088, 2**32 - 8, 2**64 - 800]))
def test_any_history_is_read_exactly_once_in_order(actions: list[tuple[str, int]], start: int) -> None:
    memory = BpfRing(1024, start=start)
    expected: list[list[object]] = []  # payload, state
    received: list[bytes] = []
    serial = 0
    for action, number in actions:
        if action == "read":
            received += memory.read(number)
        elif action == "submit":
            busy = [entry for entry in expected if entry[1] == "busy"][number : number + 1]
            for entry in busy:
                memory.submit(entry[2])  # type: ignore[arg-type]
                entry[1] = "there"
        else:
            for _ in range(number if action == "equal" else 1):
                serial += 1
                size = 8 if action == "equal" else number
                payload = random.Random(serial).randbytes(size)
                position = memory.reserve(payload)
                if position is None:
                    break
                state = {"put": "there", "equal": "there", "discard": "gone", "reserve": "busy"}[action]
                if state != "busy":
                    memory.submit(position, DISCARD if state == "gone" else 0)
                expected.append([payload, state, position])
    for entry in expected:
        if entry[1] == "busy":
            memory.submit(entry[2])  # type: ignore[arg-type]
    received += memory.read()
    assert received == [entry[0] for entry in expected if entry[1] != "gone"]
    assert memory.ring.discarded == sum(entry[1] == "gone" for entry in expected)
    assert memory.consumed == memory.positions[0]


# Overwrite mode.


def test_overwriting_ring_that_is_not_full_gives_everything() -> None:
    memory = BpfRing(4096, overwrite=True)
    sent = [bytes([n]) * (n % 40) for n in range(50)]
    for payload in sent[:25]:
        memory.put(payload)
    memory.discard(b"no")
    assert memory.read() == sent[:25]
    for payload in sent[25:]:
        memory.put(payload)
    assert memory.read(3) == sent[25:28]
    assert memory.read() == sent[28:]
    assert memory.ring.overwritten == 0 and memory.ring.discarded == 1
    assert memory.consumed == memory.positions[0]


@pytest.mark.parametrize(("word", "start"), [("Q", 0), ("I", 2**32 - 1024), ("Q", 2**64 - 1024)])
def test_overwriting_ring_keeps_the_newest(word: str, start: int) -> None:
    memory = BpfRing(1024, overwrite=True, word=word, start=start)
    for n in range(500):
        assert memory.put(struct.pack("Q", n))
    records = [struct.unpack("Q", record)[0] for record in memory.read()]
    assert records == list(range(500 - len(records), 500))
    assert len(records) == 63
    assert memory.ring.overwritten == (500 - 63) * 16
    assert memory.consumed == memory.positions[0]
    assert memory.ring.available == 0


def test_overwriting_ring_waits_for_a_busy_record() -> None:
    memory = BpfRing(1024, overwrite=True)
    memory.put(b"a")
    busy = memory.reserve(b"b")
    memory.put(b"c")
    assert memory.read() == [b"a"]
    memory.submit(busy or 0)
    assert memory.read() == [b"b", b"c"]


@pytest.mark.parametrize("step", range(1, 8))
@pytest.mark.parametrize("burst", [1, 10, 63, 64, 200])
def test_what_is_overwritten_during_the_copy_is_thrown_away(
    monkeypatch: pytest.MonkeyPatch, step: int, burst: int
) -> None:
    """Between any two steps of the reader, the producer goes on."""
    memory = BpfRing(1024, overwrite=True)
    for n in range(100):
        memory.put(struct.pack("Q", n))
    serial = 100
    calls = 0

    def interrupt() -> None:
        nonlocal serial, calls
        calls += 1
        if calls == step:
            for _ in range(burst):
                memory.put(struct.pack("Q", serial))
                serial += 1

    monkeypatch.setattr("pybpf.events.ring.barrier", interrupt)
    records = [struct.unpack("Q", record)[0] for record in memory.read()]
    assert calls >= step
    assert records[-1] == serial - 1
    assert records == sorted(set(records)), "nothing twice, nothing out of order, no garbage"
    assert all(0 <= n < serial for n in records)
    assert memory.ring.overwritten == (serial - len(records)) * 16
    assert memory.ring.records == len(records)


def test_flag_bits_are_those_of_the_header() -> None:
    assert (BUSY, DISCARD) == (1 << 31, 1 << 30)
