"""Programs in the simulated kernel: contexts, packets, calls, and what is refused."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
from lacking import needs_linux

from pybpf import ObjectSpec, sim
from pybpf.asm import assemble
from pybpf.errors import SimulationError

ROOT = Path(__file__).resolve().parents[2]
PACKET = bytes(12) + b"\x08\x00" + bytes(range(50))


def run(text: str, data: bytes = PACKET, section: str = "xdp", **options: object) -> sim.RunResult:
    kernel = sim.load(assemble(text, section), **options)
    return next(iter(kernel.programs.values())).run(data)


def test_a_program_returns_r0() -> None:
    assert run("r0 = 2; exit").retval == 2
    assert run("r0 = -1; exit").retval == 0xFFFFFFFF
    assert run("r0 = -1; exit").r0 == 0xFFFFFFFFFFFFFFFF


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit", "r0 has no value at exit"),
        ("r0 = r5; exit", "r5 is read before it was written"),
        ("r10 = 1; r0 = 0; exit", "r10 cannot be written"),
        ("r0 = *(u64 *)(r10 +0); exit", r"8 bytes at stack \+512, which has 512 bytes"),
        ("r0 = *(u64 *)(r10 -520); exit", "nothing is"),
        ("r1 = 8; r0 = *(u64 *)(r1 +0); exit", "an access to 0x8, where nothing is"),
        ("*(u32 *)(r1 +0) = 1; r0 = 0; exit", r"a write to the pointer at ctx \+0"),
        ("r2 = *(u32 *)(r1 +0); r0 = *(u8 *)(r2 +64); exit", r"1 bytes at packet \+64, which has 64 bytes"),
        ("r2 = *(u32 *)(r1 +0); r0 = *(u8 *)(r2 -1); exit", r"1 bytes at packet -1"),
        ("r0 = *(u64 *)(r1 +24); exit", r"8 bytes at ctx \+24, which has 24 bytes"),
        ("goto pc+7", "there is no instruction 8"),
        ("call bpf_get_stack; exit", "helper bpf_get_stack.. is not simulated"),
        ("l: goto l", "not at its end after 1000 instructions"),
    ],
)
def test_what_is_refused_says_what_and_where(text: str, message: str) -> None:
    kernel = sim.load(assemble(text, "xdp"))
    with pytest.raises(SimulationError, match=message):
        kernel.programs["program"].run(PACKET, limit=1000)
    assert sim.load(assemble("r0 = 1; exit", "xdp")).programs["program"].run(PACKET).retval == 1


def test_an_error_names_the_instruction_and_the_line() -> None:
    with pytest.raises(SimulationError) as caught:
        run("r0 = 0\nr0 = *(u8 *)(r0 +3)\nexit")
    assert caught.value.where == "program 'program', instruction 1"
    assert caught.value.instruction == "(71) r0 = *(u8 *)(r0 +3)"
    assert "r0 = *(u8 *)(r0 +3)" in caught.value.line


def test_nothing_is_left_after_a_run() -> None:
    kernel = sim.load(assemble("r0 = 0; exit", "xdp"))
    before = len(kernel.memory._regions)
    kernel.programs["program"].run(PACKET)
    with pytest.raises(ValueError, match="at least 14 bytes"):
        kernel.programs["program"].run(b"short")
    assert len(kernel.memory._regions) == before


def test_xdp_sees_the_whole_packet() -> None:
    text = "r2 = *(u32 *)(r1 +0); r3 = *(u32 *)(r1 +4); r0 = r3; r0 -= r2; exit"
    assert run(text).retval == len(PACKET)
    write = run("r2 = *(u32 *)(r1 +0); *(u8 *)(r2 +1) = 0x99; r0 = 3; exit")
    assert write.data == PACKET[:1] + b"\x99" + PACKET[2:]


def test_sockets_do_not_see_the_link_header() -> None:
    assert run("r0 = *(u32 *)(r1 +0); exit", section="socket").retval == len(PACKET) - 14
    assert run("r0 = *(u32 *)(r1 +0); exit", section="tc").retval == len(PACKET)
    assert run("r0 = *(u32 *)(r1 +16); exit", section="tc").retval == int.from_bytes(b"\x08\x00", sys.byteorder)


def test_packet_loads() -> None:
    assert run("r6 = r1; r0 = *(u16 *)skb[0]; exit", section="socket").retval == 0x0001
    assert run("r6 = r1; r0 = *(u8 *)skb[-2097140]; exit", section="socket").retval == 8  # SKF_LL_OFF + 12
    assert run("r6 = r1; r0 = *(u32 *)skb[47]; r0 = 77; exit", section="socket").retval == 0


def test_calls_have_registers_and_a_stack_of_their_own() -> None:
    text = """
    .program main xdp
        r6 = 5
        *(u64 *)(r10 -8) = 40
        r1 = 2
        call add_two
        r1 = *(u64 *)(r10 -8)
        r0 += r1
        r0 += r6
        exit
    .function add_two
        r6 = 100
        *(u64 *)(r10 -8) = 1
        r0 = r1
        r0 += 2
        exit
    """
    assert run(text).retval == 4 + 40 + 5


def test_recursion_ends() -> None:
    text = ".program main xdp\n call f\n exit\n.function f\n call f\n exit"
    with pytest.raises(SimulationError, match="more than 8 functions deep"):
        run(text)


def test_loops_call_back() -> None:
    text = """
    .program main xdp
        *(u64 *)(r10 -8) = 0
        r1 = 10
        r2 = subprog[body]
        r3 = r10
        r3 += -8
        r4 = 0
        call bpf_loop
        r1 = *(u64 *)(r10 -8)
        r0 *= 1000
        r0 += r1
        exit
    .function body
        r3 = *(u64 *)(r2 +0)
        r3 += r1
        *(u64 *)(r2 +0) = r3
        r0 = 0
        if r1 != 6 goto out
        r0 = 1
    out:
        exit
    """
    assert run(text).retval == 7 * 1000 + sum(range(7))


def test_helpers_of_the_caller() -> None:
    seen = []

    def get_stack(run: object, context: int, buffer: int, size: int, flags: int) -> int:
        seen.append((size, flags))
        return 7

    text = "r2 = r10; r2 += -16; r3 = 16; r4 = 1; call bpf_get_stack; exit"
    assert run(text, helpers={"get_stack": get_stack}).retval == 7
    assert seen == [(16, 1)]


def test_the_machine_is_what_the_test_says() -> None:
    kernel = sim.load(assemble("call bpf_get_current_pid_tgid; r0 >>= 32; exit", "tracepoint/x/y"))
    kernel.tgid = 4711
    assert kernel.programs["program"].run().retval == 4711
    kernel = sim.load(assemble("call bpf_ktime_get_ns; r6 = r0; call bpf_ktime_get_ns; r0 -= r6; exit", "xdp"))
    assert kernel.programs["program"].run(PACKET).retval == 0
    kernel.tick_ns = 25
    assert kernel.programs["program"].run(PACKET).retval == 25
    kernel = sim.load(assemble("call bpf_get_prandom_u32; exit", "xdp"))
    first = kernel.programs["program"].run(PACKET).retval
    assert first == sim.load(assemble("call bpf_get_prandom_u32; exit", "xdp")).programs["program"].run(PACKET).retval


def test_printing() -> None:
    kernel = sim.load(ObjectSpec.from_file(str(ROOT / "kernels/hello.bpf.o")))
    name, program = next(iter(kernel.programs.items()))
    kernel.comm = "sh"
    result = program.run(ctx=bytes(64))
    assert result.printed or any(len(one) for one in kernel.maps.values() if hasattr(one, "records")), name


def test_both_byte_orders() -> None:
    results = []
    for path in ("kernels/xdp_count.bpf.o", "kernels/xdp_count.eb.bpf.o"):
        kernel = sim.load(ObjectSpec.from_file(str(ROOT / path)))
        result = kernel.programs["xdp_count"].run(PACKET)
        results.append((result.retval, [(key, value) for key, value in kernel.maps["protocols"].items()]))
    for retval, ((protocol, (total,)),) in results:
        assert (retval, protocol) == (2, 0x0800)
        assert (total.packets, total.bytes) == (1, len(PACKET))


@pytest.mark.kernel
def test_the_kernel_says_the_same_of_packets() -> None:
    ending = "bpf.o" if sys.byteorder == "little" else "eb.bpf.o"
    spec = ObjectSpec.from_file(str(ROOT / f"kernels/xdp_count.{ending}"))
    kernel = sim.load(spec)
    with spec.load() as obj:
        for size in (14, 15, 60, 1500):
            packet = struct.pack(">12sH", bytes(12), 0x86DD).ljust(size, b"\1")
            real = obj.programs["xdp_count"].test_run(packet)
            made = kernel.programs["xdp_count"].run(packet)
            assert (made.retval, made.data) == (real.retval, real.data[:size])
        real_total = obj.maps["protocols"][0x86DD].sum()
        (made_total,) = kernel.maps["protocols"][0x86DD]
        assert (made_total.packets, made_total.bytes) == (real_total.packets, real_total.bytes)


def test_the_examples_of_the_documentation() -> None:
    import re

    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/sim.md").read_text(), re.S)
    assert len(examples) >= 4
    for number, example in enumerate(examples):
        code = example.replace('"kernels/', f'"{ROOT}/kernels/')
        exec(compile(code, f"docs/sim.md, example {number}", "exec"), {})


def test_load_acquire_into_a_register_without_a_value() -> None:
    assert run("*(u64 *)(r10 -8) = 7; r2 = r10; r3 = load_acquire((u64 *)(r2 -8)); r0 = r3; exit").retval == 7


def test_an_exit_without_r0_says_where() -> None:
    with pytest.raises(SimulationError) as caught:
        run("exit")
    assert caught.value.where == "program 'program', instruction 0"
    with pytest.raises(SimulationError) as caught:
        run(".program p xdp\ncall f\nexit\n.function f\nexit", section="")
    assert caught.value.where == "program 'p', instruction 1"


@pytest.mark.kernel
def test_a_subprogram_may_give_nothing() -> None:
    spec = assemble(".program p xdp\ncall f\nr0 = 1\nexit\n.function f\nexit")
    with spec.load() as obj:
        assert obj.programs["p"].test_run(PACKET).retval == 1
    assert sim.load(spec).programs["p"].run(PACKET).retval == 1


def test_kernel_functions_are_called_by_name() -> None:
    thrown: list[int] = []
    spec = ObjectSpec.from_file(ROOT / "tests/objects/built/load_exceptions.bpfel.o")
    kernel = sim.load(spec, kfuncs={"bpf_throw": lambda run, cookie: thrown.append(cookie) or 0})
    assert kernel.programs["careful"].run(bytes(64)).retval == 8
    assert thrown == []
    assert kernel.programs["careful"].run(bytes(63)).retval == 8
    assert thrown == [63]


@pytest.mark.parametrize(
    "text", ["r0 = *(u64 *)(r1 +72); exit", "r0 = *(u8 *)(r1 +77); exit", "*(u16 *)(r1 +82) = 1; exit"]
)
def test_accesses_that_touch_a_pointer_of_the_context(text: str) -> None:
    with pytest.raises(SimulationError, match="pointer"):
        run(text, section="tc")


def test_a_debugger_whose_program_has_ended() -> None:
    debugger = sim.load(assemble("r0 = 1; exit", "xdp")).programs["program"].debug(PACKET)
    assert not debugger.resume()
    assert not debugger.step()
    for name in ("code", "index", "instruction", "function", "line", "stack"):
        with pytest.raises(SimulationError, match="has ended"):
            getattr(debugger, name)
    debugger.close()
    debugger.close()
    closed = sim.load(assemble("r0 = 1; exit", "xdp")).programs["program"].debug(PACKET)
    closed.close()
    with pytest.raises(SimulationError):
        closed.step()


def test_contexts_that_programs_may_write_to() -> None:
    kernel = sim.load(assemble("*(u32 *)(r1 +4) = 7; r0 = 1; exit", "cgroup/connect4"))
    assert kernel.programs["program"].run(ctx=bytes(72)).ctx[4:8] == (7).to_bytes(4, sys.byteorder)
    with pytest.raises(SimulationError, match="read-only"):
        sim.load(assemble("*(u32 *)(r1 +4) = 7; r0 = 1; exit", "kprobe/f")).programs["program"].run(ctx=bytes(168))


@pytest.mark.kernel
def test_metadata_that_the_context_tells_of() -> None:
    needs_linux("5.14", "a test of an XDP program takes a context")
    spec = assemble("r0 = *(u32 *)(r1 +0); r2 = *(u32 *)(r1 +8); r0 -= r2; exit", "xdp")
    ctx = struct.pack("=6I", 8, len(PACKET), 0, 1, 0, 0)
    made = sim.load(spec).programs["program"].run(PACKET, ctx=ctx)
    with spec.load() as obj:
        real = obj.programs["program"].test_run(PACKET, ctx_in=ctx)
    assert (made.retval, made.data) == (real.retval, real.data)
    assert made.retval == 8
    for metadata in (2, 256, 60):
        with pytest.raises(ValueError, match="metadata"):
            sim.load(spec).programs["program"].run(PACKET, ctx=struct.pack("=6I", metadata, 64, 0, 1, 0, 0))


def test_constants_cannot_be_written() -> None:
    kernel = sim.load(ObjectSpec.from_file(ROOT / "tests/objects/built/load_verdicts.bpfel.o"))
    before = kernel.globals["constant"]
    with pytest.raises(TypeError, match="frozen: set it in spec.globals"):
        kernel.globals["constant"] = before
    assert kernel.globals["constant"] == before


def test_the_limit_is_the_last_instruction_that_may_run() -> None:
    program = sim.load(assemble("r0 = 1; exit", "xdp")).programs["program"]
    assert program.run(PACKET, limit=2).steps == 2
    with pytest.raises(SimulationError, match="not at its end after 1 "):
        program.run(PACKET, limit=1)
