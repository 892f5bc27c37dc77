"""Reading whole maps: in batches, key by key, and while others change them."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from map_helpers import Types, failing, unless_unknown

from pybpf.constants import BPF_F_LOCK
from pybpf.errors import ENOTSUPP, BPFError
from pybpf.maps import ArrayMap, HashMap, LpmTrie, PerCpuHashMap
from pybpf.maps.batch import chunk_entries, once, walk

COUNT = 20_000
WANTED = {number * 7919: number for number in range(COUNT)}


@pytest.fixture(scope="module")
def large(types: Types) -> Iterator[HashMap]:
    with HashMap.create(key_codec=types["u64"], value_codec=types["u64"], max_entries=2 * COUNT) as made:
        made.update(WANTED)
        yield made


@pytest.fixture
def small(types: Types) -> Iterator[HashMap]:
    with HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=600) as made:
        made.update({number: number for number in range(600)})
        yield made


def test_in_batches(large: HashMap) -> None:
    with failing(errno.EIO, "none") as seen:
        assert dict(large.items()) == WANTED
        assert len(large) == COUNT
        assert set(large) == set(WANTED)
    assert "BPF_MAP_GET_NEXT_KEY" not in seen.seen
    assert "BPF_MAP_LOOKUP_ELEM" not in seen.seen
    assert seen.seen.count("BPF_MAP_LOOKUP_BATCH") < 20


@pytest.mark.parametrize("number", [errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP])
def test_key_by_key_where_there_are_no_batches(small: HashMap, number: int) -> None:
    with failing(number, "BPF_MAP_LOOKUP_BATCH", "BPF_MAP_UPDATE_BATCH", "BPF_MAP_LOOKUP_AND_DELETE_BATCH") as seen:
        assert dict(small.items()) == {number: number for number in range(600)}
        assert sorted(small) == list(range(600))
        assert len(small) == 600
        assert small
        assert seen.seen.count("BPF_MAP_LOOKUP_BATCH") == 1  # not asked again
        small.update(dict.fromkeys(range(600), 7))
        assert set(small.values()) == {7}
        assert len(small.drain()) == 600
        assert not small
        small.update({1: 1, 2: 2})
        small.clear()
        assert list(small) == []


def test_per_cpu_key_by_key(types: Types) -> None:
    with PerCpuHashMap.create(key_codec=types["u32"], value_codec=types["u64"], max_entries=600) as made:
        made.update({number: number for number in range(600)})
        batched = dict(made.items())
        with failing(ENOTSUPP, "BPF_MAP_LOOKUP_BATCH"):
            assert dict(made.items()) == batched


def test_arrays_key_by_key(types: Types) -> None:
    with ArrayMap.create(value_codec=types["u64"], max_entries=600) as made:
        made.update({number: number for number in range(600)})
        with failing(ENOTSUPP, "BPF_MAP_LOOKUP_BATCH", "BPF_MAP_UPDATE_BATCH"):
            assert list(made.items()) == [(number, number) for number in range(600)]
            made.clear()
            assert set(made.values()) == {0}


def test_a_refusal_in_the_middle_is_an_error(large: HashMap) -> None:
    with (
        failing(ENOTSUPP, "BPF_MAP_LOOKUP_BATCH", when=lambda count: count == 2),
        pytest.raises(BPFError, match="ENOTSUPP"),
    ):
        list(large.items())
    with failing(errno.EPERM, "BPF_MAP_LOOKUP_BATCH"), pytest.raises(PermissionError):
        list(large)
    assert dict(large.items()) == WANTED  # and batches are tried again


def test_small_chunks(large: HashMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one element make the kernel say ENOSPC for every bucket that has two."""
    monkeypatch.setattr("pybpf.maps.batch.chunk_entries", lambda size, entries: 1)
    with failing(errno.EIO, "none") as seen:
        assert dict(large.items()) == WANTED
    assert len(seen.seen) > 1000


def test_chunk_sizes() -> None:
    assert chunk_entries(16, 100) == 101
    assert chunk_entries(16, 1 << 20) == 8192
    assert chunk_entries(1 << 16, 1 << 20) == 16
    assert chunk_entries(1 << 14, 1 << 20) == 64


