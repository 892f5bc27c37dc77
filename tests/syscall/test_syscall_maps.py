"""The map commands against the kernel."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from syscall_programs import NEEDS_ROOT, bloom_filter, hash_map, load, pops_elements, u32, u64

from pybpf import syscall
from pybpf.constants import (
    BPF_ANY,
    BPF_EXIST,
    BPF_F_MMAPABLE,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY_PROG,
    BPF_MAP_TYPE_ARRAY,
    BPF_MAP_TYPE_ARRAY_OF_MAPS,
    BPF_MAP_TYPE_HASH,
    BPF_MAP_TYPE_LPM_TRIE,
    BPF_MAP_TYPE_PERCPU_ARRAY,
    BPF_MAP_TYPE_PROG_ARRAY,
    BPF_MAP_TYPE_QUEUE,
    BPF_NOEXIST,
)
from pybpf.errors import (
    BPFError,
    BPFExistsError,
    BPFNotFoundError,
    BPFPermissionError,
    NotSupportedError,
)
from pybpf.syscall import FD, possible_cpus
from pybpf.syscall.cpus import cpu_list, parse_cpu_list

pytestmark = NEEDS_ROOT


@pytest.fixture
def numbers() -> Iterator[FD]:
    fd = hash_map(5)
    yield fd
    fd.close()


def test_elements(numbers: FD) -> None:
    assert syscall.map_lookup_elem(numbers, u64(3), 8) == u64(30)
    syscall.map_update_elem(numbers, u64(3), bytearray(u64(31)), BPF_EXIST)
    assert syscall.map_lookup_elem(numbers, memoryview(u64(3)), 8) == u64(31)
    syscall.map_delete_elem(numbers, u64(3))
    with pytest.raises(BPFNotFoundError) as missing:
        syscall.map_lookup_elem(numbers, u64(3), 8)
    assert missing.value.command == "BPF_MAP_LOOKUP_ELEM" and isinstance(missing.value, FileNotFoundError)
    with pytest.raises(BPFNotFoundError):
        syscall.map_delete_elem(numbers, u64(3))
    with pytest.raises(BPFNotFoundError):
        syscall.map_update_elem(numbers, u64(3), u64(1), BPF_EXIST)
    with pytest.raises(BPFExistsError):
        syscall.map_update_elem(numbers, u64(2), u64(1), BPF_NOEXIST)
    if pops_elements():
        assert syscall.map_lookup_and_delete_elem(numbers, u64(2), 8) == u64(20)
        with pytest.raises(BPFNotFoundError):
            syscall.map_lookup_and_delete_elem(numbers, u64(2), 8)


def test_walk_over_keys(numbers: FD) -> None:
    found: set[bytes] = set()
    key: bytes | None = None
    while True:
        try:
            key = syscall.map_get_next_key(numbers, key, 8)
        except BPFNotFoundError:
            break
        found.add(key)
    assert found == {u64(number) for number in range(5)}


def test_buffers_that_are_too_small_are_refused(numbers: FD) -> None:
    """The kernel would read and write past their end."""
    with pytest.raises(ValueError, match="a value of this map takes 8 bytes, not 4"):
        syscall.map_lookup_elem(numbers, u64(1), 4)
    with pytest.raises(ValueError, match="a key of this map takes 8 bytes, not 4"):
        syscall.map_lookup_elem(numbers, u32(1), 8)
    with pytest.raises(ValueError, match="value"):
        syscall.map_update_elem(numbers, u64(1), b"")
    with pytest.raises(ValueError, match="key"):
        syscall.map_delete_elem(numbers, b"x")
    with pytest.raises(ValueError, match="key"):
        syscall.map_get_next_key(numbers, None, 4)
    with pytest.raises(ValueError, match="key"):
        syscall.map_get_next_key(numbers, b"1234", 8)
    with pytest.raises(ValueError, match="2 times 8 bytes"):
        syscall.map_update_batch(numbers, bytes(16), bytes(15), 2)
    with pytest.raises(ValueError, match="in_batch and out_batch take 8 bytes"):
        syscall.map_lookup_batch(numbers, None, bytearray(4), bytearray(8), bytearray(8), 1)
    assert syscall.map_lookup_elem(numbers, u64(1), 8) == u64(10)


def test_per_cpu_values() -> None:
    cpus = possible_cpus()
    with syscall.map_create(BPF_MAP_TYPE_PERCPU_ARRAY, key_size=4, value_size=4, max_entries=2) as fd:
        values = b"".join(u64(cpu + 1) for cpu in range(cpus))
        syscall.map_update_elem(fd, u32(1), values)
        assert syscall.map_lookup_elem(fd, u32(1), 8 * cpus) == values
        with pytest.raises(ValueError, match=f"takes {8 * cpus} bytes, not 4"):
            syscall.map_lookup_elem(fd, u32(1), 4)


def test_full_and_out_of_range() -> None:
    with syscall.map_create(BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=2) as fd:
        with pytest.raises(BPFError) as error:
            syscall.map_update_elem(fd, u32(2), u32(0), BPF_ANY)
        assert error.value.errno == errno.E2BIG
        with pytest.raises(BPFError) as error:
            syscall.map_delete_elem(fd, u32(1))
        assert error.value.errno == errno.EINVAL


def test_queue() -> None:
    with syscall.map_create(BPF_MAP_TYPE_QUEUE, value_size=4, max_entries=2) as fd:
        for number in (1, 2):
            syscall.map_update_elem(fd, None, u32(number))
        with pytest.raises(BPFError) as full:
            syscall.map_update_elem(fd, None, u32(3))
        assert full.value.errno == errno.E2BIG
        assert syscall.map_lookup_elem(fd, None, 4) == u32(1)
        assert syscall.map_lookup_and_delete_elem(fd, None, 4) == u32(1)
        assert syscall.map_lookup_and_delete_elem(fd, None, 4) == u32(2)
        with pytest.raises(BPFNotFoundError):
            syscall.map_lookup_elem(fd, None, 4)


def test_bloom_filter() -> None:
    with bloom_filter() as fd:
        syscall.map_update_elem(fd, None, u64(5))
        assert syscall.map_lookup_elem(fd, None, 8, value=u64(5)) == u64(5)
        with pytest.raises(BPFNotFoundError):
            syscall.map_lookup_elem(fd, None, 8, value=u64(6))
        assert syscall.map_info(fd).map_extra == 3


def test_map_of_maps_and_of_programs() -> None:
    with (
        hash_map(1) as inner,
        syscall.map_create(
            BPF_MAP_TYPE_ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=2, inner_map_fd=inner
        ) as outer,
        syscall.map_create(BPF_MAP_TYPE_PROG_ARRAY, key_size=4, value_size=4, max_entries=2) as programs,
        load() as program,
    ):
        syscall.map_update_elem(outer, u32(1), u32(inner.fileno()))
        assert syscall.map_lookup_elem(outer, u32(1), 4) == u32(syscall.map_info(inner).id)
        syscall.map_update_elem(programs, u32(0), u32(program.fileno()))
        assert syscall.map_lookup_elem(programs, u32(0), 4) == u32(syscall.prog_info(program).id)


def test_freeze() -> None:
    with syscall.map_create(
        BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1, map_flags=BPF_F_RDONLY_PROG | BPF_F_MMAPABLE
    ) as fd:
        syscall.map_freeze(fd)
        with pytest.raises(BPFPermissionError) as frozen:
            syscall.map_update_elem(fd, u32(0), u32(1))
        assert isinstance(frozen.value, PermissionError)
        with pytest.raises(BPFError) as again:
            syscall.map_freeze(fd)
        assert again.value.errno in (errno.EPERM, errno.EBUSY)  # EBUSY before Linux 5.16


def test_batches() -> None:
    count = 500
    keys = bytearray(b"".join(u64(number) for number in range(count)))
    values = bytearray(b"".join(u64(number * 3) for number in range(count)))
    with hash_map(capacity=1000) as fd:
        assert syscall.map_update_batch(fd, keys, values, count) == count
        found: dict[bytes, bytes] = {}
        place, cursor = None, bytearray(8)
        while True:
            out_keys, out_values = bytearray(8 * 200), bytearray(8 * 200)
            got, number = syscall.map_lookup_batch(fd, place, cursor, out_keys, out_values, 200)
            for start in range(0, 8 * got, 8):
                found[bytes(out_keys[start : start + 8])] = bytes(out_values[start : start + 8])
            if number == errno.ENOENT:
                break
            assert number == 0
            place = bytes(cursor)
        assert found == {u64(number): u64(number * 3) for number in range(count)}
        assert syscall.map_delete_batch(fd, keys[: 8 * 100], 100) == 100
        got, number = syscall.map_lookup_and_delete_batch(
            fd, None, cursor, bytearray(8 * 1000), bytearray(8 * 1000), 1000
        )
        assert (got, number) == (400, errno.ENOENT)
        with pytest.raises(BPFNotFoundError):
            syscall.map_get_next_key(fd, None, 8)


def test_a_batch_that_fails_says_how_far_it_came() -> None:
    with hash_map(3) as fd:
        with pytest.raises(BPFNotFoundError) as missing:
            syscall.map_delete_batch(fd, u64(0) + u64(1) + u64(99) + u64(2), 4)
        assert vars(missing.value)["count"] == 2
        assert syscall.map_lookup_elem(fd, u64(2), 8) == u64(20)
        with pytest.raises(BPFError) as refused:
            syscall.map_update_batch(fd, u64(0), u64(1), 1, 1 << 40)
        assert refused.value.errno == errno.EINVAL and vars(refused.value)["count"] == 0


def test_a_batch_too_small_for_a_bucket_says_so() -> None:
    """64 elements in 64 buckets: one bucket has two, and there is room for one element only."""
    with hash_map(64, capacity=64) as fd:
        place, cursor, number = None, bytearray(8), 0
        while number == 0:
            got, number = syscall.map_lookup_batch(fd, place, cursor, bytearray(8), bytearray(8), 1)
            place = bytes(cursor)
        assert (got, number) == (0, errno.ENOSPC)
        got, number = syscall.map_lookup_batch(fd, place, cursor, bytearray(512), bytearray(512), 64)
        assert got > 1


def test_a_type_without_batches() -> None:
    with syscall.map_create(BPF_MAP_TYPE_QUEUE, value_size=4, max_entries=2) as fd:
        with pytest.raises(NotSupportedError) as unsupported:
            syscall.map_lookup_batch(fd, None, bytearray(4), bytearray(4), bytearray(4), 1)
        assert unsupported.value.errno_name == "ENOTSUPP"


def test_create_fields() -> None:
    key_size = 8
    with syscall.map_create(
        BPF_MAP_TYPE_LPM_TRIE,
        key_size=key_size,
        value_size=4,
        max_entries=9,
        map_flags=BPF_F_NO_PREALLOC,
        name="trie.name_1",
    ) as fd:
        info = syscall.map_info(fd)
    assert (info.type, info.key_size, info.value_size, info.max_entries) == (BPF_MAP_TYPE_LPM_TRIE, 8, 4, 9)
    assert info.name == "trie.name_1" and info.map_flags == BPF_F_NO_PREALLOC


def test_create_is_refused() -> None:
    with pytest.raises(BPFError) as refused:
        syscall.map_create(BPF_MAP_TYPE_HASH, key_size=0, value_size=4, max_entries=1, name="bad")
    assert refused.value.errno == errno.EINVAL
    assert str(refused.value) == "map 'bad': BPF_MAP_CREATE: Invalid argument (EINVAL)"


def test_not_a_map() -> None:
    with pytest.raises(BPFError) as error:
        syscall.map_lookup_elem(987654, b"", 0)
    assert error.value.errno == errno.EBADF and error.value.command == "BPF_MAP_LOOKUP_ELEM"


def test_cpu_lists() -> None:
    assert parse_cpu_list("0-2,5\n") == (0, 1, 2, 5)
    assert parse_cpu_list("7") == (7,)
    assert parse_cpu_list("\n") == ()
    assert possible_cpus() == len(cpu_list("possible")) >= len(cpu_list("online")) > 0
