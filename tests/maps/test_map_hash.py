"""Hash maps of all kinds as mutable mappings."""

from __future__ import annotations

import collections.abc
import errno
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from map_helpers import Types, failing, unless_unknown

from pybpf import constants as c
from pybpf.errors import ENOTSUPP, BPFError, BPFExistsError, ClosedError
from pybpf.maps import (
    HashMap,
    LpmTrie,
    LruHashMap,
    LruPerCpuHashMap,
    PerCPU,
    PerCpuHashMap,
    Queue,
    ResizableHashMap,
)
from pybpf.syscall import possible_cpus

CPUS = possible_cpus()


@pytest.fixture(params=[HashMap, LruHashMap, ResizableHashMap])
def numbers(request: pytest.FixtureRequest, types: Types) -> Iterator[HashMap]:
    with (
        unless_unknown(request.param.__name__),
        request.param.create(key_codec=types["u32"], value_codec=types["u64"], max_entries=64, name="numbers") as made,
    ):
        yield made


def test_is_a_mapping(numbers: HashMap) -> None:
    assert isinstance(numbers, collections.abc.MutableMapping)
    match numbers:
        case {1: value}:
            pytest.fail(f"{value} is not there")
        case {}:
            pass


def test_set_get_delete(numbers: HashMap) -> None:
    assert len(numbers) == 0
    assert not numbers
    numbers[1] = 10
    numbers[2] = 1 << 63
    numbers[1] += 5
    assert (numbers[1], numbers[2]) == (15, 1 << 63)
    assert 1 in numbers
    assert 3 not in numbers
    assert (numbers.get(1), numbers.get(3), numbers.get(3, 7)) == (15, None, 7)
    assert len(numbers) == 2
    assert numbers
    del numbers[1]
    assert 1 not in numbers
    for use in (lambda: numbers[1], lambda: numbers.__delitem__(1), lambda: numbers.pop(1)):
        with pytest.raises(KeyError) as caught:
            use()
        assert caught.value.args == (1,)


def test_zero_is_a_value(numbers: HashMap) -> None:
    numbers[0] = 0
    assert numbers[0] == 0
    assert 0 in numbers
    assert numbers.get(0, 7) == 0
    assert numbers.pop(0) == 0


def test_iteration(numbers: HashMap) -> None:
    wanted = {number: number * number for number in range(50)}
    numbers.update(wanted)
    assert len(numbers) == 50
    assert sorted(numbers) == sorted(numbers.keys()) == list(range(50))
    assert sorted(numbers.values()) == sorted(wanted.values())
    assert dict(numbers.items()) == dict(numbers) == wanted
    assert 2500 not in numbers.values()
    assert (7, 49) in numbers.items()
    assert repr(numbers.items()).startswith("<view of <")


def test_pop_and_friends(numbers: HashMap) -> None:
    numbers.update([(1, 10), (2, 20), (3, 30)])
    assert numbers.pop(1) == 10
    assert numbers.pop(1, None) is None
    assert numbers.pop(2) == 20
    assert numbers.popitem() == (3, 30)
    with pytest.raises(KeyError, match="is empty"):
        numbers.popitem()
    assert numbers.setdefault(4, 40) == 40
    assert numbers.setdefault(4, 50) == 40


def test_lookup_and_delete(numbers: HashMap) -> None:
    numbers[2] = 20
    with unless_unknown("lookup-and-delete of hash maps (Linux 5.14)"):
        assert numbers.lookup_and_delete(2) == 20
    with pytest.raises(KeyError):
        numbers.lookup_and_delete(2)


def test_pop_on_kernels_before_5_14(numbers: HashMap) -> None:
    numbers[1] = 10
    with failing(errno.EINVAL, "BPF_MAP_LOOKUP_AND_DELETE_ELEM"):
        assert numbers.pop(1) == 10
        assert numbers.pop(1, 5) == 5
        with pytest.raises(KeyError):
            numbers.pop(1)
        with pytest.raises(BPFError, match="EINVAL"):
            numbers.lookup_and_delete(1)
    assert 1 not in numbers


def test_drain_and_clear(numbers: HashMap) -> None:
    wanted = {number: number for number in range(40)}
    numbers.update(wanted)
    assert dict(numbers.drain()) == wanted
    assert len(numbers) == 0
    assert numbers.drain() == []
    numbers.update(wanted)
    numbers.clear()
    assert len(numbers) == 0


