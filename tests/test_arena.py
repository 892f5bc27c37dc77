"""Arenas: global variables in them, pointers that both sides follow, and where they are mapped."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf.maps import ArenaMap
from pybpf.probe.features import has_feature
from pybpf.syscall import PAGE_SIZE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

PAGES = 10
FIXED = 0x4A00_0000_0000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("arena"))("load_arena.bpf.c", byte_order=sys.byteorder)


def load(spec: pybpf.ObjectSpec, **options: object) -> pybpf.Object:
    """Load it; skips on kernels without arenas, and on machines whose JIT does not know them."""
    try:
        return spec.load(**options)
    except pybpf.VerifierError as error:
        if "BPF_MAP_TYPE_ARENA" in error.log or "not supported" in error.reason or "JIT is required" in error.log:
            pytest.skip(f"arenas: {error.reason}")
        raise
    except pybpf.ObjectError as error:
        if "bpf_arena_alloc_pages" not in str(error):
            raise
        pytest.skip(f"no arenas before Linux 6.9: {error}")
    except pybpf.BPFError as error:
        if error.command == "BPF_MAP_CREATE" and error.errno == errno.EINVAL:
            pytest.skip(f"no arenas before Linux 6.9: {error}")
        if error.command == "BPF_MAP_CREATE" and error.errno == errno.ENOMEM and lacks_cmpxchg16b():
            pytest.skip(f"newer kernels make no arenas on a processor without cmpxchg16b: {error}")
        raise


def lacks_cmpxchg16b() -> bool:
    with open("/proc/cpuinfo") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), ["cx16"])
    return "cx16" not in flags


def mappings() -> list[str]:
    with open("/proc/self/maps") as file:
        return [line for line in file if "bpf-map" in line]


def test_global_variables_are_shared_with_programs(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.globals["numbers"] = [5, 6, 7]
    with load(spec) as obj:
        assert obj.globals["numbers"] == [5, 6, 7]
        assert obj.globals["state"] == 42
        assert obj.programs["add"].test_run().retval == 48
        assert obj.globals["numbers"] == [5, 48, 7]
        obj.globals["state"] = 1000
        assert obj.programs["add"].test_run().retval == 1048
        assert obj.globals["state"] == 1001


def test_variables_lie_where_the_kernel_allows(path: Path) -> None:
    with load(pybpf.ObjectSpec.from_file(path)) as obj:
        arena = obj.maps["arena"]
        assert isinstance(arena, ArenaMap)
        expected = (PAGES - 1) * PAGE_SIZE if has_feature("full_range_offsets") else 0
        assert arena.data_offset == expected
        start = obj.spec.variables["numbers"].offset + expected
        assert bytes(arena.memory[start : start + 8]) == (1).to_bytes(8, sys.byteorder)


def test_pointers_are_followed(path: Path) -> None:
    with load(pybpf.ObjectSpec.from_file(path)) as obj:
        arena = obj.maps["arena"]
        assert isinstance(arena, ArenaMap)
        assert obj.programs["build_list"].test_run().retval == 0
        pointer, values = obj.globals["head"], []
        assert pointer == obj.globals["list_address"]
        while pointer:
            node = arena.at(pointer, 16)
            pointer = int.from_bytes(node[:8], sys.byteorder)
            values.append(int.from_bytes(node[8:], sys.byteorder))
            del node
        assert values == [10, 20]
        assert arena.address <= obj.globals["head"] < arena.address + arena.size
        for place, size in ((arena.address - 1, 1), (arena.address, arena.size + 1), (arena.address, -1)):
            with pytest.raises(ValueError, match="not in the arena"):
                arena.at(place, size)


def test_it_is_mapped_where_the_map_says(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.maps["arena"].map_extra = FIXED
    with load(spec) as obj:
        arena = obj.maps["arena"]
        assert isinstance(arena, ArenaMap)
        assert arena.address == FIXED
        assert obj.programs["build_list"].test_run().retval == 0
        assert FIXED <= obj.globals["head"] < FIXED + PAGES * PAGE_SIZE
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileExistsError, match="map 'arena'"):
            load(spec)
        assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_unmapped_with_the_last_view(path: Path) -> None:
    assert mappings() == []
    obj = load(pybpf.ObjectSpec.from_file(path))
    arena = obj.maps["arena"]
    assert isinstance(arena, ArenaMap)
    assert len(mappings()) >= 1
    view = arena.memory[:PAGE_SIZE]
    obj.close()
    assert len(mappings()) == 1
    view[0] = 7  # still memory
    del view
    assert mappings() == []
    with pytest.raises(pybpf.ClosedError):
        arena.at(arena.address, 1)


def test_an_arena_that_is_too_small_for_its_variables(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    arena = spec.maps["arena"]
    assert arena.data is not None
    arena.data = bytes(arena.data).ljust(PAGES * PAGE_SIZE + 1, b"\0")
    try:
        with pytest.raises(
            pybpf.ObjectError, match=f"its variables need {(PAGES + 1) * PAGE_SIZE} bytes, it has {PAGES * PAGE_SIZE}"
        ):
            load(spec)
    finally:
        assert mappings() == []


def test_an_arena_is_reused_by_descriptor(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    with load(spec) as one:
        assert one.programs["add"].test_run().retval == 44
        with load(spec, reuse={"arena": one.maps["arena"]}) as two:
            assert two.programs["add"].test_run().retval == 44 + 43
            assert one.globals["numbers"] == [1, 87, 3]
