"""Snapshots: typed by themselves, the same after a file, restored by bytes or by names."""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_helpers import unless_unknown
from thrift import few

import pybpf
from pybpf import constants as c
from pybpf.btf.codec import codec
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import ClosedError, NotSupportedError, ObjectError
from pybpf.maps import CpuMap, DevMap, DevMapHash, Prefix, Snapshot, class_of
from pybpf.syscall import possible_cpus

OTHER = "big" if sys.byteorder == "little" else "little"

FLOW = """
enum state { IDLE, BUSY = 5 };
struct flow { u64 bytes; enum state state; char name[6]; u8 mac[6]; float share; u16 ports[2]; u32 hot:1, level:7;
    union { u32 v4; u8 raw[4]; }; bool open; struct { s16 x, y; } at; }
"""
ITEMS = {
    number: {
        "bytes": number << 50,
        "state": "BUSY" if number % 2 else "IDLE",
        "name": f"n{number}",
        "mac": bytes([number] * 6),
        "share": number / 4,
        "ports": [number, 80],
        "hot": number & 1,
        "level": number,
        "v4": 0x01020304 * number,
        "open": bool(number % 3),
        "at": (-number, number),
    }
    for number in range(20)
}


@pytest.fixture
def flows() -> pybpf.HashMap:
    made = pybpf.HashMap(key="u32", value=FLOW, max_entries=64, name="flows")
    made.update(ITEMS)
    return made


