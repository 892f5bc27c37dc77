"""Every kind of rejection that `pybpf.verifier.advice` knows, produced by the verifier of the kernel that runs this."""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from lacking import has_jit

import pybpf
from pybpf import syscall
from pybpf.asm.instruction import Instruction, encode
from pybpf.constants import BPF_PROG_TYPE_SOCKET_FILTER
from pybpf.verifier import advice
from pybpf.verifier.log import Log

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

# Program of load_verdicts.bpf.c -> the kinds that kernels call it; most agree.
REJECTED = {
    "null_pointer": "null-pointer",
    "not_a_pointer": "not-a-pointer",
    "packet_end_access": "packet-end-access",
    "null_argument": "null-argument",
    "uninitialised_register": "uninitialised-register",
    "stack_bounds": "stack-bounds",
    "misaligned": "misaligned",
    "packet_bounds": "packet-bounds",
    "map_value_bounds": "map-value-bounds",
    "memory_bounds": "memory-bounds",
    "unbounded_memory": "unbounded-memory",
    "negative_minimum": "negative-minimum",
    "maximum_outside": "maximum-outside",
    "zero_size": "zero-size",
    "pointer_out_of_range": "pointer-out-of-range",
    "context_access": "context-access",
    "modified_context": "modified-context",
    "unreleased_reference": "unreleased-reference",
    "reference_at_tail_call": "reference-at-tail-call unreleased-reference",
    "not_a_reference": "not-a-reference",
    "lock_held": "lock-held",
    "two_locks": "two-locks lock-held",
    "endless_loop": "endless-loop",
    "too_complex": "too-complex",
    "unreachable": "unreachable",
    "falls_off_the_end": "falls-off-the-end",
    "frames": "frames",
    "combined_stack": "combined-stack",
    "tail_call_stack": "tail-call-stack",
    "unknown_helper": "unknown-helper",
    "gpl_only": "gpl-only",
    "kfunc_not_allowed": "kfunc-not-allowed kfunc-missing",
    "sleeping": "sleeping unknown-helper",
    "argument_constant": "argument-constant unbounded-memory",
    "argument_type": "argument-type",
    "packet_helper": "packet-helper",
    "caller_arguments": "caller-arguments argument-type not-a-pointer",
    "pointer_arithmetic": "pointer-arithmetic",
    "read_only": "read-only",
    "frame_pointer": "frame-pointer",
    "atomic": "atomic",
    "return_value": "return-value",
    "division": "division",
    "shift": "shift",
}
# What only those hear who lack CAP_PERFMON.
UNPRIVILEGED = {
    "uninitialised_stack": "uninitialised-stack",
    "stack_variable_offset": "stack-variable-offset",
    "leak": "leak",
    "pointer_comparison": "pointer-comparison",
    "partial_pointer": "partial-pointer",
}
NO_LINE = {"unreleased_reference", "too_complex", "falls_off_the_end", "frames", "combined_stack", "tail_call_stack",
           "return_value", "caller_arguments"}  # fmt: skip
"""Programs whose rejection is about no marked line: an exit, a loop, or several functions."""


def one(path: Path, name: str) -> pybpf.ObjectSpec:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.programs[name].autoload = True
    if name == "gpl_only":
        spec.programs[name].license = "Proprietary"
    return spec


def rejection(spec: pybpf.ObjectSpec) -> pybpf.VerifierError:
    with pytest.raises(pybpf.VerifierError) as caught:
        spec.load()
    return caught.value


@pytest.mark.parametrize("name", REJECTED)
def test_what_it_means_and_where_it_is(verdicts: Path, name: str) -> None:
    error = rejection(one(verdicts, name))
    if name == "tail_call_stack" and not has_jit():
        assert error.rejection == "no-jit"
        return
    assert error.rejection in REJECTED[name].split(), (error.reason, error.log[-1500:])
    assert error.meaning and error.advice and "{" not in error.meaning + error.advice
    assert "?" not in error.meaning, error.meaning
    if name not in NO_LINE:
        assert "!!" in error.source, error
        assert error.location.partition(":")[0].endswith("load_verdicts.bpf.c")


@pytest.mark.parametrize("name", UNPRIVILEGED)
def test_what_those_hear_who_have_fewer_privileges(verdicts: Path, name: str) -> None:
    if name == "stack_variable_offset" and "mitigations=off" in Path("/proc/cmdline").read_text():
        pytest.skip("this kernel runs with mitigations=off and does not mind")

    def load() -> tuple[str, str, str]:
        error = rejection(one(verdicts, name))
        return error.rejection, error.reason, error.source

    kind, reason, source = without_perfmon(load)
    assert kind in UNPRIVILEGED[name].split(), reason
    assert "!!" in source


CAPSET = {"x86_64": 126, "aarch64": 91, "s390x": 185}
CAP_BPF = 39


def without_perfmon(work: Callable[[], tuple[str, str, str]]) -> tuple[str, str, str]:
    """Run it in a child that has CAP_BPF alone."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            header = struct.pack("=Ii", 0x20080522, 0)
            low, high = 0, 1 << CAP_BPF - 32
            data = struct.pack("=6I", low, low, 0, high, high, 0)
            if ctypes.CDLL(None).syscall(CAPSET[os.uname().machine], header, data):
                raise OSError("capset")
            os.write(writing, pickle.dumps(work()))
        except BaseException:
            os.write(writing, pickle.dumps(("", traceback.format_exc(), "")))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found: tuple[str, str, str] = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    return found


def refuse(code: bytes) -> advice.Advice:
    """What the kernel says to a program given as instructions."""
    log = syscall.LogBuffer(1 << 20)
    with pytest.raises(pybpf.BPFError):
        syscall.prog_load(BPF_PROG_TYPE_SOCKET_FILTER, code, log_level=1, log_buffer=log)
    _, found = advice.choose(Log(log.text).complaints)
    assert found is not None, log.text[-500:]
    return found


def test_too_many_jumps() -> None:
    branches = [Instruction(0x15, 0, 0, 8299 - number, number) for number in range(8300)]
    found = refuse(encode([Instruction(0x85, 0, 0, 0, 7), *branches, Instruction(0x95)]))
    assert found.key == "too-many-jumps"
    assert "8193 branches" in found.meaning


def test_a_bad_instruction() -> None:
    assert refuse(bytes([0xFF]) + bytes(7) + encode([Instruction(0x95)])).key == "bad-instruction"
