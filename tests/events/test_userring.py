"""Writing to user ring buffers."""

from __future__ import annotations

import os
import select
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from emitters import COUNT, LAST, SUM, Drain, ring_map
from interrupts import interrupt_everywhere
from object_builder import built_path
from test_interrupts import every_place, unlocked
from test_ringbuf import Fault, in_child, resources

import pybpf
from pybpf import syscall
from pybpf.errors import BPFError, ClosedError
from pybpf.events import UserRingBuffer, userring, waiting
from pybpf.events.ring import BUSY, DISCARD
from pybpf.events.userring import ProducerRing

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


# Pure.


class Memory:
    """The pages of a user ring buffer, read as the kernel reads them (bpf_user_ringbuf_drain)."""

    def __init__(self, size: int = 1024, start: int = 0, word: str = "Q") -> None:
        self.size = size
        self.consumer, self.producer, self.data = bytearray(4096), bytearray(4096), bytearray(2 * size)
        self.consumed = memoryview(self.consumer).cast(word)
        self.produced = memoryview(self.producer).cast(word)
        self.consumed[0] = self.produced[0] = start
        self.wrap = (1 << 8 * self.consumed.itemsize) - 1
        self.ring = ProducerRing(memoryview(self.consumer), memoryview(self.producer), memoryview(self.data), word=word)

    def reserve(self, size: int) -> tuple[int, memoryview] | None:
        place = self.ring.prepare(size)
        if place is not None:
            self.ring.publish(place[0], size, BUSY)
            assert struct.unpack_from("II", self.data, place[0] % self.size) == (size | BUSY, 0)
        return place

    def take(self) -> bytes | None:
        if (self.produced[0] - self.consumed[0]) & self.wrap == 0:
            return None
        position = self.consumed[0]
        word, pad = struct.unpack("II", self.data[position % self.size : position % self.size + 8])
        assert pad == 0
        if word & BUSY:
            return None
        payload = bytes(self.data[position % self.size + 8 : position % self.size + 8 + (word & ~DISCARD)])
        self.consumed[0] = (position + ((len(payload) + 15) & ~7)) & self.wrap
        return b"(discarded)" if word & DISCARD else payload


@pytest.mark.parametrize(("word", "start"), [("Q", 0), ("I", 2**32 - 512), ("Q", 2**64 - 64)])
def test_samples_are_laid_out_as_the_kernel_reads_them(word: str, start: int) -> None:
    memory = Memory(start=start, word=word)
    for n in range(300):
        sample = bytes([n % 256]) * (n % 50)
        place = memory.reserve(len(sample))
        assert place is not None
        assert memory.take() is None, "not before it is submitted"
        place[1][:] = sample
        memory.ring.finish(place[0], discard=n % 7 == 3)
        assert memory.take() == (b"(discarded)" if n % 7 == 3 else sample)
        assert memory.ring.free == memory.size


def test_a_ring_can_be_filled_to_the_last_byte() -> None:
    memory = Memory()
    places = []
    while (place := memory.reserve(24)) is not None:
        places.append(place)
    assert len(places) == 32 and memory.ring.free == 0
    memory.ring.finish(places[1][0], discard=False)
    assert memory.take() is None, "in the order of reservation"
    memory.ring.finish(places[0][0], discard=False)
    assert memory.take() == memory.take() == bytes(24)
    assert memory.take() is None and memory.ring.free == 64


def test_a_sample_is_finished_once() -> None:
    memory = Memory()
    first, second = memory.reserve(8), memory.reserve(8)
    assert first is not None and second is not None
    memory.ring.finish(first[0], discard=False)
    memory.ring.finish(first[0], discard=True)
    assert memory.take() == bytes(8)
    memory.ring.finish(second[0], discard=True)
    assert memory.take() == b"(discarded)"
    for _ in range(62):
        assert memory.reserve(8) is not None
        memory.ring.finish(memory.produced[0] - 16, discard=False)
        assert memory.take() == bytes(8)
    last = memory.reserve(8)
    assert last is not None and last[0] == first[0] + memory.size
    memory.ring.finish(first[0], discard=True)  # another sample has its place now
    memory.ring.finish(last[0], discard=False)
    assert memory.take() == bytes(8)