def test_flags(numbers: HashMap) -> None:
    with pytest.raises(KeyError):
        numbers.put(1, 1, c.BPF_EXIST)
    numbers.put(1, 1, c.BPF_NOEXIST)
    with pytest.raises(BPFExistsError):
        numbers.put(1, 2, c.BPF_NOEXIST)
    numbers.put(1, 3, c.BPF_EXIST)
    assert numbers[1] == 3
    with pytest.raises(BPFExistsError) as caught:
        numbers.update([(2, 2), (1, 1), (4, 4)], c.BPF_NOEXIST)
    assert vars(caught.value)["count"] == 1
    assert dict(numbers.items()) == {1: 3, 2: 2}


def test_full(types: Types) -> None:
    with HashMap.create(key_codec=types["u32"], value_codec=types["u64"], max_entries=4) as made:
        with pytest.raises(BPFError, match="E2BIG") as caught:
            made.update(dict.fromkeys(range(6), 0))
        assert vars(caught.value)["count"] == 4
        with pytest.raises(BPFError, match="E2BIG"):
            made[99] = 1


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        (-1, 0, OverflowError, r"^key of map 'numbers': -1 does not fit u32 \(0 to 4294967295\)"),
        (1 << 32, 0, OverflowError, "key of map 'numbers'"),
        ("1", 0, TypeError, "^key of map 'numbers': u32 takes an integer, not '1'"),
        (b"\1\0\0\0", 0, TypeError, "takes an integer"),
        (None, 0, TypeError, "takes an integer"),
        (1.0, 0, TypeError, "takes an integer"),
        (1, -1, OverflowError, "^value of map 'numbers': -1 does not fit u64"),
        (1, 1 << 64, OverflowError, "value of map 'numbers'"),
        (1, "x", TypeError, "value of map 'numbers'"),
        (1, None, TypeError, "value of map 'numbers'"),
    ],
)
def test_wrong_keys_and_values(numbers: HashMap, key: Any, value: Any, error: type[Exception], message: str) -> None:
    assert 1 not in numbers  # what the first use prepares is there
    with failing(errno.EIO, "") as seen:
        with pytest.raises(error, match=message):
            numbers[key] = value
        with pytest.raises(error, match=message):
            numbers.update({key: value})
        if "key" in message or ("takes an integer" in message and key != 1):
            for use in (numbers.__getitem__, numbers.__delitem__, numbers.get, numbers.pop):
                with pytest.raises(error, match=message):
                    use(key)
    assert seen.seen == []  # the kernel was not asked


def test_integers_of_other_kinds(numbers: HashMap) -> None:
    import enum

    class Colour(enum.IntEnum):
        RED = 1

    numbers[Colour.RED] = True
    assert numbers[1] == numbers[True] == numbers[Colour.RED] == 1


def test_protocols_of_mappings(numbers: HashMap) -> None:
    assert -1 not in numbers
    assert 1 << 32 not in numbers
    with pytest.raises(TypeError, match="takes an integer"):
        "x" in numbers  # noqa: B015
    numbers.update({1: 10, 2: 20})
    assert numbers.setdefault(1) == 10
    with pytest.raises(TypeError, match="value of map 'numbers': u64 takes an integer, not None"):
        numbers.setdefault(3)
    assert numbers.setdefault(3, 30) == 30
    for unordered in (numbers, numbers.keys(), numbers.values()):
        with pytest.raises(TypeError, match="not reversible"):
            reversed(unordered)  # type: ignore[call-overload]


def test_keys_and_items_are_like_sets(numbers: HashMap) -> None:
    numbers.update({1: 10, 2: 20})
    keys, items = numbers.keys(), numbers.items()
    assert keys == {1, 2} == keys
    assert keys == {2: 0, 1: 0}.keys()
    assert keys != {1}
    assert keys != [1, 2]
    assert items == {1: 10, 2: 20}.items()
    assert items != {1: 10, 2: 21}.items()
    assert (keys & [2, 3], [2, 3] & keys, keys | {3}, {3} | keys) == ({2}, {2}, {1, 2, 3}, {1, 2, 3})
    assert (keys - {2}, {2, 3} - keys, keys ^ {2, 3}, {2, 3} ^ keys) == ({1}, {3}, {1, 3}, {1, 3})
    with failing(errno.EIO, "") as seen:
        assert items & {(1, 10)} == {(1, 10)}
    assert seen.seen.count("BPF_MAP_LOOKUP_BATCH") == 1
    with pytest.raises(TypeError, match="len"):
        len(keys)  # type: ignore[arg-type]


