"""Whole maps as memory: memoryviews, numpy arrays, mapped arrays as live memory."""

from __future__ import annotations

import errno
import sys
from array import array
from ctypes import c_uint32
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from map_helpers import failing

import pybpf
from pybpf.constants import BPF_F_MMAPABLE
from pybpf.errors import BPFError, ClosedError, NotSupportedError
from pybpf.maps.declared import u32, u64
from pybpf.syscall import possible_cpus

CPUS = possible_cpus()


class Pair(NamedTuple):
    a: u32
    b: u32


@dataclass
class Place:
    count: u64
    at: Pair


STATS = "struct stats { u64 packets; u32 size; char name[4]; }"


@pytest.mark.parametrize("count", [0, 1, 5000, 20_000])
def test_numbers(count: int) -> None:
    with pybpf.HashMap(key="u32", value="u64", max_entries=20_000) as made:
        items = {number: number << 33 for number in range(count)}
        made.update(items)
        keys, values = made.items_array()
        assert (keys.format, values.format) == ("I", "Q")
        made.clear()  # what was given out is the caller's
        assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == items
        made.update_array(keys, values)
        assert made.to_dict() == items


def test_bytes_in_rows() -> None:
    with pybpf.HashMap(key=3, value=STATS, max_entries=100) as made:
        made.update({bytes([number] * 3): (number, 1, "ab") for number in range(10)})
        keys, values = made.items_array()
        assert (keys.shape, values.shape) == ((10, 3), (10, 16))
        expected = made.to_dict()
        made.clear()
        made.update_array(keys, values)
        assert made.to_dict() == expected


def test_key_by_key() -> None:
    """Without batches, reading and writing."""
    with (
        pybpf.HashMap(key="u32", value="u64", max_entries=1000) as made,
        failing(errno.EINVAL, "BPF_MAP_LOOKUP_BATCH", "BPF_MAP_UPDATE_BATCH"),
    ):
        made.update_array(array("I", range(600)), array("Q", range(600)))
        keys, values = made.items_array()
        assert sorted(keys.tolist()) == list(range(600))
        assert keys.tolist() == values.tolist()


def test_update_array_refuses() -> None:
    with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
        with pytest.raises(ValueError, match="2 keys and 1 values"):
            made.update_array(bytes(8), bytes(8))
        with pytest.raises(ValueError, match="key: 7 bytes are no whole number"):
            made.update_array(bytes(7), bytes(8))
        with pytest.raises(TypeError):
            made.update_array([1, 2], bytes(8))
        with pytest.raises(BPFError) as caught:
            made.update_array(array("I", range(6)), array("Q", range(6)))
        assert (caught.value.errno, caught.value.count) == (errno.E2BIG, 4)  # type: ignore[attr-defined]
        made.clear()
        made.update_array(b"", b"")
        assert made.to_dict() == {}
    with pytest.raises(ClosedError):
        made.items_array()
    with pytest.raises(ClosedError):
        made.update_array(bytes(4), bytes(8))


@pytest.mark.parametrize(
    ("value", "buffer", "found"),
    [
        ("u32", array("Q", [1, 2]), "u32, not a buffer of Q"),
        ("u64", array("q", [1, 2]), "u64, not a buffer of q"),
        ("u64", array("d", [1, 2]), "u64, not a buffer of d"),
        ("double", array("Q", [1, 2]), "double, not a buffer of Q"),
        ("u32", (c_uint32.__ctype_be__ * 2)(1, 2), "u32, not a buffer of >I"),
        ("u32[2]", array("Q", [1, 2]), r"u32\[2\], not a buffer of Q"),
        (STATS, array("Q", range(4)), "struct stats, not a buffer of Q"),
    ],
)
@pytest.mark.skipif(sys.byteorder == "big", reason="the foreign byte order here is the big one")
def test_numbers_of_another_type(value: str, buffer: Any, found: str) -> None:
    with pybpf.HashMap(key="u32", value=value, max_entries=4) as made:
        with pytest.raises(TypeError, match=f"^value takes bytes or elements of {found}$"):
            made.update_array(array("I", [1, 2]), buffer)
        with pytest.raises(TypeError, match="^key takes bytes or elements of u32, not a buffer of H$"):
            made.update_array(array("H", [1, 2]), buffer)
        assert made.to_dict() == {}
        made.update_array(array("I", [1, 2]), bytes(2 * made.value_size))
        made.update_array(memoryview(array("I", [1, 9, 2, 9]))[::2], bytes(2 * made.value_size))
        assert sorted(made) == [1, 2]


