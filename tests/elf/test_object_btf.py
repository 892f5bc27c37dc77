"""The object's BTF made fit for the kernel, against what libbpf loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from libbpf_oracle import Oracle
from object_builder import SOURCES, ObjectBuilder

from pybpf.btf.kinds import KIND_DATASEC, Composite, Datasec, Func, FuncProto, Type, Var
from pybpf.btf.reader import BTF
from pybpf.elf.container import Container
from pybpf.elf.datasec import kernel_btf
from pybpf.errors import BTFError, ObjectError
from pybpf.spec import ObjectSpec


def facts(one: Type) -> tuple[object, ...]:
    """A type's fields, members and parameters as values that can be compared."""

    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(plain(item) for item in value)
        return repr(value) if not isinstance(value, int | str) else value

    slots = [name for owner in type(one).__mro__ for name in getattr(owner, "__slots__", ())]
    names = [name for name in slots if name != "btf" and not name.startswith("_")]
    if isinstance(one, Composite):
        names.append("members")  # made of hidden words when they are asked for
    return (type(one).__name__, *((name, plain(getattr(one, name))) for name in sorted(names)))


def types(data: bytes) -> list[tuple[object, ...]]:
    return [facts(one) for one in BTF.from_bytes(data).types()]


def loaded_btf(oracle: Oracle, path: Path) -> bytes:
    call = next(call for call in oracle.calls(path) if call.kind == "btf")
    assert call["accepted"] == "1"
    return call.data("data")


@pytest.mark.parametrize(
    "source", ["elf_calls.bpf.c", "elf_data.bpf.c", "elf_externs.bpf.c", "elf_link_b.bpf.c", "elf_maps.bpf.c"]
)
def test_the_types_are_those_that_libbpf_loads(source: str, build: ObjectBuilder, oracle: Oracle) -> None:
    path = build(source, "-DLIBBPF_1_1")
    assert types(kernel_btf(ObjectSpec.from_file(path))) == types(loaded_btf(oracle, path))


def test_the_types_of_a_linked_object_are_those_that_libbpf_loads(linked: Path, oracle: Oracle) -> None:
    assert types(kernel_btf(ObjectSpec.from_file(linked))) == types(loaded_btf(oracle, linked))


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("source", SOURCES)
def test_sections_are_laid_out_and_ids_stay(source: str, byte_order: str, build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build(source, byte_order=byte_order))
    assert spec.btf is not None
    btf = BTF.from_bytes(kernel_btf(spec))
    assert btf.byte_order == byte_order
    for before in spec.btf.types():
        after = btf.type(before.id)
        assert (after.kind, after.name) == (before.kind, before.name)
    sections = [one for one in btf.types() if isinstance(one, Datasec)]
    assert sections
    for section in sections:
        end = 0
        for entry in section.entries:
            var = btf.type(entry.type_id)
            assert isinstance(var, Var)
            assert var.linkage in (0, 1)
            assert entry.offset >= end
            assert btf.size_of(var.type_id) <= entry.size
            end = entry.offset + entry.size
        assert end <= section.size


def test_hidden_variables_and_functions_become_static(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c"))
    btf = BTF.from_bytes(kernel_btf(spec))
    linkages = {one.name: one.linkage for one in btf.types() if isinstance(one, Var)}
    assert linkages["private_state"] == 0
    assert linkages["total"] == 1
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    functions = {one.name: one.linkage for one in BTF.from_bytes(kernel_btf(spec)).types() if isinstance(one, Func)}
    assert functions["internal"] == 0
    assert functions["shared"] == functions["replaceable"] == 1
    assert functions["leaf"] == 0


def test_externs_become_ordinary(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_externs.bpf.c"))
    btf = BTF.from_bytes(kernel_btf(spec))
    settings = btf.find(".kconfig", KIND_DATASEC)
    assert isinstance(settings, Datasec)
    places = {btf.name_of(entry.type_id): (entry.offset, entry.size) for entry in settings.entries}
    wanted = {one.name: (one.offset, one.size) for one in spec.externs.values() if one.section == ".kconfig"}
    assert places == wanted
    assert settings.size == spec.maps[".kconfig"].value_size
    symbols = btf.find(".ksyms", KIND_DATASEC)
    assert isinstance(symbols, Datasec)
    assert [(entry.offset, entry.size) for entry in symbols.entries] == [(4 * index, 4) for index in range(4)]
    assert symbols.size == 16
    function = btf.find("bpf_task_from_pid")
    assert isinstance(function, Func)
    assert function.linkage == 1
    proto = btf.type(function.type_id)
    assert isinstance(proto, FuncProto)
    assert [param.name for param in proto.params] == ["dummy_ksym"]


def test_a_data_section_can_grow_with_its_last_array(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c"))
    growing = spec.maps[".data.growing"]
    growing.value_size = 40
    assert growing.value_type_id
    assert growing.data is not None
    assert len(growing.data) == 40
    btf = BTF.from_bytes(kernel_btf(spec))
    section = btf.type(growing.value_type_id)
    assert isinstance(section, Datasec)
    assert (section.size, section.entries[0].size) == (40, 40)
    assert btf.size_of(section.entries[0].type_id) == 40
    growing.value_size = 44
    btf = BTF.from_bytes(kernel_btf(spec))
    assert btf.size_of(growing.value_type_id) == 44
    growing.value_size = 46  # no whole number of elements
    assert not growing.value_type_id
    BTF.from_bytes(kernel_btf(spec))


def test_a_data_section_without_an_array_at_its_end_loses_its_type(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c"))
    tuning = spec.maps[".data.tuning"]
    tuning.value_size = 64
    assert tuning.value_type_id == 0
    with pytest.raises(ValueError, match="less than its variables need"):
        tuning.value_size = 1
    assert spec.globals["tuned"] == 21


def test_without_type_information_there_is_none_to_load(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls_plain.bpf.c", "-g0"))
    with pytest.raises(BTFError, match="there is no BTF"):
        kernel_btf(spec)


def renamed_in_btf(data: bytes, old: bytes, new: bytes) -> bytes:
    """The object with a string of its BTF replaced by one of the same length."""
    section = next(one for one in Container(data, "").sections if one.name == ".BTF")
    end = section.offset + section.size
    btf = data[section.offset : end]
    assert btf.count(b"\0" + old + b"\0") == 1
    return data[: section.offset] + btf.replace(b"\0" + old + b"\0", b"\0" + new + b"\0") + data[end:]


def test_a_variable_of_a_section_that_is_not_there_is_refused(build: ObjectBuilder) -> None:
    data = build("elf_data.bpf.c").read_bytes()
    with pytest.raises(ObjectError, match=r"describes the data section '.data.tuninG', but there is no such section"):
        ObjectSpec.from_bytes(renamed_in_btf(data, b".data.tuning", b".data.tuninG"))
    with pytest.raises(ObjectError, match="describes the variable 'totaL' in '.bss', but no symbol defines it"):
        ObjectSpec.from_bytes(renamed_in_btf(data, b"total", b"totaL"))