class TestCount:
    """Whatever ends the writing of many elements says how many were written."""

    @pytest.fixture
    def wide(self) -> Iterator[HashMap]:
        with HashMap(key="u32", value="u32", max_entries=20_000, name="wide") as made:
            yield made

    def pairs(self) -> Iterator[tuple[Any, int]]:
        for number in range(20_000):
            yield "x" if number == 15_000 else number, number

    def test_an_element_that_does_not_fit(self, wide: HashMap) -> None:
        with pytest.raises(TypeError, match=r"key of map 'wide': u32 takes an integer, not 'x'") as caught:
            wide.update(self.pairs())
        assert vars(caught.value)["count"] == len(wide) == 8192
        assert caught.value.__notes__ == ["This is element 15000 of those to be written: 'x', 15000"]
        keys, values = zip(*self.pairs(), strict=True)
        with pytest.raises(TypeError) as caught:
            wide.update_many(keys, values)
        assert vars(caught.value)["count"] == 8192

    def test_pairs_that_end_with_an_error(self, wide: HashMap) -> None:
        def pairs() -> Iterator[tuple[int, int]]:
            yield from ((number, number) for number in range(10_000))
            raise RuntimeError("no more")

        with pytest.raises(RuntimeError, match="no more") as caught:
            wide.update(pairs())
        assert vars(caught.value)["count"] == len(wide) == 8192
        with pytest.raises(ValueError, match="unpack"):
            wide.update([(1, 2, 3)])  # type: ignore[list-item]

    def test_one_that_is_not_there(self, wide: HashMap) -> None:
        wide.update({1: 1, 2: 2})
        with pytest.raises(KeyError) as caught:
            wide.update({1: 10, 2: 20, 99: 5, 3: 3}, c.BPF_EXIST)
        assert (caught.value.args, vars(caught.value)["count"]) == ((99,), 2)
        with pytest.raises(BPFExistsError) as existing:
            wide.update({5: 5, 1: 10}, c.BPF_NOEXIST)
        assert vars(existing.value)["count"] == 1

    @pytest.mark.parametrize("batches", [True, False])
    def test_full(self, batches: bool) -> None:
        with (
            HashMap(key="u32", value="u32", max_entries=4, name="tiny") as made,
            failing(ENOTSUPP, *([] if batches else ["BPF_MAP_UPDATE_BATCH"])),
            pytest.raises(BPFError, match=r"map 'tiny': BPF_MAP_UPDATE.*E2BIG.*full: max_entries is 4") as caught,
        ):
            made.update({number: number for number in range(9)})
        assert vars(caught.value)["count"] == 4

    def test_closed_in_the_middle(self, wide: HashMap) -> None:
        def pairs() -> Iterator[tuple[int, int]]:
            yield from ((number, number) for number in range(8192))
            wide.close()
            yield 1, 1

        with pytest.raises(ClosedError) as caught:
            wide.update(pairs())
        assert vars(caught.value)["count"] == 8192

    def test_many_of_any_iterables(self, wide: HashMap) -> None:
        wanted = {number: number * 3 for number in range(10_000)}
        wide.update_many(wanted.keys(), wanted.values())
        assert wide.to_dict() == wanted
        wide.update_many(iter([1, 2]), (value for value in (5, 6)))
        assert (wide[1], wide[2]) == (5, 6)
        with pytest.raises(ValueError, match="2 keys and 1 values"):
            wide.update_many(iter([1, 2]), iter([5]))


def test_refusals_say_which_map_and_what_would_help(types: Types) -> None:
    full = "map 'small': BPF_MAP_UPDATE_ELEM: .*The map is full: max_entries is 1"
    frozen = r"map 'small': BPF_MAP_.*_ELEM: .*\(EPERM\). The map is frozen, or was opened or made for reading only"
    with HashMap(key="u32", value="u32", max_entries=1, name="small") as made:
        made[1] = 1
        with pytest.raises(BPFError, match=full):
            made[2] = 2
        with HashMap.from_id(made.id, flags=c.BPF_F_WRONLY) as writer:
            with pytest.raises(PermissionError, match="for writing only"):
                writer[1]
            with pytest.raises(PermissionError, match="map 'small': .*for writing only"):
                writer.to_dict()
        made.freeze()
        with pytest.raises(PermissionError, match=frozen):
            made[1] = 2
        with pytest.raises(PermissionError, match=frozen):
            del made[1]
        with pytest.raises(PermissionError, match=r"map 'small': BPF_MAP_DELETE_BATCH.*frozen"):
            made.delete_many([1])
    with LpmTrie(key="ipv4", value="u32", max_entries=1, name="small") as trie:
        trie["10.0.0.0/8"] = 1
        with pytest.raises(BPFError, match=full):
            trie["11.0.0.0/8"] = 1
    with Queue(value="u32", max_entries=1, name="small") as queue:
        queue.push(1)
        with pytest.raises(BPFError, match=full):
            queue.push(2)


