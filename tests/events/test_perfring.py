"""Reading one CPU's perf buffer pages, in ordinary memory."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import PerfPages
from thrift import few

from pybpf.constants import PERF_RECORD_COMM, PERF_RECORD_LOST, PERF_RECORD_SAMPLE
from pybpf.events.perfring import PerfRing


def padded(payload: bytes) -> bytes:
    return payload + b"\xee" * (-(len(payload) + 4) % 8)


def test_an_empty_buffer_gives_nothing() -> None:
    pages = PerfPages()
    assert pages.ring.scan() is None
    assert pages.ring.available == 0


@pytest.mark.parametrize("sizes", [[4], [0], [12, 12, 12], [4, 100, 20, 20, 7, 1], [28] * 50])
def test_samples_come_in_order_with_the_kernels_padding(sizes: list[int]) -> None:
    pages = PerfPages()
    sent = [bytes([n + 1]) * size for n, size in enumerate(sizes)]
    assert all(pages.put(payload) for payload in sent)
    assert pages.read() == [padded(payload) for payload in sent]
    assert pages.words[1] == pages.words[0]
    assert pages.ring.records == len(sizes)
    assert pages.ring.payload == sum(len(padded(payload)) for payload in sent)


def test_equal_samples_are_one_table() -> None:
    pages = PerfPages()
    for n in range(20):
        pages.put(struct.pack("IQQ", n, n, n)[:20])
    batch = pages.ring.scan()
    assert batch is not None
    assert (len(batch), batch.stride, len(batch.data)) == (20, 32, 20 * 32)
    assert [row[0] for row in struct.iter_unpack("I28x", batch.data)] == list(range(20))


@pytest.mark.parametrize("start", [0, 8, 4096 - 8, 4096 - 16, 4096 - 24, 2**40 - 8])
def test_records_that_wrap_are_joined(start: int) -> None:
    pages = PerfPages(start=start)
    sent = [random.Random(n).randbytes(size) for n, size in enumerate([60, 4, 1000, 12, 12, 500])]
    for payload in sent:
        assert pages.put(payload)
    assert pages.read() == [padded(payload) for payload in sent]


def test_many_times_around() -> None:
    pages = PerfPages(start=4000)
    sent = received = 0
    while sent < 4000:
        while sent < 4000 and pages.put(struct.pack("I", sent) * (1 + sent % 3 if sent % 500 < 250 else 5)):
            sent += 1
        pages.dropped = 0
        for record in pages.read():
            assert struct.unpack_from("I", record)[0] == received
            received += 1
    assert received == sent


def test_losses_are_counted() -> None:
    pages = PerfPages()
    produced = delivered = 0
    for _ in range(10):
        for _ in range(300):
            pages.put(struct.pack("I", produced))
            produced += 1
        assert pages.dropped > 0
        delivered += len(pages.read())
    pages.put(struct.pack("I", produced))
    produced += 1
    delivered += len(pages.read())
    assert pages.ring.lost > 0
    assert delivered + pages.ring.lost == produced


def test_other_records_are_ignored() -> None:
    pages = PerfPages()
    pages.record(PERF_RECORD_COMM, bytes(32))
    pages.put(b"one.")
    pages.record(77, b"")
    pages.record(PERF_RECORD_LOST, struct.pack("QQ", 1, 5))
    pages.put(b"two.")
    pages.record(77, b"")
    assert pages.read() == [b"one.", b"two."]
    assert pages.ring.lost == 5
    assert pages.words[1] == pages.words[0]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_limit_leaves_the_rest(limit: int) -> None:
    pages = PerfPages()
    for n in range(12):
        pages.put(bytes([n]) * 4)
    received = []
    while (batch := pages.ring.scan(limit)) is not None:
        assert len(batch) <= limit
        batch.commit()
        received += batch
    assert received == [bytes([n]) * 4 for n in range(12)]


def test_a_large_buffer_is_read_in_bounded_pieces() -> None:
    pages = PerfPages(1 << 22)
    sent = 0
    while pages.put(struct.pack("I", sent) * 8001):
        sent += 1
    extents = []
    received = 0
    while (batch := pages.ring.scan()) is not None:
        extents.append(batch.extent)
        batch.commit()
        for record in batch:
            assert struct.unpack_from("I", record)[0] == received
            received += 1
    assert received == sent
    assert max(extents) <= 1 << 18 and len(extents) >= 16


def test_what_makes_no_sense_is_refused() -> None:
    pages = PerfPages()
    pages.words[0] = 5000
    with pytest.raises(RuntimeError, match="CPU 3"):
        pages.ring.scan()
    for size in (0, 4, 12, 400):
        pages = PerfPages()
        pages.put(b"1234")
        struct.pack_into("IHH", pages.data, 0, PERF_RECORD_SAMPLE, 0, size)
        with pytest.raises(RuntimeError, match="do not fit its records"):
            pages.ring.scan()
    with pytest.raises(ValueError, match="data area"):
        PerfRing(memoryview(bytearray(4096)), memoryview(bytearray(1000)), 0)


def test_committing_twice_counts_once() -> None:
    pages = PerfPages()
    pages.put(b"1234")
    first = pages.ring.scan()
    assert first is not None and pages.words[1] == 0
    first.commit()
    first.commit()
    pages.put(b"5678")
    assert pages.read() == [b"5678"]
    first.commit()
    assert pages.words[1] == pages.words[0] and pages.ring.records == 2


def test_release_lets_go_of_the_memory() -> None:
    pages = PerfPages()
    pages.put(b"1234")
    pages.read()
    pages.ring.release()
    pages.words.release()
    for area in (pages.control, pages.data):
        area.append(0)  # BufferError while a view of it is left


@settings(max_examples=few(200), deadline=None)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 200)),
            st.tuples(st.just("equal"), st.integers(0, 30)),
            st.tuples(st.just("other"), st.integers(0, 4)),
            st.tuples(st.just("read"), st.integers(1, 40)),
        ),
        max_size=80,
    ),
    start=st.sampled_from([0, 1000, 1016, 2**33]),
)
def test_any_history_is_read_exactly_once_in_order(actions: list[tuple[str, int]], start: int) -> None:
    pages = PerfPages(1024, start=start)
    expected: list[bytes] = []
    received: list[bytes] = []
    dropped = serial = 0
    for action, number in actions:
        if action == "read":
            received += pages.read(number)
        elif action == "other":
            pages.record(60 + number, bytes(8 * number))
        else:
            for _ in range(number if action == "equal" else 1):
                serial += 1
                payload = random.Random(serial).randbytes(12 if action == "equal" else number)
                if pages.put(payload):
                    expected.append(padded(payload))
                else:
                    dropped += 1
    received += pages.read()
    assert received == expected
    assert pages.ring.lost + pages.dropped == dropped


def test_samples_from_either_mode_of_the_cpu_are_one_table() -> None:
    """The u16 in the middle of a header is PERF_RECORD_MISC_KERNEL or _USER."""
    pages = PerfPages(1 << 14)
    for number in range(100):
        assert pages.put(struct.pack("<I", number).ljust(20, b"x"))
        struct.pack_into("H", pages.data, 32 * number + 4, 1 + number % 2)
    batch = pages.ring.scan()
    assert batch is not None
    assert batch.stride == 32 and len(batch) == 100
    assert [one[:4] for one in batch] == [struct.pack("<I", number) for number in range(100)]


@pytest.mark.parametrize("start", [0, 4096 - 8 * 3, 4096 - 256])
def test_a_run_goes_on_behind_the_end_of_the_buffer(start: int) -> None:
    pages = PerfPages(4096, start=start)
    count = 0
    while pages.put(struct.pack("<I", count).ljust(20, b"x")):
        count += 1
    seen: list[bytes] = []
    shapes = []
    while (batch := pages.ring.scan(copy=False)) is not None:
        seen += batch
        shapes.append((len(batch), isinstance(batch.data, memoryview)))
        batch.commit()
    assert [one[:4] for one in seen] == [struct.pack("<I", number) for number in range(count)]
    assert sum(size for size, borrowed in shapes if not borrowed) <= 16, "the run was walked record by record"
