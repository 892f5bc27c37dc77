"""Many elements at once: the program that looks them up, batches of writes and deletions, and what is done without."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator

import pytest
from map_helpers import failing

import pybpf
from pybpf import constants as c
from pybpf.errors import BPFError, BPFExistsError, ClosedError
from pybpf.maps import MappingMap, many

KINDS = many.KINDS


@pytest.fixture(params=[*KINDS, None], ids=["syscall", "socket", "walked", "one by one"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bool] | None:
    """Which program does it."""
    monkeypatch.setattr(many, "KINDS", () if request.param is None else (request.param,))
    chosen: tuple[str, bool] | None = request.param
    return chosen


@pytest.fixture
def numbers() -> Iterator[pybpf.HashMap]:
    with pybpf.HashMap(key="u64", value="u64", max_entries=20_000) as made:
        yield made


def check_kind(made: MappingMap, kind: tuple[str, bool] | None) -> None:
    """The program was this one, as far as this kernel can have it."""
    assert made.readers is not None
    if kind is None:
        assert made.readers.is_refused
    elif made.readers.is_refused:
        pytest.skip(f"this kernel refuses a program of kind {kind}: get_many went one by one")
    else:
        assert made.readers.kind == kind


def test_numbers(numbers: pybpf.HashMap, kind: tuple[str, bool] | None) -> None:
    """More keys than one run takes, some of them twice, some of them not there."""
    items = {random.getrandbits(64): random.getrandbits(64) for _ in range(9000)}
    numbers.update(items)
    keys = random.choices([*items, *(random.getrandbits(64) for _ in range(3000))], k=20_000)
    assert numbers.get_many(keys) == [items.get(key) for key in keys]
    assert numbers.get_many(keys[:100], "none") == [items.get(key, "none") for key in keys[:100]]
    assert numbers.get_many(iter(keys[:50])) == [items.get(key) for key in keys[:50]]
    assert numbers.get_many(list(items)) == list(items.values())
    check_kind(numbers, kind)


SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 31, 64, 100]


@pytest.mark.parametrize(("key_size", "value_size"), list(zip(SIZES, reversed(SIZES), strict=True)))
def test_bytes_of_all_sizes(key_size: int, value_size: int, kind: tuple[str, bool] | None) -> None:
    with pybpf.HashMap(key=key_size, value=value_size, max_entries=300) as made:
        items = {random.randbytes(key_size): random.randbytes(value_size) for _ in range(200)}
        made.update(items)
        keys = [*items, bytes(key_size)]
        assert made.get_many(keys * 2) == [items.get(key) for key in keys] * 2
        check_kind(made, kind)


@pytest.mark.parametrize("value", ["u32", "u64", "struct s { u64 a; u32 b; u16 c; }", 3])
def test_per_cpu(value: str | int) -> None:
    with pybpf.PerCpuHashMap(key="u32", value=value, max_entries=100) as made:
        for key in range(50):
            one = {3: bytes([key] * 3), "u32": key, "u64": key << 40}.get(value, (key, key, key))  # type: ignore[call-overload]
            made[key] = one
        expected = [made.get(key) for key in range(60)]
        assert made.get_many(range(60)) == expected
        assert made.readers is not None
        if made.readers.is_refused:
            pytest.skip("this kernel's programs cannot look up other CPUs' values (Linux 5.19)")


def test_arrays() -> None:
    with pybpf.ArrayMap(value="u64", max_entries=100) as made:
        made.update_many(range(100), range(100, 200))
        assert made.get_many(range(99, -1, -1)) == list(range(199, 99, -1))
        assert made[10:13] == [110, 111, 112]
        assert made[:] == list(range(100, 200))
        assert made[::50] == [100, 150]
        made[:3] = [1, 2, 3]
        assert made[:4] == [1, 2, 3, 103]
        for wrong in (100, -1):
            with pytest.raises(IndexError, match=f"{wrong} is not in 0..99"):
                made.get_many([*range(50), wrong])
        with pytest.raises(ValueError, match="2 keys and 3 values"):
            made[:2] = [1, 2, 3]


def test_tries() -> None:
    with pybpf.LpmTrie(key="ipv4", value="u32", max_entries=100) as made:
        made["10.0.0.0/8"], made["10.1.0.0/16"] = 8, 16
        keys = ["10.1.2.3", "10.9.9.9", "11.0.0.0", "10.1.0.0/16"]
        assert made.get_many(keys * 10) == [16, 8, None, 16] * 10


def test_lru_maps_are_not_read_by_a_program() -> None:
    """A program's lookup would count as use, and keep elements that nobody uses."""
    with pybpf.LruHashMap(key="u32", value="u32", max_entries=100) as made:
        made.update({number: number for number in range(50)})
        assert made.get_many(range(50)) == list(range(50))
        assert made.readers is not None
        assert made.readers.is_refused


def test_fields_that_belong_to_the_kernel() -> None:
    text = "struct bpf_spin_lock { u32 val; }; struct v { struct bpf_spin_lock lock; u32 count; }"
    with pybpf.HashMap(key="u32", value=text, max_entries=100) as made:
        for number in range(50):
            made[number] = {"count": number}
        assert [value.count for value in made.get_many(range(50))] == list(range(50))
        assert made.readers is not None
        assert made.readers.is_refused


