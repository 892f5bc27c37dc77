"""Ring buffer and perf event array maps as maps: iterating them reads events."""

from __future__ import annotations

import copy
import os
import struct
from collections.abc import Iterator

import pytest
from map_helpers import RETURN_0, Types, instruction, map_address, program, run, store_words

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError, BTFError, ClosedError
from pybpf.maps import EventMap, PerfEventArrayMap, RingBufferMap, make_map
from pybpf.syscall import FD, PAGE_SIZE, possible_cpus


def types_with_event() -> BTF:
    """struct event {u64 number; u64 cookie}, and a map ``events`` whose tag says so; struct other is half of it."""
    b = BTFBuilder()
    u64 = b.add_int("u64", 8)
    event = b.add_struct("event", 16, [("number", u64, 0), ("cookie", u64, 64)])
    b.add_struct("other", 8, [("only", u64, 0)])
    variable = b.add_var("events", event, 1)
    b.add_decl_tag("event:event", variable, -1)
    return BTF.from_bytes(b.to_bytes())


def ring_program(fd: int) -> bytes:
    """bpf_ringbuf_output(map, {1, 2}, 16, 0)"""
    code = store_words(1, 2) + map_address(1, fd) + instruction(0xB7, 3, imm=16) + instruction(0xB7, 4)
    return code + instruction(0x85, imm=130) + RETURN_0


def perf_program(fd: int) -> bytes:
    """bpf_perf_event_output(ctx, map, BPF_F_CURRENT_CPU, {1, 2}, 16)"""
    code = instruction(0xBF, 6, 1) + store_words(1, 2) + instruction(0xBF, 4, 2) + instruction(0xBF, 1, 6)
    code += map_address(2, fd) + instruction(0xB4, 3, imm=-1) + instruction(0xB7, 5, imm=16)
    return code + instruction(0x85, imm=25) + RETURN_0


@pytest.fixture(params=["ring", "perf"])
def events(request: pytest.FixtureRequest) -> Iterator[EventMap]:
    """A map of either kind, with types."""
    ring = request.param == "ring"
    number = c.BPF_MAP_TYPE_RINGBUF if ring else c.BPF_MAP_TYPE_PERF_EVENT_ARRAY
    sizes = (0, 0, PAGE_SIZE) if ring else (4, 4, possible_cpus())
    fd = syscall.map_create(number, key_size=sizes[0], value_size=sizes[1], max_entries=sizes[2], name="events")
    made = make_map(
        fd,
        name="events",
        type_number=number,
        key_size=sizes[0],
        value_size=sizes[1],
        max_entries=sizes[2],
        btf=types_with_event(),
    )
    assert isinstance(made, RingBufferMap if ring else PerfEventArrayMap)
    with made:
        yield made


@pytest.fixture
def emitter(events: EventMap) -> Iterator[FD]:
    make = ring_program if isinstance(events, RingBufferMap) else perf_program
    with program(make(events.fileno()), c.BPF_PROG_TYPE_SCHED_CLS) as fd:
        yield fd


def test_iteration(events: EventMap, emitter: FD) -> None:
    events.consume()  # perf events come only to those who listen already
    run(emitter, 3)
    seen = []
    for event in events:
        seen.append(event)
        if len(seen) == 3:
            break
    assert seen == [(1, 2)] * 3
    assert seen[0].cookie == 2
    assert repr(seen[0]) == "event(number=1, cookie=2)"
    assert events.poll(0) == []
    run(emitter, 2)
    assert len(events.poll(5, 1)) == 1
    assert events.consume() == [(1, 2)]
    assert events.lost in (0, None)


def test_asyncio(events: EventMap, emitter: FD) -> None:
    import asyncio

    async def read() -> list[object]:
        seen = []
        async for event in events:
            seen.append(event)
            if len(seen) == 2:
                return seen
        raise AssertionError("the events ended")

    events.consume()
    run(emitter, 2)
    assert asyncio.run(asyncio.wait_for(read(), 10)) == [(1, 2)] * 2


def test_readers_of_ones_own(events: EventMap, emitter: FD) -> None:
    with events.of("other") as reader:
        run(emitter)
        assert reader.poll(5) == [(1,)]
    with events.reader(decode=None) as reader:
        run(emitter)
        assert reader.poll(5)[0][:16] == struct.pack("QQ", 1, 2)
    with events.reader() as reader:
        run(emitter)
        assert reader.poll(5)[0].number == 1
    with pytest.raises(BTFError, match="nonsense"):
        events.of("nonsense")


def test_close_ends_the_reader(events: EventMap) -> None:
    events.consume()
    events.close()
    events.close()
    for use in (events.consume, lambda: iter(events), events.reader, lambda: events.of("event")):
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("cls", [RingBufferMap, PerfEventArrayMap])
def test_type_that_is_told_when_it_is_made(cls: type[EventMap]) -> None:
    ring = cls is RingBufferMap
    text = "struct event { u64 number; u64 cookie; }"
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BTFError):
        cls(value="struct nothing", max_entries=PAGE_SIZE)
    assert len(os.listdir("/proc/self/fd")) == before
    with cls(value=text, max_entries=PAGE_SIZE if ring else possible_cpus()) as made, copy.copy(made) as again:
        code = (ring_program if ring else perf_program)(made.fileno())
        for one in (made, again):
            one.consume()
            with program(code, c.BPF_PROG_TYPE_SCHED_CLS) as fd:
                run(fd)
            (event,) = one.poll(5)
            assert (event.number, event.cookie) == (1, 2)
            one.close()


def test_type_of_descriptors() -> None:
    with PerfEventArrayMap(value="u32", max_entries=possible_cpus()) as made:
        made.consume()
        with program(perf_program(made.fileno()), c.BPF_PROG_TYPE_SCHED_CLS) as fd:
            run(fd)
        assert [type(event) for event in made.poll(5)] == [bytes]


def test_untyped() -> None:
    with RingBufferMap.create(max_entries=PAGE_SIZE, name="raw") as made:
        assert repr(made) == f"<RingBufferMap 'raw' max_entries={PAGE_SIZE}>"
        with program(ring_program(made.fileno()), c.BPF_PROG_TYPE_SCHED_CLS) as fd:
            run(fd)
        assert made.poll(5) == [struct.pack("QQ", 1, 2)]
        with pytest.raises(BTFError, match="no type information"):
            made.of("event")


def test_counters_in_a_perf_event_array(types: Types) -> None:
    with (
        PerfEventArrayMap.create(max_entries=2) as made,
        syscall.perf_event_open(c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_CPU_CLOCK, cpu=0) as event,
    ):
        made[0] = event
        del made[0]
        with pytest.raises(KeyError):
            del made[0]
        with pytest.raises(IndexError, match="2 is not in"):
            made[2] = event
        with pytest.raises(TypeError):
            made[0] = "event"
        with pytest.raises(BPFError):
            made[0] = made
