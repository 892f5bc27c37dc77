"""Helpers of the simulated kernel beside those of the real one."""

from __future__ import annotations

import errno
import platform
import sys

import pytest
from lacking import needs_linux

from pybpf import Object, ObjectSpec, VerifierError, sim
from pybpf.asm import assemble
from pybpf.errors import SimulationError

PACKET = bytes(12) + b"\x08\x00" + bytes(range(1, 51))


def both(text: str, section: str = "xdp", data: bytes = PACKET) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    spec = assemble(text, section)
    made = sim.load(spec).programs["program"].run(data)
    with loaded(spec) as obj:
        real = obj.programs["program"].test_run(data)
    return (made.retval, made.data), (real.retval, real.data)


def loaded(spec: ObjectSpec) -> Object:
    try:
        return spec.load()
    except VerifierError as error:
        if "unknown func" in error.log or "invalid func" in error.log:
            pytest.skip(f"this kernel has not all these helpers: {error.reason}")
        raise


def string(text: bytes) -> str:
    """Instructions that put a string on the stack, from r10 - 32 on."""
    data = text.ljust(32, b"\0")
    lines = []
    for at in range(0, 32, 8):
        lines.append(f"r1 = {int.from_bytes(data[at : at + 8], sys.byteorder):#x} ll; *(u64 *)(r10 -{32 - at}) = r1")
    return "; ".join(lines)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["strtol", "strtoul"])
@pytest.mark.parametrize(
    ("text", "base"),
    [
        (b"42", 10), (b"-42", 10), (b"  7x", 0), (b"0x1f", 0), (b"0x1f", 16), (b"1f", 16), (b"017", 0), (b"017", 8),
        (b"", 10), (b"x", 10), (b"0x", 16), (b"-", 10), (b"9223372036854775808", 10), (b"18446744073709551615", 10),
        (b"99999999999999999999", 10), (b"5", 3), (b"08", 0), (b"+5", 10),
    ],
)  # fmt: skip
def test_numbers_in_text(name: str, text: bytes, base: int) -> None:
    code = f"""{string(text)}; *(u64 *)(r10 -40) = 0; r1 = r10; r1 += -32; r2 = 24; r3 = {base}; r4 = r10; r4 += -40;
    call bpf_{name}; r6 = r0; r6 *= 1000003; r1 = *(u64 *)(r10 -40); r2 = r1; r2 >>= 32; r1 ^= r2; r6 ^= r1; r0 = r6;
    exit"""
    spec = assemble(code.replace("\n", " "), "raw_tp/sys_enter")
    made = sim.load(spec).programs["program"].run(ctx=bytes(64)).retval
    with loaded(spec) as obj:
        assert made == obj.programs["program"].test_run(ctx_in=bytes(64)).retval


@pytest.mark.kernel
@pytest.mark.parametrize("delta", [-100, -20, -1, 0, 1, 20, 49, 50, 51, 100])
@pytest.mark.parametrize("name", ["xdp_adjust_head", "xdp_adjust_tail", "xdp_adjust_meta"])
def test_the_ends_of_a_packet_move_alike(name: str, delta: int) -> None:
    if name == "xdp_adjust_meta" and delta < 0:
        needs_linux("5.14", "a test of an XDP program gives its metadata back")
    made, real = both(f"r2 = {delta}; call bpf_{name}; exit")
    if name == "xdp_adjust_meta" and delta == -100 and real[0] == -errno.EACCES & 0xFFFFFFFF:
        pytest.skip("this kernel has room for 32 bytes of metadata")
    assert made[0] == real[0]
    assert made[1] == real[1]


@pytest.mark.kernel
@pytest.mark.parametrize("section", ["xdp", "tc", "socket"])
@pytest.mark.parametrize("offset", [0, 10, 40, 60, 61, 70])
def test_bytes_of_packets(section: str, offset: int) -> None:
    name = "xdp_load_bytes" if section == "xdp" else "skb_load_bytes"
    code = f"*(u32 *)(r10 -4) = -1; r2 = {offset}; r3 = r10; r3 += -4; r4 = 4; call bpf_{name};"
    code += "r1 = *(u32 *)(r10 -4); r0 <<= 7; r0 ^= r1; exit"
    made, real = both(code, section)
    assert made[0] == real[0]