def test_wrong_keys_are_named(numbers: pybpf.HashMap) -> None:
    for wrong, error in ((-1, OverflowError), ("x", TypeError), (1 << 64, OverflowError), (None, TypeError)):
        for count in (1, 100):
            with pytest.raises(error, match="key"):
                numbers.get_many([1] * count + [wrong])
            with pytest.raises(error, match="key"):
                numbers.delete_many([1] * count + [wrong])
            with pytest.raises(error, match="key"):
                numbers.update_many([1] * count + [wrong], [1] * (count + 1))
    with pytest.raises(ValueError, match="2 keys and 1 values"):
        numbers.update_many([1, 2], [3])


def test_closed(numbers: pybpf.HashMap) -> None:
    numbers[1] = 2
    assert numbers.get_many([1] * 100) == [2] * 100
    numbers.close()
    for use in (numbers.get_many, numbers.delete_many, lambda keys: numbers.update_many(keys, keys)):
        for count in (1, 100):
            with pytest.raises(ClosedError):
                use([1] * count)


def test_no_time_for_programs_with_few_keys(numbers: pybpf.HashMap) -> None:
    numbers[1] = 5
    with failing(errno.EPERM, "BPF_PROG_LOAD") as seen:
        assert numbers.get_many([1, 2]) == [5, None]
    assert "BPF_PROG_LOAD" not in seen.seen


def test_a_refusal_is_not_asked_for_again(numbers: pybpf.HashMap) -> None:
    with failing(errno.EPERM, "BPF_PROG_LOAD") as seen:
        assert numbers.get_many(range(50)) == [None] * 50
        asked = seen.seen.count("BPF_PROG_LOAD")
        assert asked
        assert numbers.get_many(range(50)) == [None] * 50
        assert seen.seen.count("BPF_PROG_LOAD") == asked


def test_threads_have_memory_of_their_own(numbers: pybpf.HashMap) -> None:
    numbers.update({number: number for number in range(5000)})
    wrong: list[int] = []

    def work(seed: int) -> None:
        for turn in range(20):
            keys = [(seed * 1000 + turn * 100 + number) % 6000 for number in range(1000)]
            if numbers.get_many(keys) != [key if key < 5000 else None for key in keys]:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_has_memory_of_its_own(numbers: pybpf.HashMap) -> None:
    """The memory is shared with the program, so a child must not use its parent's."""
    numbers.update({number: number for number in range(1000)})
    keys = list(range(1000))
    assert numbers.get_many(keys) == keys
    child = os.fork()
    if child == 0:
        same = all(numbers.get_many(keys[::-1]) == keys[::-1] for _ in range(50))
        os._exit(0 if same else 1)
    assert all(numbers.get_many(keys) == keys for _ in range(50))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("is_batched", [True, False])
def test_delete_many(numbers: pybpf.HashMap, is_batched: bool) -> None:
    numbers.update({number: number for number in range(1000)})
    keys = [5000, *range(0, 1000, 2), 6000, 6001, 4, *range(1, 101, 2), 7000]
    with failing(errno.EINVAL, *([] if is_batched else ["BPF_MAP_DELETE_BATCH"])):
        assert numbers.delete_many(iter(keys)) == 550
        assert sorted(numbers) == list(range(101, 1000, 2))
        assert numbers.delete_many([]) == 0
        assert numbers.delete_many([101]) == 1


@pytest.mark.parametrize("is_batched", [True, False])
def test_update_many(is_batched: bool) -> None:
    with (
        pybpf.HashMap(key="u32", value="struct s { u32 a; u32 b; }", max_entries=100) as made,
        failing(errno.EINVAL, *([] if is_batched else ["BPF_MAP_UPDATE_BATCH"])),
    ):
        made.update_many(range(50), [(number, 1) for number in range(50)])
        assert made[49] == (49, 1)
        with pytest.raises(BPFExistsError) as caught:
            made.update_many([60, 61, 3, 62], [(0, 0)] * 4, c.BPF_NOEXIST)
        if not is_batched:
            assert caught.value.count == 2  # type: ignore[attr-defined]
        with pytest.raises(BPFError) as full:
            made.update_many(range(1000, 1100), [(0, 0)] * 100)
        assert full.value.errno == errno.E2BIG
        assert full.value.count == 100 - 50 - 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_a_refusal_for_now_is_not_remembered(
    numbers: pybpf.HashMap, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise BPFError(number, "BPF_MAP_CREATE")

    numbers.update({one: one for one in range(50)})
    with monkeypatch.context() as patch:
        patch.setattr(many, "ManyReader", refuse)
        assert numbers.get_many(range(50)) == list(range(50))
    assert numbers.readers is not None
    assert not numbers.readers.is_refused
    assert numbers.get_many(range(50)) == list(range(50))


def test_a_map_opened_for_writing_only() -> None:
    with pybpf.HashMap(key="u32", value="u32", max_entries=64) as made:
        made.update(dict.fromkeys(range(64), 1))
        with pybpf.HashMap.from_id(made.id, flags=c.BPF_F_WRONLY) as writer:
            for count in (1, 64):
                with pytest.raises(PermissionError, match="for writing only"):
                    writer.get_many(range(count))
        assert made.get_many(range(64)) == [1] * 64