class TestDeletionMeanwhile:
    @pytest.mark.parametrize("batches", [True, False])
    def test_of_each_key_that_comes(self, small: HashMap, batches: bool) -> None:
        with failing(ENOTSUPP, *([] if batches else ["BPF_MAP_LOOKUP_BATCH"])):
            seen = []
            for key in small:
                seen.append(key)
                del small[key]
        assert sorted(seen) == list(range(600))
        assert not small

    @pytest.mark.parametrize("batches", [True, False])
    def test_of_keys_ahead(self, small: HashMap, batches: bool) -> None:
        with failing(ENOTSUPP, *([] if batches else ["BPF_MAP_LOOKUP_BATCH"])):
            seen = []
            for key, _ in small.items():
                seen.append(key)
                for other in range(0, 600, 3):
                    small.pop(other, None)
        assert len(set(seen)) == len(seen)
        assert {number for number in range(600) if number % 3} <= set(seen)

    @pytest.mark.parametrize("batches", [True, False])
    def test_by_another_thread(self, types: Types, batches: bool) -> None:
        """Stable keys come exactly once, whatever happens to the others, and the loop ends."""
        stable = range(0, 2000, 2)
        stop = threading.Event()

        def churn(made: HashMap) -> None:
            while not stop.is_set():
                for number in range(1, 200, 2):
                    made[number] = number
                for number in range(1, 200, 2):
                    made.pop(number, None)

        with HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=4000) as made:
            made.update(dict.fromkeys(stable, 1))
            thread = threading.Thread(target=churn, args=(made,))
            thread.start()
            try:
                with failing(ENOTSUPP, *([] if batches else ["BPF_MAP_LOOKUP_BATCH"])):
                    for _ in range(3):
                        keys = list(made.keys())
                        assert len(set(keys)) == len(keys)
                        if batches:
                            assert set(stable) <= set(keys)
            finally:
                stop.set()
                thread.join()

    @pytest.mark.parametrize("adding", [False, True])
    def test_of_the_key_that_a_batch_goes_on_from(self, adding: bool) -> None:
        """A prefix trie has batches that go on from a key, and begins again when that one is gone."""
        networks = [f"10.{number >> 8}.{number & 255}.0/24" for number in range(20_000)]
        with LpmTrie(key="ipv4", value="u32", max_entries=40_000) as made:
            made.update_many(networks, range(20_000))
            seen = []
            for position, (key, _) in enumerate(made.items()):
                seen.append(key)
                if position % 8192 == 8191:
                    del made[key]
                    if adding:
                        made[f"11.0.{position >> 13}.0/24"] = 0
        assert len(set(seen)) == len(seen)
        assert {str(key) for key in seen} >= set(networks)

    def test_batches_that_are_sent_back_again_and_again(self) -> None:
        def chunks() -> Iterator[tuple[memoryview, memoryview, int]]:
            while True:
                yield memoryview(bytearray(b"abca")), memoryview(bytearray(b"12345678")), 4
                yield memoryview(bytearray(b"bdae")), memoryview(bytearray(b"21435465")), 4

        found = [(bytes(keys[:count]), bytes(values[: 2 * count])) for keys, values, count in once(chunks(), 1, 2, 5)]
        assert found == [(b"abc", b"123456"), (b"de", b"4365")]

    def test_walk_that_is_sent_back_again_and_again(self) -> None:
        """A kernel that always begins at the first key."""
        keys = [b"a", b"b", b"c"]
        asked = 0

        def next_key(key: bytes | None) -> bytes | None:
            nonlocal asked
            asked += 1
            return keys[0] if key is None or asked % 2 else keys[(keys.index(key) + 1) % 3]

        found = list(walk(next_key, 3))
        assert len(set(found)) == len(found)
        assert set(found) <= set(keys)
        assert asked < 2000

    def test_walk_of_keys_that_never_end(self) -> None:
        numbers = iter(range(1 << 30))
        found = list(walk(lambda key: str(next(numbers)).encode(), 10))
        assert len(found) == 8 * 10 + 1024