@pytest.mark.parametrize(
    ("value", "buffer", "wanted"),
    [
        ("u64", array("L", [1, 2]), [1, 2]),
        ("u32", (c_uint32 * 2)(1, 2), [1, 2]),
        ("double", array("d", [0.5, 2]), [0.5, 2]),
        ("u32[2]", array("I", range(4)), [[0, 1], [2, 3]]),
        (8, array("Q", [0, 0]), [bytes(8), bytes(8)]),
    ],
)
def test_numbers_of_the_same_type(value: str, buffer: Any, wanted: list[Any]) -> None:
    with pybpf.HashMap(key="u32", value=value, max_entries=4) as made:
        made.update_array(array("I", [1, 2]), buffer)
        assert made.get_many([1, 2]) == wanted


class TestNumpy:
    def test_structs(self) -> None:
        numpy = pytest.importorskip("numpy")
        with pybpf.HashMap(key="u32", value=STATS, max_entries=100) as made:
            made.update({number: (number << 40, 2 * number, "ab") for number in range(50)})
            keys, values = made.items_numpy()
            assert keys.dtype == numpy.uint32
            assert values.dtype.names == ("packets", "size", "name")
            assert values["packets"].sum() == sum(range(50)) << 40
            values["size"] += 1
            made.update_array(keys, values)
            assert made[7] == (7 << 40, 15, "ab")

    @pytest.mark.parametrize("value", ["u32", "u64", STATS, 3])
    def test_per_cpu(self, value: str | int) -> None:
        pytest.importorskip("numpy")
        with pybpf.PerCpuHashMap(key="u32", value=value, max_entries=10) as made:
            made[5] = {STATS: (1, 2, "x"), 3: b"abc"}.get(value, 7)
            keys, values = made.items_numpy()
            assert values.shape == (1, CPUS)
            assert keys.tolist() == [5]
            if value in ("u32", "u64"):
                assert values.sum() == 7 * CPUS
            elif value == STATS:
                assert values["packets"].tolist() == [[1] * CPUS]
            else:
                assert values.tobytes() == b"abc" * CPUS

    @pytest.mark.parametrize("cls", [pybpf.ArrayMap, pybpf.PerCpuArrayMap])
    @pytest.mark.parametrize(
        ("value", "one", "shape"),
        [
            ("u64", 7, ()),
            ("u32", 7, ()),
            ("s8", -7, ()),
            ("u8", 7, ()),
            ("float", 0.5, ()),
            ("bool", True, ()),
            ("char[5]", "abc", ()),
            ("u8[3]", b"abc", (3,)),
            ("u8[8]", b"abcdefgh", (8,)),
            ("u32[3]", (1, 2, 3), (3,)),
            ("s16[2][3]", ((1, 2, 3), (4, 5, 6)), (2, 3)),
            (STATS, (1, 2, "x"), ()),
            ("struct s { u32 a:3, b:5; u64 c; }", (1, 2, 3), ()),
            ("union u { u64 a; u32 b[2]; }", {"a": 1 << 40}, ()),
            ("struct o { u16 n; union { u32 v4; u8 raw[4]; }; }[2]", ({"n": 1}, {"v4": 2}), (2,)),
            (3, b"abc", ()),
            (1, b"a", ()),
        ],
    )
    def test_back_again(self, cls: type[pybpf.ArrayMap], value: Any, one: Any, shape: tuple[int, ...]) -> None:
        """What numpy was given comes back as it was."""
        pytest.importorskip("numpy")
        with cls(value=value, max_entries=3) as made:
            made[1] = one
            before = [view.tolist() for view in made.items_array()]
            keys, values = made.items_numpy()
            assert values.shape == (3, CPUS, *shape) if made.is_per_cpu else (3, *shape)
            made.clear()
            made.update_array(keys[::-1], values[::-1])
            assert [view.tolist() for view in made.items_array()] == before
            made.clear()
            made.update_array(keys, values)
            assert [view.tolist() for view in made.items_array()] == before

    def test_arrays_of_another_type(self) -> None:
        numpy = pytest.importorskip("numpy")
        keys, numbers = numpy.array([1, 2], "u4"), [10, 20]
        with pybpf.HashMap(key="u32", value="u64", max_entries=4) as made:
            for dtype in ("i8", "f8", ">u8", "u4", "M8[s]", "O", "c8", "?"):
                with pytest.raises(TypeError, match="^value"):
                    made.update_array(keys, numpy.array(numbers, "i8").astype(dtype))
            assert made.to_dict() == {}
            made.update_array(keys, numpy.array(numbers, "u8"))
            assert made.to_dict() == {1: 10, 2: 20}
        with pybpf.HashMap(key="u32", value="struct s { u8 a; u32 b; }", max_entries=4) as made:
            members = [("a", "u1"), ("b", "u4")]
            with pytest.raises(TypeError, match=r"^value takes .+ struct s, not a buffer of \[\('a', 'u1'\)"):
                made.update_array(keys, numpy.array([(1, 2), (3, 4)], members))
            made.update_array(keys, numpy.array([(1, 2), (3, 4)], numpy.dtype(members, align=True)))
            assert made.to_dict() == {1: (1, 2), 2: (3, 4)}

    def test_indexes_and_prefixes(self) -> None:
        numpy = pytest.importorskip("numpy")
        with pybpf.ArrayMap(value=8, max_entries=4) as made:
            with pytest.raises(TypeError, match="^index takes bytes or elements of u32, not a buffer of int64$"):
                made.update_array(numpy.arange(4), numpy.arange(4))
            with pytest.raises(TypeError, match="^value takes bytes or elements of 8 bytes, not a buffer of object$"):
                made.update_array(numpy.arange(4, dtype="u4"), numpy.array([None] * 4))
            made.update_array(numpy.arange(4, dtype="u4"), numpy.arange(4))
            assert made[3] == (3).to_bytes(8, sys.byteorder)
        with pybpf.LpmTrie(key="ipv4", value="u32", max_entries=4) as trie:
            trie["10.0.0.0/8"] = 7
            keys, values = trie.items_numpy()
            trie.clear()
            trie.update_array(keys, values)
            assert [(str(key), value) for key, value in trie.items()] == [("10.0.0.0/8", 7)]

    def test_untyped(self) -> None:
        pytest.importorskip("numpy")
        with pybpf.HashMap(key=3, value=5, max_entries=10) as made:
            made[b"abc"] = b"12345"
            keys, values = made.items_numpy()
            assert (keys.tobytes(), values.tobytes()) == (b"abc", b"12345")

    def test_live(self) -> None:
        pytest.importorskip("numpy")
        text = "struct odd { u64 a; u16 b; } __attribute__((packed))"
        for value, field in (("u64", None), ("u32", None), (text, "b")):
            with pybpf.ArrayMap(value=value, max_entries=5, flags=BPF_F_MMAPABLE) as made:
                live = made.numpy(writable=True)
                column = live if field is None else live[field]
                column[3] = 9
                assert made[3] == (9 if field is None else (0, 9))
                assert len(live) == 5


