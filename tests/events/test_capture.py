"""Recordings: what was written comes back, on either byte order; damaged files are told from good ones."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import subprocess
import sys
import time
from binascii import crc32
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from affinity import on_cpu
from children import another_thread_in
from emitters import SIZE, Emitter, mixed_ring, output_ring, perf, uniform_ring
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_batch import event_types, pairs
from test_ringbuf import in_child, number, resources

from pybpf.btf.codec import codec
from pybpf.btf.kinds import INT_CHAR
from pybpf.btf.writer import BTFBuilder
from pybpf.cli import main
from pybpf.errors import ClosedError, RecordingError
from pybpf.events import EventReader, PerfBuffer, Replay, RingBuffer
from pybpf.events.capture import BLOCK_HEADER, BTF_BLOCK, END, FILE_HEADER, INFO, MAGIC, RECORDS, RECORDS_HEADER, SOURCE

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


# Files built by hand


def block(kind: int, content: bytes) -> bytes:
    return BLOCK_HEADER.pack(kind, len(content), crc32(content)) + content


def json_block(kind: int, /, **fields: Any) -> bytes:
    return block(kind, json.dumps(fields).encode())


def header(byte_order: str = "little", version: int = 1) -> bytes:
    return FILE_HEADER.pack(MAGIC, version, 1 if byte_order == "little" else 2, 0)


def records(source: int, count: int, flags: int, size: int, stride: int, content: bytes) -> bytes:
    return block(RECORDS, RECORDS_HEADER.pack(source, count, flags, size, stride, 0, 1) + content)


def types(byte_order: str) -> bytes:
    b = BTFBuilder(byte_order)
    u32, char = b.add_int("u32", 4, 32), b.add_int("char", 1, 8, INT_CHAR)
    b.add_struct("event", 12, [("pid", u32, 0), ("comm", b.add_array(char, u32, 8), 32)])
    return b.to_bytes()


EVENT_ID = 4


def recording(byte_order: str = "little") -> bytes:
    """A file with one source; three records of one size, two of others."""
    order = "<" if byte_order == "little" else ">"
    event = struct.Struct(f"{order}I8s")
    run = b"".join(event.pack(pid, b"run%d" % pid) + b"gap." for pid in range(3))
    odd = [event.pack(3, b"three") + b"more", b"short"]
    sizes = struct.pack("<2I", *map(len, odd))
    return b"".join(
        [
            header(byte_order),
            json_block(INFO, kernel="6.12", machine="s390x"),
            block(BTF_BLOCK, struct.pack("<II", 1, 0) + types(byte_order)),
            json_block(SOURCE, number=1, name="execs", kind="RingBuffer", btf=1, type=EVENT_ID),
            records(1, 3, 1, 12, 16, run[:-4]),
            block(77, b"what a later version may write"),
            records(1, 2, 0, 0, 0, sizes + b"".join(odd)),
            json_block(END, sources={"1": {"records": 5, "lost": 7}}),
        ]
    )


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_records_of_either_byte_order(tmp_path: Path, byte_order: str) -> None:
    with Replay(write(tmp_path / "x.bpfcap", recording(byte_order))) as replay:
        assert replay.byte_order == byte_order
        values = list(replay)
        assert [(name, *value) for name, value in values[:4]] == [
            ("execs", 0, "run0"),
            ("execs", 1, "run1"),
            ("execs", 2, "run2"),
            ("execs", 3, "three"),
        ]
        assert values[4] == ("execs", b"short")
        assert replay.is_complete
        assert replay.lost == {"execs": 7}
        assert replay.info == {"kernel": "6.12", "machine": "s390x"}
        assert "1 sources" in repr(replay)


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_batches_are_tables(tmp_path: Path, byte_order: str) -> None:
    with Replay(write(tmp_path / "x.bpfcap", recording(byte_order))) as replay:
        (name, batch), (_, odd) = replay.batches()
        assert name == "execs"
        assert list(batch.rows()) == [(0, "run0"), (1, "run1"), (2, "run2")]
        assert list(batch.column("pid")) == [0, 1, 2]
        assert list(odd)[1] == b"short"
        numpy = pytest.importorskip("numpy")
        assert batch.array()["pid"].sum() == 3
        assert numpy.dtype(batch.array().dtype["pid"]).byteorder in "=<>"


def everything(path: Path) -> tuple[list[tuple[str, Any]], bool]:
    with Replay(path) as replay:
        return list(replay), replay.is_complete


def test_a_file_that_was_cut_off_is_good_up_to_there(tmp_path: Path) -> None:
    whole = recording()
    path = tmp_path / "x.bpfcap"
    wanted, _ = everything(write(path, whole))
    lengths = set()
    for length in range(len(whole)):
        write(path, whole[:length])
        if length < FILE_HEADER.size:
            with pytest.raises(RecordingError, match="no recording"):
                Replay(path)
            continue
        values, is_complete = everything(path)
        assert not is_complete
        assert values == wanted[: len(values)]
        lengths.add(len(values))
    assert lengths == {0, 3, 5}


def test_when_a_batch_was_read_is_told(tmp_path: Path) -> None:
    blocks = blocks_of(recording())
    head = RECORDS_HEADER.pack(1, 2, 0, 0, 0, 0, 1_700_000_000_000_000_500)
    blocks[5] = (RECORDS, head + blocks[5][1][RECORDS_HEADER.size :])
    path = write(tmp_path / "x.bpfcap", put_together(blocks))
    with Replay(path) as replay:
        assert replay.time_ns == 0
        assert [replay.time_ns for _ in replay] == [1, 1, 1, *[1_700_000_000_000_000_500] * 2]
    with Replay(path) as replay:
        assert [replay.time_ns for _ in replay.batches()] == [1, 1_700_000_000_000_000_500]


def test_a_closed_replay_says_so(tmp_path: Path) -> None:
    replay = Replay(write(tmp_path / "x.bpfcap", recording()))
    rest = iter(replay)
    next(rest)
    replay.close()
    with pytest.raises(ClosedError, match="Replay .* is closed"):
        list(rest)
    with pytest.raises(ClosedError, match="Replay .* is closed"):
        next(replay.batches())


def nested(kind: str, levels: int) -> bytes:
    """A recording of one record of 8 bytes, of a small type that stands for 200 ** levels values."""
    b = BTFBuilder("little")
    u32 = b.add_int("u32", 4, 32)
    level = b.add_struct("level", 4, [(f"m{n}", u32, 0) for n in range(200)])
    for _ in range(levels - 1):
        if kind == "array":
            level = b.add_array(level, u32, 200)
        else:
            name = "" if kind == "anonymous" else "m"
            level = b.add_struct(name, 4, [(f"{name}{n}" if name else "", level, 0) for n in range(200)])
    top = b.add_struct("top", 4 * 200 ** (levels - 1) if kind == "array" else 4, [("all", level, 0)])
    return b"".join(
        [
            header(),
            block(BTF_BLOCK, struct.pack("<II", 1, 0) + b.to_bytes()),
            json_block(SOURCE, number=1, name="execs", kind="RingBuffer", btf=1, type=top),
            records(1, 1, 1, 8, 16, bytes(8)),
        ]
    )


@pytest.mark.parametrize(
    ("kind", "levels", "message"),
    [
        ("named", 2, "struct top holds 40202 values in 4 bytes"),
        ("named", 6, "struct top holds .* values in 4 bytes"),
        ("array", 3, "struct top holds 8040202 values in 160000 bytes"),
        ("anonymous", 8, "more than 65536 members"),
    ],
)
def test_a_small_file_cannot_stand_for_millions_of_values(tmp_path: Path, kind: str, levels: int, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        everything(write(tmp_path / "x.bpfcap", nested(kind, levels)))


def test_a_union_of_many_members_is_no_such_file(tmp_path: Path) -> None:
    ((_, value),), _ = everything(write(tmp_path / "x.bpfcap", nested("named", 1)))
    assert value.all.m199 == 0


def test_a_record_too_short_for_its_own_type_comes_as_bytes(tmp_path: Path) -> None:
    typed = struct.pack("<4I", EVENT_ID, EVENT_ID, 2, 12) + b"ab" + struct.pack("<I8s", 7, b"whole")
    whole = recording()
    blocks = [one for one in blocks_of(whole) if one[0] in (INFO, BTF_BLOCK, SOURCE)]
    data = put_together(blocks) + records(1, 2, 2, 0, 0, typed)
    values, _ = everything(write(tmp_path / "x.bpfcap", data))
    assert values[0] == ("execs", b"ab")
    assert values[1][1].pid == 7


def blocks_of(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    offset = FILE_HEADER.size
    while offset < len(data):
        kind, length, _ = BLOCK_HEADER.unpack_from(data, offset)
        offset += BLOCK_HEADER.size + length
        found.append((kind, data[offset - length : offset]))
    return found


def put_together(blocks: list[tuple[int, bytes]]) -> bytes:
    return header() + b"".join(block(kind, content) for kind, content in blocks)


def changed(index: int, content: bytes) -> bytes:
    blocks = blocks_of(recording())
    blocks[index] = (blocks[index][0], content)
    return put_together(blocks)


def source(**fields: Any) -> bytes:
    whole = {"number": 1, "name": "execs", "kind": "RingBuffer", "btf": 1, "type": EVENT_ID}
    return changed(2, json.dumps({**whole, **fields}).encode())


def run_block(*head: int, content: bytes = bytes(44)) -> bytes:
    return changed(3, RECORDS_HEADER.pack(*head) + content)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no recording"),
        (b"\x7fELF" + bytes(100), "no recording"),
        (header(version=2), "version 2 of the format"),
        (FILE_HEADER.pack(MAGIC, 1, 3, 0), "byte order 3"),
        (FILE_HEADER.pack(MAGIC, 1, 1, 1), "byte order"),
        (header() + BLOCK_HEADER.pack(1, 1 << 31, 0), "a block of 2147483648 bytes"),
        (header() + BLOCK_HEADER.pack(1, 2, 5) + b"{}", "damaged"),
        (header() + block(INFO, b"["), "JSON object"),
        (header() + block(INFO, b"[]"), "JSON object"),
        (header() + block(INFO, b"[" * 100000), "JSON object"),
        (header() + block(INFO, b" " * (1 << 21)), "bytes of JSON"),
        (changed(1, b"123"), "type information is too short"),
        (changed(1, struct.pack("<II", 1, 2) + types("little")), "does not follow"),
        (changed(1, struct.pack("<II", 0, 0) + types("little")), "does not follow"),
        (changed(1, struct.pack("<II", 1, 0) + b"x" * 64), "at byte"),
        (changed(1, struct.pack("<II", 1, 0) + types("big")), "another byte order"),
        (source(number=0), "does not follow"),
        (source(number="1"), "number is no number"),
        (source(type=1 << 40), "type is no number"),
        (source(type=True), "type is no number"),
        (source(type=4000), "at byte"),
        (source(btf=2), "no type information number 2"),
        (source(name=""), "proper name"),
        (source(name="\x1b[2J"), "proper name"),
        (source(name="x" * 300), "proper name"),
        (source(kind=3), "proper name"),
        (changed(3, b"123"), "records is too short"),
        (run_block(2, 3, 1, 12, 16, 0, 0), "records of source 2"),
        (run_block(1, 0, 1, 12, 16, 0, 0), "0 records"),
        (run_block(1, 3, 4, 12, 16, 0, 0), "flags 0x4"),
        (run_block(1, 4, 1, 12, 16, 0, 0), "4 records of 12 bytes every 16"),
        (run_block(1, 1, 1, 0, 0xFFFFFFFF, 0, 0), "1 records of 0 bytes"),
        (run_block(1, 3, 1, 12, 12, 0, 0), "3 records of 12 bytes every 12"),
        (run_block(1, 20, 0, 0, 0, 0, 0), "20 records need more"),
        (run_block(1, 20, 3, 12, 16, 0, 0), "20 records need more"),
        (run_block(1, 2, 0, 0, 0, 0, 0), "0 bytes of records in 36"),
        (run_block(1, 1, 3, 12, 16, 0, 0, content=struct.pack("<I", 999) + bytes(12)), "source 'execs'"),
        (changed(6, b"{}"), "the end does not tell"),
        (changed(6, b'{"sources": {"2": {}}}'), "the end does not tell"),
        (changed(6, b'{"sources": {"1": {"lost": -1}}}'), "lost is no number"),
        (recording() + block(INFO, b"{}"), "behind the end"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path / "x.bpfcap", data)
    with pytest.raises(RecordingError, match=message) as caught:
        everything(path)
    assert str(caught.value).startswith(f"{path}: at byte ")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_blocks_never_do_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    """Any byte of any block may be another, with the right checksum."""
    blocks = blocks_of(recording())
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(blocks) - 1))
        kind, content = blocks[index]
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 4))
        content = content[:place] + data.draw(st.binary(max_size=4)) + content[place + length :]
        blocks[index] = (kind, content)
    try:
        everything(write(tmp_path / "x.bpfcap", put_together(blocks)))
    except RecordingError:
        pass


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.booleans())
@example(recording(), False)
def test_any_bytes_are_a_recording_or_are_not(tmp_path: Path, data: bytes, with_header: bool) -> None:
    try:
        everything(write(tmp_path / "x.bpfcap", header() + data if with_header else data))
    except RecordingError:
        pass


# Recording from the kernel


@pytest.fixture
def emitter() -> Iterator[Emitter]:
    with uniform_ring() as emitter:
        yield emitter


@pytest.mark.kernel
@needs_root
class TestRecording:
    def test_what_was_read_comes_back(self, emitter: Emitter, tmp_path: Path) -> None:
        path = tmp_path / "x.bpfcap"
        btf = event_types()
        decode = codec(btf, next(iter(btf.own_ids("pair", 4))))
        with RingBuffer(emitter, decode=decode, btf=btf) as ring:
            emitter.run(3)
            ring.consume()  # not recorded
            with ring.record(path) as capture:
                seen = []
                emitter.run(1000)
                seen += ring.consume(10)
                seen += ring.consume()
                emitter.run(500)
                seen += list(ring.read_batch().values())
                emitter.run(100)
                with ring.borrow_batch() as batch:
                    seen += list(batch.values())
                emitter.run(1)
                seen += ring.poll(1)
                assert capture.records == len(seen) == 1601
            assert "closed, 1601 records" in repr(capture)
            emitter.run(5)
            ring.consume()  # not recorded either
        with Replay(path) as replay:
            values = list(replay)
            assert values == [("events", event) for event in seen]
            assert type(values[0][1]).__name__ == "pair"
            assert replay.is_complete
            assert replay.lost == {"events": None}
            assert replay.info["kernel"] == os.uname().release
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_what_was_counted_before_is_not_in_it(self, tmp_path: Path) -> None:
        path = tmp_path / "x.bpfcap"
        lost = 100
        with mixed_ring() as emitter, RingBuffer(emitter, drops=lambda: lost) as ring:
            emitter.run(40)
            before = len(ring.consume())
            with ring.record(path):
                emitter.run(10)
                seen = len(ring.consume())
                lost += 7
            assert ring.records == before + seen
        with Replay(path) as replay:
            values = [value for _, value in replay]
            assert len(values) == seen
            assert replay.lost == {"events": 7}
            totals = replay.totals["events"]
            assert totals["records"] == seen
            assert totals["bytes"] == sum(map(len, values))
            assert totals.keys() == {"records", "bytes", "lost", "discarded", "overwritten"}

    def test_a_count_that_the_program_reset(self, emitter: Emitter, tmp_path: Path) -> None:
        counts = iter((9, 2))
        with RingBuffer(emitter, drops=lambda: next(counts)) as ring, ring.record(tmp_path / "x"):
            pass
        with Replay(tmp_path / "x") as replay:
            assert list(replay) == []
            assert replay.lost == {"events": 0}

    def test_when_it_was_read(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring, ring.record(tmp_path / "x"):
            start = time.time_ns()
            emitter.run(2)
            ring.consume()
            end = time.time_ns()
        with Replay(tmp_path / "x") as replay:
            assert [start <= replay.time_ns <= end for _ in replay] == [True, True]

    def test_on_which_cpu_it_was_sent(self, tmp_path: Path) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        with (
            perf() as emitter,
            PerfBuffer(emitter, decode=number, with_cpu=True) as buffer,
            buffer.record(tmp_path / "x"),
        ):
            for cpu in (*cpus, cpus[0]):
                with on_cpu(cpu):
                    emitter.run(2)
                assert [one for one, _ in buffer.consume()] == [cpu, cpu]
        sent = [cpu for cpu in (*cpus, cpus[0]) for _ in range(2)]
        with Replay(tmp_path / "x") as replay:
            assert replay.cpu is None
            assert [(number(value), replay.cpu) for _, value in replay] == list(enumerate(sent))
        with Replay(tmp_path / "x") as replay:
            assert [batch.cpu for _, batch in replay.batches() for _ in batch] == sent

    def test_several_sources(self, tmp_path: Path, one_cpu: int) -> None:
        path = tmp_path / "x.bpfcap"
        with mixed_ring() as one, perf() as two:
            sources = {"one": RingBuffer(one), "two": PerfBuffer(two, decode=number)}
            with EventReader(sources) as reader:
                with reader.record(path):
                    one.run(40)
                    two.run(30)
                    seen = reader.consume()
                assert len(seen) == 70
        with Replay(path) as replay:
            values = list(replay)
        assert [value for value in values if value[0] == "one"] == [value for value in seen if value[0] == "one"]
        # A function that decodes is not in the file: its records come as bytes.
        assert [number(value) for name, value in values if name == "two"] == list(range(30))

    def test_several_types(self, tmp_path: Path) -> None:
        path = tmp_path / "x.bpfcap"
        btf = event_types()
        with output_ring() as emitter, RingBuffer(emitter, btf=btf) as ring:
            ring.of_several(lambda view: {44: "event", 16: "pair"}.get(len(view)))
            with ring.record(path):
                for size in (44, 16, 20, 16, 16, *[16] * 20):
                    emitter.control[SIZE] = size
                    emitter.run()
                seen = ring.consume()
                emitter.control[SIZE] = 16
                emitter.run(10)
                seen += ring.of("pair").consume()
        with Replay(path) as replay:
            values = [value for _, value in replay]
        assert values == seen
        assert [type(value).__name__ for value in values[:4]] == ["event", "pair", "bytes", "pair"]

    def test_a_function_that_chooses_types_is_asked_once(self, tmp_path: Path) -> None:
        """It may remember what came before."""
        path = tmp_path / "x.bpfcap"
        with output_ring() as emitter, RingBuffer(emitter, btf=event_types()) as ring:
            answers = iter(["event", "pair", KeyError("none"), None, "pair", *["event"] * 20, "pair"])

            def choose(view: memoryview) -> str | None:
                answer = next(answers)
                if isinstance(answer, KeyError):
                    raise answer
                return answer

            ring.of_several(choose)
            emitter.control[SIZE] = 44
            with ring.record(path):
                emitter.run(25)
                seen = ring.consume(2)
                with pytest.raises(KeyError, match="none"):
                    ring.consume()
                seen += ring.consume(4)
                ring.of("event")  # what is held is decoded anew
                assert [type(value).__name__ for value in ring.consume()] == ["event"] * 18
            ring.of_several(choose)
            emitter.run(1)
            assert type(ring.consume()[0]).__name__ == "pair"
        names = ["event", "pair", "bytes", "pair", "event", "event"]
        assert [type(value).__name__ for value in seen] == names
        with Replay(path) as replay:
            kept = [type(value).__name__ for _, value in replay]
        assert kept[:2] + kept[3:7] == names
        assert kept[2] == "bytes"

    def test_one_recording_at_a_time(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring:
            with ring.record(tmp_path / "a"):
                with pytest.raises(ValueError, match="is being recorded already"):
                    ring.record(tmp_path / "b")
                assert not (tmp_path / "b").exists()
            ring.record(tmp_path / "c").close()

    def test_a_full_disk_ends_the_recording_and_loses_no_event(self, emitter: Emitter, tmp_path: Path) -> None:
        before = resources()
        with pytest.raises(OSError) as caught, pairs(emitter) as ring:
            ring.record("/dev/full")
        assert caught.value.errno == errno.ENOSPC
        assert os.path.exists("/dev/full")
        assert resources() == before
        with pairs(emitter) as ring, ring.record(tmp_path / "x") as capture:
            with open("/dev/full", "wb") as full:
                os.dup2(full.fileno(), capture._fd, inheritable=False)
            emitter.run(20)
            with pytest.raises(OSError):
                ring.consume()
            assert [event.seq for event in ring.consume()] == list(range(20))
            emitter.run(1)
            assert len(ring.consume()) == 1
            assert capture.failed is not None
            assert "failed" in repr(capture)

    def test_a_full_disk_loses_no_batch(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring, ring.record(tmp_path / "x") as capture:
            with open("/dev/full", "wb") as full:
                os.dup2(full.fileno(), capture._fd, inheritable=False)
            emitter.run(20)
            with pytest.raises(OSError):
                ring.read_batch()
            assert len(ring.read_batch()) == 20

    def test_a_full_disk_at_a_new_type_ends_the_recording(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring, ring.record(tmp_path / "x") as capture:
            with open("/dev/full", "wb") as full:
                os.dup2(full.fileno(), capture._fd, inheritable=False)
            with pytest.raises(OSError):
                capture.declare_again(ring)
            assert capture.failed is not None
            emitter.run(3)
            assert len(ring.consume()) == 3

    def test_a_child_writes_nothing(self, emitter: Emitter, tmp_path: Path) -> None:
        path = tmp_path / "x"
        with pairs(emitter) as ring, ring.record(path) as capture:
            emitter.run(5)
            ring.consume()
            length = path.stat().st_size
            assert in_child(lambda: capture.close() is None) == 0
            assert path.stat().st_size == length
            emitter.run(5)
            ring.consume()
        assert len(everything(path)[0]) == 10

    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
    def test_a_child_closes_it_though_another_thread_was_writing(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring, ring.record(tmp_path / "x") as capture:

            def write(wait: Callable[[], object]) -> None:
                with capture._lock:
                    wait()

            with another_thread_in(write):
                assert in_child(lambda: capture.close() is None) == 0

    def test_a_forgotten_recording_warns_and_is_closed(self, emitter: Emitter, tmp_path: Path) -> None:
        with pairs(emitter) as ring, pytest.warns(ResourceWarning, match="unclosed <Capture"):
            ring.record(tmp_path / "x")
            ring.capture = None
        assert everything(tmp_path / "x") == ([], True)

    def test_the_command_replays_what_run_printed(self, tmp_path: Path) -> None:
        path = tmp_path / "x.bpfcap"
        command = [sys.executable, "-m", "pybpf"]
        run = [*command, "run", "hello", "--count", "20", "--duration", "20", "--record", str(path)]
        root = str(Path(__file__).parents[2])
        noise = "while :; do /bin/true; done"
        with subprocess.Popen(["sh", "-c", noise]) as shell:
            try:
                printed = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True, cwd=root).stdout
            finally:
                shell.kill()
        assert printed.count("\n") == 20
        lines = subprocess.run(
            [*command, "replay", str(path)], capture_output=True, text=True, check=True, cwd=root
        ).stdout.splitlines()
        assert lines[:20] == printed.splitlines()


# The command


def test_replay_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.bpfcap", recording("big"))
    assert main(["replay", str(path)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "execs pid=0 comm=run0",
        "execs pid=1 comm=run1",
        "execs pid=2 comm=run2",
        "execs pid=3 comm=three",
        "execs 73686f7274",
    ]
    assert output.err == "pybpf: 7 events were lost when this was recorded\n"


def test_replay_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.bpfcap", recording())
    assert main(["replay", str(path), "--json", "--count", "2", "--map", "execs"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"map": "execs", "event": {"pid": pid, "comm": f"run{pid}"}} for pid in range(2)]
    assert main(["replay", str(path), "--map", "others"]) == 2
    output = capsys.readouterr()
    assert output.out == "" and "--map others: the recording has no such buffer, but execs" in output.err


def test_replay_with_times(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    path = write(tmp_path / "x.bpfcap", recording())
    assert main(["replay", str(path), "--time", "--count", "1"]) == 0
    assert capsys.readouterr().out == "1970-01-01 00:00:00.000000 execs pid=0 comm=run0\n"
    assert main(["replay", str(path), "--time", "--count", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "map": "execs",
        "time_ns": 1,
        "event": {"pid": 0, "comm": "run0"},
    }


def test_replay_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.bpfcap", recording())
    assert main(["replay", str(path), "--info"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: little-endian, kernel 6.12, machine s390x",
        "  execs: 5 records of struct event, 7 lost",
    ]
    assert main(["replay", str(write(path, recording()[:-1])), "--info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["complete"] is False
    assert told["sources"] == [
        {"map": "execs", "kind": "RingBuffer", "type": "struct event", "records": 5, "lost": None}
    ]


def test_replay_of_what_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "none")]) == 3
    assert main(["replay", str(write(tmp_path / "x", b"text"))]) == 3
    assert "no recording" in capsys.readouterr().err
    assert main(["replay", str(write(tmp_path / "x", recording()[:-1]))]) == 0
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 5
    assert "was cut off here" in output.err