@pytest.mark.kernel
@pytest.mark.parametrize("offset", [0, 1, 47, 60, 61, 64])
@pytest.mark.parametrize("size", ["u8", "u16", "u32"])
def test_packet_loads(offset: int, size: str) -> None:
    made, real = both(f"r6 = r1; r0 = *({size} *)skb[{offset}]; r0 += 1; exit", "socket")
    assert made[0] == real[0]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("old", "new", "seed"), [(8, 8, 0), (0, 16, 5), (16, 0, 0xFFFF), (4, 12, 0x12345678), (8, 3, 0), (16, 0, 0)]
)
def test_checksums(old: int, new: int, seed: int) -> None:
    code = f"""{string(bytes(range(7, 39)))}; r1 = r10; r1 += -32; r2 = {old}; r3 = r10; r3 += -16; r4 = {new};
    r5 = {seed}; call bpf_csum_diff; exit""".replace("\n", " ")
    made, real = both(code, "tc")
    if both("r1 = 0; r2 = 0; r3 = 0; r4 = 0; r5 = 0x12345; call bpf_csum_diff; exit", "tc")[1][0] > 0xFFFF:
        pytest.skip("this kernel (before Linux 6.13) does not fold the sum")
    assert made[0] == real[0]


@pytest.mark.parametrize(
    ("text", "values", "shown"),
    [
        (b"%d %u %x", (-1 & 0xFFFFFFFF, -1 & 0xFFFFFFFF, 255), "-1 4294967295 ff"),
        (b"%lld %llu", (-1 & (1 << 64) - 1, 1 << 40), "-1 1099511627776"),
        (b"%5d|%-5d|%05d", (42, 42, 42), "   42|42   |00042"),
        (b"%% %c %i", (65, 3), "% A 3"),
        (b"%x %X", (255, 255), "ff FF"),
        (b"%+d|% d|%+d", (5, 5, -5 & 0xFFFFFFFF), "+5| 5|-5"),
        (b"%d %d", (None, 7), "? 7"),
    ],
)
def test_printed_numbers(text: bytes, values: tuple[int | None, ...], shown: str) -> None:
    from pybpf.sim.memory import Memory
    from pybpf.sim.text import format_text

    assert format_text(text, values, Memory("little")) == shown.encode()


@pytest.mark.kernel
@pytest.mark.parametrize(
    "text",
    [
        b"%d %d", b"%5d|%-5d|%05x", b"%lld %lx", b"%i%u%X", b"%s|%s", b"%10s|%-10s|", b"%pks|", b"%c%5c|", b"%px %p",
        b"%pI4 %pi4 %pI6", b"%%%d", b"%+d|% d|", b"a\xc3\xa4",
        b"%#x", b"%.3d", b"%hhd", b"%q", b"%", b"%l", b"%5%", b"%ls", b"%pa", b"%d %d %d %d", b"x" * 32,
    ],
)  # fmt: skip
def test_printed_text(text: bytes) -> None:
    """The helper's result is the length of what was printed, or EINVAL."""
    needs_linux("5.13", "a text for bpf_trace_printk() may be shorter than the bytes that hold it")
    value = "r3 = r10; r3 += -32" if b"s" in text or b"pI" in text else "r3 = -77"
    code = f"{string(text)}; r1 = r10; r1 += -32; r2 = 32; {value}; r4 = r3; r5 = r3; call bpf_trace_printk; exit"
    made, real = both(code, "tc")
    if not text.isascii() and real[0] == -errno.EINVAL & 0xFFFFFFFF:
        pytest.skip("this kernel prints ASCII alone")
    assert made[0] == real[0]


def test_printed_strings_and_addresses() -> None:
    from pybpf.sim.memory import Memory, Region
    from pybpf.sim.text import format_text

    memory = Memory("little")
    text = memory.map(Region("text", bytearray(b"hello\0rest"))).base
    address = memory.map(Region("address", bytearray([127, 0, 0, 1]))).base
    assert format_text(b"%s from %pI4", (text, address), memory) == b"hello from 127.0.0.1"
    assert format_text(b"<%s>", (0,), memory) == b"<>"


