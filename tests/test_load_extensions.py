"""Programs that replace or trace functions of other programs, and programs with exceptions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lacking import jit_needed, trampolines_needed
from object_builder import ObjectBuilder

import pybpf

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

PACKET = bytes(64)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("extensions"))


@pytest.fixture
def extensions(build: ObjectBuilder) -> pybpf.ObjectSpec:
    return pybpf.ObjectSpec.from_file(build("load_extensions.bpf.c", byte_order=sys.byteorder))


@pytest.fixture(scope="module")
def target_path(build: ObjectBuilder) -> Path:
    return build("load_target.bpf.c", byte_order=sys.byteorder)


def load(spec: pybpf.ObjectSpec, name: str, target: pybpf.Program) -> pybpf.Object:
    """Load one of the extensions for a program; skips where the kernel makes no trampolines."""
    spec.programs[name].autoload = True
    spec.programs[name].attach_program = target
    with trampolines_needed():
        return spec.load()


def run(target: pybpf.Object) -> int:
    return target.programs["entry"].test_run(PACKET).retval


def attach(program: pybpf.Program) -> pybpf.Link:
    with trampolines_needed():
        return program.attach()


def test_a_function_is_replaced_and_comes_back(extensions: pybpf.ObjectSpec, target_path: Path) -> None:
    with pybpf.load(target_path) as target:
        assert run(target) == 42
        with load(extensions, "replacement", target.programs["entry"]) as obj:
            assert run(target) == 42
            with attach(obj.programs["replacement"]):
                assert run(target) == 82
            assert run(target) == 42


def test_a_function_of_a_program_is_traced(extensions: pybpf.ObjectSpec, target_path: Path) -> None:
    with (
        pybpf.load(target_path) as target,
        load(extensions, "on_entry", target.programs["entry"]) as obj,
        attach(obj.programs["on_entry"]),
    ):
        assert run(target) == 42
        assert obj.globals["entered"] == 1
        assert obj.globals["argument"] & 0xFFFFFFFF == 41


def test_the_result_of_a_function_is_traced(extensions: pybpf.ObjectSpec, target_path: Path) -> None:
    with (
        pybpf.load(target_path) as target,
        load(extensions, "on_exit", target.programs["entry"]) as obj,
        attach(obj.programs["on_exit"]),
    ):
        assert run(target) == 42
        assert obj.globals["left"] == 1
        assert obj.globals["result"] & 0xFFFFFFFF == 42


def test_the_target_must_be_given_and_have_the_function(extensions: pybpf.ObjectSpec, target_path: Path) -> None:
    program = extensions.programs["replacement"]
    program.autoload = True
    with pytest.raises(pybpf.ObjectError, match="program 'replacement': freplace needs attach_program"):
        extensions.load()
    with pybpf.load(target_path) as target:
        program.attach_program = target.programs["entry"]
        program.attach_target = "nosuch"
        with pytest.raises(pybpf.ObjectError, match="the target program has no function 'nosuch'"):
            extensions.load()


def test_a_target_without_types_is_refused(extensions: pybpf.ObjectSpec) -> None:
    from pybpf.asm.instruction import Instruction, encode

    program = extensions.programs["replacement"]
    program.autoload = True
    code = encode([Instruction(0xB7), Instruction(0x95)])
    with pybpf.syscall.prog_load(pybpf.constants.BPF_PROG_TYPE_SCHED_CLS, code) as plain:
        program.attach_program = plain
        with pytest.raises(pybpf.ObjectError, match="its target program was loaded without BTF"):
            extensions.load()


@pytest.fixture
def throwing(build: ObjectBuilder) -> pybpf.Object:
    try:
        with jit_needed():
            return pybpf.load(build("load_exceptions.bpf.c", byte_order=sys.byteorder))
    except pybpf.ObjectError as error:
        if "bpf_throw" not in str(error):
            raise
        pytest.skip(f"no exceptions before Linux 6.7: {error}")


@pytest.mark.parametrize(("size", "careful", "careless"), [(64, 8, 9), (65, 1065, 65), (66, 8, 9), (67, 1067, 67)])
def test_an_exception_ends_a_program(throwing: pybpf.Object, size: int, careful: int, careless: int) -> None:
    with throwing as obj:
        assert obj.programs["careful"].test_run(bytes(size)).retval == careful
        assert obj.programs["careless"].test_run(bytes(size)).retval == careless
