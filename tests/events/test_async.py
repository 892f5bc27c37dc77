"""Events in an asyncio loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from emitters import Emitter, perf, uniform_ring
from test_ringbuf import Producer, number, resources

from pybpf.errors import ClosedError
from pybpf.events import EventReader, PerfBuffer, RingBuffer
from pybpf.events.source import EventSource

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


@pytest.fixture(params=["ring", "perf", "reader"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Emitter, EventSource]]:
    """An emitter and a source of its numbers."""
    with uniform_ring() if request.param == "ring" else perf(payload=12) as emitter:
        if request.param == "ring":
            source: EventSource = RingBuffer(emitter, decode=number)
        elif request.param == "perf":
            source = PerfBuffer(emitter, decode=number)
        else:
            source = EventReader({"numbers": PerfBuffer(emitter, decode=number)})
        with source:
            yield emitter, source


def plain(value: object) -> int:
    return value[1] if isinstance(value, tuple) else value  # type: ignore[return-value]


async def take(source: EventSource, count: int) -> list[int]:
    received = []
    async for value in source:
        received.append(plain(value))
        if len(received) == count:
            break
    return received


def test_events_that_are_there_and_events_that_come(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair

    async def main() -> None:
        emitter.run(5)
        assert await take(source, 3) == [0, 1, 2]
        assert await take(source, 2) == [3, 4]
        for expected in range(5, 25):
            waiting = asyncio.ensure_future(take(source, 1))
            await asyncio.sleep(0.002)
            emitter.run()
            assert await asyncio.wait_for(waiting, 10) == [expected]

    asyncio.run(main())
    emitter.run(2)
    assert [plain(value) for value in source.poll(1)] == [25, 26]


def test_cancelling_neither_loses_nor_repeats(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair
    received: list[int] = []
    cancelled = 0

    async def read() -> None:
        async for value in source:
            received.append(plain(value))

    async def main() -> None:
        nonlocal cancelled
        for attempt in range(200):
            task = asyncio.ensure_future(read())
            await asyncio.sleep(0.0002 * (attempt % 5))
            emitter.run(1 + attempt % 40)
            if attempt % 2:
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1

    before = resources()
    asyncio.run(main())
    assert cancelled == 200
    received.extend(plain(value) for value in source.poll(1))
    assert sorted(received) == list(range(emitter.produced))
    assert resources() == before


def test_time_limits_on_single_events(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair

    async def main() -> list[int]:
        received: list[int] = []
        for attempt in range(60):
            if attempt % 3 == 0:
                asyncio.get_running_loop().call_later(0.001, emitter.run, 2)
            try:
                received.append(plain(await asyncio.wait_for(source.__anext__(), 0.002)))
            except TimeoutError:
                continue
        return received

    received = asyncio.run(main())
    received += [plain(value) for value in source.consume()]
    assert received == list(range(emitter.produced))


def test_tasks_share_a_source(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair
    received: list[int] = []

    async def read() -> None:
        async for value in source:
            received.append(plain(value))

    async def main() -> None:
        tasks = [asyncio.ensure_future(read()) for _ in range(3)]
        for _ in range(10):
            await asyncio.sleep(0.002)
            emitter.run(100)
        while len(received) < emitter.produced:
            await asyncio.sleep(0.002)
        source.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert sorted(received) == list(range(emitter.produced))


def test_other_tasks_get_their_turn() -> None:
    """However fast events come, a loop over them does not stop the rest."""
    with uniform_ring() as emitter, RingBuffer(emitter, decode=number) as ring:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        async def main() -> list[int]:
            other = asyncio.ensure_future(tick())
            received = await asyncio.wait_for(take(ring, 20_000), 30)
            other.cancel()
            return received

        producer = Producer(emitter, 20_000)
        producer.start()
        assert asyncio.run(main()) == list(range(20_000))
        producer.join()
        assert ticks >= 20


def test_closing_ends_the_loop(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair
    emitter.run(3)

    async def inside() -> list[int]:
        asyncio.get_running_loop().call_later(0.02, source.close)
        return [plain(value) async for value in source]

    assert asyncio.run(asyncio.wait_for(inside(), 10)) == [0, 1, 2]
    assert not source._unreleased
    with pytest.raises(ClosedError):
        source.__aiter__()


def test_closing_from_another_thread_ends_the_loop(pair: tuple[Emitter, EventSource]) -> None:
    emitter, source = pair
    emitter.run(1)

    received: list[int] = []
    arrived = threading.Event()

    async def main() -> None:
        async for value in source:
            received.append(plain(value))
            arrived.set()

    def close_while_it_waits() -> None:
        arrived.wait(10)
        time.sleep(0.05)
        source.close()

    thread = threading.Thread(target=close_while_it_waits)
    thread.start()
    asyncio.run(asyncio.wait_for(main(), 20))
    thread.join()
    assert received == [0]
    assert not source._unreleased


def test_errors_come_through_and_the_loop_can_go_on() -> None:
    def decode(record: memoryview) -> int:
        if number(record) == 2:
            raise KeyError(2)
        return number(record)

    with uniform_ring() as emitter, RingBuffer(emitter, decode=decode) as ring:
        emitter.run(5)

        async def main() -> list[object]:
            received: list[object] = []
            for _ in range(5):
                try:
                    received.append(await ring.__anext__())
                except KeyError as error:
                    received.append(error.args[0] * 100)
            return received

        assert asyncio.run(main()) == [0, 1, 200, 3, 4]


def test_a_loop_that_waits_does_not_spin() -> None:
    with uniform_ring() as emitter, RingBuffer(emitter, decode=number) as ring:

        async def main() -> float:
            waiting = asyncio.ensure_future(take(ring, 1))
            await asyncio.sleep(0.01)
            start = time.process_time()
            await asyncio.sleep(0.3)
            spent = time.process_time() - start
            emitter.run()
            assert await waiting == [0]
            return spent

        assert asyncio.run(main()) < 0.1


def test_asyncio_is_imported_only_by_those_who_use_it() -> None:
    code = "import sys, pybpf.events as e; e.RingBuffer, e.PerfBuffer, e.EventReader; print('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
