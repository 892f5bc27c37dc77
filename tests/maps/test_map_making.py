"""Maps that no object file describes: C declarations, Python types, sizes."""

from __future__ import annotations

import enum
import mmap
from dataclasses import InitVar, dataclass, field
from typing import Annotated, NamedTuple

import pytest
from map_helpers import failing, unless_unknown

import pybpf
from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, BTFError
from pybpf.maps import Map, MappingMap, class_of
from pybpf.maps.declared import codec_of, u16, u32


class Color(enum.IntEnum):
    RED = 1
    BLUE = 7


@dataclass
class Flow:
    source: u32
    port: u16
    name: Annotated[str, "char[6]"]
    bytes: int = 0
    share: float = 0.0
    is_open: bool = False


class Pair(NamedTuple):
    first: Flow
    color: Color
    hops: "u16[3]"  # type: ignore[valid-type] # noqa: UP037


@dataclass
class Wrong:
    what: list[int] = field(default_factory=list)


def test_types_in_c() -> None:
    text = "struct stats { u64 packets; u64 bytes; }"
    with pybpf.HashMap(key="u32", value=text, max_entries=1024, name="counts") as made:
        assert repr(made) == "<HashMap 'counts' u32 -> struct stats, max_entries=1024>"
        made[7] = {"packets": 1, "bytes": 100}
        made[8] = (2, 200)
        assert made[7].bytes == 100
        with pytest.raises(ValueError, match="no field 'size'"):
            made[7] = {"size": 1}
        with Map.from_id(made.id) as again:  # the kernel knows the types
            assert again[8].packets == 2
            assert repr(again) == repr(made)


@pytest.mark.parametrize("cls", [Flow, Pair])
def test_python_classes(cls: type) -> None:
    flow = Flow(0x7F000001, 80, "http", -5, 0.25, True)
    value = flow if cls is Flow else Pair(flow, Color.BLUE, [1, 2, 3])  # type: ignore[arg-type]
    with pybpf.HashMap(key=int, value=cls, max_entries=8) as made:
        made[-1] = value
        assert made[-1] == value
        assert type(made[-1]) is cls
        assert made.to_dict() == {-1: value}
        assert list(made.values()) == [value]
        assert made.get_many([-1] * 20) == [value] * 20
        if not made.info().btf_id:
            return  # a kernel that knows no floats in BTF (before Linux 5.13) takes the map without types
        with Map.from_id(made.id) as again:
            assert next(iter(again[-1])) == (flow.source if cls is Flow else tuple(vars(flow).values()))


def test_objects_as_keys() -> None:
    with pybpf.HashMap(key=Pair, value="u8", max_entries=8) as made:
        key = Pair(Flow(1, 2, "x"), Color.RED, [0, 0, 9])  # type: ignore[arg-type]
        made[key] = 5
        assert made[key] == 5
        assert next(iter(made)) == key


def test_a_class_that_is_no_struct_is_named() -> None:
    for wrong, message in ((Wrong, "Wrong.what: .*no type"), (object, "neither a dataclass"), (3.5, "3.5 is no type")):
        with pytest.raises(BTFError, match=message):
            pybpf.HashMap(key="u32", value=wrong, max_entries=1)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Named:
    first: u32
    second: u16 = field(default=2, kw_only=False)


@dataclass
class WithHint:
    first: u32
    hint: InitVar[int] = 0
    second: u16 = 0


@dataclass
class Wanting:
    first: u32
    hint: InitVar[int]


@dataclass
class Computed:
    first: u32
    second: u32 = field(init=False, default=0)


def test_classes_whose_fields_have_names_only() -> None:
    for value in (Named(first=1, second=3), WithHint(5, 0, 7)):
        with pybpf.HashMap(key="u32", value=type(value), max_entries=4) as made:
            made[1] = value
            assert made[1] == value
            assert made.to_dict() == {1: value}
    for wrong in (Wanting, Computed):
        with pytest.raises(BTFError, match=f"{wrong.__name__}: no object can be made of its fields: .*(hint|second)"):
            pybpf.HashMap(key="u32", value=wrong, max_entries=1)


def test_locks_in_values() -> None:
    value = "struct counted { struct bpf_spin_lock lock; u32 count; }"
    with pybpf.HashMap(key="u32", value=value, max_entries=4) as made:
        made.put(1, {"count": 5}, c.BPF_F_LOCK)
        assert made.get(1, flags=c.BPF_F_LOCK).count == 5