def test_reading_what_is_not_there_gives_zeros() -> None:
    code = "*(u64 *)(r10 -8) = -1; r1 = r10; r1 += -8; r2 = 8; r3 = 0x1234; call bpf_probe_read_kernel; r6 = r0;"
    code += "r1 = *(u64 *)(r10 -8); r0 = r6; r0 -= r1; exit"
    assert sim.load(assemble(code, "kprobe/f")).programs["program"].run(ctx=bytes(168)).retval == (-14) & 0xFFFFFFFF


def test_memory_of_the_test() -> None:
    code = (
        "*(u64 *)(r10 -8) = 0; r3 = *(u64 *)(r1 +0); r1 = r10; r1 += -8; r2 = 8; call bpf_probe_read_user_str; r6 = r0;"
    )
    code += "r1 = *(u32 *)(r10 -8); r0 = r6; r0 <<= 24; r0 ^= r1; exit"
    kernel = sim.load(assemble(code, "kprobe/f"))
    text = kernel.place(b"ab\0cd")
    assert kernel.programs["program"].run(ctx=text.to_bytes(8, sys.byteorder) + bytes(160)).retval == (
        3 << 24 ^ int.from_bytes(b"ab\0\0", sys.byteorder)
    )


@pytest.mark.kernel
@pytest.mark.parametrize("delta", [100, 3264, 3456, 3457])
def test_the_room_behind_a_packet_is_that_of_a_page(delta: int) -> None:
    if delta == 3456 and platform.machine() == "s390x":
        pytest.skip("cache lines of 256 bytes leave 192 bytes less")
    spec = assemble(f"r2 = {delta}; call bpf_xdp_adjust_tail; exit", "xdp")
    made = sim.load(spec).programs["program"].run(PACKET)
    with loaded(spec) as obj:
        real = obj.programs["program"].test_run(PACKET, data_size_out=4096)
    assert (made.retval, made.data) == (real.retval, real.data)


@pytest.mark.kernel
@pytest.mark.parametrize("delta", [-208, -212, -216, 4])
def test_metadata_moves_with_the_head(delta: int) -> None:
    needs_linux("5.14", "a test of an XDP program gives its metadata back")
    code = f"""r6 = r1; r2 = -8; call bpf_xdp_adjust_meta; r2 = *(u32 *)(r6 +8); r3 = *(u32 *)(r6 +0); r4 = r2; r4 += 8;
    if r4 > r3 goto out; *(u32 *)(r2 +0) = 0x11223344; *(u32 *)(r2 +4) = 0x55667788;
    out: r1 = r6; r2 = {delta}; call bpf_xdp_adjust_head; exit""".replace("\n", " ")
    spec = assemble(code, "xdp")
    made = sim.load(spec).programs["program"].run(PACKET)
    with loaded(spec) as obj:
        real = obj.programs["program"].test_run(PACKET, data_size_out=4096)
    assert made.retval == real.retval
    assert made.data[:12] == real.data[:12]
    assert (made.data[-60:], len(made.data)) == (real.data[-60:], len(real.data))


@pytest.mark.kernel
@pytest.mark.parametrize("section", ["tc", "socket"])
@pytest.mark.parametrize("offset", [0, 4, 8, 16, 20, 32, 36, 40, 48, 68])
def test_fields_of_a_socket_buffer(section: str, offset: int) -> None:
    made, real = both(f"r0 = *(u32 *)(r1 +{offset}); exit", section)
    assert made == real


@pytest.mark.kernel
@pytest.mark.parametrize("section", ["xdp", "tc"])
@pytest.mark.parametrize("flags", [0, 1, 2, 7])
def test_redirect_takes_few_flags(section: str, flags: int) -> None:
    made, real = both(f"r1 = 1; r2 = {flags}; call bpf_redirect; exit", section)
    assert made[0] == real[0]


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [(b"abc", b"abz", -1), (b"z", b"a", 1), (b"", b"x", -1), (b"a", b"a", 0), (b"ab", b"a", 1)],
)
def test_strings_are_compared_to_a_sign(first: bytes, second: bytes, result: int) -> None:
    code = f"{string(first.ljust(16, bytes(1)) + second)}; r1 = r10; r1 += -32; r2 = 8; r3 = r10; r3 += -16;"
    spec = assemble(code + "call bpf_strncmp; exit", "xdp")
    assert sim.load(spec).programs["program"].run(PACKET).retval == result & 0xFFFFFFFF


