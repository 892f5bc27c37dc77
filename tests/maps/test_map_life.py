"""What every map has: creation, information, pins, closing."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
import socket
import struct
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from map_helpers import Types, failing, program

from pybpf import constants as c
from pybpf import syscall
from pybpf.abi import MapType
from pybpf.errors import BPFError, BPFExistsError, BPFNotFoundError, ClosedError, NotSupportedError, ObjectError
from pybpf.maps import (
    ArrayMap,
    ArrayOfMaps,
    HashMap,
    LpmTrie,
    Map,
    MappingMap,
    PerCpuHashMap,
    ProgArray,
    Queue,
    RingBufferMap,
    SocketStorage,
    class_of,
    make_map,
    open_map,
)
from pybpf.syscall import FD

BPFFS = Path("/sys/fs/bpf")


@pytest.fixture
def folder() -> Iterator[Path]:
    if not BPFFS.is_mount():
        pytest.skip("no bpf file system at /sys/fs/bpf")
    path = Path(tempfile.mkdtemp(prefix="pybpf_test_", dir=BPFFS))
    yield path
    path.rmdir()


@pytest.fixture
def counts(types: Types) -> Iterator[HashMap]:
    with HashMap.create(key_codec=types["u32"], value_codec=types["stats"], max_entries=8, name="counts") as made:
        yield made


def test_what_it_tells(counts: HashMap) -> None:
    assert (counts.name, counts.key_size, counts.value_size, counts.max_entries) == ("counts", 4, 16, 8)
    assert (counts.type_number, counts.type, counts.type_name) == (c.BPF_MAP_TYPE_HASH, MapType(1), "hash")
    assert repr(counts) == "<HashMap 'counts' u32 -> struct stats, max_entries=8>"
    assert not counts.closed
    assert counts.pin_path == ""
    info = counts.info()
    assert (info.id, info.name, info.value_size) == (counts.id, "counts", 16)


def test_repr_of_others(types: Types) -> None:
    with HashMap.create(key_size=4, value_size=8, max_entries=1) as made:
        assert repr(made) == "<HashMap '' 4 bytes -> 8 bytes, max_entries=1>"
    assert repr(made) == "<HashMap '' closed>"
    with Queue.create(value_codec=types["u64"], max_entries=3) as made:
        assert repr(made) == "<Queue '' u64, max_entries=3>"


def test_close(counts: HashMap) -> None:
    counts[1] = (2, 3)
    counts.close()
    counts.close()
    assert counts.closed
    uses = [
        counts.fileno,
        counts.info,
        counts.freeze,
        lambda: counts[1],
        lambda: counts.get(1),
        lambda: counts.put(1, (1, 1)),
        lambda: counts.pop(1),
        lambda: list(counts),
        lambda: list(counts.items()),
        lambda: len(counts),
        lambda: 1 in counts,
        lambda: counts.update({1: (1, 1)}),
        counts.clear,
        counts.drain,
        lambda: counts.pin("/sys/fs/bpf/x"),
        lambda: counts.__delitem__(1),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="closed"):
            use()


def test_use_of_a_map_that_was_closed_before_it_was_used(types: Types) -> None:
    made = HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=1)
    made.close()
    with pytest.raises(ClosedError):
        made[1]


def test_the_descriptor_number_is_never_used_after_close(types: Types) -> None:
    """A map that takes the number of a closed one must not get the other's calls."""
    first = HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=1)
    first[1] = 1
    number = first.fileno()
    first.close()
    with HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=1) as second:
        assert second.fileno() == number
        with pytest.raises(ClosedError):
            first[1] = 2
        assert 1 not in second


def test_forgotten(types: Types) -> None:
    made = HashMap.create(key_size=4, value_size=4, max_entries=1, name="lost")
    number = made.fileno()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del made
        gc.collect()
    assert [str(warning.message) for warning in caught] == [
        "unclosed <HashMap 'lost' 4 bytes -> 4 bytes, max_entries=1>"
    ]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


