"""Helpers of the simulated kernel beside those of the real one."""

from __future__ import annotations

import pytest

from pybpf import Object, ObjectSpec, VerifierError, sim
from pybpf.asm import assemble

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
        lines.append(f"r1 = {int.from_bytes(data[at : at + 8], 'little'):#x} ll; *(u64 *)(r10 -{32 - at}) = r1")
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
    made, real = both(f"r2 = {delta}; call bpf_{name}; exit")
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
    ("old", "new", "seed"), [(8, 8, 0), (0, 16, 5), (16, 0, 0xFFFF), (4, 12, 0x12345678), (8, 3, 0)]
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
        (b"%#x %X", (255, 255), "0xff FF"),
        (b"%d", (), "?"),
    ],
)
def test_printed_numbers(text: bytes, values: tuple[int, ...], shown: str) -> None:
    from pybpf.sim.memory import Memory
    from pybpf.sim.text import format_text

    assert format_text(text, values, Memory("little")).decode() == shown


def test_printed_strings_and_addresses() -> None:
    from pybpf.sim.memory import Memory, Region
    from pybpf.sim.text import format_text

    memory = Memory("little")
    text = memory.map(Region("text", bytearray(b"hello\0rest"))).base
    address = memory.map(Region("address", bytearray([127, 0, 0, 1]))).base
    assert format_text(b"%s from %pI4", (text, address), memory) == b"hello from 127.0.0.1"


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
    assert kernel.programs["program"].run(ctx=text.to_bytes(8, "little") + bytes(160)).retval == 3 << 24 ^ 0x6261
