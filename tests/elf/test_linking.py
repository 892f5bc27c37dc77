"""Programs put together with their subprograms, against what libbpf hands to the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from libbpf_oracle import Call, Oracle
from object_builder import COMPILERS, ObjectBuilder

from pybpf.asm import slots
from pybpf.elf.functions import Function
from pybpf.elf.linking import Image, link
from pybpf.elf.relocations import Relocation
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec

MAP_FD, MAP_VALUE, FUNCTION = 1, 2, 4
COMPARED = ("elf_calls.bpf.c", "elf_data.bpf.c", "elf_link_b.bpf.c", "elf_maps.bpf.c")


def loaded(image: Image, maps: dict[str, int]) -> bytearray:
    """The instructions with maps and data patched in; `maps` has the descriptors."""
    code = bytearray(image.instructions)
    for index, relocation in image.relocations:
        if relocation.kind == "map":
            slots.set_src(code, index, MAP_FD)
            slots.set_imm64(code, index, maps[relocation.name], slots.get_imm(code, index + 1))
        elif relocation.kind == "data":
            place = slots.get_imm(code, index) + relocation.offset
            slots.set_src(code, index, MAP_VALUE)
            slots.set_imm64(code, index, maps[relocation.name], place)
    return code


def without(code: bytes | bytearray, image: Image, kinds: tuple[str, ...]) -> bytes:
    """The instructions, those with a relocation of some kinds blanked out."""
    result = bytearray(code)
    for index, relocation in image.relocations:
        if relocation.kind in kinds:
            width = 8 if relocation.kind == "extern_call" else 16
            result[index * 8 : index * 8 + width] = bytes(width)
    return bytes(result)


def compare_with_libbpf(path: Path, calls: list[Call]) -> int:
    """How many programs were found equal."""
    spec = ObjectSpec.from_file(path)
    by_kernel_name = {one.kernel_name: name for name, one in spec.maps.items()}
    maps = {
        by_kernel_name[call["name"]]: call.number("fd")
        for call in calls
        if call.kind == "map" and call["name"] in by_kernel_name
    }
    entries = {call["name"]: call for call in calls if call.kind == "entry"}
    assert list(entries) == list(spec.programs)
    for name, call in entries.items():
        program = spec.programs[name]
        assert program.section == call["section"]
        assert program.autoload == bool(call.number("autoload"))
        assert (program.type_number, program.attach_type_number) == (call.number("type"), call.number("attach_type"))
    programs = {call["name"]: call for call in calls if call.kind == "program"}
    assert set(programs) == {one.kernel_name for one in spec.programs.values() if one.autoload}
    for program in spec.programs.values():
        if not program.autoload:
            continue
        call = programs[program.kernel_name]
        image = link(spec, program, {})
        externs = ("extern", "extern_call")
        assert without(loaded(image, maps), image, externs) == without(call.data("instructions"), image, externs)
        assert image.func_info == call.data("func_info")
        assert image.line_info == call.data("line_info")
        assert image.func_info
        assert image.line_info
        assert program.license == call["license"]
        assert program.flags == call.number("flags")
        if spec.kernel_version is not None:
            assert spec.kernel_version == call.number("kern_version")
    return len(programs)


@pytest.mark.parametrize("source", COMPARED)
def test_programs_are_those_that_libbpf_loads(source: str, build: ObjectBuilder, oracle: Oracle) -> None:
    path = build(source, "-DLIBBPF_1_1")
    assert compare_with_libbpf(path, oracle.calls(path))


def test_programs_with_externs_are_those_that_libbpf_loads(build: ObjectBuilder, oracle: Oracle) -> None:
    path = build("elf_externs.bpf.c")
    assert compare_with_libbpf(path, oracle.calls(path)) == 1


def test_a_statically_linked_object_is_what_libbpf_loads(linked: Path, oracle: Oracle) -> None:
    assert compare_with_libbpf(linked, oracle.calls(linked)) == 2


@pytest.mark.parametrize("cpu", ["v1", "v2", "v3", "v4"])
def test_every_instruction_set_gives_what_libbpf_loads(cpu: str, build: ObjectBuilder, oracle: Oracle) -> None:
    for source in ("elf_calls.bpf.c", "elf_data.bpf.c"):
        path = build(source, f"-mcpu={cpu}")
        assert compare_with_libbpf(path, oracle.calls(path))


def test_every_compiler_gives_what_libbpf_loads(build: ObjectBuilder, oracle: Oracle) -> None:
    if not COMPILERS:
        pytest.skip("no clang to compile BPF objects with")
    for compiler in COMPILERS:
        path = build("elf_calls.bpf.c", compiler=compiler)
        assert compare_with_libbpf(path, oracle.calls(path)) == 3, compiler


def test_subprograms_follow_in_the_order_in_which_they_are_found(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))

    def names(program: str) -> list[str]:
        return [function.name for function, _ in link(spec, spec.programs[program], {}).parts]

    assert names("first") == ["first", "shared", "middle", "leaf", "replaceable"]
    assert names("second") == ["second", "each", "leaf", "every", "middle", "internal"]
    assert names("alone") == ["alone"]


@pytest.mark.parametrize("source", ["elf_calls.bpf.c", "elf_data.bpf.c"])
def test_both_byte_orders_give_the_same_program(source: str, build: ObjectBuilder) -> None:
    little = ObjectSpec.from_file(build(source, byte_order="little", compiler=COMPILERS[0] if COMPILERS else ""))
    big = ObjectSpec.from_file(build(source, byte_order="big"))
    assert (little.byte_order, big.byte_order) == ("little", "big")
    for name in little.programs:
        mine, other = (link(spec, spec.programs[name], {}) for spec in (little, big))
        assert [(part.name, start) for part, start in mine.parts] == [(part.name, start) for part, start in other.parts]
        assert references(mine, "little") == references(other, "big")
        assert mine.func_info == other.func_info
        assert [r.facts() for _, r in mine.relocations] == [r.facts() for _, r in other.relocations]


def references(image: Image, byte_order: str) -> list[tuple[int, ...]]:
    """(index, source register, immediate) of calls of functions and of addresses of functions."""
    order = "little" if byte_order == "little" else "big"
    found = []
    for index in range(slots.count(image.instructions)):
        opcode, _, src, _, imm = slots.fields(image.instructions, index, order)
        if (opcode, src) in ((slots.CALL, MAP_FD), (slots.LDIMM64, FUNCTION)):
            found.append((index, src, imm))
    return found


def test_the_code_that_is_linked_is_the_patched_one(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    leaf = next(function for function in spec.functions if function.name == "leaf")
    code = bytearray(leaf.instructions)
    slots.set_imm(code, 0, 4711)
    image = link(spec, spec.programs["first"], {leaf: code})
    start = dict(image.parts)[leaf]
    assert slots.get_imm(image.instructions, start) == 4711
    assert slots.get_imm(leaf.instructions, 0) != 4711


def test_linking_leaves_the_spec_as_it_is(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    before = spec.fingerprint()
    first = link(spec, spec.programs["first"], {})
    again = link(spec, spec.programs["first"], {})
    assert first.instructions == again.instructions
    assert spec.fingerprint() == before


def test_an_exception_callback_is_part_of_its_program(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_exceptions.bpf.c"))
    parts = {name: [one.name for one, _ in link(spec, program, {}).parts] for name, program in spec.programs.items()}
    assert parts == {"careful": ["careful", "rescue", "help"], "careless": ["careless"]}
    spec.exception_callbacks["careful"] = ["rescue", "help"]  # for the kernel to refuse
    assert len(link(spec, spec.programs["careful"], {}).parts) == 1
    for name in ("", "missing", "careless"):
        spec.exception_callbacks["careful"] = [name]
        with pytest.raises(ObjectError, match=r"program 'careful': .*exception callback"):
            link(spec, spec.programs["careful"], {})


def test_an_object_without_type_information_has_no_infos(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls_plain.bpf.c", "-g0"))
    image = link(spec, spec.programs["first"], {})
    assert [part.name for part, _ in image.parts] == ["first", "twice", "leaf"]
    assert (image.func_info, image.func_info_rec_size) == (b"", 0)
    assert (image.line_info, image.line_info_rec_size) == (b"", 0)


def test_infos_are_left_out_when_one_part_has_none(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    assert spec.ext is not None
    assert link(spec, spec.programs["first"], {}).func_info
    del spec.ext.func_info[".text"]
    image = link(spec, spec.programs["first"], {})
    assert (image.func_info, image.func_info_rec_size) == (b"", 0)
    assert image.line_info
    assert link(spec, spec.programs["alone"], {}).func_info


def test_subprograms_may_call_each_other_in_circles(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    leaf = next(function for function in spec.functions if function.name == "leaf")
    shared = next(function for function in spec.functions if function.name == "shared")
    call = bytearray(8)
    slots.set_call(call, 0, 0, src=MAP_FD)
    leaf.instructions = bytes(call) + leaf.instructions[8:]
    leaf.relocations = [Relocation(0, "call", target=shared.start)]
    image = link(spec, spec.programs["first"], {})
    places = dict(image.parts)
    distance = slots.get_imm(image.instructions, places[leaf])
    assert places[leaf] + 1 + distance == places[shared]


def edited(
    build: ObjectBuilder, function_name: str, *instructions: tuple[int, int, int]
) -> tuple[ObjectSpec, Function]:
    """An object and one of its functions, its first instructions replaced by (opcode, source register, immediate)."""
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    function = next(one for one in spec.functions if one.name == function_name)
    code = bytearray(function.instructions)
    for index, (opcode, src, imm) in enumerate(instructions):
        code[index * 8 : index * 8 + 8] = bytes(8)
        slots.set_opcode(code, index, opcode)
        slots.set_src(code, index, src)
        slots.set_imm(code, index, imm)
    function.instructions = bytes(code)
    function.relocations = []
    return spec, function


@pytest.mark.parametrize(
    ("function", "instruction", "relocation", "message"),
    [
        ("alone", (slots.CALL, 1, 0), None, "function 'alone', instruction 0: the call has no relocation"),
        ("alone", (slots.CALL, 1, 0), Relocation(0, "call", target=100000), "where no function starts"),
        ("alone", (slots.CALL, 1, 0), Relocation(0, "call", target=-1), "where no function starts"),
        ("alone", (slots.CALL, 1, 0), Relocation(0, "call", target=1), "refers to instruction 1 of .text"),
        ("alone", (slots.CALL, 1, 0), Relocation(0, "data", ".bss"), "the call has a relocation of kind 'data'"),
        ("alone", (slots.LDIMM64, FUNCTION, 0), None, "the address of a function has no relocation"),
        ("leaf", (slots.CALL, 1, 100000), None, "function 'leaf', instruction 0: it refers to instruction"),
    ],
)
def test_references_that_lead_nowhere_are_refused(
    function: str,
    instruction: tuple[int, int, int],
    relocation: Relocation | None,
    message: str,
    build: ObjectBuilder,
) -> None:
    spec, edited_function = edited(build, function, instruction)
    if relocation is not None:
        edited_function.relocations = [relocation]
    program = spec.programs["alone" if function == "alone" else "first"]
    with pytest.raises(ObjectError, match=message):
        link(spec, program, {})


def test_a_program_that_grows_without_limit_is_refused(build: ObjectBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ObjectSpec.from_file(build("elf_calls.bpf.c"))
    monkeypatch.setattr("pybpf.elf.linking.INSTRUCTION_LIMIT", 20)
    assert link(spec, spec.programs["alone"], {}).instructions
    with pytest.raises(ObjectError, match="program 'first': more than 20 instructions"):
        link(spec, spec.programs["first"], {})