def test_a_forgotten_map_does_not_wait_for_the_garbage_collector() -> None:
    """Whatever a map has prepared, nothing of it leads back to it."""
    made: list[Map] = [
        HashMap(key="u32", value="u64", max_entries=50),
        ArrayMap(value="u64", max_entries=50, flags=c.BPF_F_MMAPABLE),
        ArrayMap(value="struct s { u8 a; }", max_entries=50, flags=c.BPF_F_MMAPABLE),
        Queue(value="u64", max_entries=5),
    ]
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while made:
                one = made.pop()
                if isinstance(one, MappingMap):
                    one[1] = (5,) if one.value_size == 1 else 5
                    one.get_many(range(50))
                    list(one.items())
                number, gone = one.fileno(), weakref.ref(one)
                del one
                assert gone() is None
                with pytest.raises(OSError, match="Bad file"):
                    os.fstat(number)
    finally:
        gc.enable()


def test_create_refuses() -> None:
    with pytest.raises(TypeError, match="cannot make maps of type"):
        Map.create(key_size=4, value_size=4, max_entries=1)
    with pytest.raises(TypeError, match="ArrayMap.create cannot make maps of type hash"):
        ArrayMap.create(c.BPF_MAP_TYPE_HASH, key_size=4, value_size=4, max_entries=1)
    with pytest.raises(BPFError) as caught:
        HashMap.create(key_size=4, value_size=4, max_entries=1, map_extra=1, name="extra")
    assert caught.value.errno_name == "EINVAL"
    assert "extra" in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HashMap(key="u32", value="u32", name="empty"), "HashMap 'empty' needs max_entries"),
        (lambda: HashMap(max_entries=1), "HashMap needs key, value"),
        (lambda: ArrayMap(max_entries=1), "ArrayMap needs value"),
        (lambda: Queue(max_entries=1), "Queue needs value"),
        (lambda: SocketStorage(), "SocketStorage needs value"),
        (lambda: RingBufferMap(), "RingBufferMap needs max_entries"),
        (lambda: ArrayOfMaps(max_entries=1), "ArrayOfMaps needs inner"),
        (lambda: Map.create(c.BPF_MAP_TYPE_HASH_OF_MAPS, key="u32", max_entries=1), "HashOfMaps needs inner"),
        (lambda: ArrayMap(value=4, max_entries="5"), "BPF_MAP_CREATE: max_entries takes an integer, not '5'"),
        (lambda: ArrayMap(value=4, max_entries=5.5), "max_entries takes an integer, not 5.5"),
        (lambda: ArrayMap(value=4, max_entries=5, numa_node="x"), "numa_node takes an integer, not 'x'"),
        (lambda: ArrayMap(value=4, max_entries=5, name=5), "map_name takes a str, not 5"),
        (lambda: ArrayOfMaps(max_entries=5, inner="x"), "a descriptor or an object with fileno.* not 'x'"),
        (lambda: Map.create("hash", max_entries=5), "Map.create takes a number, BPF_MAP_TYPE_..., not 'hash'"),
        (lambda: Map.from_id("x"), "map_id takes an integer, not 'x'"),
        (lambda: Map.from_id(None), "map_id takes an integer, not None"),
    ],
)
def test_options_that_are_missing_or_of_the_wrong_kind(make: Callable[[], object], message: str) -> None:
    with failing(errno.EIO, "BPF_MAP_CREATE") as seen, pytest.raises(TypeError, match=message):
        make()
    assert seen.seen == []  # the kernel is not asked


def test_flags_that_are_no_flags() -> None:
    with HashMap(key="u32", value="u32", max_entries=1) as made, Queue(value="u32", max_entries=1) as queue:
        for use in (lambda: made.put(1, 1, -1), lambda: made.get(1, flags=-1), lambda: queue.push(1, flags=1 << 64)):
            with pytest.raises(ValueError, match=r"flags = -?\d+ does not fit into 8 bytes"):
                use()
        with pytest.raises(TypeError, match="flags: an integer, not 'x'"):
            made.put(1, 1, "x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes a Snapshot or the path"):
            made.restore(made.snapshot().to_bytes())  # type: ignore[arg-type]


def test_a_closed_socket_is_no_key() -> None:
    closed = socket.socket()
    closed.close()
    with SocketStorage(value="u32") as made, pytest.raises(ClosedError, match="key: <socket.* is closed"):
        made[closed] = 1


def test_create_by_number() -> None:
    with Map.create(c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1) as made:
        assert type(made) is ArrayMap


def test_every_known_type_has_a_class() -> None:
    for number in range(1, len(c.MAP_TYPE_NAMES)):
        assert issubclass(class_of(number), Map)
        assert class_of(number).default_type in (0, number)
    assert class_of(999) is MappingMap