@pytest.mark.parametrize("in_one_step", [True, False])
def test_emptying_by_popitem_reads_one_element_at_a_time(numbers: HashMap, in_one_step: bool) -> None:
    numbers.update({number: number * 10 for number in range(50)})
    with failing(ENOTSUPP, *([] if in_one_step else ["BPF_MAP_LOOKUP_AND_DELETE_ELEM"])) as seen:
        found = {}
        while numbers:
            key, found[key] = numbers.popitem()
    assert found == {number: number * 10 for number in range(50)}
    assert "BPF_MAP_LOOKUP_BATCH" not in seen.seen
    with pytest.raises(KeyError, match="empty"):
        numbers.popitem()


class TestKeysThatPythonCannotTellApart:
    """Programs leave rubbish in padding and behind the NUL of a string; the kernel compares it."""

    TYPES = (
        ("char[8]", (b"ab\0xy\0\0\0", b"ab\0zz\0\0\0")),
        ("struct padded { u8 a; u32 b; }", (b"\1\xff\xff\xff\2\0\0\0", b"\1\0\xff\0\2\0\0\0")),
    )

    @pytest.fixture(params=TYPES, ids=["text", "padding"])
    def dirty(self, request: pytest.FixtureRequest) -> Iterator[tuple[HashMap, tuple[bytes, bytes]]]:
        declared, keys = request.param
        with HashMap(key=declared, value="u32", max_entries=8) as made:
            made[keys[0]], made[keys[1]] = 3, 4
            yield made, keys

    def test_popitem(self, dirty: tuple[HashMap, tuple[bytes, bytes]]) -> None:
        made, _ = dirty
        assert sorted(value for _, value in (made.popitem(), made.popitem())) == [3, 4]
        assert not made

    def test_drain_and_clear(self, dirty: tuple[HashMap, tuple[bytes, bytes]]) -> None:
        made, keys = dirty
        with failing(ENOTSUPP, "BPF_MAP_LOOKUP_AND_DELETE_BATCH"):
            assert sorted(value for _, value in made.drain()) == [3, 4]
            made[keys[0]] = 1
            made.clear()
        assert not made

    def test_raw_items(self, dirty: tuple[HashMap, tuple[bytes, bytes]]) -> None:
        made, keys = dirty
        assert len(made.to_dict()) == 1
        assert dict(made.raw_items()) == {keys[0]: struct.pack("=I", 3), keys[1]: struct.pack("=I", 4)}
        for key, _ in made.raw_items():
            assert made.get(key) == made[key]
            del made[key]
        assert len(made) == 0


