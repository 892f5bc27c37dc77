"""What an object says about its event buffers: what they carry, and what they drop."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_builder import built_path

import pybpf
from pybpf.btf import kinds
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import BPF_MAP_TYPE_PERF_EVENT_ARRAY, BPF_MAP_TYPE_RINGBUF
from pybpf.errors import BTFError, ClosedError
from pybpf.events.drops import counter_name, total
from pybpf.events.types import event_codec, event_type, value_type_of
from pybpf.mapspec import MapSpec

PACKET = bytes(64)
PATH = built_path("load_events.bpf.c", sys.byteorder)
EMITTERS = {"tagged": "by_tag", "valued": "by_value", "by_names": "by_name", "samples": "by_value"}


def test_the_types_that_the_object_declares() -> None:
    spec = pybpf.ObjectSpec.from_file(PATH)
    assert spec.btf is not None
    found = {}
    for name in (*EMITTERS, "numbers"):
        value_type = value_type_of(spec.btf, spec.maps[name])
        codec, strict = event_codec(spec.btf, name, value_type=value_type)
        found[name] = None if codec is None else (codec.c_name, strict)
    assert found == {
        "tagged": ("struct by_tag", True),
        "valued": ("struct by_value", True),
        "by_names": ("struct by_name", False),  # only suggested
        "samples": ("struct by_value", True),
        "numbers": None,  # an int in a perf event array is a descriptor
    }


def value_spec(type_number: int, kind: str) -> tuple[BTF, MapSpec]:
    b = BTFBuilder()
    u64 = b.add_int("u64", 8, 64)
    struct_id = b.add_struct("event", 8, [("n", u64, 0)])
    types = {"u64": u64, "struct": struct_id, "typedef": b.add_typedef("event_t", struct_id)}
    spec = MapSpec("m", type_number, key_size=4, value_size=8, max_entries=4096)
    spec.value_type_id = types[kind]
    return BTF.from_bytes(b.to_bytes()), spec


@pytest.mark.parametrize(
    ("type_number", "kind", "counts"),
    [
        (BPF_MAP_TYPE_RINGBUF, "u64", True),
        (BPF_MAP_TYPE_RINGBUF, "struct", True),
        (BPF_MAP_TYPE_RINGBUF, "typedef", True),
        (BPF_MAP_TYPE_PERF_EVENT_ARRAY, "u64", False),
        (BPF_MAP_TYPE_PERF_EVENT_ARRAY, "struct", True),
        (BPF_MAP_TYPE_PERF_EVENT_ARRAY, "typedef", True),
        (1, "struct", False),
    ],
)
def test_value_types_of_records(type_number: int, kind: str, counts: bool) -> None:
    btf, spec = value_spec(type_number, kind)
    assert value_type_of(btf, spec) == (spec.value_type_id if counts else 0)


def test_a_tag_and_a_value_type_must_agree() -> None:
    btf, spec = value_spec(BPF_MAP_TYPE_RINGBUF, "typedef")
    struct_id = next(iter(btf.own_ids("event", kinds.KIND_STRUCT)))
    assert event_type(btf, "m", ["event:event"], spec.value_type_id) == struct_id
    with pytest.raises(BTFError, match="its tag and its value type name different types"):
        event_type(btf, "m", ["event:u64"], spec.value_type_id)


def test_which_variable_counts() -> None:
    spec = pybpf.ObjectSpec.from_file(PATH)
    names = [counter_name(spec, name) for name in ("tagged", "valued", "by_names", "samples")]
    assert names == ["dropped_tagged", "dropped_valued", "dropped_by_names", ""]
    hello = pybpf.ObjectSpec.from_file(Path(__file__).parents[2] / "kernels" / "hello.bpf.o")
    assert counter_name(hello, "greetings") == "dropped_events"  # the only ring buffer


# The kernel

needs_root = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]


@pytest.fixture
def obj(one_cpu: int) -> Iterator[pybpf.Object]:
    with pybpf.load(PATH) as obj:
        yield obj


def emit(obj: pybpf.Object, name: str, count: int) -> None:
    program = "emit_sample" if name == "samples" else f"emit_{name}"
    obj.programs[program].test_run(PACKET, repeat=count)


@pytest.mark.parametrize("name", EMITTERS)
class TestLive:
    pytestmark = needs_root

    def test_records_have_the_declared_type(self, obj: pybpf.Object, name: str) -> None:
        made = obj.maps[name]
        assert made.consume() == []
        emit(obj, name, 3)
        values = made.consume()
        assert [type(value).__name__ for value in values] == [EMITTERS[name]] * 3
        assert [value.number for value in values] == [0, 1, 2]
        emit(obj, name, 2)
        assert list(made.read_batch().column("number")) == [3, 4]

    def test_statistics(self, obj: pybpf.Object, name: str) -> None:
        made = obj.maps[name]
        made.consume()
        emit(obj, name, 5)
        before = made.statistics()
        assert before["records"] == 0 and before["lost"] == 0
        assert before["size"] >= 4096 and 0 < before["available"] < before["size"]
        made.consume()
        after = made.statistics()
        assert after["records"] == 5 and after["available"] == 0
        assert after["bytes"] >= 5 * 8


@pytest.mark.parametrize("name", ["tagged", "valued", "by_names"])
class TestDrops:
    pytestmark = needs_root

    def test_every_record_is_delivered_or_counted(self, obj: pybpf.Object, name: str) -> None:
        made = obj.maps[name]
        assert made.lost == 0
        emit(obj, name, 1000)
        lost, delivered = made.lost, len(made.consume())
        assert lost > 0
        assert lost + delivered == 1000
        assert all(obj.maps[other].lost == 0 for other in ("tagged", "valued", "by_names") if other != name)

    def test_the_count_stays_when_the_object_is_closed(self, obj: pybpf.Object, name: str) -> None:
        with obj.maps[name].reader() as reader:
            emit(obj, name, 1000)
            lost = reader.lost
            assert lost
            obj.close()
            assert reader.lost == lost
            assert lost + len(reader.consume()) == 1000


class TestOthers:
    pytestmark = needs_root

    def test_a_ring_buffer_by_descriptor_knows_of_no_counter(self, obj: pybpf.Object) -> None:
        with pybpf.events.RingBuffer(obj.maps["tagged"].fileno()) as ring:
            assert ring.lost is None
            assert ring.statistics()["lost"] is None

    def test_threads_open_one_reader_of_a_map(self, obj: pybpf.Object) -> None:
        gate = threading.Barrier(8)
        found = []

        def use() -> None:
            gate.wait()
            found.append(obj.maps["tagged"]._events)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and len(set(map(id, found))) == 1

    def test_maps_are_made_as_the_kernel_wants_them(self, obj: pybpf.Object) -> None:
        for name, value_size in {"valued": 0, "samples": 4, "numbers": 4}.items():
            assert obj.maps[name].info().value_size == value_size
            assert obj.maps[name].value_size == value_size

    def test_mixed_types(self, obj: pybpf.Object) -> None:
        with obj.maps["tagged"].reader() as reader:
            reader.of_several(lambda record: "by_tag" if struct.unpack_from("I", record, 8) == (7,) else None)
            emit(obj, "tagged", 2)
            assert [event.kind for event in reader.consume()] == [7, 7]


@pytest.mark.parametrize(
    ("count", "number"), [(5, 5), ([1, 2], 3), ([[1, 2], [3, 4]], 10), ("five", None), ([1, 2.5], None), ([], 0)]
)
def test_what_there_are_several_of_is_added_up(count: object, number: int | None) -> None:
    assert total(count) == number


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_the_command_reports_what_programs_count(tmp_path: Path) -> None:
    """hello.bpf.o counts in dropped_events: a ring of one page that nobody reads in time."""
    code = (
        "import pybpf, sys\n"
        "from pybpf.cli.run import _report_losses\n"
        "with pybpf.load(sys.argv[1]) as obj:\n"
        "    obj.programs['emit_tagged'].test_run(bytes(64), repeat=1000)\n"
        "    with pybpf.events.EventReader({'tagged': obj.maps['tagged'].reader()}) as reader:\n"
        "        _report_losses(obj, reader)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(PATH)], capture_output=True, text=True, check=True)
    records = 4096 // 24
    assert done.stderr == f"pybpf: {1000 - records} events were lost\n"


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
class TestClosing:
    @pytest.mark.parametrize("name", EMITTERS)
    def test_closing_the_object_ends_the_loops_over_its_maps(self, obj: pybpf.Object, name: str) -> None:
        seen: list[int] = []
        assert obj.maps[name].consume() == []  # programs find no perf buffer before somebody reads it
        threads = [
            threading.Thread(target=lambda: seen.extend(event.number for event in obj.maps[name])),
            threading.Thread(
                target=lambda: [seen.extend(batch.column("number")) for batch in obj.maps[name].batches()]
            ),
        ]
        for thread in threads:
            thread.start()
        emit(obj, name, 10)
        deadline = time.monotonic() + 10
        while len(seen) < 10 and time.monotonic() < deadline:
            time.sleep(0.001)
        obj.close()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        assert sorted(seen) == list(range(10))

    @pytest.mark.parametrize("opened", [False, True])
    @pytest.mark.parametrize("name", EMITTERS)
    def test_everything_of_a_closed_object_says_so(self, obj: pybpf.Object, name: str, opened: bool) -> None:
        made = obj.maps[name]
        if opened:
            made.consume()
        obj.close()
        uses: list[Callable[[], object]] = [
            made.consume,
            made.poll,
            made.read_batch,
            made.statistics,
            made.reader,
            lambda: made.of("by_tag"),
            lambda: list(made),
            lambda: made.borrow_batch().__enter__(),
            lambda: made.record("/nonexistent/x"),
            lambda: obj.globals["number"],
            lambda: made.info(),
        ]
        for use in uses:
            with pytest.raises(ClosedError):
                use()
        assert list(made.batches()) == [] if opened else True
        obj.close()
