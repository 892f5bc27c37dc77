"""Arenas as typed memory, without a program."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import pytest
from map_helpers import unless_unknown

from pybpf.constants import BPF_F_SEGV_ON_FAULT
from pybpf.errors import BPFError, BTFError, ClosedError
from pybpf.maps import ArenaMap
from pybpf.syscall import PAGE_SIZE

NODE = "struct node { u64 next; u32 value; char name[4]; }"


def arena_of(pages: int, flags: int = 0) -> ArenaMap:
    try:
        with unless_unknown("arenas (Linux 6.9)"):
            made = ArenaMap(max_entries=pages, flags=flags, name="arena")
    except BPFError as error:
        if error.errno_name == "ENOMEM":
            pytest.skip(f"newer kernels make no arenas on a processor without cmpxchg16b: {error}")
        raise
    try:
        made.address  # noqa: B018 - maps it
    except BPFError as error:
        made.close()
        pytest.skip(f"no arenas on this machine: {error}")
    return made


@pytest.fixture
def arena() -> Iterator[ArenaMap]:
    with arena_of(4) as made:
        yield made


def test_values(arena: ArenaMap) -> None:
    first, second = arena.address + 64, arena.address + PAGE_SIZE
    arena.write(first, NODE, {"next": second, "value": 1, "name": "a"})
    arena.write(second, NODE, (0, 2, "b"))
    found = arena.read(first, NODE)
    assert (found.value, found.name) == (1, "a")
    assert arena.read(found.next, NODE) == (0, 2, "b")
    assert arena.read(first + 8, "u32") == 1
    assert arena.read(first, int) == second


def test_arrays_are_live(arena: ArenaMap) -> None:
    numbers = arena.array(arena.address, "u64", 512)
    numbers[3] = 7
    assert arena.read(arena.address + 24, "u64") == 7
    arena.write(arena.address, "u64", 9)
    assert numbers[0] == 9
    assert arena.array(arena.address, NODE, 3).shape == (3, 16)
    arena.close()
    assert numbers[0] == 9  # a view keeps the memory
    with pytest.raises((ClosedError, ValueError)):
        arena.read(0, "u64")


def test_refusals(arena: ArenaMap) -> None:
    for pointer in (0, arena.address - 1, arena.address + 4 * PAGE_SIZE - 7, 1 << 64):
        with pytest.raises(ValueError, match="not in the arena"):
            arena.read(pointer, "u64")
        with pytest.raises(ValueError, match="not in the arena"):
            arena.write(pointer, "u64", 1)
    with pytest.raises(ValueError, match="not in the arena"):
        arena.array(arena.address, "u64", 512 * 4 + 1)
    with pytest.raises(BTFError, match="is missing"):
        arena.read(arena.address, "struct")
    with pytest.raises(TypeError, match="no type"):
        arena.read(arena.address, 8)
    with pytest.raises(TypeError, match="pointer of map 'arena': an address takes an integer, not 'x'"):
        arena.at("x", 1)  # type: ignore[arg-type]
    assert arena.array(arena.address, "struct node { u64 next; u64 value; }", 0).nbytes == 0
    with pytest.raises(OverflowError):
        arena.write(arena.address, "u8", 256)


def test_one_address_for_all(arena: ArenaMap) -> None:
    """The kernel maps an arena only where it was mapped first."""
    address = arena.address
    with (
        ArenaMap.from_id(arena.id) as other,
        pytest.raises(BPFError, match="mapping of map 'arena': mmap: .*made with map_extra"),
    ):
        other.address  # noqa: B018
    arena.close()
    with ArenaMap(max_entries=4, map_extra=address) as made:
        assert made.address == address


def test_copies_share_the_memory(arena: ArenaMap) -> None:
    with copy(arena) as again:
        assert again.address == arena.address
        arena.write(arena.address, "u64", 7)
        arena.close()
        assert again.read(again.address, "u64") == 7


def test_pages_that_nobody_has_allocated_are_not_touched() -> None:
    with arena_of(4, BPF_F_SEGV_ON_FAULT) as made:
        for use in (
            lambda: made.at(made.address, 8),
            lambda: made.read(made.address + PAGE_SIZE, "u64"),
            lambda: made.write(made.address, "u64", 1),
            lambda: made.array(made.address, "u64", 2000),
            lambda: made.memory,
        ):
            with pytest.raises(ValueError, match="has allocated|nobody has allocated"):
                use()
