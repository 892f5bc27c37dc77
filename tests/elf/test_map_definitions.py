"""Definitions of maps, against what libbpf creates, and definitions that make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from libbpf_oracle import Oracle
from object_builder import ObjectBuilder

from pybpf import constants
from pybpf.errors import ObjectError
from pybpf.mapspec import MapSpec, kernel_name, ring_size
from pybpf.spec import ObjectSpec

BEGIN = '#include "bpf_min.h"\nstruct {\n'
END = '\n} broken SEC(".maps");\nSEC("socket") int use(void *c) { return bpf_map_lookup_elem(&broken, c) != 0; }\n'


def compare_with_libbpf(path: Path, oracle: Oracle) -> int:
    """How many maps were found equal."""
    spec = ObjectSpec.from_file(path)
    created = {call["name"]: call for call in oracle.calls(path) if call.kind == "map"}
    for one in spec.maps.values():
        call = created.pop(one.kernel_name)
        ids = (0, 0) if one.type_number in NO_TYPES else (one.key_type_id, one.value_type_id)
        assert (
            one.type_number,
            one.key_size,
            one.value_size,
            one.max_entries,
            one.flags,
            one.map_extra,
            one.numa_node,
            ids,
        ) == (
            call.number("type"),
            call.number("key_size"),
            call.number("value_size"),
            call.number("max_entries"),
            call.number("flags"),
            call.number("map_extra"),
            call.number("numa_node"),
            (call.number("key_type_id"), call.number("value_type_id")),
        ), one.name
    assert [name for name in created if not name.endswith((".inner", ".inne"))] == []
    return len(spec.maps)


NO_TYPES = (
    constants.BPF_MAP_TYPE_PROG_ARRAY,
    constants.BPF_MAP_TYPE_ARRAY_OF_MAPS,
    constants.BPF_MAP_TYPE_HASH_OF_MAPS,
)
"""libbpf gives such maps no types, whatever their definition says: that is done at load."""


@pytest.mark.parametrize(
    ("source", "count"),
    [("elf_maps.bpf.c", 10), ("elf_data.bpf.c", 9), ("elf_calls.bpf.c", 2), ("elf_externs.bpf.c", 2)],
)
def test_maps_are_those_that_libbpf_creates(source: str, count: int, build: ObjectBuilder, oracle: Oracle) -> None:
    assert compare_with_libbpf(build(source, "-DLIBBPF_1_1"), oracle) == count


def test_maps_of_a_linked_object_are_those_that_libbpf_creates(linked: Path, oracle: Oracle) -> None:
    assert compare_with_libbpf(linked, oracle) == 2


def test_every_field_is_read(build: ObjectBuilder) -> None:
    maps = ObjectSpec.from_file(build("elf_maps.bpf.c")).maps
    typed = maps["typed"]
    assert (typed.key_size, typed.value_size, typed.max_entries, typed.flags) == (8, 24, 100, 5)
    assert typed.btf is not None
    assert (typed.btf.name_of(typed.key_type_id), typed.btf.name_of(typed.value_type_id)) == ("key", "value")
    assert maps["bloom"].map_extra == 3
    assert maps["events"].max_entries == ring_size(5000) >= 8192
    pinned = maps["pinned_with_a_long_name"]
    assert (pinned.pinning, pinned.kernel_name, pinned.pin_path) == (1, "pinned_with_a_l", None)
    outer = maps["outer"]
    assert outer.values == {1: "inner_one", 4: "inner_two"}
    assert outer.value_size == 4
    assert outer.inner is not None
    assert (outer.inner.name, outer.inner.type_number, outer.inner.max_entries) == ("outer.inner", 2, 4)
    assert (outer.inner.key_size, outer.inner.value_size) == (4, 8)
    assert maps["outer_hash"].values == {3: "inner_one"}
    assert maps["jumps"].values == {0: "tail", 2: "tail"}
    assert maps["jumps"].inner is None
    assert {one.section for one in maps.values()} == {".maps"}


def test_maps_come_in_the_order_of_their_place(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_externs.bpf.c"))
    assert list(spec.maps) == [".bss", ".kconfig"]
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    assert list(spec.maps) == ["counts", ".bss"]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("__uint(max_entries, 1);", "its type is not given"),
        ("__uint(type, 1); __uint(colour, 1);", "field 'colour': there is no such field"),
        ("__uint(type, 1); __type(key, int); __uint(key_size, 8);", "conflicting key sizes 4 and 8"),
        ("__uint(type, 1); __uint(value_size, 8); __type(value, int);", "conflicting value sizes 8 and 4"),
        ("__uint(type, 1); int max_entries;", "field 'max_entries': not of the form __uint"),
        ("__uint(type, 1); int *max_entries;", "field 'max_entries': not of the form __uint"),
        ("__uint(type, 1); int key;", "field 'key': not of the form __type"),
        ("__uint(type, 1); void *key;", "no size"),
        ("__uint(type, 1); __uint(pinning, 7);", "field 'pinning': 7 is neither 0"),
        ("__uint(type, 1); enum { A, B } map_extra;", "field 'map_extra': not of the form __ulong"),
        ("__uint(type, 1); __array(values, int(void *));", "only maps of maps and of programs"),
        ("int (*values[0])(void *); __uint(type, 3);", "field 'values': it must be the last field"),
        ("__uint(max_entries, 3); __array(values, int(void *));", "and `type` must come before"),
        ("__uint(type, 3); __uint(value_size, 8); __array(values, int(void *));", "conflicting value sizes 8 and 4"),
        (
            "__uint(type, 3); __array(values, struct { __uint(type, 1); });",
            "the values of a map of programs are functions",
        ),
        ("__uint(type, 12); __array(values, int(void *));", "the values of a map of maps are structs"),
        ("__uint(type, 12); __type(values, int);", "field 'values': not of the form __array"),
        (
            "__uint(type, 12); __array(values, struct { __uint(type, 12); __array(values, struct { int x; }); });",
            "map 'broken.inner': field 'values': an inner map cannot have it",
        ),
        (
            "__uint(type, 12); __array(values, struct { __uint(type, 1); __uint(pinning, 1); });",
            "map 'broken.inner': field 'pinning': an inner map cannot be pinned",
        ),
    ],
)
def test_definitions_that_make_no_sense_are_refused(definition: str, message: str, build: ObjectBuilder) -> None:
    path = build.compile_text("broken.bpf.c", BEGIN + definition + END)
    with pytest.raises(ObjectError, match=message) as caught:
        ObjectSpec.from_file(path)
    assert "broken" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'static struct { __uint(type, 1); } m SEC(".maps"); void *use(void) { return &m; }',
            "map 'm' must not be static",
        ),
        ('int m SEC(".maps");', "map 'm' is not defined by a struct"),
        (
            'struct { __uint(type, 33); __uint(max_entries, 1); } m SEC(".maps"), n SEC(".maps");',
            "only one arena is possible, there are m, n",
        ),
        (
            "int x; struct { __uint(type, 12); __uint(key_size, 4); __array(values, struct { __uint(type, 1); }); } "
            'm SEC(".maps") = { .values = { [2] = (void *)&x } };',
            "map 'm': value 2: 'x' is no map of this object",
        ),
        (
            'struct { __uint(type, 1); } n SEC(".maps"); struct { __uint(type, 13); __uint(key_size, 8); '
            '__array(values, struct { __uint(type, 1); }); } m SEC(".maps") = { .values = { (void *)&n } };',
            "map 'm': value 0: 'n': initial values need a key of 4 bytes",
        ),
        (
            "__noinline int f(void *c) { return 1; } struct { __uint(type, 3); __array(values, int(void *)); } "
            'm SEC(".maps") = { .values = { f } };',
            "map 'm': value 0: 'f' is no program of this object",
        ),
        (
            'int x; struct { int (*type)[1]; int *key; } m SEC(".maps") = { .key = &x };',
            "relocation at offset 0x8 is not in the values of map 'm'",
        ),
    ],
)
def test_maps_that_make_no_sense_are_refused(text: str, message: str, build: ObjectBuilder) -> None:
    path = build.compile_text("broken.bpf.c", '#include "bpf_min.h"\n' + text)
    with pytest.raises(ObjectError, match=message):
        ObjectSpec.from_file(path)


def test_maps_need_type_information(build: ObjectBuilder) -> None:
    with pytest.raises(ObjectError, match=r"no section \.BTF, which the definitions of maps need"):
        ObjectSpec.from_file(build("elf_maps.bpf.c", "-g0"))


def test_old_definitions_are_read(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_legacy.bpf.c"))
    assert list(spec.maps) == ["first", "second"]
    first, second = spec.maps.values()
    assert first.facts()[:8] == ("first", "first", "maps", 1, 4, 16, 12, 1)
    assert second.facts()[:8] == ("second", "second", "maps", 2, 4, 8, 2, 0)
    assert first.btf is not None
    assert first.btf.name_of(first.value_type_id) == "point"
    assert (second.key_type_id, second.value_type_id) == (0, 0)
    relocations = spec.programs["use"].function.relocations
    assert [(one.kind, one.name) for one in relocations] == [("map", "first"), ("map", "second")]


def test_old_definitions_do_not_need_type_information(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_legacy.bpf.c", "-g0"))
    assert [one.facts()[3:8] for one in spec.maps.values()] == [(1, 4, 16, 12, 1), (2, 4, 8, 2, 0)]


def test_old_definitions_with_more_fields_must_leave_them_zero(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_legacy.bpf.c", "-DLARGER=0"))
    assert [one.max_entries for one in spec.maps.values()] == [12, 2]
    with pytest.raises(ObjectError, match="map 'first': its definition has fields beyond map_flags"):
        ObjectSpec.from_file(build("elf_legacy.bpf.c", "-DLARGER=2"))


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_struct_ops_maps_say_which_programs_they_take(byte_order: str, build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_struct_ops.bpf.c", byte_order=byte_order))
    plain, linked, optional = (spec.maps[name] for name in ("plain", "linked", "optional"))
    assert plain.struct_ops is not None and linked.struct_ops is not None and optional.struct_ops is not None
    assert plain.struct_ops.type_name == "tcp_congestion_ops"
    assert plain.struct_ops.members == {"init": "start", "ssthresh": "threshold"}
    assert plain.struct_ops.programs == {0: "start", 8: "threshold"}
    assert linked.struct_ops.programs == {8: "threshold", 24: "undo"}
    assert optional.struct_ops.programs == {24: "undo"}
    assert [one.flags for one in (plain, linked, optional)] == [0, constants.BPF_F_LINK, constants.BPF_F_LINK]
    assert [one.autocreate for one in (plain, linked, optional)] == [True, True, False]
    assert plain.data is not None
    assert bytes(plain.data[32:]) == b"plain".ljust(16, b"\0")
    assert plain.type_number == constants.BPF_MAP_TYPE_STRUCT_OPS
    assert {one.type_number for one in spec.programs.values()} == {constants.BPF_PROG_TYPE_STRUCT_OPS}
    assert spec.programs["undo"].flags == constants.BPF_F_SLEEPABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('struct { int x; } m SEC(".struct_ops");', "'m' is not of a struct with a name"),
        (
            'struct ops { int *x; }; int y; struct ops m SEC(".struct_ops") = { &y };',
            "is not at a function pointer of 'm'",
        ),
        (
            'struct ops { int (*f)(void); }; SEC("socket") int p(void) { return 0; } '
            'struct ops m SEC(".struct_ops") = { p };',
            "struct_ops map 'm': f = 'p' is in section 'socket', not in struct_ops",
        ),
        (
            'struct ops { int (*f)(void); }; int y; struct ops m SEC(".struct_ops") = { (void *)&y };',
            "struct_ops map 'm': f = 'y' is no function of this object",
        ),
    ],
)
def test_struct_ops_that_make_no_sense_are_refused(text: str, message: str, build: ObjectBuilder) -> None:
    path = build.compile_text("broken.bpf.c", '#include "bpf_min.h"\n' + text)
    with pytest.raises(ObjectError, match=message):
        ObjectSpec.from_file(path)


def test_data_of_an_arena_is_its_initial_content(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_arena.bpf.c"))
    arena = spec.maps["arena"]
    assert arena.type_number == constants.BPF_MAP_TYPE_ARENA
    assert arena.data is not None
    assert bytes(arena.data) == b"".join(one.to_bytes(8, "little") for one in (1, 2, 3)) + b"\x2a\0\0\0"
    spec.globals["state"] = 43
    assert arena.data[24] == 43
    kinds = [(one.kind, one.name, one.offset) for one in spec.programs["use"].function.relocations]
    assert kinds == [("map", "arena", 0), ("data", "arena", 24), ("data", "arena", 0)]
    path = build.compile_text(
        "no_arena.bpf.c", '#include "bpf_min.h"\nint __attribute__((address_space(1))) x SEC(".addr_space.1") = 1;'
    )
    with pytest.raises(ObjectError, match="no map is an arena"):
        ObjectSpec.from_file(path)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 1), (4096, 1), (4097, 2), (8192, 2), (8193, 4), (3 << 20, 1024), (1 << 31, 1 << 19)],
)
def test_ring_buffers_are_rounded_up(size: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 4096)
    assert ring_size(size) == expected * 4096


def test_a_ring_buffer_that_cannot_be_rounded_up_is_kept() -> None:
    assert ring_size((1 << 31) + 1) == (1 << 31) + 1


def test_a_map_spec_checks_what_it_is_given() -> None:
    one = MapSpec("x", constants.BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=10)
    one.max_entries = 1 << 31
    for attribute in ("max_entries", "key_size", "value_size", "flags", "type_number"):
        for value in (-1, 1 << 32):
            with pytest.raises(ValueError, match="is not in 0.."):
                setattr(one, attribute, value)
        with pytest.raises(TypeError, match="takes an integer, not str"):
            setattr(one, attribute, "1")
    one.map_extra = (1 << 64) - 1
    with pytest.raises(ValueError, match="map_extra"):
        one.map_extra = 1 << 64
    one.type_number = constants.BPF_MAP_TYPE_RINGBUF
    assert one.max_entries == 1 << 31
    one.max_entries = 1
    assert one.max_entries == ring_size(1)


def test_other_sizes_lose_the_types(build: ObjectBuilder) -> None:
    typed = ObjectSpec.from_file(build("elf_maps.bpf.c")).maps["typed"]
    typed.key_size = typed.key_size
    assert typed.key_type_id
    typed.key_size = 16
    typed.value_size = 1
    assert (typed.key_type_id, typed.value_type_id) == (0, 0)


def test_names_are_cut_and_cleaned_for_the_kernel() -> None:
    assert kernel_name("short") == "short"
    assert kernel_name("a_name_that_is_too_long") == "a_name_that_is_"
    assert kernel_name("with-dash.and dot") == "with_dash.and_d"
    assert kernel_name("ünïcode") == "_n_code"