class TestView:
    def test_it_is_the_memory(self) -> None:
        with pybpf.ArrayMap(value="u64", max_entries=1000, flags=BPF_F_MMAPABLE) as made:
            view, reading = made.view(writable=True), made.view()
            assert len(view) == 1000
            with failing(errno.EPERM, "BPF_MAP_LOOKUP_ELEM", "BPF_MAP_UPDATE_ELEM", "BPF_MAP_LOOKUP_BATCH"):
                view[7] = 5
                assert made[7] == reading[7] == 5
                assert made[5:9] == [0, 0, 5, 0]
            made[8] = 6
            assert view[8] == 6
            with pytest.raises(TypeError):
                reading[7] = 1
        assert view[7] == 5  # it outlives the map object
        with pytest.raises(ClosedError):
            made[7]

    def test_rows(self) -> None:
        with pybpf.ArrayMap(value=STATS, max_entries=3, flags=BPF_F_MMAPABLE) as made:
            made[1] = (1, 2, "ab")
            assert made.view().shape == (3, 16)
            assert made[1] == (1, 2, "ab")
            assert made[:] == [(0, 0, ""), (1, 2, "ab"), (0, 0, "")]

    def test_refusals(self) -> None:
        with pybpf.ArrayMap(value="u64", max_entries=3) as made, pytest.raises(NotSupportedError, match="MMAPABLE"):
            made.view()
        with pybpf.ArrayMap(value="u64", max_entries=3, flags=BPF_F_MMAPABLE) as made:
            made.freeze()
            made.view()
            with pytest.raises(PermissionError):
                made.view(writable=True)
        with pytest.raises(ClosedError):
            made.view()


