"""Arrays: indexes, ranges, memory."""

from __future__ import annotations

import errno
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from map_helpers import Types, failing

from pybpf import constants as c
from pybpf.errors import ClosedError
from pybpf.maps import ArrayMap, PerCPU, PerCpuArrayMap
from pybpf.syscall import possible_cpus

CPUS = possible_cpus()


@pytest.fixture(params=[0, c.BPF_F_MMAPABLE], ids=["calls", "memory"])
def flags(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def numbers(types: Types, flags: int) -> Iterator[ArrayMap]:
    with ArrayMap.create(value_codec=types["u64"], max_entries=10, flags=flags, name="numbers") as made:
        yield made


def test_elements_are_always_there(numbers: ArrayMap) -> None:
    assert numbers.is_array
    assert repr(numbers) == "<ArrayMap 'numbers' index -> u64, max_entries=10>"
    assert len(numbers) == 10
    assert numbers
    assert list(numbers) == list(range(10))
    assert list(numbers.values()) == [0] * 10
    assert 9 in numbers
    assert 10 not in numbers
    assert -1 not in numbers


def test_set_and_get(numbers: ArrayMap) -> None:
    numbers[3] = 1 << 63
    numbers[3] += 1
    assert numbers[3] == (1 << 63) + 1
    assert numbers.get(3) == (1 << 63) + 1
    assert numbers.get(10) is None
    assert numbers.get(10, 5) == 5
    assert list(numbers.items())[3] == (3, (1 << 63) + 1)
    numbers.update({0: 1, 9: 2})
    assert list(numbers.values()) == [1, 0, 0, (1 << 63) + 1, 0, 0, 0, 0, 0, 2]
    numbers.clear()
    assert set(numbers.values()) == {0}
    assert numbers[struct.pack("=I", 3)] == 0


@pytest.mark.parametrize("index", [-1, 10, 1 << 32, -(1 << 40)])
def test_outside(numbers: ArrayMap, index: int) -> None:
    assert numbers[0] == 0  # what the first use prepares is there
    with failing(errno.EIO, "") as seen:
        message = rf"^index of map 'numbers': {index} is not in 0\.\.9"
        for use in (lambda: numbers[index], lambda: numbers.put(index, 1), lambda: numbers.update({index: 1})):
            with pytest.raises(IndexError, match=message):
                use()
    assert seen.seen == []


def test_order(numbers: ArrayMap) -> None:
    assert list(reversed(numbers)) == list(range(9, -1, -1))
    numbers.close()
    for use in (len, bool, reversed, lambda made: 0 in made, lambda made: 99 in made):
        with pytest.raises(ClosedError):
            use(numbers)  # type: ignore[arg-type]


def test_many_of_which_one_is_outside(numbers: ArrayMap) -> None:
    indexes = array("I", [1, 2, 10, 3])
    with pytest.raises(IndexError, match=r"index of map 'numbers': 10 is not in 0\.\.9") as caught:
        numbers.update_array(indexes, array("Q", [5, 6, 7, 8]))
    assert vars(caught.value)["count"] == 2
    assert numbers[:4] == [0, 5, 6, 0]
    with pytest.raises(IndexError, match="10 is not in") as caught:
        numbers.update_many(indexes, [5, 6, 7, 8])
    assert (vars(caught.value)["count"], caught.value.__notes__) == (
        0,
        ["This is element 2 of those to be written: 10, 7"],
    )


def test_wrong_kinds(numbers: ArrayMap) -> None:
    for index in ("1", None, 1.0, b"abc"):
        with pytest.raises(TypeError, match="index of map 'numbers': an integer, not"):
            numbers[index]
        with pytest.raises(TypeError, match="index of map 'numbers': an integer, not"):
            numbers[index] = 1
    with pytest.raises(OverflowError, match="value of map 'numbers': -1 does not fit u64"):
        numbers[1] = -1


def test_nothing_can_be_deleted(numbers: ArrayMap) -> None:
    for use in (
        lambda: numbers.__delitem__(1),
        lambda: numbers.pop(1),
        numbers.popitem,
        numbers.drain,
        lambda: numbers.lookup_and_delete(1),
        lambda: numbers.delete_many([1]),
    ):
        with pytest.raises(TypeError, match="cannot be deleted"):
            use()


def test_structs(types: Types, flags: int) -> None:
    for name, value in (("stats", (1, 2)), ("odd", (3, 1 << 40)), ("event", (1, 2, "bash")), ("u32", 7), ("i32", -7)):
        with ArrayMap.create(value_codec=types[name], max_entries=5, flags=flags) as made:
            made[2] = value
            assert made[2] == value
            assert list(made.items())[2] == (2, value)
            assert list(made.values())[1] == types[name].default()


def test_bytes(flags: int) -> None:
    with ArrayMap.create(value_size=12, max_entries=3, flags=flags) as made:
        made[1] = b"abcdefghijkl"
        assert made[1] == b"abcdefghijkl"
        assert list(made.values()) == [bytes(12), b"abcdefghijkl", bytes(12)]
        with pytest.raises(ValueError, match="takes 12 bytes"):
            made[1] = b"abc"


def mappings() -> int:
    return sum("bpf-map" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_memory_is_read_without_calls_and_unmapped(types: Types) -> None:
    before = mappings()
    with ArrayMap.create(value_codec=types["u64"], max_entries=1000, flags=c.BPF_F_MMAPABLE) as made:
        made[999] = 5
        made.freeze()  # a mapping for reading does not stand in the way
        assert mappings() == before + 1
        with failing(errno.EIO, "") as seen:
            assert made[999] == 5
            assert sum(made.values()) == 5
            assert dict(made.items())[999] == 5
        assert seen.seen == []
        iterator = iter(made.values())
        assert next(iterator) == 0
    assert mappings() == before
    assert sum(iterator) == 5  # a copy
    with pytest.raises(ClosedError):
        made[999]
    with pytest.raises(ClosedError):
        list(made.values())
    with pytest.raises(ClosedError):
        list(made)


def test_memory_that_cannot_be_mapped(types: Types) -> None:
    with ArrayMap.create(value_codec=types["u64"], max_entries=10, flags=c.BPF_F_MMAPABLE) as made:
        before = mappings()
        with failing(errno.EPERM, ""):  # mmap() has no command
            made[1] = 2
            assert made[1] == 2
            assert list(made.values())[:3] == [0, 2, 0]
        assert mappings() == before


class TestPerCpu:
    def test_values(self, types: Types) -> None:
        with PerCpuArrayMap.create(value_codec=types["u32"], max_entries=20) as made:
            made[1] = list(range(CPUS))
            made[2] = 7
            assert type(made[1]) is PerCPU
            assert made[1] == list(range(CPUS))
            assert made[2].sum() == 7 * CPUS
            assert [value.sum() for value in made.values()][:4] == [0, sum(range(CPUS)), 7 * CPUS, 0]
            assert dict(made.items())[1] == list(range(CPUS))
            made.clear()
            assert made[2] == [0] * CPUS
            with pytest.raises(IndexError):
                made[20]

    def test_records(self, types: Types) -> None:
        with PerCpuArrayMap.create(value_codec=types["stats"], max_entries=2) as made:
            made[0] = [(1, 100)] * CPUS
            assert made[0].sum() == (CPUS, 100 * CPUS)
            assert made[0].sum().bytes == 100 * CPUS

    def test_bytes(self) -> None:
        with PerCpuArrayMap.create(value_size=12, max_entries=2) as made:
            made[0] = [struct.pack("3I", 1, 2, cpu) for cpu in range(CPUS)]
            assert next(iter(made.values())) == [struct.pack("3I", 1, 2, cpu) for cpu in range(CPUS)]
