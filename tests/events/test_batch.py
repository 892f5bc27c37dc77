"""Batches as tables: rows, columns, numpy arrays; copied and borrowed."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from affinity import on_cpu
from emitters import Emitter, mixed_ring, output_ring, perf, uniform_ring
from synthetic import BpfRing
from threads import run_all

from pybpf.btf.codec import Codec, codec
from pybpf.btf.composites import StructCodec
from pybpf.btf.kinds import INT_BOOL, INT_CHAR, INT_SIGNED
from pybpf.btf.reader import BTF
from pybpf.btf.records import Record
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import ClosedError
from pybpf.events import Batch, PerfBuffer, RingBuffer

LAYOUT = struct.Struct("=QIh2xd8s3B?II")
"""What `event` is: seq, pid, delta, load, comm, mac, flag, flow {port, bits}."""


def event_types(byte_order: str = sys.byteorder) -> BTF:
    b = BTFBuilder(byte_order)
    u64, u32, u16 = b.add_int("u64", 8, 64), b.add_int("u32", 4, 32), b.add_int("u16", 2, 16)
    i16, u8, char = b.add_int("s16", 2, 16, INT_SIGNED), b.add_int("u8", 1, 8), b.add_int("char", 1, 8, INT_CHAR)
    double, truth = b.add_float("double", 8), b.add_int("_Bool", 1, 8, INT_BOOL)
    flow = b.add_struct("flow", 8, [("port", u32, 0), ("bits", u32, 32)])
    members = [("seq", u64, 0), ("pid", u32, 8), ("delta", i16, 12), ("load", double, 16)]
    members += [("comm", b.add_array(char, u32, 8), 24), ("mac", b.add_array(u8, u32, 3), 32), ("flag", truth, 35)]
    members += [("flow", flow, 36)]
    b.add_struct("event", 44, [(name, type_id, offset * 8) for name, type_id, offset in members])
    b.add_struct("pair", 16, [("seq", u64, 0), ("pid", u32, 64), ("low", u16, 96)])
    return BTF.from_bytes(b.to_bytes())


def event_codec_of(name: str = "event") -> Codec:
    btf = event_types()
    return codec(btf, next(iter(btf.own_ids(name, 4))))


def record(number: int) -> bytes:
    return LAYOUT.pack(number, number * 3, -number, number / 2, b"task%d" % number, 1, 2, number % 256, 1, 80, number)


def filled(records: list[bytes]) -> BpfRing:
    ring = BpfRing(1 << 16)
    for one in records:
        assert ring.put(one)
    return ring


def scanned(ring: BpfRing, *, copy: bool) -> Batch:
    batch = ring.ring.scan(copy=copy)
    assert batch is not None
    batch.codec = event_codec_of()
    return batch


def records_of(shape: str) -> list[bytes]:
    """A hundred records of one size; or each with some bytes more than the type has."""
    return [record(number) + bytes(number % 7 * 8 if shape == "mixed" else 0) for number in range(100)]


@pytest.fixture(params=["copy", "borrowed"])
def table(request: pytest.FixtureRequest) -> Batch:
    return scanned(filled(records_of("table")), copy=request.param == "copy")


@pytest.fixture(params=["table", "mixed", "borrowed table", "borrowed mixed"])
def batch(request: pytest.FixtureRequest) -> Batch:
    borrowed, _, shape = request.param.rpartition(" ")
    return scanned(filled(records_of(shape)), copy=not borrowed)


def test_rows_are_tuples_of_what_values_have(batch: Batch) -> None:
    rows, values = list(batch.rows()), list(batch.values())
    assert rows == values
    assert {type(row) for row in rows} == {tuple}
    assert rows[7][:6] == (7, 21, -7, 3.5, "task7", b"\x01\x02\x07")
    assert isinstance(rows[7][6], bool)
    assert isinstance(rows[7][7], Record)
    assert rows[7][7].port == 80
    assert isinstance(values[7], Record)


def test_columns_have_what_values_have(batch: Batch) -> None:
    values = list(batch.values())
    columns = batch.columns()
    assert list(columns) == ["seq", "pid", "delta", "load", "comm", "mac", "flag", "flow"]
    for name, column in columns.items():
        assert list(column) == [getattr(value, name) for value in values]
    assert list(batch.column("flow.port")) == [80] * 100
    assert sum(batch.column("flow.bits")) == sum(range(100))


def test_columns_of_numbers_are_views(table: Batch) -> None:
    for name in ("seq", "pid", "delta", "load", "flag", "flow.bits"):
        column = table.column(name)
        assert isinstance(column, memoryview)
        assert column.readonly
        assert len(column) == 100
    assert isinstance(table.column("comm"), list)


def test_numpy_sees_structured_records(batch: Batch) -> None:
    numpy = pytest.importorskip("numpy")
    array = batch.array()
    assert array.shape == (100,)
    assert array.dtype.names == ("seq", "pid", "delta", "load", "comm", "mac", "flag", "flow")
    assert array.dtype.itemsize == 44
    assert array["seq"].sum() == sum(range(100))
    assert array["comm"][12] == b"task12"
    assert array["mac"][9].tolist() == [1, 2, 9]
    assert array["flow"]["port"].tolist() == [80] * 100
    assert array["delta"].tolist() == [-number for number in range(100)]
    assert not array.flags.writeable
    other = batch.array(numpy.dtype([("seq", "u8"), ("pid", "u4")]))
    assert other["pid"].tolist() == [3 * number for number in range(100)]
    if batch.stride:
        assert numpy.shares_memory(array, numpy.frombuffer(batch.data, "u1"))
        assert numpy.asarray(batch.column("pid")).sum() == 3 * sum(range(100))


def test_rows_of_some_members(batch: Batch) -> None:
    values = list(batch.values())
    assert list(batch.rows("seq")) == [(value.seq,) for value in values]
    expected = [(value.comm, value.flow.port, value.pid, value.flow) for value in values]
    assert list(batch.rows("comm", "flow.port", "pid", "flow")) == expected
    with pytest.raises(KeyError, match="struct event has no member 'sequence'"):
        batch.rows("seq", "sequence")


def test_a_slice_is_a_list_of_records(batch: Batch) -> None:
    records = list(batch)
    for part in (slice(0, 2), slice(None, None, -3), slice(-2, None), slice(5, 5)):
        assert batch[part] == records[part]
    assert batch[-1] == records[-1]
    with pytest.raises(IndexError):
        batch[len(records)]


def test_an_empty_batch_is_an_empty_table() -> None:
    numpy = pytest.importorskip("numpy")
    batch = Batch(b"", (), ())
    batch.codec = event_codec_of()
    assert list(batch.rows()) == list(batch.values()) == list(batch.column("seq")) == list(batch.rows("seq")) == []
    assert batch.array().shape == (0,)
    assert batch.array().dtype == numpy.dtype(batch.array().dtype)


def test_what_a_table_refuses(table: Batch) -> None:
    pytest.importorskip("numpy")
    with pytest.raises(KeyError, match="struct event has no member 'sequence'"):
        table.column("sequence")
    with pytest.raises(KeyError, match="u64 has no member 'x'"):
        table.column("seq.x")
    with pytest.raises(ValueError, match=r"has 44 bytes, but \|S45 has 45"):
        table.array("S45")
    table.codec = None
    for face in (table.rows, table.columns, table.array, lambda: table.column("seq"), lambda: table.rows("seq")):
        with pytest.raises(TypeError, match="type is not known"):
            face()
    assert list(table.values()) == [record(number) for number in range(100)]


def test_records_too_short_for_their_type_are_no_table() -> None:
    numpy = pytest.importorskip("numpy")
    batch = scanned(filled([record(number)[:40] for number in range(20)]), copy=True)
    rows = (lambda: list(batch.rows()), lambda: batch.rows("seq"))
    for face in (batch.columns, batch.array, lambda: batch.column("seq"), *rows):
        with pytest.raises(ValueError, match="has 40 bytes, but .* has 44"):
            face()
    assert batch.array(numpy.dtype("u8")).tolist() == list(range(20))


def test_a_number_as_record_makes_rows_and_arrays_but_no_columns() -> None:
    numpy = pytest.importorskip("numpy")
    btf = event_types()
    ring = filled([struct.pack("=QQ", number, 0) for number in range(30)])
    batch = ring.ring.scan()
    assert batch is not None
    batch.codec = codec(btf, next(iter(btf.own_ids("u64", 1))))
    assert list(batch.rows()) == list(batch.values()) == list(range(30))
    assert batch.array().tolist() == list(range(30))
    assert batch.array().dtype == numpy.dtype("u8")
    with pytest.raises(TypeError, match="u64 has no members"):
        batch.columns()


@pytest.mark.parametrize("stride", [44, 48, 64])
def test_tuple_runs_end_where_the_buffer_ends(stride: int) -> None:
    made = event_codec_of()
    assert isinstance(made, StructCodec)
    data = b"".join(record(number).ljust(stride, b"\xff") for number in range(5))
    want = [tuple(made.decode(record(number))) for number in range(5)]
    for length in (5 * stride, 4 * stride + 44):
        assert list(made.tuple_run(data[:length], 0, stride, 5)) == want
        assert list(made.decode_run(data[:length], 0, stride, 5)) == want
    with pytest.raises(ValueError, match="have"):
        made.tuple_run(data[: 4 * stride + 43], 0, stride, 5)


# The kernel's rings


def pairs(emitter: Emitter) -> RingBuffer:
    return RingBuffer(emitter, decode=event_codec_of("pair"))


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with uniform_ring() as emitter:
        yield emitter


@pytest.mark.kernel
def test_batches_come_one_after_the_other(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(5000)
        seen = [number for batch in ring.batches(timeout=0) for number, *_ in batch.rows()]
        assert seen == list(range(emitter.produced))
        assert len(seen) > 4000
        assert ring.records == len(seen)
        assert list(ring.batches(timeout=0.01)) == []


@pytest.mark.kernel
def test_batches_wait_and_end_with_the_ring(emitter: Emitter) -> None:
    seen: list[int] = []
    with pairs(emitter) as ring:

        def read() -> None:
            for batch in ring.batches():
                seen.extend(batch.column("seq"))

        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(5):
            emitter.run(3)
            time.sleep(0.01)
        while len(seen) < 15:
            time.sleep(0.001)
    thread.join(5)
    assert not thread.is_alive()
    assert seen == list(range(15))


@pytest.mark.kernel
def test_a_batch_can_be_waited_for(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        start = time.monotonic()
        assert len(ring.read_batch(timeout=0.05)) == 0
        assert 0.05 <= time.monotonic() - start < 5
        timer = threading.Timer(0.02, emitter.run)
        timer.start()
        assert len(ring.read_batch(timeout=None)) == 1
        timer.join()


@pytest.mark.kernel
def test_a_borrowed_batch_lies_in_the_ring(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(100)
        before = ring.available
        with ring.borrow_batch() as batch:
            assert len(batch) == 100
            assert isinstance(batch.data, memoryview)
            assert batch.data.readonly
            assert ring.available == before  # nothing is given back yet
            column = batch.column("seq")
            assert list(column) == list(range(100))
            assert [row[0] for row in batch.rows()] == list(range(100))
            view = next(batch.views())
        assert ring.available == 0
        assert ring.records == 100
        for use in (lambda: column[0], lambda: batch.data[0], lambda: list(batch.rows()), lambda: batch[0]):
            with pytest.raises(ValueError, match="released"):
                use()
        assert len(view) == 16  # a slice of the user's: it stays, on memory that stays
        with ring.borrow_batch() as nothing:
            assert len(nothing) == 0
    assert len(bytes(view)) == 16


@pytest.mark.kernel
def test_an_array_of_a_borrowed_batch_never_dangles(emitter: Emitter) -> None:
    pytest.importorskip("numpy")
    ring = pairs(emitter)
    emitter.run(100)
    with ring.borrow_batch() as batch:
        array = batch.array()
        assert array["seq"].tolist() == list(range(100))
    ring.close()
    emitter.close()
    assert int(array["seq"].sum()) >= 0  # whatever is there now, it is mapped
    with pytest.raises(ValueError, match="read-only"):
        array["seq"][0] = 1


@pytest.mark.kernel
def test_mixed_records_can_be_borrowed() -> None:
    with mixed_ring() as emitter, RingBuffer(emitter) as ring:
        emitter.run(300)
        seen: list[int] = []
        while True:
            with ring.borrow_batch(50) as batch:
                seen += [int.from_bytes(view[:8], sys.byteorder) for view in batch.views()]
                assert all(isinstance(one, bytes) for one in batch)
            if not len(batch):
                break
        assert seen == list(range(300))


@pytest.mark.kernel
def test_an_error_in_the_block_counts_as_reading(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(10)
        with pytest.raises(ZeroDivisionError), ring.borrow_batch(4):
            raise ZeroDivisionError
        assert [event.seq for event in ring.consume()] == list(range(4, 10))


@pytest.mark.kernel
def test_nobody_else_reads_during_a_loan(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(20)
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.extend(event.seq for event in ring.consume()))
        with ring.borrow_batch(5) as batch:
            thread.start()
            for read in (ring.consume, ring.read_batch, lambda: ring.borrow_batch().__enter__(), lambda: ring.of("x")):
                with pytest.raises((RuntimeError, LookupError, ValueError)):
                    read()
            time.sleep(0.05)
            assert not got
            assert list(batch.column("seq")) == list(range(5))
        thread.join(5)
        assert got == list(range(5, 20))


@pytest.mark.kernel
def test_closing_during_a_loan_takes_effect_at_its_end(emitter: Emitter) -> None:
    ring = pairs(emitter)
    emitter.run(20)
    with ring.borrow_batch(5) as batch:
        ring.close()
        assert ring.closed
        assert list(batch.column("seq")) == list(range(5))
    with pytest.raises(ValueError, match="released"):
        batch.column("seq")
    with pytest.raises(ClosedError), ring.borrow_batch():
        raise AssertionError
    again = pairs(emitter)
    assert [event.seq for event in again.consume()] == list(range(5, 20))
    again.close()


@pytest.mark.kernel
def test_a_child_borrows_nothing(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(5)
        pid = os.fork()
        if not pid:
            try:
                with ring.borrow_batch():
                    os._exit(1)
            except RuntimeError:
                os._exit(0 if ring.close() is None else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(ring.consume()) == 5


@pytest.mark.kernel
def test_a_child_that_leaves_the_block_moves_nothing(emitter: Emitter) -> None:
    """What the parent has read since would come a second time."""
    with pairs(emitter) as ring:
        emitter.run(20)
        with ring.borrow_batch(5):
            go_on, wait = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(wait)
                os.read(go_on, 1)
        if not pid:
            os._exit(0)
        assert [event.seq for event in ring.consume(5)] == list(range(5, 10))
        os.close(go_on)
        os.close(wait)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert [event.seq for event in ring.consume()] == list(range(10, 20))


@pytest.mark.kernel
def test_a_loan_is_ended_by_its_thread(emitter: Emitter) -> None:
    with pairs(emitter) as ring:
        emitter.run(20)

        def borrow() -> Iterator[int]:
            with ring.borrow_batch(5) as batch:
                yield from batch.column("seq")

        numbers = borrow()
        assert next(numbers) == 0
        (error,) = run_all(numbers.close)  # type: ignore[attr-defined]  # a generator has it
        assert isinstance(error, RuntimeError) and "another thread has borrowed this batch" in str(error)
        del numbers, error
        gc.collect()  # nobody can give it back any more
        assert [event.seq for event in ring.consume(5)] == list(range(5, 10))
        later: list[int] = []
        assert run_all(lambda: later.extend(event.seq for event in ring.consume())) == []
        assert later == list(range(10, 20))


@pytest.mark.kernel
@pytest.mark.parametrize("buffer", [RingBuffer, PerfBuffer])
def test_many_threads_look_at_one_borrowed_batch(buffer: type[RingBuffer | PerfBuffer]) -> None:
    """In free-threaded Python one of their views may be released for all then; the reader has its own."""
    with uniform_ring() if buffer is RingBuffer else perf() as emitter, buffer(emitter) as reader:
        for _ in range(20):
            with on_cpu(min(os.sched_getaffinity(0))):  # all in one perf buffer
                emitter.run(200)
            with reader.borrow_batch() as batch:

                def look(batch: Batch = batch) -> None:
                    with suppress(ValueError):
                        for _ in range(20):
                            assert len([view[0] for view in batch.views()]) == 200

                assert run_all(look, look, look) == []
            assert len(batch.sizes) == 200
        emitter.run(3)
        assert len(reader.consume()) == 3


@pytest.mark.kernel
def test_several_types_in_one_ring() -> None:
    btf = event_types()
    with output_ring() as emitter, RingBuffer(emitter, btf=btf) as ring:

        def choose(view: memoryview) -> str | Codec | None:
            return {44: "event", 16: event_codec_of("pair")}.get(len(view))

        ring.of_several(choose)
        for size in (44, 16, 20, 44):
            emitter.control[16] = size
            emitter.run()
        values = ring.consume()
        assert [type(value).__name__ for value in values] == ["event", "pair", "bytes", "event"]
        assert [value.seq for value in values if isinstance(value, Record)] == [0, 1, 3]
        ring.of_several(lambda view: "nothing")
        emitter.run(2)
        for _ in range(2):
            with pytest.raises(ValueError, match="no type 'nothing'"):
                ring.consume()
        assert ring.consume() == []
        for wrong in (5, b"event"):
            ring.of_several(lambda view, wrong=wrong: wrong)  # type: ignore[misc]
            emitter.run(1)
            with pytest.raises(TypeError, match=f"must give a type's name, a codec or None, not {wrong!r}"):
                ring.consume()
        with pytest.raises(TypeError, match="takes a function that gives the type of a record, not 'event'"):
            ring.of_several("event")  # type: ignore[arg-type]
        for name in (5, None):
            with pytest.raises(TypeError, match=f"not by {name}"):
                ring.of(name)  # type: ignore[arg-type]


@pytest.mark.kernel
def test_batches_in_an_event_loop(emitter: Emitter) -> None:
    async def read(ring: RingBuffer, seen: list[int], count: int) -> None:
        async for batch in ring.batches():
            seen.extend(batch.column("seq"))
            if len(seen) >= count:
                return

    async def cancelled_again_and_again(ring: RingBuffer) -> list[int]:
        seen: list[int] = []
        turns = 0
        while len(seen) < 3000:
            turns += 1
            if turns % 3 == 0:
                emitter.run(20)
            task = asyncio.create_task(read(ring, seen, 3000))
            await asyncio.sleep(0.0003 * (turns % 4))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return seen

    with pairs(emitter) as ring:
        seen = asyncio.run(asyncio.wait_for(cancelled_again_and_again(ring), 60))
        assert seen == list(range(emitter.produced))

        async def woken() -> list[int]:
            later: list[int] = []
            task = asyncio.create_task(read(ring, later, 5))
            await asyncio.sleep(0.02)
            emitter.run(5)
            await asyncio.wait_for(task, 20)
            return later

        assert asyncio.run(woken()) == list(range(len(seen), len(seen) + 5))

        async def closed() -> None:
            task = asyncio.create_task(read(ring, [], 1))
            await asyncio.sleep(0.02)
            ring.close()
            await asyncio.wait_for(task, 20)

        asyncio.run(closed())


@pytest.mark.kernel
@pytest.mark.parametrize("timeout", [float("nan"), 10**400], ids=["nan", "huge"])
def test_a_timeout_is_seconds(emitter: Emitter, timeout: float) -> None:
    with pairs(emitter) as ring:
        for read in (ring.poll, lambda timeout: ring.read_batch(None, timeout)):
            with pytest.raises(ValueError, match="timeout must be seconds or None, not [n1]"):
                read(timeout)


@pytest.mark.kernel
@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(emitter: Emitter, limit: int) -> None:
    with pairs(emitter) as ring:
        emitter.run(3)
        for read in (ring.read_batch, ring.borrow_batch, lambda limit: ring.poll(0, limit)):
            with pytest.raises(ValueError, match="at least 1"):
                read(limit)
            with pytest.raises(TypeError, match=r"limit must be an integer or None, not 1\.5"):
                read(1.5)  # type: ignore[arg-type]
        assert len(ring.read_batch(2)) == 2
