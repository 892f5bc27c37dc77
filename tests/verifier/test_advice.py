"""The table of rejections: sentences as kernels from 5.10 to 7.3 write them, and that every kind is tested."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_rejections import REJECTED, UNPRIVILEGED

from pybpf.verifier import advise
from pybpf.verifier.advice import keys

SENTENCES = (
    ("null-pointer", "R1 invalid mem access 'ptr_or_null_'"),
    ("null-pointer", "R0 invalid mem access 'map_value_or_null'"),
    ("null-pointer", "R8 invalid mem access 'trusted_ptr_or_null_'"),
    ("not-a-pointer", "R1 invalid mem access 'inv'"),
    ("not-a-pointer", "R1 invalid mem access 'scalar'"),
    ("other-memory", "R1 invalid mem access 'percpu_ptr_'"),
    ("null-argument", "Possibly NULL pointer passed to trusted arg0"),
    ("null-argument", "Possibly NULL pointer passed to helper arg2"),
    ("null-argument", "R3 type=map_value_or_null expected=fp"),
    ("uninitialised-register", "R0 !read_ok"),
    ("uninitialised-stack", "invalid indirect read from stack off -4+0 size 4"),
    ("uninitialised-stack", "invalid indirect read from stack R2 off -4+0 size 4"),
    ("uninitialised-stack", "invalid read from stack off -8+4 size 8"),
    ("uninitialised-stack", "invalid read from stack R3 off -8+4 size 8"),
    ("uninitialised-stack", "invalid read from stack R2 off=-4 size=4"),
    ("stack-bounds", "invalid stack off=-520 size=8"),
    ("stack-bounds", "invalid write to stack R10 off=-520 size=8"),
    ("stack-bounds", "invalid read from stack R2 off=0 size=4"),
    ("stack-bounds", "invalid stack type R2 off=-520 access_size=8"),
    ("stack-bounds", "invalid variable-offset read from stack R2 var_off=(0x0; 0xff) size=1"),
    ("stack-bounds", "invalid unbounded variable-offset write to stack R2"),
    ("stack-variable-offset", "R2 variable stack access prohibited for !root, var_off=(0x0; 0x7) off=-8"),
    ("stack-variable-offset", "R2 variable offset stack access prohibited for !root, var_off=(0x0; 0x7)"),
    ("packet-bounds", "invalid access to packet, off=12 size=2, R1(id=0,off=12,r=0)"),
    ("packet-bounds", "R1 offset is outside of the packet"),
    ("map-value-bounds", "invalid access to map value, value_size=8 off=8 size=4"),
    ("memory-bounds", "invalid access to memory, mem_size=8 off=8 size=8"),
    ("memory-bounds", "invalid access to map key, key_size=4 off=4 size=4"),
    ("unbounded-memory", "R2 unbounded memory access, use 'var &= const' or 'if (var < const)'"),
    ("unbounded-memory", "R0 unbounded memory access, make sure to bounds check any such access"),
    ("unbounded-memory", "R2 unbounded size, use 'var &= const' or 'if (var < const)'"),
    ("negative-minimum", "R2 min value is negative, either use unsigned or 'var &= const'"),
    ("negative-minimum", "R0 min value is negative, either use unsigned index or do a if (index >=0) check."),
    ("maximum-outside", "R0 max value is outside of the array range"),
    ("maximum-outside", "R0 max value is outside of the allowed memory range"),
    ("zero-size", "R2 invalid zero-sized read"),
    ("zero-size", "R2 invalid zero-sized read: u64=[0,7]"),
    ("pointer-out-of-range", "value -2147483648 makes map_value pointer be out of bounds"),
    ("pointer-out-of-range", "math between fp pointer and 2147483647 is not allowed"),
    ("misaligned", "misaligned stack access off (0x0; 0x0)+0+-9 size 8"),
    ("misaligned", "misaligned packet access off 0+(0x0; 0x0)+0+1 size 4"),
    ("context-access", "invalid bpf_context access off=1000 size=4"),
    ("context-bounds", "negative offset ctx ptr R1 off=-4 disallowed"),
    ("context-bounds", "invalid access to context, ctx_size=192 off=200 size=4"),
    ("modified-context", "dereference of modified ctx ptr R1 off=8 disallowed"),
    ("modified-context", "variable ctx access var_off=(0x0; 0xff) disallowed"),
    ("unreleased-reference", "Unreleased reference id=2 alloc_insn=4"),
    ("reference-at-tail-call", "tail_call would lead to reference leak"),
    ("reference-at-tail-call", "BPF_LD_[ABS|IND] cannot be mixed with socket references"),
    ("not-a-reference", "func bpf_sk_release#86 reference has not been acquired before"),
    ("not-a-reference", "R1 must be referenced when passed to release function"),
    ("not-a-reference", "arg 1 is an unacquired reference"),
    ("not-a-reference", "release helper bpf_sk_release expects referenced PTR_TO_BTF_ID passed to R1"),
    ("lock-held", "function calls are not allowed while holding a lock"),
    ("lock-held", "bpf_spin_unlock is missing"),
    ("two-locks", "Locking two bpf_spin_locks are not allowed"),
    ("two-locks", "bpf_spin_unlock of different lock"),
    ("endless-loop", "infinite loop detected at insn 1"),
    ("back-edge", "back-edge from insn 5 to 2"),
    ("back-edge", "back-edge is not allowed"),
    ("too-complex", "BPF program is too large. Processed 1000001 insn"),
    ("too-many-jumps", "The sequence of 8193 jumps is too complex."),
    ("unreachable", "unreachable insn 2"),
    ("falls-off-the-end", "last insn is not an exit or jmp"),
    ("falls-off-the-end", "jump out of range from insn 0 to 7"),
    ("recursion", "recursive call from f() to f()"),
    ("recursion", "recursive subprogram call"),
    ("frames", "the call stack of 9 frames is too deep !"),
    ("frames", "the call stack of 8 frames is too deep"),
    ("combined-stack", "combined stack size of 2 calls is 608. Too large"),
    ("tail-call-stack", "tail_calls are not allowed when call stack of previous frames is 304 bytes. Too large"),
    ("per-cpu-variables", "no direct value access support for this map type"),
    ("no-jit", "tail_calls are not allowed in non-JITed programs with bpf-to-bpf calls"),
    ("no-jit", "callbacks are not allowed in non-JITed programs"),
    ("no-jit", "JIT is required for calling kernel function"),
    ("no-jit", "JIT is required to use arena"),
    ("unknown-helper", "unknown func bpf_xdp_adjust_head#44"),
    ("unknown-helper", "invalid func unknown#999999"),
    ("unknown-helper", "program of this type cannot use helper bpf_xdp_adjust_head#44"),
    ("gpl-only", "cannot call GPL-restricted function from non-GPL compatible program"),
    ("kfunc-not-allowed", "calling kernel function bpf_cpumask_create is not allowed"),
    ("sleeping", "helper call might sleep in a non-sleepable prog"),
    ("sleeping", "kernel function bpf_x is sleepable but the program is not"),
    ("sleeping", "program must be sleepable to call sleepable kfunc bpf_x"),
    ("sleeping", "sleepable helper bpf_copy_from_user#148 in rcu_read_lock region"),
    ("argument-constant", "R2 is not a known constant'"),
    ("argument-constant", "R4 must be a known constant"),
    ("argument-constant", "tail_call abusing map_ptr"),
    ("argument-type", "R2 type=inv expected=fp, pkt, pkt_meta, map_key, map_value"),
    ("argument-type", "R1 type=scalar expected=ctx"),
    ("packet-helper", "helper access to the packet is not allowed"),
    ("caller-arguments", "Caller passes invalid args into func#1"),
    ("caller-arguments", "Caller passes invalid args into func#1 ('sum_of')"),
    ("caller-arguments", "Global function f() doesn't return scalar. Only those are supported."),
    ("caller-arguments", "Arg#0 type PTR in sum_of() is not supported yet."),
    ("leak", "R0 leaks addr as return value"),
    ("leak", "R3 leaks addr into helper function"),
    ("pointer-arithmetic", "R1 pointer arithmetic with *= operator prohibited"),
    ("pointer-arithmetic", "R1 pointer arithmetic on map_value_or_null prohibited, null-check it first"),
    ("pointer-arithmetic", "R1 pointer += pointer prohibited"),
    ("pointer-arithmetic", "R1 32-bit pointer arithmetic prohibited"),
    ("pointer-arithmetic", "R1 bitwise operator |= on pointer prohibited"),
    ("pointer-arithmetic", "R1 subtraction from stack pointer prohibited"),
    ("pointer-comparison", "R1 pointer comparison prohibited"),
    ("partial-pointer", "R1 partial copy of pointer"),
    ("partial-pointer", "attempt to corrupt spilled pointer on stack"),
    ("read-only", "write into map forbidden, value_size=4 off=0 size=4"),
    ("read-only", "cannot write into packet"),
    ("read-only", "R1 cannot write into rdonly_mem"),
    ("frame-pointer", "frame pointer is read only"),
    ("atomic", "BPF_XADD stores into R1 ctx is not allowed"),
    ("atomic", "BPF_ATOMIC stores into R1 ctx is not allowed"),
    ("return-value", "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)"),
    ("return-value", "At program exit the register R0 has smin=5 smax=5 should have been in [0, 1]"),
    ("return-value", "In async callback the register R0 is not a known value (inv)"),
    ("division", "div by zero"),
    ("shift", "invalid shift 64"),
    ("bad-instruction", "unknown opcode ff"),
    ("bad-instruction", "BPF_LDX uses reserved fields"),
    ("co-re", "failed to resolve CO-RE relocation <byte_off> [7] struct no_such_struct.no_such_field (0:0 @ offset 0)"),
    ("kfunc-missing", "kfunc 'no_such_kfunc' is referenced but wasn't resolved"),
    ("map-missing", "BPF map 'table' is referenced but wasn't created"),
)  # fmt: skip


@pytest.mark.parametrize(("key", "sentence"), SENTENCES)
def test_sentences_of_old_and_new_kernels(key: str, sentence: str) -> None:
    found = advise(sentence)
    assert found is not None and found.key == key
    assert "{" not in found.meaning + found.mend.replace("{}", "")


def test_what_it_says() -> None:
    found = advise("invalid access to map value, value_size=8 off=12 size=4")
    assert found is not None
    assert found.meaning == "byte 12 of a map's value is accessed, and the value has 8 bytes"
    found = advise("BPF map 'table' is referenced but wasn't created")
    assert found is not None
    assert "`spec.maps['table'].autocreate`" in found.mend


def test_no_advice_for_what_is_not_known() -> None:
    assert advise("the moon is not full") is None
    assert advise("") is None


def test_every_kind_is_tested_and_most_by_the_real_verifier() -> None:
    assert {key for key, _ in SENTENCES} | {"packet-end-access"} == set(keys())
    live = {kind for kinds in (*REJECTED.values(), *UNPRIVILEGED.values()) for kind in kinds.split()}
    assert len(live & set(keys())) >= 45


def test_the_documentation_lists_every_kind() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "verifier.md").read_text()
    assert re.findall(r"^\| ([a-z0-9-]+) \| ", page.partition("## Kinds of rejection")[2], re.MULTILINE)[1:] == keys()