def test_codecs_of_another_size_are_left_aside(types: Types) -> None:
    fd = syscall.map_create(c.BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=1)
    with make_map(
        fd,
        name="x",
        type_number=c.BPF_MAP_TYPE_HASH,
        key_size=4,
        value_size=8,
        max_entries=1,
        key_codec=types["u64"],
        value_codec=types["u64"],
    ) as made:
        assert made.key_codec is None
        assert made.value_codec is types["u64"]


def test_make_map_that_fails_closes_the_descriptor() -> None:
    fd = syscall.map_create(c.BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=1)
    with pytest.raises(AttributeError):
        make_map(
            fd,
            name="x",
            type_number=c.BPF_MAP_TYPE_HASH,
            key_size=4,
            value_size=8,
            max_entries=1,
            key_codec="no codec",  # type: ignore[arg-type]
        )
    assert fd.closed


class TestOpening:
    def typed(self, types: Types) -> tuple[FD, FD]:
        """A map whose types the kernel knows, and its BTF object."""
        btf = syscall.btf_load(types.data)
        fd = syscall.map_create(
            c.BPF_MAP_TYPE_HASH,
            key_size=8,
            value_size=16,
            max_entries=4,
            name="typed",
            btf_fd=btf,
            btf_key_type_id=types.ids["pair"],
            btf_value_type_id=types.ids["stats"],
        )
        return fd, btf

    def test_by_id(self, types: Types) -> None:
        fd, btf = self.typed(types)
        with fd, btf, Map.from_id(syscall.map_info(fd).id) as made:
            assert repr(made) == "<HashMap 'typed' struct pair -> struct stats, max_entries=4>"
            made[{"a": 1, "b": 2}] = {"packets": 3}
            assert made[1, 2].packets == 3

    def test_by_name(self, types: Types) -> None:
        name = f"py_{os.getpid()}_long_name"
        with pytest.raises(BPFNotFoundError, match=f"map '{name}'"):
            Map.from_name(name)
        with (
            HashMap(key="u32", value="u32", max_entries=1, name=name[:15]) as first,
            HashMap.from_name(name) as again,
            Queue(value="u32", max_entries=1, name=name[:15]) as second,
            Queue.from_name(name, flags=c.BPF_F_RDONLY) as queue,
        ):
            assert (again.id, queue.id) == (first.id, second.id)
            with pytest.raises(PermissionError):
                queue.push(bytes(4))
            with pytest.raises(ValueError, match=f"2 maps are named '{name[:15]}': ids {first.id}, {second.id};"):
                Map.from_name(name)

    def test_by_id_refuses(self, types: Types) -> None:
        with pytest.raises(BPFNotFoundError):
            Map.from_id(0x7FFFFFFF)
        fd, btf = self.typed(types)
        with fd, btf, pytest.raises(TypeError, match="is not a ArrayMap"):
            ArrayMap.from_id(syscall.map_info(fd).id)

    def test_open_map_refuses_a_program(self) -> None:
        fd = program()
        with pytest.raises(BPFError):
            open_map(FD(os.open("/dev/null", os.O_RDONLY)))
        fd.close()

    def test_pins(self, types: Types, folder: Path) -> None:
        path = folder / "counts"
        with HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=4, name="counts") as made:
            with pytest.raises(ValueError, match="is not pinned"):
                made.unpin()
            made.pin(path)
            assert made.pin_path == str(path)
            with pytest.raises(BPFExistsError):
                made.pin(path)
            made[1] = 2
        with HashMap.open_pinned(path) as again:
            assert again.name == "counts"
            assert again[struct.pack("=I", 1)] == struct.pack("=I", 2)  # created without type information
            again.unpin()
            with pytest.raises(ValueError, match="is not pinned"):
                again.unpin()
        with pytest.raises(BPFNotFoundError):
            Map.open_pinned(path)

    def test_pinned_program_is_no_map(self, folder: Path) -> None:
        path = folder / "program"
        with program() as fd:
            syscall.obj_pin(str(path), fd)
        try:
            with pytest.raises(ObjectError, match="is not a map"):
                Map.open_pinned(path)
        finally:
            path.unlink()

    def test_read_only(self, types: Types) -> None:
        fd, btf = self.typed(types)
        with fd, btf, Map.from_id(syscall.map_info(fd).id, flags=c.BPF_F_RDONLY) as made:
            with pytest.raises(PermissionError):
                made[1, 2] = (3, 4)
            assert dict(made.items()) == {}


