"""Programs without a compiler, in the running kernel."""

from __future__ import annotations

import os
import sys

import pytest
from lacking import jit_needed, needs_enumerator, needs_function

from pybpf import Program
from pybpf.asm import Assembler, assemble, r0, r1, r2, r3, r4, r10, u32, u64
from pybpf.errors import ObjectError, VerifierError
from pybpf.maps import ArrayMap, HashMap

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]

PACKET = bytes(14)

COUNT = """
.program count xdp
    *(u32 *)(r10 -4) = 0        // the key
    r1 = map[counts]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 +0) += r1
out:
    r0 = XDP_PASS
    exit
"""


def count() -> Assembler:
    code = Assembler("count", section="xdp")
    code.store(u32[r10 - 4], 0)
    code.load_map(r1, "counts")
    code.mov(r2, r10)
    code.add(r2, -4)
    code.call("map_lookup_elem")
    code.jeq(r0, 0, "out")
    code.mov(r1, 1)
    code.atomic_add(u64[r0], r1)
    code.label("out")
    code.mov(r0, 2)
    code.exit()
    return code


def u64_of(value: bytes) -> int:
    return memoryview(value).cast("Q")[0]


@pytest.mark.parametrize("source", [COUNT, count()], ids=["text", "python"])
def test_a_program_with_a_map_of_the_caller(source: str | Assembler) -> None:
    with ArrayMap.create(key_size=4, value_size=8, max_entries=1, name="counts") as counts:
        with Program.from_asm(source, maps={"counts": counts}) as program:
            assert program.name == "count"
            assert program.test_run(PACKET, repeat=5).retval == 2
        assert u64_of(counts[0]) == 5


def test_maps_that_the_text_defines() -> None:
    source = ".map counts array key=4 value=8 entries=1\n.map other hash key=4 value=4 entries=3\n" + COUNT
    with assemble(source).load() as loaded:
        loaded.programs["count"].test_run(PACKET, repeat=3)
        assert u64_of(loaded.maps["counts"][0]) == 3
        assert isinstance(loaded.maps["other"], HashMap)
        assert loaded.maps["other"].max_entries == 3


def test_a_global_variable() -> None:
    source = "r1 = map[data][0]+8; r0 = *(u32 *)(r1 +0); r0 += 1; *(u32 *)(r1 +0) = r0; exit"
    with ArrayMap.create(key_size=4, value_size=16, max_entries=1) as data:
        data[0] = bytes(8) + (41).to_bytes(4, sys.byteorder) + bytes(4)
        with Program.from_asm(source, "xdp", maps={"data": data.fileno()}) as program:
            assert program.test_run(PACKET).retval == 42


def test_subprograms_and_callbacks() -> None:
    needs_enumerator("bpf_func_id", "BPF_FUNC_loop")
    main = Assembler("main", "syscall")
    main.store(u64[r10 - 8], 0)
    main.mov(r1, 10)
    main.load_function(r2, "body")
    main.mov(r3, r10)
    main.add(r3, -8)
    main.mov(r4, 0)
    main.call("loop")
    main.load(r1, u64[r10 - 8])
    main.call("twice")
    main.exit()
    body = Assembler("body")
    body.load(r3, u64[r2])
    body.add(r3, r1)
    body.store(u64[r2], r3)
    body.mov(r0, 0)
    body.exit()
    twice = Assembler("twice")
    twice.mov(r0, r1)
    twice.add(r0, r1)
    twice.exit()
    with jit_needed(), Program.from_asm([main, body, twice]) as program:
        assert program.test_run().retval == 2 * sum(range(10))


def test_kernel_functions_by_name() -> None:
    needs_function("bpf_rcu_read_lock")
    source = "call bpf_rcu_read_lock; call bpf_rcu_read_unlock; r0 = 7; exit"
    with jit_needed(), Program.from_asm(source, "syscall") as program:
        assert program.test_run().retval == 7


def test_kernel_symbols_by_name() -> None:
    needs_enumerator("bpf_prog_type", "BPF_PROG_TYPE_SYSCALL")
    from pybpf.symbols.kallsyms import kernel_addresses

    (address,) = set(kernel_addresses(["do_exit"])["do_exit"])
    with Program.from_asm("r0 = ksym[do_exit]; r0 >>= 16; exit", "syscall") as program:
        assert program.test_run().retval == address >> 16 & 0xFFFFFFFF


def test_it_can_be_attached() -> None:
    source = """
        .map seen array key=4 value=8 entries=1
        .program p raw_tp/sys_enter
        r1 = map[seen][0]+0; r2 = 1; lock *(u64 *)(r1 +0) += r2; r0 = 0; exit
    """
    with assemble(source).load() as loaded, loaded.attach():
        os.getppid()
        assert u64_of(loaded.maps["seen"][0]) > 0


def test_a_rejected_program_shows_the_line_of_assembly() -> None:
    with pytest.raises(VerifierError) as caught:
        Program.from_asm("r0 = 0\n  r0 = r5\nexit", "xdp")
    assert caught.value.reason == "R5 !read_ok"
    assert caught.value.source == "r0 = r5"
    assert caught.value.location == "asm.s:2:3"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("r1 = map[none]; exit", "there is no map 'none'"),
        ("call nothing_at_all; exit", "no function 'nothing_at_all'"),
        ("r1 = subprog[none]; exit", "there is no function 'none'"),
        ("goto nowhere", "line 1: there is no label 'nowhere'"),
        ("", "no function has a section"),
        (".function f\nexit\n.function f\nexit", "two functions are called 'f'"),
        (".program a xdp\nexit\n.program b xdp\nexit", "a, b: more than one program"),
        (".program a xdp\ncall b\nexit\n.program b xdp\nexit", "'b' is a program"),
        (".program a xdp", "'a' has no instructions"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(source: str, message: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ObjectError, match=message):
        Program.from_asm(source, "xdp")
    assert len(os.listdir("/proc/self/fd")) == before
