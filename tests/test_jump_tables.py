"""Jump tables: where they lead in linked programs, and indirect jumps for real."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from object_builder import TARGETS, ObjectBuilder

import pybpf
from pybpf.elf.jump_tables import jump_targets
from pybpf.elf.linking import link


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("jumps"))


SOURCE = "load_jump_tables.s"


@pytest.mark.parametrize("byte_order", TARGETS)
def test_targets_are_where_the_functions_were_placed(byte_order: str, build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build(SOURCE, byte_order=byte_order))
    image = link(spec, spec.programs["jumper"], {})
    assert [(function.name, start) for function, start in image.parts] == [("jumper", 0), ("choose", 16)]
    (own, own_table), (called, called_table) = image.relocations
    # The program stands at 2 in its section, so its labels at 11 and 16 are its instructions 9 and 14.
    assert jump_targets(spec, image, own, own_table) == [9, 14]
    # The subprogram's instructions 10 and 12 of .text are its own 8 and 10, and it is placed at 16.
    assert jump_targets(spec, image, called, called_table) == [24, 26]


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (4, 16, "16 bytes at offset 4 are not entries of 8 bytes"),
        (16, 12, "12 bytes at offset 16 are not entries of 8 bytes"),
        (16, 0, "0 bytes at offset 16 are not entries of 8 bytes"),
        (24, 16, r"it reaches over the end of \.jumptables \(32 bytes\)"),
    ],
)
def test_malformed_tables(offset: int, size: int, message: str, build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build(SOURCE))
    image = link(spec, spec.programs["jumper"], {})
    index, relocation = image.relocations[0]
    relocation.offset, relocation.size = offset, size
    with pytest.raises(pybpf.ObjectError, match=rf"function 'jumper', instruction 4: jump table: {message}"):
        jump_targets(spec, image, index, relocation)


def test_a_table_that_leads_out_of_the_program(build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build(SOURCE))
    image = link(spec, spec.programs["jumper"], {})
    index, relocation = image.relocations[0]
    assert spec.jump_tables is not None
    for entry in (0, 1 << 40):
        spec.jump_tables = spec.jump_tables[:16] + entry.to_bytes(8, "little") * 2
        with pytest.raises(pybpf.ObjectError, match="it leads out of the program"):
            jump_targets(spec, image, index, relocation)
    spec.jump_tables = None
    with pytest.raises(pybpf.ObjectError, match="reaches over the end"):
        jump_targets(spec, image, index, relocation)


@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
def test_indirect_jumps(build: ObjectBuilder) -> None:
    path: Path = build(SOURCE, byte_order=sys.byteorder)
    try:
        obj = pybpf.load(path)
    except pybpf.NotSupportedError as error:
        assert "jump table: BPF_MAP_CREATE" in str(error)
        assert "Indirect jumps need Linux 6.19" in error.hint
        pytest.skip(str(error))
    with obj:
        program = obj.programs["jumper"]

        def run(size: int) -> int:
            return program.test_run(bytes(size)).retval

        results = {size: run(size) for size in range(64, 72)}
        odd = {size for size, result in results.items() if result == 7}
        assert odd == {size for size in results if size % 2}
        assert {results[size] for size in results if size % 4 == 0} | {
            results[size] for size in results if size % 4 == 2
        } == {111, 122}
        names = {syscall_name(number) for number in program.info(map_ids=True).map_ids}
        assert names == {".jumptables"}


def syscall_name(map_id: int) -> str:
    with pybpf.syscall.map_get_fd_by_id(map_id) as fd:
        return str(pybpf.syscall.map_info(fd).name)
