"""Functions: how symbols cut the code of an object into pieces."""

from __future__ import annotations

from pathlib import Path

import pytest
from object_builder import ObjectBuilder, function, text

from pybpf import constants
from pybpf.elf.container import STT_FUNC, Container
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_functions_are_what_their_symbols_say(byte_order: str, build: ObjectBuilder) -> None:
    path = build("elf_calls.bpf.c", byte_order=byte_order)
    spec = ObjectSpec.from_file(path)
    container = Container(path.read_bytes(), "")
    symbols = {one.name: one for one in container.symbols(STT_FUNC)}
    assert {one.name for one in spec.functions} == set(symbols)
    for one in spec.functions:
        symbol = symbols[one.name]
        section = container.sections[symbol.section]
        assert (one.section, one.section_index, one.start * 8, one.count * 8) == (
            section.name,
            section.index,
            symbol.value,
            symbol.size,
        )
        assert one.instructions == bytes(container.content(section))[symbol.value : symbol.value + symbol.size]
    places = [(one.section_index, one.start) for one in spec.functions]
    assert places == sorted(places)


def test_functions_know_who_may_see_them(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    found = {one.name: (one.is_global, one.is_weak, one.is_hidden, one.is_entry) for one in spec.functions}
    assert found["leaf"] == (False, False, False, False)
    assert found["shared"] == (True, False, False, False)
    assert found["replaceable"] == (True, True, False, False)
    assert found["internal"] == (True, False, True, False)
    assert found["first"] == (True, False, False, True)


def test_several_programs_can_share_a_section(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    assert list(spec.programs) == ["first", "second", "optional", "alone"]
    assert [one.section for one in spec.programs.values()] == ["raw_tp/sys_enter"] * 3 + ["socket"]
    first, second, optional, _ = (one.function for one in spec.programs.values())
    assert first.section_index == second.section_index
    assert first.start + first.count == second.start
    assert optional.section == "?raw_tp/sys_enter"
    assert [one.autoload for one in spec.programs.values()] == [True, True, False, True]


def test_one_question_mark_means_not_by_default(build: ObjectBuilder) -> None:
    source = text("?xdp") + function("optional") + text("??xdp") + function("other")
    spec = ObjectSpec.from_file(build.compile_text("question.s", source))
    found = {one.name: (one.section, one.autoload, one.type_number) for one in spec.programs.values()}
    assert found == {
        "optional": ("xdp", False, constants.BPF_PROG_TYPE_XDP),
        "other": ("?xdp", False, constants.BPF_PROG_TYPE_UNSPEC),
    }


def test_code_that_no_symbol_covers_is_left_out(linked: Path) -> None:
    spec = ObjectSpec.from_file(linked)
    container = Container(linked.read_bytes(), "")
    size = next(one.size for one in container.sections if one.name == ".text")
    assert sum(one.count for one in spec.subprograms) * 8 < size
    assert [one.name for one in spec.functions].count("override") == 1
    assert [one.name for one in spec.functions].count("helper") == 2
    override = next(one for one in spec.functions if one.name == "override")
    assert [one.kind for one in override.relocations] == []
    assert list(spec.programs) == ["program_a", "program_b"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            text("socket") + function("f") + '.section "socket","ax",@progbits,unique,1\n' + function("g"),
            "there are two sections 'socket' with code",
        ),
        (text("socket") + function("f", bind=".local"), "section 'socket': program 'f' must not be static"),
        (text("socket") + function("f", size="4"), "'f' at offset 0 with 4 bytes is not made of whole instructions"),
        (text("socket") + function("f", size="0"), "'f' at offset 0 with 0 bytes is not made of whole instructions"),
        (text("socket") + function("f", size="16"), "'f' at offset 0 with 16 bytes reaches over the end"),
        (text("socket") + function("f") + text(".text") + function("g", body=".byte 0\n", size="8"), "'g' at offset 0"),
    ],
)
def test_functions_that_do_not_fit_are_refused(source: str, message: str, build: ObjectBuilder) -> None:
    with pytest.raises(ObjectError, match=message):
        ObjectSpec.from_file(build.compile_text("function.s", source))


def test_two_programs_of_one_name_are_refused(build: ObjectBuilder) -> None:
    content = build("elf_calls.bpf.c").read_bytes()
    with pytest.raises(ObjectError, match="two programs are called 'first'"):
        ObjectSpec.from_bytes(content.replace(b"\0alone\0", b"\0first\0"))


def test_an_object_without_programs_can_be_read(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build.compile_text("nothing.bpf.c", "int x = 1;"))
    assert (spec.programs, list(spec.maps), spec.license) == ({}, [".data"], "")


def test_co_re_records_are_given_to_their_functions(build: ObjectBuilder) -> None:
    source = """
    #include "bpf_min.h"
    struct task { int pid; int tgid; } __attribute__((preserve_access_index));
    static __noinline int get(struct task *task) { return task->tgid; }
    SEC("raw_tp/a") int one(struct task *task) { return get(task) + task->pid; }
    SEC("raw_tp/a") int two(struct task *task) { return get(task); }
    """
    spec = ObjectSpec.from_file(build.compile_text("core.bpf.c", source))
    found = {one.name: one.core_relocations for one in spec.functions}
    assert [core.access for core in found["one"]] == ["0:0"]
    assert [core.access for core in found["get"]] == ["0:1"]
    assert found["two"] == []
    for name, records in found.items():
        function_found = next(one for one in spec.functions if one.name == name)
        assert all(0 <= core.index < function_found.count for core in records)
        assert all(function_found.instructions[core.index * 8] for core in records)
