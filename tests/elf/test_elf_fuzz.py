"""Damaged object files: each gives a spec, or an error that says what is wrong, and nothing else."""

from __future__ import annotations

from struct import pack_into
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_builder import ObjectBuilder
from thrift import few

from pybpf.elf.container import Container
from pybpf.elf.datasec import kernel_btf
from pybpf.elf.linking import link
from pybpf.errors import BTFError, ObjectError
from pybpf.spec import ObjectSpec

SOURCES = (
    "elf_arena.bpf.c",
    "elf_data.bpf.c",
    "elf_externs.bpf.c",
    "elf_legacy.bpf.c",
    "elf_maps.bpf.c",
    "elf_struct_ops.bpf.c",
)

FUZZ = settings(max_examples=few(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def use(data: bytes) -> bool:
    """Read an object and do with it what a loader does; False if it was refused."""
    try:
        spec = ObjectSpec.from_bytes(data)
        if spec.btf is not None:
            kernel_btf(spec)
        for program in spec.programs.values():
            image = link(spec, program, {})
            assert len(image.instructions) % 8 == 0
            assert len(image.func_info) % (image.func_info_rec_size or 1) == 0
            assert len(image.line_info) % (image.line_info_rec_size or 1) == 0
            for index, _ in image.relocations:
                assert 0 <= index < len(image.instructions) // 8
        for name in spec.globals:
            assert spec.globals[name] is not None
        spec.fingerprint()
        spec.describe()
    except (ObjectError, BTFError) as error:
        assert str(error)
        return False
    return True


@pytest.fixture(scope="module")
def objects(build: ObjectBuilder) -> list[bytes]:
    """Good objects of either byte order."""
    found = [build(source, byte_order=order).read_bytes() for source in SOURCES for order in ("little", "big")]
    found.append(build("elf_calls.bpf.c").read_bytes())
    found.append(build("elf_exceptions.bpf.c").read_bytes())
    found.append(build("elf_jump_table.s").read_bytes())
    assert all(use(data) for data in found)
    return found


def places(data: bytes, names: tuple[str, ...]) -> list[tuple[int, int]]:
    """(offset, size) of the sections with these names."""
    return [(one.offset, one.size) for one in Container(data, "").sections if one.name in names and one.size]


@FUZZ
@given(st.data())
def test_flipped_bytes(objects: list[bytes], data: Any) -> None:
    damaged = bytearray(data.draw(st.sampled_from(objects)))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    use(bytes(damaged))


@FUZZ
@given(st.data())
def test_truncated_files(objects: list[bytes], data: Any) -> None:
    good = data.draw(st.sampled_from(objects))
    use(good[: data.draw(st.integers(0, len(good) - 1))])


@FUZZ
@given(st.data())
def test_other_numbers_in_headers_symbols_and_relocations(objects: list[bytes], data: Any) -> None:
    good = data.draw(st.sampled_from(objects))
    damaged = bytearray(good)
    table = int.from_bytes(good[40:48], "little" if good[5] == 1 else "big")
    areas = [(0, 64), (table, len(good) - table)]
    areas += [(one.offset, one.size) for one in Container(good, "").sections if one.type in (2, 3, 9) and one.size > 8]
    number = st.one_of(st.integers(0, 64), st.integers(0, 1 << 32), st.sampled_from([1 << 31, 1 << 63, (1 << 64) - 1]))
    for _ in range(data.draw(st.integers(1, 4))):
        start, size = data.draw(st.sampled_from(areas))
        width = data.draw(st.sampled_from([2, 4, 8]))
        place = start + data.draw(st.integers(0, (size - width) // width)) * width
        value = data.draw(number) & ((1 << width * 8) - 1)
        damaged[place : place + width] = value.to_bytes(width, "little" if good[5] == 1 else "big")
    use(bytes(damaged))


@FUZZ
@given(st.data())
def test_other_numbers_in_type_information(objects: list[bytes], data: Any) -> None:
    good = data.draw(st.sampled_from(objects))
    areas = places(good, (".BTF", ".BTF.ext"))
    if not areas:
        return
    damaged = bytearray(good)
    order = "<" if good[5] == 1 else ">"
    for _ in range(data.draw(st.integers(1, 4))):
        start, size = data.draw(st.sampled_from(areas))
        word = data.draw(st.integers(0, size // 4 - 1))
        number = data.draw(st.one_of(st.integers(0, 128), st.integers(0, (1 << 32) - 1)))
        pack_into(f"{order}I", damaged, start + word * 4, number)
    use(bytes(damaged))


@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    assert not use(data)
    assert not use(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\0\xf7\0" + data)
