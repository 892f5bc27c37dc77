"""No wake-up is lost: one event at a time, each waited for, whatever the producer and the reader are doing."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest
from emitters import Emitter, perf, uniform_ring
from test_ringbuf import number

from pybpf.events import EventReader, PerfBuffer, RingBuffer
from pybpf.events.source import EventSource

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]

ROUNDS = 2000
TOO_LONG = 20.0
"""Seconds: whoever waits so long was not woken."""


def ring(emitter: Emitter) -> EventSource:
    return RingBuffer(emitter, decode=number)


def perf_buffer(emitter: Emitter) -> EventSource:
    return PerfBuffer(emitter, decode=number)


def behind_a_reader(emitter: Emitter) -> EventSource:
    return EventReader({"perf": PerfBuffer(emitter, decode=lambda view: number(view))})


KINDS = [(uniform_ring, ring), (lambda: perf(payload=12), perf_buffer), (lambda: perf(payload=12), behind_a_reader)]


class Turns:
    """A producer that sends the next event when the one before has arrived, sooner or later after that."""

    def __init__(self, emitter: Emitter, rounds: int) -> None:
        self.arrived = threading.Semaphore()
        self.thread = threading.Thread(target=self.produce, args=(emitter, rounds))
        self.failed = False

    def produce(self, emitter: Emitter, rounds: int) -> None:
        for turn in range(rounds):
            if not self.arrived.acquire(timeout=TOO_LONG):
                self.failed = True
                return
            if turn % 3:
                time.sleep(turn % 5 * 5e-5)  # so that it comes while the reader goes to sleep, or when it sleeps
            emitter.run()


@pytest.mark.parametrize(("emit", "read"), KINDS)
def test_poll_is_woken_for_every_event(emit: Callable[[], Emitter], read: Callable[[Emitter], EventSource]) -> None:
    with emit() as emitter, read(emitter) as source:
        turns = Turns(emitter, ROUNDS)
        turns.thread.start()
        received = 0
        while received < ROUNDS:
            values = source.poll(TOO_LONG)
            assert values, f"nothing came for {TOO_LONG} seconds after {received} events"
            received += len(values)
            turns.arrived.release(len(values))
        turns.thread.join()
        assert received == emitter.produced == ROUNDS


@pytest.mark.parametrize(("emit", "read"), KINDS)
def test_tasks_are_woken_for_every_event(emit: Callable[[], Emitter], read: Callable[[Emitter], EventSource]) -> None:
    rounds = ROUNDS // 4

    async def consume(source: EventSource, turns: Turns) -> int:
        received = 0
        async for _ in source:
            received += 1
            turns.arrived.release()
            if received == rounds:
                break
        return received

    with emit() as emitter, read(emitter) as source:
        turns = Turns(emitter, rounds)
        turns.thread.start()
        assert asyncio.run(asyncio.wait_for(consume(source, turns), 3 * TOO_LONG)) == rounds
        turns.thread.join()
        assert not turns.failed


@pytest.mark.parametrize(("emit", "read"), KINDS)
def test_threads_that_share_a_source_are_woken(
    emit: Callable[[], Emitter], read: Callable[[Emitter], EventSource]
) -> None:
    rounds = ROUNDS // 2
    with emit() as emitter:
        source = read(emitter)
        turns = Turns(emitter, rounds)
        received: list[object] = []

        def consume() -> None:
            for value in source:
                received.append(value)
                turns.arrived.release()

        readers = [threading.Thread(target=consume) for _ in range(3)]
        for thread in (*readers, turns.thread):
            thread.start()
        turns.thread.join()
        deadline = time.monotonic() + TOO_LONG
        while len(received) < rounds and time.monotonic() < deadline:
            time.sleep(0.001)
        source.close()
        for thread in readers:
            thread.join(5)
            assert not thread.is_alive()
        assert not turns.failed
        assert len(received) == rounds == len(set(received))
