"""Which instructions wait for what, and relocations that make no sense."""

from __future__ import annotations

import pytest
from object_builder import ObjectBuilder, function, text

from pybpf.elf.functions import Function
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec


def function_of(spec: ObjectSpec, name: str) -> Function:
    return next(one for one in spec.functions if one.name == name)


def assembled(build: ObjectBuilder, instructions: str, rest: str = "") -> ObjectSpec:
    source = text("socket") + function("program", f"{instructions}\nr0 = 0\nexit\n") + rest
    return ObjectSpec.from_file(build.compile_text("assembled.s", source))


def kinds(function: Function) -> list[tuple[str, str]]:
    return [(one.kind, one.name) for one in function.relocations]


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_calls_and_addresses_refer_to_functions(byte_order: str, build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c", byte_order=byte_order))
    starts = {one.start: one.name for one in spec.subprograms}

    def targets(name: str) -> list[tuple[str, str]]:
        return [
            (one.kind, starts[one.target])
            for one in function_of(spec, name).relocations
            if one.kind in ("call", "function")
        ]

    assert targets("first") == [("call", "shared"), ("call", "replaceable"), ("call", "leaf")]
    assert targets("second") == [("function", "each"), ("function", "every"), ("call", "internal")]
    assert kinds(function_of(spec, "middle")) == [("map", "counts")]  # within .text a static call needs none


def test_data_is_found_by_section_and_offset(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c"))
    found = {(one.name, one.offset) for one in spec.programs["use"].function.relocations if one.kind == "data"}
    for name in ("min_us", "level", "total", "tuned", "frozen"):
        variable = spec.variables[name]
        assert (variable.map, variable.offset) in found
    assert (".rodata.str1.1", 0) in found


def test_externs_are_found_by_symbol(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_externs.bpf.c"))
    found = set(kinds(spec.programs["use"].function))
    assert ("extern_call", "bpf_task_release") in found
    assert {("extern", "bpf_task_from_pid"), ("extern_call", "bpf_task_from_pid")} <= found
    assert {("extern", name) for name in spec.externs if name != "bpf_task_release"} <= found


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_jump_tables_are_found_by_offset_and_size(byte_order: str, build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_jump_table.s", byte_order=byte_order))
    (relocation,) = spec.programs["jumper"].function.relocations
    assert relocation.facts() == (0, "jump_table", "", 8, 0, 16)
    order = "little" if byte_order == "little" else "big"
    assert spec.jump_tables == b"".join(number.to_bytes(8, order) for number in (99, 16, 24))


def test_relocations_are_sorted_by_instruction(build: ObjectBuilder) -> None:
    for source in ("elf_data.bpf.c", "elf_maps.bpf.c", "elf_externs.bpf.c"):
        for found in ObjectSpec.from_file(build(source)).functions:
            indexes = [one.index for one in found.relocations]
            assert indexes == sorted(indexes)


@pytest.mark.parametrize(
    ("instructions", "rest", "message"),
    [
        (
            "call helper",
            text("other") + function("helper"),
            "relocation against 'helper': only functions in .text can be called, this is in 'other'",
        ),
        ("r1 = missing ll", "", "extern 'missing': the file has no BTF that says what it is"),
        ("r1 = place ll", ".comm place,8,8", "relocation against 'place': it is in no section"),
        (
            "r1 = place ll",
            text("notes", "a") + ".globl place\nplace: .quad 1",
            "relocation against 'place': section 'notes' holds neither maps nor data",
        ),
        (
            "r1 = inside ll",
            ".text\n.globl inside\ninside: exit",
            "relocation against 'inside': section '.text' holds neither maps nor data",
        ),
    ],
)
def test_relocations_that_make_no_sense_are_refused(
    instructions: str, rest: str, message: str, build: ObjectBuilder
) -> None:
    with pytest.raises(ObjectError, match=message):
        assembled(build, instructions, rest)


def test_only_calls_and_constants_can_be_relocated(build: ObjectBuilder) -> None:
    data = build("elf_calls.bpf.c").read_bytes()
    spec = ObjectSpec.from_bytes(data)
    program = spec.programs["first"].function
    call = program.relocations[0].index
    for opcode in (0xB7, 0x00):
        code = bytearray(program.instructions)
        code[call * 8] = opcode
        broken = data.replace(program.instructions, bytes(code))
        with pytest.raises(ObjectError, match=f"instruction {call}: .*an instruction with opcode {opcode:#04x}"):
            ObjectSpec.from_bytes(broken)


def test_a_constant_without_its_second_half_is_refused(build: ObjectBuilder) -> None:
    source = text("socket") + function("program", "exit\nr1 = place ll\n", size="16")
    source += '.section ".bss","aw",@nobits\nplace: .zero 8'
    with pytest.raises(ObjectError, match="an instruction with opcode 0x18 cannot be relocated"):
        ObjectSpec.from_file(build.compile_text("assembled.s", source))