@pytest.mark.parametrize("size", [-1, 1017, 1024, DISCARD, BUSY, 1 << 32])
def test_sizes_that_no_sample_can_have(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Memory().reserve(size)
    assert Memory().reserve(1016) is not None


# Live.


@pytest.fixture
def drain() -> Iterator[Drain]:
    with Drain() as drain:
        yield drain


@pytest.fixture
def ring(drain: Drain) -> Iterator[UserRingBuffer]:
    with UserRingBuffer(drain.map) as ring:
        yield ring


pytest_live = [pytest.mark.kernel, needs_root]


@pytest.mark.kernel
@needs_root
def test_samples_reach_the_program(drain: Drain, ring: UserRingBuffer) -> None:
    total = 0
    for n in range(5000):
        ring.write(struct.pack("QQ", n, 7), 0)
        total += n
        if n % 100 == 99:
            assert drain.run() == 100
    assert (drain.control[COUNT], drain.control[LAST], drain.control[SUM]) == (5000, 4999, total)
    assert ring.free == ring.size == 4096


@pytest.mark.kernel
@needs_root
def test_reservations(drain: Drain, ring: UserRingBuffer) -> None:
    first, second, third = (ring.reserve(8) for _ in range(3))
    for n, reservation in enumerate((first, second, third), 1):
        reservation.data[:] = struct.pack("Q", 10**n)
    second.submit()
    third.discard()
    assert drain.run() == 0
    first.submit()
    assert drain.run() == 2
    assert drain.control[SUM] == 110
    for reservation in (first, third):
        with pytest.raises(ValueError, match="already"):
            reservation.submit()
        with pytest.raises(ValueError, match="released"):
            reservation.data[0] = 1
    with ring.reserve(8) as data:
        data[:] = struct.pack("Q", 1000)
    with pytest.raises(KeyError), ring.reserve(8) as data:
        raise KeyError
    with ring.reserve(8) as data:
        data[:] = struct.pack("Q", 5)
    assert drain.run() == 2
    assert drain.control[SUM] == 1115 and drain.control[COUNT] == 4


@pytest.mark.kernel
@needs_root
def test_a_reservation_that_nobody_holds_is_discarded(drain: Drain, ring: UserRingBuffer) -> None:
    for _ in range(3):
        ring.reserve(8)
    ring.write(struct.pack("Q", 4))
    assert drain.run() == 1 and drain.control[LAST] == 4
    assert ring.free == ring.size


@pytest.mark.kernel
@needs_root
def test_an_array_over_a_reservation(drain: Drain) -> None:
    numpy = pytest.importorskip("numpy")
    with UserRingBuffer(drain.map) as ring:
        with ring.reserve(8) as data:
            array = numpy.frombuffer(data, dtype="u8")
            array[0] = 6
        assert drain.run() == 1 and drain.control[LAST] == 6
        kept = ring.reserve(8)
        array = numpy.frombuffer(kept.data, dtype="u8")
    assert ring.closed and array[0] == 0


@pytest.mark.kernel
@needs_root
@pytest.mark.parametrize("way", ["write", "reserve"])
def test_an_interrupt_never_blocks_the_ring(drain: Drain, way: str) -> None:
    """Wherever it comes: the sample is there or not, the next ones arrive, and closing discards none of them."""
    ring = UserRingBuffer(drain.map)

    def send() -> None:
        if way == "write":
            ring.write(struct.pack("Q", 1))
        else:
            with ring.reserve(8) as data:
                data[:] = struct.pack("Q", 1)

    arrived = []
    for _ in interrupt_everywhere(send, userring, waiting):
        assert drain.run() >= 0
        arrived.append(drain.control[COUNT])
        for _ in range(4096 // 16):
            ring.write(struct.pack("Q", 2), 0)
        ring.close()
        drain.run()
        assert drain.control[COUNT] == arrived[-1] + 256 and drain.control[LAST] == 2
        drain.control[COUNT] = 0
        ring = UserRingBuffer(drain.map)
    ring.close()
    assert set(arrived) == {1, 2} and arrived[-1] == 2
    assert len(arrived) > 10
    with UserRingBuffer(drain.map) as ring:
        assert all(drain.run() >= 0 and unlocked(ring) for _ in every_place(lambda: None, send))


@pytest.mark.kernel
@needs_root
def test_a_full_ring(drain: Drain, ring: UserRingBuffer) -> None:
    count = 0
    with pytest.raises(TimeoutError, match="no room for 8 bytes"):
        while True:
            ring.write(bytes(8))
            count += 1
    assert count == 4096 // 16
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        ring.reserve(100, 0.05)
    assert 0.05 <= time.monotonic() - start < 5
    with pytest.raises(ValueError, match="does not fit"):
        ring.reserve(4096)
    poll = select.poll()
    poll.register(ring, select.POLLOUT)
    assert poll.poll(0) == []
    assert drain.run() == count
    assert poll.poll(0) != []


@pytest.mark.kernel
@needs_root
@pytest.mark.parametrize("size", [8, 3000])
def test_waiting_for_room(drain: Drain, ring: UserRingBuffer, size: int) -> None:
    ring.write(bytes(3000))
    while size == 8 and ring.free >= 16:
        ring.write(bytes(8))
    timer = threading.Timer(0.05, drain.run)
    timer.start()
    with ring.reserve(size, 10) as data:
        data[:8] = struct.pack("Q", 77)
    timer.join()
    assert drain.run() >= 1
    assert drain.control[LAST] == 77


@pytest.mark.kernel
@needs_root
def test_threads_write_at_once(drain: Drain, ring: UserRingBuffer) -> None:
    def write() -> None:
        for n in range(500):
            ring.write(struct.pack("Q", n), 20)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 20
    while drain.control[COUNT] < 2000 and time.monotonic() < deadline:
        assert drain.run() >= 0
    for writer in writers:
        writer.join()
    assert drain.control[COUNT] == 2000
    assert drain.control[SUM] == 4 * sum(range(500))


@pytest.mark.kernel
@needs_root
def test_closing(drain: Drain) -> None:
    ring = UserRingBuffer(drain.map)
    ring.write(struct.pack("Q", 3))
    kept = ring.reserve(64)
    piece = kept.data[:4]
    ring.close()
    ring.close()
    assert ring.closed and "closed" in repr(ring)
    with pytest.raises(ValueError, match="already"):
        kept.submit()
    with pytest.raises(ValueError, match="released"):
        kept.data[0] = 1
    piece[:] = b"safe"
    piece.release()
    assert drain.run() == 1, "what was reserved is discarded, it does not block the program"
    for use in (ring.fileno, lambda: ring.reserve(8), lambda: ring.write(b"x"), lambda: ring.free):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.kernel
@needs_root
def test_closing_wakes_a_writer(drain: Drain) -> None:
    ring = UserRingBuffer(drain.map)
    ring.write(bytes(4088))
    raised = []

    def wait() -> None:
        try:
            ring.reserve(8, None)
        except ClosedError as error:
            raised.append(error)

    writer = threading.Thread(target=wait)
    writer.start()
    time.sleep(0.03)
    ring.close()
    writer.join(10)
    assert len(raised) == 1 and not ring._unreleased


@pytest.mark.kernel
@needs_root
def test_a_child_may_only_close_it(drain: Drain, ring: UserRingBuffer) -> None:
    kept = ring.reserve(8)

    def close() -> bool:
        try:
            ring.write(b"x")
        except RuntimeError:
            ring.close()
            return ring.closed
        return False

    assert in_child(close) == 0
    kept.data[:] = struct.pack("Q", 9)
    kept.submit()
    assert drain.run() == 1 and drain.control[LAST] == 9


@pytest.mark.kernel
@needs_root
def test_refusals_leave_nothing_behind(drain: Drain) -> None:
    UserRingBuffer(drain.map).close()
    before = resources()
    for at in range(3):
        fault = Fault(at)
        syscall.add_observer(fault)
        try:
            with pytest.raises(BPFError, match="ENOMEM"):
                UserRingBuffer(drain.map)
        finally:
            syscall.remove_observer(fault)
    with ring_map(4096) as other, pytest.raises(ValueError, match="'events' is not a user ring buffer"):
        UserRingBuffer(other)
    for _ in range(100):
        with UserRingBuffer(drain.map) as ring:
            ring.write(b"12345678")
        assert drain.run() == 1
    assert resources() == before


# With the headers of pybpf's kernels.


@needs_root
@pytest.mark.kernel
def test_a_program_in_c_takes_requests_and_answers() -> None:
    Drain().close()  # skips where there are no user ring buffers
    obj = pybpf.load(built_path("load_requests.bpf.c", sys.byteorder))
    with obj, UserRingBuffer(obj.maps["requests"]) as ring, obj.maps["answers"].reader() as answers:
        for number in range(3):
            ring.write(struct.pack("QII", number, 0, 0))
        ring.write(b"short")
        assert obj.programs["drain"].test_run(bytes(64)).retval == 4
        assert answers.poll(1) == [(0, 0), (2, 24), (4, 48)]
        assert obj.globals["short_ones"] == 1
        assert answers.lost == 0
        for _ in range(2):
            for number in range(150):
                ring.write(struct.pack("QII", number, 0, 0), timeout=0)
            obj.programs["drain"].test_run(bytes(64))
        assert len(answers.consume()) == answers.size // 24
        assert answers.lost == 300 - answers.size // 24