@pytest.mark.parametrize("name", ["probe_read_kernel", "probe_read_kernel_str", "get_current_comm", "skb_load_bytes"])
def test_a_size_beyond_all_memory_is_refused(name: str) -> None:
    arguments = {"get_current_comm": "r1 = r10; r2 = -1", "skb_load_bytes": "r2 = 0; r3 = r10; r4 = -1"}
    code = f"{arguments.get(name, 'r1 = r10; r2 = -1; r3 = 8')}; call bpf_{name}; exit"
    with pytest.raises(SimulationError, match="stack"):
        sim.load(assemble(code, "tc")).programs["program"].run(PACKET)


class Counter:
    """A helper that is a method, and one that is an object which can be called."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def note(self, run: object, number: int) -> int:
        self.seen.append(number)
        return number + 1

    __call__ = note


@pytest.mark.parametrize("kind", ["method", "object"])
def test_helpers_that_are_no_plain_functions(kind: str) -> None:
    counter = Counter()
    helper = counter.note if kind == "method" else counter
    spec = assemble("r1 = 7; call bpf_get_stack; exit", "xdp")
    assert sim.load(spec, helpers={"get_stack": helper}).programs["program"].run(PACKET).retval == 8
    assert counter.seen == [7]


@pytest.mark.parametrize("given", [None, "text"])
def test_a_helper_that_gives_no_number_is_named(given: object) -> None:
    kernel = sim.load(assemble("call bpf_get_stack; exit", "xdp"), helpers={"get_stack": lambda run: given})
    with pytest.raises(SimulationError, match=r"get_stack\(\) gave .*, not a number for r0"):
        kernel.programs["program"].run(PACKET)


@pytest.mark.kernel
@pytest.mark.parametrize("offset", [0x10000, -1, 0x7FFFFFFF, 4])
@pytest.mark.parametrize(
    ("name", "section"),
    [("xdp_load_bytes", "xdp"), ("xdp_store_bytes", "xdp"), ("skb_load_bytes", "tc"), ("skb_store_bytes", "tc")],
)
def test_places_far_beyond_a_packet(name: str, section: str, offset: int) -> None:
    for flags in (0, 3, 99) if name == "skb_store_bytes" else (0,):
        code = f"r2 = {offset}; r3 = r10; r3 += -8; *(u64 *)(r10 -8) = 0; r4 = 8; r5 = {flags}; call bpf_{name}; exit"
        made, real = both(code, section)
        assert made == real


@pytest.mark.kernel
@pytest.mark.parametrize("flags", [1 << 52, 5, 0xFFFFFFFF | 65 << 32])
def test_perf_events_that_are_refused(flags: int) -> None:
    text = ".map m perf_event_array key=4 value=4 entries=2\n.program program tc\n*(u64 *)(r10 -8) = 1\nr2 = map[m]\n"
    text += f"r3 = {flags} ll\nr4 = r10\nr4 += -8\nr5 = 8\ncall bpf_perf_event_output\nexit"
    made, real = both(text, "")
    assert made[0] == real[0]


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["devmap", "cpumap"])
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 8, 16, 64])
def test_flags_of_redirections(kind: str, flags: int) -> None:
    if kind == "devmap" and flags == 8:
        needs_linux("5.14", "a packet is redirected to a whole devmap")
    text = f".map m {kind} key=4 value=4 entries=2\n.program program xdp\nr1 = map[m]\nr2 = 1\nr3 = {flags}\n"
    made, real = both(text + "call bpf_redirect_map\nexit", "")
    assert made[0] == real[0]


@pytest.mark.kernel
@pytest.mark.parametrize("offset", [8, 32, 36, 40, 48, 64])
def test_a_context_that_is_given(offset: int) -> None:
    ctx = bytearray(192)
    ctx[8:12], ctx[32:36] = (7).to_bytes(4, sys.byteorder), (5).to_bytes(4, sys.byteorder)
    ctx[48:52] = b"\1\2\3\4"
    spec = assemble(f"r0 = *(u32 *)(r1 +{offset}); exit", "tc")
    with loaded(spec) as obj:
        real = obj.programs["program"].test_run(PACKET, ctx_in=bytes(ctx)).retval
    assert sim.load(spec).programs["program"].run(PACKET, ctx=bytes(ctx)).retval == real