class TestKinds:
    def test_bytes_without_types(self) -> None:
        with HashMap.create(key_size=4, value_size=8, max_entries=4, name="raw") as made:
            made[b"abcd"] = bytearray(b"12345678")
            assert made[memoryview(b"abcd")] == b"12345678"
            assert list(made.items()) == [(b"abcd", b"12345678")]
            assert made.pop(b"abcd") == b"12345678"
            for key, value in ((b"abc", bytes(8)), (b"abcd", bytes(9))):
                with pytest.raises(ValueError, match=r"of map 'raw' takes [48] bytes, not [39]"):
                    made[key] = value
            with pytest.raises(TypeError, match="has no type information: it takes 4 bytes, not 1"):
                made[1] = bytes(8)

    def test_structs(self, types: Types) -> None:
        with HashMap.create(key_codec=types["pair"], value_codec=types["event"], max_entries=4) as made:
            made[1, 2] = (7, 0, "bash")
            made[{"a": 1, "b": 3}] = {"comm": "zsh"}
            assert made[1, 2].comm == "bash"
            assert made[{"a": 1, "b": 3}].to_dict() == {"pid": 0, "uid": 0, "comm": "zsh"}
            keys = {key.b: value for key, value in made.items()}
            assert keys[3].comm == "zsh"
            record = made[1, 2]
            made[1, 2] = record._replace(uid=5)
            assert made[1, 2] == (7, 5, "bash")
            for key in made:
                assert made[key].comm in ("bash", "zsh")
            with pytest.raises(OverflowError, match=r"^key\.a: -1"):
                made[-1, 2]
            with pytest.raises(ValueError, match="'zz' is not|has no field 'zz'"):
                made[1, 2] = {"zz": 1}

    def test_text_array_and_enum_keys(self, types: Types) -> None:
        for name, key in (("name", "bash"), ("words", (1, 2, 3, 4)), ("addr", b"\1\2\3\4"), ("state", "BUSY")):
            with HashMap.create(key_codec=types[name], value_codec=types["u32"], max_entries=4) as made:
                made[key] = 9
                assert made[key] == 9
                found = dict(made.items())
                assert list(found.values()) == [9]
                if name == "state":
                    assert next(iter(found)).name == "BUSY"
                else:
                    assert found == {key: 9}
                assert all(made[again] == 9 for again in made)

    def test_signed_and_mixed_faces(self, types: Types) -> None:
        with HashMap.create(key_codec=types["i32"], value_codec=types["stats"], max_entries=4) as made:
            made[-5] = (1, 2)
            assert dict(made.items()) == {-5: (1, 2)}
            assert made.get(-5).bytes == 2
        with HashMap.create(key_codec=types["pair"], value_codec=types["i32"], max_entries=4) as made:
            made[1, 2] = -3
            assert made[1, 2] == made.pop((1, 2)) == -3

    def test_values_that_are_no_multiple_of_eight(self, types: Types) -> None:
        with HashMap.create(key_codec=types["u32"], value_codec=types["odd"], max_entries=100) as made:
            made.update({number: (number, number << 33) for number in range(100)})
            assert dict(made.items()) == {number: (number, number << 33) for number in range(100)}


@pytest.fixture(params=[PerCpuHashMap, LruPerCpuHashMap])
def per_cpu(request: pytest.FixtureRequest) -> type[PerCpuHashMap]:
    kind: type[PerCpuHashMap] = request.param
    return kind


class TestPerCpu:
    def test_values(self, per_cpu: type[PerCpuHashMap], types: Types) -> None:
        with per_cpu.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=100, name="cpus") as made:
            made[1] = list(range(CPUS))
            value = made[1]
            assert type(value) is PerCPU
            assert value == list(range(CPUS))
            assert value.sum() == sum(range(CPUS))
            made[2] = 5
            assert made[2] == [5] * CPUS
            made.update({number: number for number in range(3, 50)})
            found = dict(made.items())
            assert {key: value.sum() for key, value in found.items() if key > 1} == {
                number: CPUS * (5 if number == 2 else number) for number in range(2, 50)
            }
            assert all(type(value) is PerCPU for value in made.values())
            assert made.get(1) == value
            with pytest.raises(ValueError, match=f"one value for each of {CPUS} possible CPUs, not {CPUS + 1}"):
                made[1] = [1] * (CPUS + 1)
            with pytest.raises(OverflowError, match="value of map 'cpus'"):
                made[1] = [1 << 32] * CPUS

    def test_records_and_bytes(self, per_cpu: type[PerCpuHashMap], types: Types) -> None:
        with per_cpu.create(key_codec=types["u32"], value_codec=types["stats"], max_entries=4) as made:
            made[1] = [(number, 10) for number in range(CPUS)]
            assert made[1][0].packets == 0
            total = made[1].sum()
            assert (total.packets, total.bytes) == (sum(range(CPUS)), 10 * CPUS)
            made[1] = {"packets": 1}
            assert made[1].sum() == (CPUS, 0)
        with per_cpu.create(key_size=4, value_size=12, max_entries=4) as made:
            made[b"abcd"] = bytes(12)
            made[b"abce"] = [struct.pack("3I", 1, 2, number) for number in range(CPUS)]
            assert made[b"abcd"] == [bytes(12)] * CPUS
            assert dict(made.items())[b"abce"] == [struct.pack("3I", 1, 2, number) for number in range(CPUS)]
            with pytest.raises(TypeError):
                made[b"abcd"].sum()


def test_lru_makes_room(types: Types) -> None:
    with LruHashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=128) as made:
        for number in range(1000):
            made[number] = number
        assert 0 < len(made) <= 128
        assert 999 in made