@pytest.mark.parametrize("name", ["flows.bpfmap", "flows.json"])
def test_there_and_back(flows: pybpf.HashMap, name: str, tmp_path: Path) -> None:
    with flows:
        before = flows.to_dict()
        flows.snapshot().save(tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        flows.clear()
        flows[99] = {"bytes": 1}
        flows.restore(tmp_path / name)
        assert flows.to_dict() == before
    again = Snapshot.load(tmp_path / name)  # without the map, and typed
    assert (again.name, again.type, len(again)) == ("flows", c.BPF_MAP_TYPE_HASH, 20)
    values = dict(again.items())
    assert values[3].state.name == "BUSY"
    v4 = (3 * 0x01020304).to_bytes(4, sys.byteorder)
    assert (values[3].name, values[3].mac, values[3].at.x, values[3].raw) == ("n3", b"\3" * 6, -3, v4)
    with again.create(max_entries=100) as made:
        assert made.to_dict() == before
        assert made[3] == before[3] == values[3]
        assert (made.name, made.max_entries) == ("flows", 100)


def test_json_is_for_people(flows: pybpf.HashMap) -> None:
    with flows:
        told = json.loads(flows.snapshot().to_json())
    entry = next(entry for entry in told["entries"] if entry["key"] == 3)
    assert entry["value"]["name"] == "n3"
    assert entry["value"]["state"] == "BUSY"
    assert entry["value"]["mac"] == "030303030303"
    assert entry["value"]["at"] == {"x": -3, "y": 3}


def test_bytes_that_json_cannot_say(tmp_path: Path) -> None:
    """Padding, text behind a NUL, a not-a-number: nothing is lost."""
    text = "struct odd { u8 a; u32 b; char c[4]; double d; }"
    with pybpf.HashMap(key="char[4]", value=text, max_entries=200) as made:
        items = {random.randbytes(4): random.randbytes(24) for _ in range(100)} | {b"a\0b\0": b"\xff" * 24}
        made.update(items)
        for name in ("x.json", "x.bpfmap"):
            made.snapshot().save(tmp_path / name)
            made.clear()
            made.restore(tmp_path / name)
            keys, values = made.items_array()
            assert {bytes(k): bytes(v) for k, v in zip(keys.tolist(), values.tolist(), strict=True)} == items


@pytest.mark.parametrize("value", ["u32", "struct s { u64 a; u32 b; }", 5])
@pytest.mark.parametrize("name", ["x.json", "x.bpfmap"])
def test_per_cpu(value: str | int, name: str, tmp_path: Path) -> None:
    one = {"u32": 7, 5: b"12345"}.get(value, (7, 8))
    with pybpf.PerCpuHashMap(key="u32", value=value, max_entries=4) as made:
        made[1] = [one] * possible_cpus()
        made.snapshot().save(tmp_path / name)
        before = made.to_dict()
        taken = Snapshot.load(tmp_path / name)
        assert dict(taken.items()) == before
        made.restore(taken)
        assert made.to_dict() == before
        taken.cpus += 1
        with pytest.raises(ValueError, match="values for each element"):
            made.restore(taken)
    with pybpf.HashMap(key="u32", value=value, max_entries=4) as plain, pytest.raises(ValueError, match="0 values"):
        plain.restore(tmp_path / name)


@pytest.mark.parametrize(
    ("cls", "options", "items"),
    [
        (pybpf.ArrayMap, {"value": "u64", "max_entries": 3}, {0: 1, 1: 0, 2: 5}),
        (pybpf.PerCpuArrayMap, {"value": "u64", "max_entries": 2}, {0: 1, 1: 0}),
        (pybpf.LpmTrie, {"key": "ipv6", "value": "u64", "max_entries": 3}, {"2001:db8::/32": 1}),
        (pybpf.LruHashMap, {"key": 3, "value": 5, "max_entries": 30}, {b"abc": b"12345"}),
    ],
)
def test_kinds(cls: type[pybpf.HashMap], options: dict[str, object], items: dict[object, object]) -> None:
    with cls(**options) as made:  # type: ignore[arg-type]
        made.update(items)
        before = made.to_dict()
        taken = Snapshot.from_bytes(made.snapshot().to_bytes())
        assert Snapshot.from_json(taken.to_json()).to_bytes() == taken.to_bytes()
        with taken.create() as again:
            assert again.to_dict() == before
            assert type(again).__name__ == cls.__name__


def test_a_type_that_has_grown() -> None:
    """An agent that was upgraded takes its old state along."""
    with (
        pybpf.HashMap(key="u32", value="struct v { u32 hits; char name[4]; }", max_entries=4) as old,
        pybpf.HashMap(key="u64", value="struct v { char name[8]; u64 hits; u64 misses; }", max_entries=4) as new,
        pybpf.HashMap(key="u32", value="struct v { char name[8]; }", max_entries=4) as less,
        pybpf.HashMap(key="u32", value=8, max_entries=4) as untyped,
        pybpf.HashMap(key="u32", value=9, max_entries=4) as longer,
    ):
        old[1] = (5, "ab")
        less[7] = ("kept",)
        taken = old.snapshot()
        new.restore(taken)
        assert new.to_dict() == {1: ("ab", 5, 0)}
        with pytest.raises(ValueError, match="has no field 'hits'"):
            less.restore(taken)
        assert less.to_dict() == {7: ("kept",)}
        untyped.restore(taken)
        assert untyped[1] == struct.pack("=I4s", 5, b"ab")
        with pytest.raises(ValueError, match="without a type"):
            longer.restore(taken)


def test_maps_that_give_ids() -> None:
    with (
        pybpf.ArrayMap(value="u64", max_entries=1) as inner,
        pybpf.HashOfMaps(key=4, inner=inner, max_entries=2) as outer,
    ):
        outer[b"abcd"] = inner
        taken = outer.snapshot()
        assert dict(taken.items()) == {b"abcd": inner.id}
        with pytest.raises(TypeError, match="cannot be written"):
            outer.restore(taken)
    with (
        unless_unknown("task storage (Linux 5.11)"),
        class_of(c.BPF_MAP_TYPE_TASK_STORAGE)(value="u64", max_entries=0) as tasks,
        pytest.raises(NotSupportedError),
    ):
        tasks.snapshot()  # type: ignore[attr-defined]


def test_closed_and_files_that_are_left_alone(flows: pybpf.HashMap, tmp_path: Path) -> None:
    path = tmp_path / "x.bpfmap"
    path.write_bytes(b"before")
    with flows:
        taken = flows.snapshot()
    with pytest.raises(ClosedError):
        flows.snapshot()
    taken.value_codec = "wrong"  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        taken.save(path)
    with pytest.raises(FileNotFoundError):
        flows.restore(tmp_path / "nothing")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("cls", "options", "items"),
    [
        (pybpf.ArrayMap, {"value": "u64", "max_entries": 2}, {0: 5, 1: 6}),
        (pybpf.ArrayMap, {"value": 3, "max_entries": 2}, {0: b"abc", 1: b"def"}),
        (pybpf.PerCpuArrayMap, {"value": "u32[2]", "max_entries": 1}, {0: [[1, 2]] * possible_cpus()}),
        (pybpf.LpmTrie, {"key": "ipv4", "value": "u64", "max_entries": 2}, {ip_network("10.0.0.0/8"): 1}),
        (pybpf.LpmTrie, {"key": 8, "value": "u64", "max_entries": 2}, {Prefix(8, b"\x0a\0\0\0"): 1}),
        (pybpf.HashMap, {"key": "u32[2]", "value": 4, "max_entries": 2}, {(1, 2): b"abcd"}),
        (pybpf.HashMap, {"key": "union u { u32 a; u8 b[4]; }", "value": "u32", "max_entries": 2}, {}),
        (DevMap, {"max_entries": 4}, {1: socket.if_nametoindex("lo")}),
        (DevMapHash, {"value": 8, "max_entries": 4}, {1: (socket.if_nametoindex("lo"), 0)}),
        (CpuMap, {"value": 8, "max_entries": 2}, {0: (192, 0)}),
    ],
)
@pytest.mark.parametrize("form", ["taken", "json", "bytes"])
def test_items_are_those_of_the_map(cls: Any, options: dict[str, Any], items: dict[Any, Any], form: str) -> None:
    """Keys and values in a snapshot are the Python values that the map gives."""
    with cls(**options) as made:
        made.update(items or {(1).to_bytes(4, sys.byteorder): 3})
        taken = made.snapshot()
        if form == "json":
            taken = Snapshot.from_json(taken.to_json())
        elif form == "bytes":
            taken = Snapshot.from_bytes(taken.to_bytes())
        assert dict(taken.items()) == made.to_dict()
        assert [tuple(map(type, item)) for item in taken.items() if items] == [
            tuple(map(type, item)) for item in made.items() if items
        ]
        if items:
            assert made.to_dict() == items
        made.restore(taken)
        assert dict(taken.items()) == made.to_dict()