def test_threads_and_single_operations(types: Types) -> None:
    """Many threads on one map: nobody gets another's value."""
    errors: list[str] = []
    with HashMap.create(key_codec=types["u32"], value_codec=types["u64"], max_entries=64) as made:

        def work(number: int) -> None:
            for step in range(2000):
                made[number] = number << 32 | step
                value = made[number]
                if value != number << 32 | step:
                    errors.append(f"{number}: {value:#x} at {step}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert dict(made.items()) == {number: number << 32 | 1999 for number in range(8)}


LOCKED = "struct bpf_spin_lock { u32 val; }; struct v { u32 count; struct bpf_spin_lock lock; }"
WHOLE_READS: list[Callable[[HashMap], Any]] = [
    lambda made: list(made.items(flags=BPF_F_LOCK)),
    lambda made: list(zip(made, made.values(flags=BPF_F_LOCK), strict=True)),
    lambda made: list(made.to_dict(flags=BPF_F_LOCK).items()),
    lambda made: list(zip(made, made.get_many(list(made), flags=BPF_F_LOCK), strict=True)),
    lambda made: list(made.snapshot(flags=BPF_F_LOCK).items()),
    lambda made: [
        (key, (int.from_bytes(value[:4], sys.byteorder), (0,)))
        for key, value in zip(*(view.tolist() for view in made.items_array(flags=BPF_F_LOCK)), strict=True)
    ],
    lambda made: made.drain(flags=BPF_F_LOCK),
]


@pytest.mark.parametrize("read", WHOLE_READS)
@pytest.mark.parametrize("batches", [True, False])
def test_under_locks(read: Callable[[HashMap], Any], batches: bool) -> None:
    """Each value is read under its lock; where values have none, the kernel is asked for it and refuses."""
    refused = () if batches else ("BPF_MAP_LOOKUP_BATCH", "BPF_MAP_LOOKUP_AND_DELETE_BATCH")
    with (
        HashMap(key="u32", value=LOCKED, max_entries=40) as made,
        HashMap(key="u32", value="u64", max_entries=4) as unlocked,
        failing(errno.EINVAL, *refused),
    ):
        made.update({number: {"count": 2 * number} for number in range(40)})
        assert sorted(read(made)) == [(number, (2 * number, (0,))) for number in range(40)]
        unlocked[1] = 2
        with pytest.raises(BPFError) as caught:
            read(unlocked)
        assert caught.value.errno == errno.EINVAL
        assert unlocked.to_dict() == {1: 2}
        if batches:  # what was refused are the flags, not the batches
            with failing(errno.EIO, "BPF_MAP_GET_NEXT_KEY"):
                assert list(unlocked.items()) == unlocked.drain() == [(1, 2)]


def test_lookup_and_delete_under_a_lock() -> None:
    with (
        HashMap(key="u32", value=LOCKED, max_entries=4) as made,
        HashMap(key="u32", value="u64", max_entries=4) as unlocked,
    ):
        made[1], unlocked[1] = {"count": 5}, 2
        with unless_unknown("lookup-and-delete of hash maps (Linux 5.14)"):
            assert made.lookup_and_delete(1, flags=BPF_F_LOCK) == (5, (0,))
        assert made.to_dict() == {}
        with pytest.raises(BPFError) as caught:
            unlocked.lookup_and_delete(1, flags=BPF_F_LOCK)
        assert caught.value.errno == errno.EINVAL
        assert unlocked.to_dict() == {1: 2}


def test_batches_under_locks() -> None:
    with (
        HashMap(key="u32", value=LOCKED, max_entries=40) as made,
        ArrayMap(value=LOCKED, max_entries=40) as array,
        failing(errno.EIO, "BPF_MAP_LOOKUP_ELEM"),
    ):
        made[1] = array[1] = {"count": 5}
        assert list(made.values(flags=BPF_F_LOCK)) == [(5, (0,))]
        assert list(array.values(flags=BPF_F_LOCK))[:2] == [(0, (0,)), (5, (0,))]
    with HashMap(key="u32", value="u64", max_entries=4) as made, failing(errno.EIO, "none") as seen:
        made[1] = 2
        with pytest.raises(BPFError):
            made.to_dict(flags=BPF_F_LOCK)
        assert seen.seen.count("BPF_MAP_LOOKUP_BATCH") == seen.seen.count("BPF_MAP_LOOKUP_ELEM") == 1
