"""Programs written in Python: every method gives the instruction that its name says, and names become references."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pybpf.asm import Assembler, Instruction, decode, encode
from pybpf.asm.disasm import text
from pybpf.asm.operands import r0, r1, r2, r10, s8, s16, s32, u8, u16, u32, u64, w0, w1, w2
from pybpf.constants import BPF_JEQ
from pybpf.errors import ObjectError

Step = Callable[[Assembler], None]

STEPS: list[tuple[Step, str]] = [
    (lambda a: a.mov(r1, -8), "(b7) r1 = -8"),
    (lambda a: a.mov(r1, r2), "(bf) r1 = r2"),
    (lambda a: a.mov(w1, 0xFFFFFFFF), "(b4) w1 = -1"),
    (lambda a: a.mov(w1, w2), "(bc) w1 = w2"),
    (lambda a: a.add(r1, 1), "(07) r1 += 1"),
    (lambda a: a.sub(w1, w2), "(1c) w1 -= w2"),
    (lambda a: a.mul(r1, r2), "(2f) r1 *= r2"),
    (lambda a: a.div(w1, 3), "(34) w1 /= 3"),
    (lambda a: a.mod(r1, r2), "(9f) r1 %= r2"),
    (lambda a: a.sdiv(r1, r2), "(3f) r1 s/= r2"),
    (lambda a: a.smod(w1, 7), "(94) w1 s%= 7"),
    (lambda a: a.or_(r1, 1), "(47) r1 |= 1"),
    (lambda a: a.and_(r1, -8), "(57) r1 &= -8"),
    (lambda a: a.xor(w1, w1), "(ac) w1 ^= w1"),
    (lambda a: a.lsh(r1, 32), "(67) r1 <<= 32"),
    (lambda a: a.rsh(r1, 32), "(77) r1 >>= 32"),
    (lambda a: a.arsh(r1, r2), "(cf) r1 s>>= r2"),
    (lambda a: a.neg(r1), "(87) r1 = -r1"),
    (lambda a: a.neg(w1), "(84) w1 = -w1"),
    (lambda a: a.movsx(r1, r2, 32), "(bf) r1 = (s32)r2"),
    (lambda a: a.movsx(w1, w2, 16), "(bc) w1 = (s16)w2"),
    (lambda a: a.to_le(r1, 16), "(d4) r1 = le16 r1"),
    (lambda a: a.to_be(r1, 32), "(dc) r1 = be32 r1"),
    (lambda a: a.bswap(r1, 64), "(d7) r1 = bswap64 r1"),
    (lambda a: a.addr_space_cast(r1, r2, 0, 1), "(bf) r1 = addr_space_cast(r2, 0, 1)"),
    (lambda a: a.load_imm64(r1, 1 << 63), "(18) r1 = 0x8000000000000000"),
    (lambda a: a.load_imm64(r1, -1), "(18) r1 = 0xffffffffffffffff"),
    (lambda a: a.load(r1, u64[r2 + 8]), "(79) r1 = *(u64 *)(r2 +8)"),
    (lambda a: a.load(w1, u32[r2]), "(61) r1 = *(u32 *)(r2 +0)"),
    (lambda a: a.load(r1, u16[r2 - 2]), "(69) r1 = *(u16 *)(r2 -2)"),
    (lambda a: a.load(r1, u8[r2 + 1]), "(71) r1 = *(u8 *)(r2 +1)"),
    (lambda a: a.load(r1, s8[r2 + 1]), "(91) r1 = *(s8 *)(r2 +1)"),
    (lambda a: a.load(r1, s16[r2 + 1]), "(89) r1 = *(s16 *)(r2 +1)"),
    (lambda a: a.load(r1, s32[r2 + 1]), "(81) r1 = *(s32 *)(r2 +1)"),
    (lambda a: a.store(u32[r10 - 4], 0xFFFFFFFF), "(62) *(u32 *)(r10 -4) = -1"),
    (lambda a: a.store(u8[r10 - 4], w1), "(73) *(u8 *)(r10 -4) = r1"),
    (lambda a: a.store(u64[r10 - 8], r1), "(7b) *(u64 *)(r10 -8) = r1"),
    (lambda a: a.load_packet(u16, 12), "(28) r0 = *(u16 *)skb[12]"),
    (lambda a: a.load_packet(u8, 2, r1), "(50) r0 = *(u8 *)skb[r1 + 2]"),
    (lambda a: a.atomic_add(u64[r1], r2), "(db) lock *(u64 *)(r1 +0) += r2"),
    (lambda a: a.atomic_or(u32[r1 + 4], w2), "(c3) lock *(u32 *)(r1 +4) |= r2"),
    (lambda a: a.atomic_and(u64[r1], r2), "(db) lock *(u64 *)(r1 +0) &= r2"),
    (lambda a: a.atomic_xor(u64[r1], r2), "(db) lock *(u64 *)(r1 +0) ^= r2"),
    (lambda a: a.atomic_add(u64[r1], r2, fetch=True), "(db) r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)"),
    (lambda a: a.atomic_or(u32[r1], r2, fetch=True), "(c3) r2 = atomic_fetch_or((u32 *)(r1 +0), r2)"),
    (lambda a: a.atomic_and(u64[r1], r2, fetch=True), "(db) r2 = atomic64_fetch_and((u64 *)(r1 +0), r2)"),
    (lambda a: a.atomic_xor(u64[r1], r2, fetch=True), "(db) r2 = atomic64_fetch_xor((u64 *)(r1 +0), r2)"),
    (lambda a: a.xchg(u64[r1], r2), "(db) r2 = atomic64_xchg((u64 *)(r1 +0), r2)"),
    (lambda a: a.cmpxchg(u32[r1], r2), "(c3) r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)"),
    (lambda a: a.load_acquire(r1, u8[r2]), "(d3) r1 = load_acquire((u8 *)(r2 +0))"),
    (lambda a: a.store_release(u64[r1 + 8], r2), "(db) store_release((u64 *)(r1 +8), r2)"),
    (lambda a: a.goto(3), "(05) goto pc+3"),
    (lambda a: a.gotol(70000), "(06) gotol pc+70000"),
    (lambda a: a.gotox(r1), "(0d) gotox r1"),
    (lambda a: a.may_goto(-2), "(e5) may_goto pc-2"),
    (lambda a: a.jeq(r1, -1, 2), "(15) if r1 == 0xffffffff goto pc+2"),
    (lambda a: a.jne(w1, w2, 2), "(5e) if w1 != w2 goto pc+2"),
    (lambda a: a.jgt(r1, r2, 2), "(2d) if r1 > r2 goto pc+2"),
    (lambda a: a.jge(r1, 1, 2), "(35) if r1 >= 0x1 goto pc+2"),
    (lambda a: a.jlt(r1, 1, 2), "(a5) if r1 < 0x1 goto pc+2"),
    (lambda a: a.jle(r1, 1, 2), "(b5) if r1 <= 0x1 goto pc+2"),
    (lambda a: a.jsgt(r1, 1, 2), "(65) if r1 s> 0x1 goto pc+2"),
    (lambda a: a.jsge(r1, 1, 2), "(75) if r1 s>= 0x1 goto pc+2"),
    (lambda a: a.jslt(w1, 1, 2), "(c6) if w1 s< 0x1 goto pc+2"),
    (lambda a: a.jsle(w1, 1, 2), "(d6) if w1 s<= 0x1 goto pc+2"),
    (lambda a: a.jset(r1, r2, 2), "(4d) if r1 & r2 goto pc+2"),
    (lambda a: a.call("map_lookup_elem"), "(85) call bpf_map_lookup_elem#1"),
    (lambda a: a.call("bpf_ktime_get_ns"), "(85) call bpf_ktime_get_ns#5"),
    (lambda a: a.call(14), "(85) call bpf_get_current_pid_tgid#14"),
    (lambda a: a.callx(r1), "(8d) call r1"),
    (lambda a: a.exit(), "(95) exit"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "expected"), STEPS, ids=[expected for _, expected in STEPS])
def test_each_method(step: Step, expected: str) -> None:
    code = Assembler()
    step(code)
    (instruction,) = code.assembled()
    assert text(instruction) == expected
    assert decode(encode([instruction])) == [instruction]


def test_every_method_is_tested() -> None:
    names = {name for name in vars(Assembler) if not name.startswith("_")}
    others = {"append", "label", "assembled", "slots", "jump", "alu", "atomic"}
    with_names = {"load_map", "load_map_value", "load_function", "load_symbol"}
    used = {name for step, _ in STEPS for name in step.__code__.co_names}
    assert names - others - with_names <= used


REFUSED: list[tuple[Step, str]] = [
    (lambda a: a.mov(r1, 0x80000000), "0x80000000 does not fit"),
    (lambda a: a.mov(r1, -0x80000001), "does not fit"),
    (lambda a: a.mov(w1, 1 << 32), "does not fit"),
    (lambda a: a.mov(r1, w2), "not of the same width"),
    (lambda a: a.jeq(w1, r2, 0), "not of the same width"),
    (lambda a: a.movsx(w1, w2, 32), "32 bits cannot be sign-extended into w1"),
    (lambda a: a.movsx(r1, r2, 64), "64 bits cannot"),
    (lambda a: a.to_be(r1, 8), "8 bits cannot be swapped"),
    (lambda a: a.load(w1, u64[r2]), "whole registers"),
    (lambda a: a.load(w1, s8[r2]), "whole registers"),
    (lambda a: a.store(s8[r1], 0), "can only be loaded from"),
    (lambda a: a.store(u64[r1], 1 << 31), "does not fit"),
    (lambda a: a.load(r1, u64[w1]), "holds no address"),
    (lambda a: a.load(r1, u64[r2 + 0x8000]), "off 32768 is not in"),
    (lambda a: a.atomic_add(u8[r1], r2), "are for u32 and u64"),
    (lambda a: a.atomic_add(u64[r1], w2), "whole registers"),
    (lambda a: a.load_acquire(r1, s8[r2]), "can only be loaded"),
    (lambda a: a.load_packet(u64, 0), "as u8, u16 or u32, not as u64"),
    (lambda a: a.load_packet(s16, 0, r1), "as u8, u16 or u32, not as s16"),
    (lambda a: a.goto(0x8000), "off 32768 is not in"),
    (lambda a: a.load_imm64(r1, 1 << 64), "64 bits"),
    (lambda a: a.append(Instruction(0x95, high=1)), "no upper half"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_does_not_fit_is_refused_at_once(step: Step, message: str) -> None:
    code = Assembler("me")
    with pytest.raises(ObjectError, match=message):
        step(code)
    assert len(code) == 0


def test_labels_count_slots() -> None:
    code = Assembler()
    code.label("start")
    code.jump(BPF_JEQ, w0, 0, "end")
    code.load_imm64(r1, 1)
    code.goto("start")
    code.gotol("end")
    code.label("end")
    code.exit()
    lines = [text(one) for one in code.assembled()]
    assert lines[0].endswith("goto pc+4")
    assert lines[2].endswith("goto pc-4")
    assert lines[3].endswith("gotol pc+0")
    assert code.slots() == [0, 1, 3, 4, 5, 6]


def test_labels_that_are_wrong() -> None:
    code = Assembler("me")
    code.label("here")
    with pytest.raises(ObjectError, match="me: the label 'here' is there twice"):
        code.label("here")
    code.jeq(r0, 0, "there")
    with pytest.raises(ObjectError, match="me: instruction 0: there is no label 'there'"):
        code.assembled()


def test_labels_that_are_too_far_away() -> None:
    code = Assembler("me")
    code.goto("end")
    for _ in range(0x8000):
        code.exit()
    code.label("end")
    with pytest.raises(ObjectError, match="'end' is too far away: 32768"):
        code.assembled()
    code.instructions[0].code = 0x06
    assert code.assembled()[0].imm == 0x8000


def test_assembled_leaves_the_assembler_as_it_is() -> None:
    code = Assembler()
    code.goto("end")
    code.exit()
    code.label("end")
    assert code.assembled()[0].off == 1
    assert code.instructions[0].off == 0


def test_repr_of_operands() -> None:
    assert repr(u32[r10 - 4]) == "*(u32 *)(r10 - 4)"
    assert repr(r10 + 4) == "r10 + 4"
    assert repr(w1) == "w1"
    assert repr(Assembler("x", "xdp")) == "<Assembler 'x' xdp 0 instructions>"