def test_indexes_are_numbers_in_json() -> None:
    with pybpf.ArrayMap(value="u64", max_entries=2) as made:
        made[1] = 7
        entries = json.loads(made.snapshot().to_json())["entries"]
        assert entries == [{"key": 0, "value": 0}, {"key": 1, "value": 7}]
        without = Snapshot.from_json(made.snapshot().to_json())
        without.key_codec = None  # as of files whose keys have no type
        made[1] = 0
        made.restore(without)
        assert dict(without.items()) == made.to_dict() == {0: 0, 1: 7}


def test_a_snapshot_of_another_byte_order() -> None:
    """What has a type is right; what has none is bytes."""
    builder = BTFBuilder(OTHER)
    ids = builder.add_int("u32", 4), builder.add_int("u64", 8)
    btf = BTF.from_bytes(builder.to_bytes())
    shape = {"name": "x", "key_size": 4, "value_size": 8, "max_entries": 2, "flags": 0, "map_extra": 0}
    values = (5).to_bytes(8, OTHER) + (7).to_bytes(8, OTHER)
    keys = (0).to_bytes(4, OTHER) + (1).to_bytes(4, OTHER)
    array = shape | {"type": c.BPF_MAP_TYPE_ARRAY}
    typed = Snapshot(array, keys, values, codec(btf, ids[0]), codec(btf, ids[1]), byte_order=OTHER)
    assert dict(Snapshot.from_bytes(typed.to_bytes()).items()) == {0: 5, 1: 7}
    with pybpf.ArrayMap(value="u64", max_entries=2) as made:
        made.restore(typed)
        assert made.to_dict() == {0: 5, 1: 7}
    untyped = Snapshot(array, keys, values, None, codec(btf, ids[1]), byte_order=OTHER)
    assert dict(untyped.items()) == {keys[:4]: 5, keys[4:]: 7}


def test_elements_that_have_no_room() -> None:
    """What cannot be restored is refused before anything is deleted."""
    with pybpf.HashMap(key="u32", value="u32", max_entries=20) as large:
        large.update({number: number for number in range(10)})
        taken = large.snapshot()
    with (
        pybpf.HashMap(key="u32", value="u32", max_entries=9) as small,
        pybpf.HashMap(key="u32", value="u32", max_entries=10) as enough,
        pybpf.LruHashMap(key="u32", value="u32", max_entries=9) as lru,
        pybpf.ArrayMap(value="u32", max_entries=9) as array,
    ):
        small[99] = array[3] = 7
        for target in (small, array):
            before = target.to_dict()
            for clear in (True, False):
                with pytest.raises(ValueError, match="has no room .+: it takes 10 elements"):
                    target.restore(taken, clear=clear)
            assert target.to_dict() == before
        enough[99] = 7
        enough.restore(taken)
        assert enough.to_dict() == {number: number for number in range(10)}
        lru.restore(taken)
        assert lru.to_dict()


def test_untyped_keys_and_values_of_another_layout() -> None:
    """Values of the same size go by their names too where keys have no type."""
    with (
        pybpf.HashMap(key=4, value="struct v { u32 a, b; }", max_entries=2) as old,
        pybpf.HashMap(key=4, value="struct v { u32 b, a; }", max_entries=2) as new,
    ):
        old[b"abcd"] = (1, 2)
        new.restore(old.snapshot())
        assert new.to_dict() == {b"abcd": (2, 1)}


@settings(max_examples=few(60), deadline=None)
@given(position=st.integers(0, 10_000), data=st.binary(max_size=8), cut=st.integers(0, 3))
def test_damaged_files(position: int, data: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pybpf.HashMap(key="u32", value=FLOW, max_entries=64) as made:
        made.update(ITEMS)
        taken = made.snapshot()
    path = tmp_path_factory.mktemp("damaged") / "file"
    for whole in (taken.to_bytes(), taken.to_json().encode()):
        place = position % len(whole)
        path.write_bytes(whole[:place] + data + whole[place + cut :])
        try:
            assert isinstance(list(Snapshot.load(path).items()), list)
        except ObjectError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "3", '{"entries": [], "btf": ""}', '{"entries": [], "btf": "zz"}', "{" * 9999]
)
def test_what_is_no_snapshot(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    with pytest.raises(ObjectError, match="x: "):
        Snapshot.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"byte_order": OTHER}, f"{OTHER}-endian, its type information {sys.byteorder}-endian"),
        ({"key_type": 99}, "type information is damaged"),
        ({"btf": "00" * 30}, "type information is damaged"),
        ({"entries": 5}, "no snapshot of a map"),
    ],
)
def test_a_header_that_contradicts_itself(changes: dict[str, object], message: str) -> None:
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
        made[1] = 2
        data = json.loads(made.snapshot().to_json())
    with pytest.raises(ObjectError, match=message):
        Snapshot.from_json(json.dumps(data | changes))