def test_freeze(counts: HashMap) -> None:
    counts[1] = (1, 1)
    counts.freeze()
    assert counts[1] == (1, 1)
    with pytest.raises(PermissionError):
        counts[1] = (2, 2)
    with pytest.raises(BPFError) as caught:
        counts.freeze()
    assert caught.value.errno_name in ("EBUSY", "EPERM")


KEY = bytes(8)
FIRST_USES: list[Callable[[Any], object]] = [
    lambda made: made.delete_many([KEY]),
    lambda made: made.write_bytes(KEY, bytes(made.values_face.size), 1, 0, 0),
    lambda made: made.update({KEY: bytes(8)}),
    lambda made: made.update_many([KEY], [bytes(8)]),
    lambda made: made.get_many([KEY]),
    lambda made: made.update_array(KEY, bytes(made.values_face.size)),
    lambda made: list(made._walked_chunks(True, False, 0)),
    lambda made: made.popitem(),
    lambda made: made.pop(KEY),
    lambda made: made.drain(),
    lambda made: made.clear(),
    lambda made: made.items_array(),
    lambda made: made.snapshot(),
    lambda made: made.to_dict(),
    lambda made: len(made),
    lambda made: bool(made),
]


@pytest.mark.parametrize("use", FIRST_USES)
@pytest.mark.parametrize("cls", [HashMap, PerCpuHashMap, LpmTrie])
def test_anything_may_be_the_first_use(cls: type[MappingMap], use: Callable[[Any], object]) -> None:
    with cls(key=8, value=8, max_entries=4) as made:
        made[KEY] = bytes(8)
        with cls.from_id(made.id) as fresh:
            use(fresh)


def test_anything_may_be_the_first_use_of_an_array() -> None:
    uses: list[Callable[[ArrayMap], object]] = [ArrayMap.to_dict, ArrayMap.snapshot, ArrayMap.clear]
    uses.append(lambda made: made.write_bytes(bytes(4), bytes(8), 1, 0, 0))
    for use in uses:
        with ArrayMap(value=8, max_entries=1) as made:
            use(made)
    with ProgArray(max_entries=1) as programs:
        assert programs.delete_many([0]) == 0


def test_frozen_and_memory(counts: HashMap) -> None:
    assert not counts.frozen
    assert counts.memlock >= 8 * (4 + 16)
    counts.freeze()
    assert counts.frozen
    with pytest.raises(NotSupportedError, match="lost of map 'counts': .*does not tell it"):
        counts._told("lost")


@pytest.mark.parametrize("is_used", [False, True])
def test_copy(is_used: bool) -> None:
    class Own(HashMap):
        __slots__ = ()

    made = Own(key="u32", value="u64", max_entries=8, name="counts")
    if is_used:
        made[1] = 2
        assert type(made) is not Own  # it reads and writes by methods of its own
    with copy.copy(made) as again:
        assert type(again) is Own
        assert (again.fileno() != made.fileno(), again.id, repr(again)) == (True, made.id, repr(made))
        made.close()
        again[1] = 5
        assert (again[1], again.to_dict()) == (5, {1: 5})
    with pytest.raises(ClosedError):
        copy.copy(again)


def test_copy_of_a_class_with_another_constructor() -> None:
    class Fixed(HashMap):
        def __init__(self) -> None:
            super().__init__(key="u32", value="u64", max_entries=8)

    with Fixed() as made:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(TypeError):
            copy.copy(made)
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_cannot_leave_the_process(counts: HashMap) -> None:
    for use in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"'counts' .*cannot be pickled or copied deeply: .*from_id\(\)"):
            use(counts)  # type: ignore[operator]


def test_nothing_is_prepared_before_it_is_used(types: Types) -> None:
    """Loading an object with many maps must not pay for maps that nobody reads."""
    with HashMap.create(key_codec=types["u32"], value_codec=types["u32"], max_entries=4) as made:
        with pytest.raises(AttributeError):
            object.__getattribute__(made, "_calls")
        assert not hasattr(made, "nonsense")


def test_import_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, pybpf.maps, pybpf.maps.hash, pybpf.maps.array; print([m for m in HEAVY if m in sys.modules])"
    heavy = ("dataclasses", "typing", "enum", "re", "logging", "pathlib", "asyncio", "inspect", "ipaddress")
    result = subprocess.run(
        [sys.executable, "-S", "-c", f"HEAVY = {heavy!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert result.stdout == "[]\n"
