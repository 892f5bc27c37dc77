"""No mistake of a Python program reaches memory that is not there: threads use, keep and close everything at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emitters import Drain

HERE = Path(__file__).resolve().parent

CODE = """
import gc, random, sys, threading, time
sys.path[:0] = sys.argv[1:3]
from emitters import mixed_ring, perf, uniform_ring, Drain
from test_batch import event_codec_of
from pybpf.events import EventReader, PerfBuffer, RingBuffer, UserRingBuffer

try:
    import numpy
except ImportError:
    numpy = None
kept, errors, stop = [], [], threading.Event()
EXPECTED = (ValueError, RuntimeError, TypeError, KeyError, TimeoutError, OSError)


def keep(value):
    kept.append(value)
    del kept[: max(0, len(kept) - 50)]


def touch():
    for one in list(kept):
        try:
            if isinstance(one, memoryview):
                bytes(one)
            elif numpy is not None and isinstance(one, numpy.ndarray):
                one.tobytes()
            elif hasattr(one, "rows"):
                for row in one.rows():
                    break
            else:
                next(one, None)
        except EXPECTED:
            pass


def borrow(reader):
    with reader.borrow_batch(random.choice((1, 10, None))) as batch:
        keep(batch), keep(batch.data), keep(iter(batch.rows()))
        for view in batch.views():
            keep(view)
            break
        keep(batch.column("seq"))
        if numpy is not None:
            keep(batch.array()), keep(numpy.asarray(batch.column("pid")))
        touch()


def reserve(ring):
    with ring.reserve(16) as data:
        keep(data)
        data[:8] = b"12345678"


USES = (borrow, borrow, lambda r: keep(r.read_batch()), lambda r: r.consume(5), lambda r: r.poll(0.001),
        lambda r: keep(iter(r)), lambda r: next(iter(r.batches(0)), None), lambda r: r.statistics(),
        lambda r: r.close(), lambda r: keep(r.borrow_batch().__enter__().data) if random.random() < 0.02 else None)


def work(emitters, drain):
    pair = event_codec_of("pair")
    while not stop.is_set():
        is_perf = random.random() < 0.33
        emitter = perf(payload=12) if is_perf else random.choice(emitters)  # a perf buffer has one reader at a time
        make = PerfBuffer if is_perf else RingBuffer
        reader = make(emitter, decode=pair, strict=False)
        user = UserRingBuffer(drain)
        shared[:] = [reader, user]
        everyone.extend(shared)
        for _ in range(30):
            try:
                emitter.run(20)
                target = random.choice(shared)
                if isinstance(target, UserRingBuffer):
                    reserve(target)
                    drain.run()
                else:
                    random.choice(USES)(target)
            except EXPECTED:
                pass
            except BaseException as error:
                errors.append(error)
                raise
            touch()
        reader.close()
        user.close()
        if is_perf:
            emitter.close()


shared, everyone = [], []
import warnings
warnings.simplefilter("ignore")
with uniform_ring(4096) as one, mixed_ring(8192) as two, Drain() as drain:
    class Fd:
        def fileno(self): return drain.map.fileno()
        def run(self): return drain.run()
    threads = [threading.Thread(target=work, args=([one, two], Fd()), daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(float(sys.argv[3]))
    stop.set()
    for _ in range(20):
        for one_of_them in everyone:
            one_of_them.close()  # a loop over a reader that nobody closes waits for ever
        for thread in threads:
            thread.join(0.05)
    touch()
    gc.collect()
    touch()
print("errors", [repr(error) for error in errors])
import os
os._exit(0)  # a loan that was never given back holds its lock
"""


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_nothing_crashes() -> None:
    Drain().close()  # skips where there are no user ring buffers
    command = [sys.executable, "-X", "faulthandler", "-c", CODE, str(HERE), str(HERE.parent), "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "errors []\n"