class TestOneCpu:
    def test_reading(self) -> None:
        with pybpf.PerCpuHashMap(key="u32", value="u64", max_entries=4) as made:
            made[1] = list(range(10, 10 + CPUS))
            assert [made.get_cpu(1, cpu) for cpu in range(CPUS)] == made[1]
            assert made.get_cpu(2, 0) is None
            assert made.get_cpu(2, 0, 5) == 5
            for wrong in (-1, CPUS):
                with pytest.raises(IndexError, match=f"no CPU {wrong}"):
                    made.get_cpu(1, wrong)
            with pytest.raises(TypeError, match="a CPU takes an integer, not 'x'"):
                made.get_cpu(1, "x")  # type: ignore[arg-type]

    def test_writing(self) -> None:
        with pybpf.PerCpuArrayMap(value="u64", max_entries=4) as made:
            made.put_all(1, 7)
            assert made[1] == [7] * CPUS
            try:
                made.put_cpu(1, CPUS - 1, 9)
            except NotSupportedError as error:
                assert made[1] == [7] * CPUS
                pytest.skip(f"{error}")
            assert made[1] == [7] * (CPUS - 1) + [9]

    @pytest.mark.parametrize("value", ["u64", "u32", STATS.replace("char name[4]", "u32 name")])
    def test_sums(self, value: str) -> None:
        with pybpf.PerCpuHashMap(key="u32", value=value, max_entries=20_000) as made:
            one = 3 if value.startswith("u") else (3, 4, 5)
            made.update({key: [one] * CPUS for key in range(10_000)})
            expected = 3 * CPUS if value.startswith("u") else (3 * CPUS, 4 * CPUS, 5 * CPUS)
            assert made.sums() == dict.fromkeys(range(10_000), expected)

    @pytest.mark.parametrize(
        ("value", "one", "wanted"),
        [
            ("u32[3]", (1, 2, 3), [CPUS, 2 * CPUS, 3 * CPUS]),
            ("s32[2][2]", [[1, -2], [3, 4]], [[CPUS, -2 * CPUS], [3 * CPUS, 4 * CPUS]]),
            ("double", 0.5, CPUS / 2),
            (
                "struct at { u32 x, y; }; struct hist { u64 total; u32 slots[3]; struct at at; }",
                (9, [1, 2, 3], (4, 5)),
                (9 * CPUS, [CPUS, 2 * CPUS, 3 * CPUS], (4 * CPUS, 5 * CPUS)),
            ),
            (Pair, Pair(1, 2), Pair(CPUS, 2 * CPUS)),
            (Place, Place(1, Pair(2, 3)), Place(CPUS, Pair(2 * CPUS, 3 * CPUS))),
        ],
    )
    def test_sums_of_what_has_parts(self, value: Any, one: Any, wanted: Any) -> None:
        with pybpf.PerCpuArrayMap(value=value, max_entries=3) as made:
            made[1] = [one] * CPUS
            assert made[1].sum() == made.sums()[1] == wanted
            assert type(made[1].sum()) is type(made[1][0])

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            ("char[4]", r"'' have no sum \(str\)"),
            (3, r"'.+' have no sum \(bytes\)"),
            (STATS, r"\(str\)"),
            ("union both { u64 a; u32 b[2]; }", r"both\(a=0, .+ have no sum \(both\)"),
        ],
    )
    def test_what_has_no_sum_is_named(self, value: Any, named: str) -> None:
        with pybpf.PerCpuArrayMap(value=value, max_entries=1) as made:
            with pytest.raises(TypeError, match=named):
                made[0].sum()
            with pytest.raises(TypeError, match=named):
                made.sums()
