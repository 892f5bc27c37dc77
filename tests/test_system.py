"""The BPF objects of the whole system, by id."""

from __future__ import annotations

import os

import pytest

import pybpf
from pybpf import abi, links, syscall, system
from pybpf import constants as c
from pybpf.asm.instruction import Instruction, encode
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFPermissionError


def minimal_program(program_type: int) -> syscall.FD:
    """A program that answers 0."""
    return syscall.prog_load(program_type, encode([Instruction(0xB7), Instruction(0x95)]), license="GPL")


pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


def test_programs() -> None:
    with minimal_program(c.BPF_PROG_TYPE_XDP) as program:
        number = syscall.prog_info(program).id
        found = {info.id: info for info in system.programs()}
        assert abi.ProgramType(found[number].type) is abi.ProgramType.XDP
        assert list(found) == sorted(found)
        with pybpf.Program.from_id(number) as same:
            assert same.id == number
    assert number not in {info.id for info in system.programs()}


def test_maps() -> None:
    with syscall.map_create(c.BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=3, name="counted") as made:
        number = syscall.map_info(made).id
        (info,) = [info for info in system.maps() if info.id == number]
        assert (info.name, info.key_size, info.value_size, info.max_entries) == ("counted", 4, 8, 3)
        with pybpf.Map.from_id(number) as same:
            assert same.name == "counted"


def test_links() -> None:
    with minimal_program(c.BPF_PROG_TYPE_RAW_TRACEPOINT) as program:
        made = pybpf.Program(program, name="probe", type_number=c.BPF_PROG_TYPE_RAW_TRACEPOINT)
        with links.attach_raw_tracepoint(made, "sched_switch") as link:
            (info,) = [info for info in system.links() if info.id == link.id]
            assert (info.tp_name, info.prog_id) == ("sched_switch", made.id)
            assert vars(info) == vars(link.info())
            with links.Link.from_id(info.id) as same:
                assert (same.kind, same.target) == ("raw_tracepoint", "sched_switch")


def test_btf_objects() -> None:
    builder = BTFBuilder()
    builder.add_int("int", 4, 32, 1)
    with syscall.btf_load(builder.to_bytes()) as made:
        number = syscall.btf_info(made).id
        found = {info.id: info for info in system.btf_objects()}
        assert (found[number].name, found[number].kernel_btf) == ("", 0)
    kernel = [info for info in found.values() if info.name == "vmlinux"]
    assert [info.kernel_btf for info in kernel] in ([1], [])  # the kernel's own has an id since Linux 5.11


def test_what_goes_while_the_list_is_read() -> None:
    """A program that is gone between the call that finds it and the call that opens it is left out."""
    with minimal_program(c.BPF_PROG_TYPE_XDP) as program:
        number = syscall.prog_info(program).id

        class Gone:
            def before(self, call: syscall.Call) -> int | None:
                opens = call.command == "BPF_PROG_GET_FD_BY_ID"
                return 2 if opens and call.fields()["prog_id"] == number else None

            def after(self, call: syscall.Call) -> None:
                pass

        gone = Gone()
        syscall.add_observer(gone)
        try:
            assert number not in [info.id for info in system.programs()]
        finally:
            syscall.remove_observer(gone)


@pytest.mark.parametrize("list_them", [system.programs, system.maps, system.links, system.btf_objects])
def test_without_privileges(list_them: object) -> None:
    class Denied:
        def before(self, call: syscall.Call) -> int | None:
            return 1 if call.command.endswith("_GET_NEXT_ID") else None

        def after(self, call: syscall.Call) -> None:
            pass

    denied = Denied()
    syscall.add_observer(denied)
    try:
        with pytest.raises(BPFPermissionError, match="listing"):
            next(list_them())
    finally:
        syscall.remove_observer(denied)