def test_sizes() -> None:
    with pybpf.HashMap(key=3, value=5, max_entries=4) as made:
        made[b"abc"] = b"12345"
        assert made.to_dict() == {b"abc": b"12345"}
        assert made.info().btf_id == 0


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (pybpf.ArrayMap, {"value": "u64"}),
        (pybpf.PerCpuArrayMap, {"value": "u32"}),
        (pybpf.PerCpuHashMap, {"key": "u32", "value": "u32"}),
        (pybpf.LruHashMap, {"key": "u32", "value": "u32"}),
        (pybpf.LruPerCpuHashMap, {"key": "u32", "value": "u32"}),
        (pybpf.LpmTrie, {"key": "ipv4", "value": "u32"}),
        (pybpf.Queue, {"value": "u32"}),
        (pybpf.Stack, {"value": "u32"}),
        (pybpf.BloomFilter, {"value": "u32"}),
        (class_of(c.BPF_MAP_TYPE_PROG_ARRAY), {}),
        (class_of(c.BPF_MAP_TYPE_CGROUP_ARRAY), {}),
        (class_of(c.BPF_MAP_TYPE_DEVMAP), {}),
        (class_of(c.BPF_MAP_TYPE_DEVMAP_HASH), {}),
        (class_of(c.BPF_MAP_TYPE_CPUMAP), {}),
        (class_of(c.BPF_MAP_TYPE_XSKMAP), {}),
        (class_of(c.BPF_MAP_TYPE_SOCKMAP), {"value": 8}),
        (class_of(c.BPF_MAP_TYPE_SOCKHASH), {"key": "u64", "value": 8}),
        (class_of(c.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY), {"value": 8}),
        (class_of(c.BPF_MAP_TYPE_PERF_EVENT_ARRAY), {}),
        (class_of(c.BPF_MAP_TYPE_STACK_TRACE), {"value": 80}),
        (class_of(c.BPF_MAP_TYPE_SK_STORAGE), {"value": "u64", "max_entries": 0}),
        (class_of(c.BPF_MAP_TYPE_TASK_STORAGE), {"value": "u64", "max_entries": 0}),
        (class_of(c.BPF_MAP_TYPE_INODE_STORAGE), {"value": "u64", "max_entries": 0}),
        (class_of(c.BPF_MAP_TYPE_CGRP_STORAGE), {"value": "u64", "max_entries": 0}),
        (class_of(c.BPF_MAP_TYPE_USER_RINGBUF), {"max_entries": 4096}),
        (pybpf.RingBufferMap, {"max_entries": 4096}),
        (class_of(c.BPF_MAP_TYPE_ARENA), {}),
        (class_of(c.BPF_MAP_TYPE_RHASH), {"key": "u32", "value": "u32"}),
        (class_of(c.BPF_MAP_TYPE_INSN_ARRAY), {}),
    ],
)
def test_every_type_that_can_be_made_alone(cls: type[Map], options: dict[str, object]) -> None:
    with unless_unknown(cls.__name__), cls(**{"max_entries": 4, **options}) as made:  # type: ignore[arg-type]
        assert isinstance(made, cls)
        assert made.info().type == cls.default_type


@pytest.mark.parametrize("name", ["RingBufferMap", "UserRingBufferMap"])
def test_ring_buffers_get_the_size_that_those_of_objects_get(name: str) -> None:
    with unless_unknown(name), getattr(pybpf.maps, name)(max_entries=mmap.PAGESIZE + 1) as made:
        assert made.max_entries == made.info().max_entries == 2 * mmap.PAGESIZE
    with pytest.raises(ValueError, match="max_entries = -5"):
        getattr(pybpf.maps, name)(max_entries=-5)
    with pytest.raises(TypeError, match="max_entries takes an integer, not '1'"):
        getattr(pybpf.maps, name)(max_entries="1")


def test_the_kernel_that_brought_overwrite_mode_is_named() -> None:
    flags = c.BPF_F_RB_OVERWRITE
    with pytest.raises(BPFError, match="BPF_F_RB_OVERWRITE needs Linux 6.19"):
        syscall.map_create(c.BPF_MAP_TYPE_RINGBUF, max_entries=5000, map_flags=flags)  # refused by all kernels
    try:
        pybpf.maps.RingBufferMap(max_entries=4096, flags=flags).close()
    except BPFError as error:
        assert error.hint == "BPF_F_RB_OVERWRITE needs Linux 6.19"


def test_maps_of_maps() -> None:
    with (
        pybpf.ArrayMap(value="u64", max_entries=2) as inner,
        pybpf.HashOfMaps(key="u32", inner=inner, max_entries=4) as outer,
        pybpf.ArrayOfMaps(inner=inner, max_entries=4) as array,
    ):
        outer[1] = array[0] = inner
        assert outer[1] == array[0] == inner.id
        with outer.open(1) as again, array.open(0) as same:
            inner[1] = 5
            assert again[1] == same[1] == 5


def test_refusals() -> None:
    with pytest.raises(TypeError, match="does not stand for one type"):
        MappingMap(key="u32", value="u32", max_entries=1)
    with pytest.raises(BTFError, match="'u33' is not known"):
        pybpf.HashMap(key="u33", value="u32", max_entries=1)
    with pytest.raises(BPFError) as caught:
        pybpf.HashMap(key="u32", value="u32", max_entries=1, map_extra=1, name="empty")
    assert "empty" in str(caught.value)
    fd = syscall.map_create(c.BPF_MAP_TYPE_HASH, key_size=4, value_size=4, max_entries=1)
    with pytest.raises(TypeError, match="key_size and value_size"):
        pybpf.HashMap(fd)
    assert fd.closed


@pytest.mark.parametrize("command", ["BPF_BTF_LOAD", "BPF_MAP_CREATE"])
def test_without_types_where_the_kernel_does_not_want_them(command: str) -> None:
    with failing(22, command, when=lambda count: count == 1) as seen:
        made = pybpf.HashMap(key="u32", value="struct s { u64 a; }", max_entries=4)
    assert "BPF_MAP_CREATE" in seen.seen
    with made:
        made[1] = (5,)
        assert made[1].a == 5
        assert made.info().btf_id == 0


def test_class_with_operators_of_its_own() -> None:
    class Doubling(pybpf.HashMap):
        def __getitem__(self, key: int) -> int:
            return 2 * int(super().__getitem__(key))

    with Doubling(key="u32", value="u32", max_entries=4) as made:
        made[1] = 4
        assert made[1] == 8


@dataclass
class Knot:
    inner: Knot


@dataclass
class Left:
    right: Right


@dataclass
class Right:
    left: Left


class NoMembers(enum.IntEnum):
    pass


@pytest.mark.parametrize(
    ("declared", "message"),
    [(Knot, "Knot contains itself"), (Left, "contains itself"), (NoMembers, "NoMembers is an enum without members")],
)
def test_classes_that_are_no_types(declared: type, message: str) -> None:
    with pytest.raises(BTFError, match=message):
        codec_of(declared)
