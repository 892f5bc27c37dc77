"""Data sections: the maps that hold global variables, and the variables in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_builder import ObjectBuilder

from pybpf import constants
from pybpf.elf.container import STT_OBJECT, Container
from pybpf.elf.data import internal_name
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec

MMAPABLE = constants.BPF_F_MMAPABLE
READ_ONLY = constants.BPF_F_RDONLY_PROG


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_each_data_section_is_a_map(byte_order: str, build: ObjectBuilder) -> None:
    path = build("elf_data.bpf.c", byte_order=byte_order)
    spec = ObjectSpec.from_file(path)
    flags = {name: one.flags for name, one in spec.maps.items()}
    assert flags == {
        ".rodata": MMAPABLE | READ_ONLY,
        ".data": MMAPABLE,
        ".bss": MMAPABLE,
        ".data.tuning": MMAPABLE,
        ".data.quiet": 0,  # only a static variable
        ".rodata.tuning": MMAPABLE | READ_ONLY,
        ".bss.tuning": MMAPABLE,
        ".data.growing": MMAPABLE,
        ".rodata.str1.1": READ_ONLY,  # no type information
    }
    container = Container(path.read_bytes(), "")
    sections = {one.name: one for one in container.sections}
    for name, one in spec.maps.items():
        section = sections[name]
        assert one.type_number == constants.BPF_MAP_TYPE_ARRAY
        assert (one.key_size, one.value_size, one.max_entries) == (4, section.size, 1)
        assert one.is_internal
        assert one.is_read_only == name.startswith(".rodata")
        assert one.data == (bytes(section.size) if name.startswith(".bss") else container.content(section))
    assert bytes(spec.maps[".rodata.str1.1"].data or b"") == b"a string section\0"


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_variables_are_where_their_symbols_are(byte_order: str, build: ObjectBuilder) -> None:
    path = build("elf_data.bpf.c", byte_order=byte_order)
    spec = ObjectSpec.from_file(path)
    container = Container(path.read_bytes(), "")
    symbols = {one.name: one for one in container.symbols(STT_OBJECT)}
    assert len(spec.variables) == 17
    for name, variable in spec.variables.items():
        symbol = symbols[name]
        assert (variable.offset, variable.size) == (symbol.value, symbol.size), name
        assert variable.map == container.sections[symbol.section].name
        assert variable.is_read_only == variable.map.startswith(".rodata")
    static = {name for name, one in spec.variables.items() if one.is_static}
    assert static == {"hidden_setting", "counter", "private_state", "only_static", "use.times", "once.times"}


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_values_are_those_of_the_source(byte_order: str, build: ObjectBuilder) -> None:
    values = ObjectSpec.from_file(build("elf_data.bpf.c", byte_order=byte_order)).globals
    assert values["min_us"] == 7
    assert values["hidden_setting"] == 1 << 40
    assert values["level"] == -5
    assert values["text"] == "hello"
    assert tuple(values["setting"]) == (1, -2, True)
    assert bytes(values["table"]) == b"\x01\x02\x03\0\0\0"
    assert values["overridable"] == 11
    assert list(values["numbers"]) == [0, 0]


def test_static_variables_of_one_name_have_their_place_in_it(linked: Path) -> None:
    spec = ObjectSpec.from_file(linked)
    assert {name: spec.globals[name] for name in spec.globals} == {
        "from_a": 1,
        "same_name@.data+4": 5,
        "from_b": 2,
        "same_name@.data+12": 6,
    }


@pytest.mark.parametrize(
    ("name", "section", "expected"),
    [
        ("my_object_name", ".rodata", "my_objec.rodata"),
        ("my_object_name", ".bss", "my_objec.bss"),
        ("my_object_name", ".kconfig", "my_obje.kconfig"),
        ("short", ".data", "short.data"),
        ("with-dash", ".data", "with_das.data"),
        ("any", ".data.custom", ".data.custom"),
        ("any", ".rodata.a_very_long_name", ".rodata.a_very_"),
        ("", ".bss", ".bss"),
    ],
)
def test_the_kernel_gets_a_name_with_the_object_in_it(name: str, section: str, expected: str) -> None:
    assert internal_name(name, section) == expected


def test_sections_of_one_name_are_two_maps(build: ObjectBuilder) -> None:
    source = """
    .section ".data","aw",@progbits,unique,1
    .quad 1
    .section ".data","aw",@progbits,unique,2
    .quad 2
    .quad 3
    """
    maps = ObjectSpec.from_file(build.compile_text("twice.s", source)).maps
    assert [one.value_size for one in maps.values()] == [8, 16]
    first, second = maps
    assert first == ".data"
    assert second.startswith(".data#")


def test_data_sections_of_any_size_are_not_taken(build: ObjectBuilder) -> None:
    path = build.compile_text("huge.bpf.c", "char huge[1UL << 33];")
    with pytest.raises(ObjectError, match=r"section '\.bss': 8589934592 bytes are more than a data section may have"):
        ObjectSpec.from_file(path)


def test_data_without_type_information_has_no_variables(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c", "-g0"))
    assert not spec.variables
    assert spec.maps[".rodata"].flags == READ_ONLY
    assert spec.maps[".data"].value_type_id == 0
    with pytest.raises(KeyError, match="no global variable 'total': there are none"):
        spec.globals["total"]
