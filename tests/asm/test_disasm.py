"""The text of every opcode form, as kernel/bpf/disasm.c writes it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pybpf.asm import Instruction, disassemble, encode
from pybpf.asm.disasm import text
from pybpf.errors import ObjectError

ALU_SIGNS = [
    (0x00, "+="), (0x10, "-="), (0x20, "*="), (0x30, "/="), (0x40, "|="), (0x50, "&="), (0x60, "<<="), (0x70, ">>="),
    (0x90, "%="), (0xA0, "^="), (0xB0, "="), (0xC0, "s>>="),
]  # fmt: skip
JUMP_SIGNS = [
    (0x10, "=="), (0x20, ">"), (0x30, ">="), (0x40, "&"), (0x50, "!="), (0x60, "s>"), (0x70, "s>="),
    (0xA0, "<"), (0xB0, "<="), (0xC0, "s<"), (0xD0, "s<="),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "sign"), ALU_SIGNS)
def test_arithmetic(operation: int, sign: str) -> None:
    assert text(Instruction(0x07 | operation, 1, imm=-8)) == f"({0x07 | operation:02x}) r1 {sign} -8"
    assert text(Instruction(0x0F | operation, 1, 2)) == f"({0x0F | operation:02x}) r1 {sign} r2"
    assert text(Instruction(0x04 | operation, 1, imm=8)) == f"({0x04 | operation:02x}) w1 {sign} 8"
    assert text(Instruction(0x0C | operation, 1, 2)) == f"({0x0C | operation:02x}) w1 {sign} w2"


@pytest.mark.parametrize(("operation", "sign"), JUMP_SIGNS)
def test_conditional_jumps(operation: int, sign: str) -> None:
    assert text(Instruction(0x05 | operation, 1, off=1, imm=-1)) == (
        f"({0x05 | operation:02x}) if r1 {sign} 0xffffffff goto pc+1"
    )
    assert text(Instruction(0x0D | operation, 1, 2, off=-4)) == f"({0x0D | operation:02x}) if r1 {sign} r2 goto pc-4"
    assert (
        text(Instruction(0x06 | operation, 1, off=0, imm=0)) == f"({0x06 | operation:02x}) if w1 {sign} 0x0 goto pc+0"
    )
    assert text(Instruction(0x0E | operation, 1, 2, off=1)) == f"({0x0E | operation:02x}) if w1 {sign} w2 goto pc+1"


TEXTS = [
    # sign-extending, negating, byte-swapping, converting
    (Instruction(0xBF, 1, 2, 8), "(bf) r1 = (s8)r2"),
    (Instruction(0xBF, 1, 2, 16), "(bf) r1 = (s16)r2"),
    (Instruction(0xBF, 1, 2, 32), "(bf) r1 = (s32)r2"),
    (Instruction(0xBC, 1, 2, 8), "(bc) w1 = (s8)w2"),
    (Instruction(0xBC, 1, 2, 16), "(bc) w1 = (s16)w2"),
    (Instruction(0x3F, 1, 2, 1), "(3f) r1 s/= r2"),
    (Instruction(0x34, 1, 0, 1, -3), "(34) w1 s/= -3"),
    (Instruction(0x9F, 1, 2, 1), "(9f) r1 s%= r2"),
    (Instruction(0x97, 1, 0, 1, 7), "(97) r1 s%= 7"),
    (Instruction(0x87, 1), "(87) r1 = -r1"),
    (Instruction(0x84, 1), "(84) w1 = -w1"),
    (Instruction(0xD4, 1, imm=16), "(d4) r1 = le16 r1"),
    (Instruction(0xDC, 1, imm=64), "(dc) r1 = be64 r1"),
    (Instruction(0xD7, 1, imm=32), "(d7) r1 = bswap32 r1"),
    (Instruction(0xBF, 1, 2, 1, 1), "(bf) r1 = addr_space_cast(r2, 0, 1)"),
    (Instruction(0xBF, 1, 2, 1, 0x10000), "(bf) r1 = addr_space_cast(r2, 1, 0)"),
    (Instruction(0xBF, 1, 2, -1), "(bf) r1 = &(void __percpu *)(r2)"),
    # loads
    (Instruction(0x61, 1, 2, 8), "(61) r1 = *(u32 *)(r2 +8)"),
    (Instruction(0x69, 1, 2, 0), "(69) r1 = *(u16 *)(r2 +0)"),
    (Instruction(0x71, 1, 2, -1), "(71) r1 = *(u8 *)(r2 -1)"),
    (Instruction(0x79, 1, 10, -8), "(79) r1 = *(u64 *)(r10 -8)"),
    (Instruction(0x81, 1, 2, 8), "(81) r1 = *(s32 *)(r2 +8)"),
    (Instruction(0x89, 1, 2, 8), "(89) r1 = *(s16 *)(r2 +8)"),
    (Instruction(0x91, 1, 2, 8), "(91) r1 = *(s8 *)(r2 +8)"),
    (Instruction(0x20, imm=12), "(20) r0 = *(u32 *)skb[12]"),
    (Instruction(0x28, imm=-1), "(28) r0 = *(u16 *)skb[-1]"),
    (Instruction(0x30, imm=12), "(30) r0 = *(u8 *)skb[12]"),
    (Instruction(0x40, src=1, imm=2), "(40) r0 = *(u32 *)skb[r1 + 2]"),
    (Instruction(0x48, src=1, imm=2), "(48) r0 = *(u16 *)skb[r1 + 2]"),
    (Instruction(0x50, src=1, imm=2), "(50) r0 = *(u8 *)skb[r1 + 2]"),
    (Instruction(0x18, 1, imm=0x55667788, high=0x11223344), "(18) r1 = 0x1122334455667788"),
    (Instruction(0x18, 1, imm=-1, high=-1), "(18) r1 = 0xffffffffffffffff"),
    # stores
    (Instruction(0x62, 10, off=-4, imm=5), "(62) *(u32 *)(r10 -4) = 5"),
    (Instruction(0x6A, 10, off=-4, imm=-5), "(6a) *(u16 *)(r10 -4) = -5"),
    (Instruction(0x72, 10, off=-4, imm=5), "(72) *(u8 *)(r10 -4) = 5"),
    (Instruction(0x7A, 10, off=-8, imm=5), "(7a) *(u64 *)(r10 -8) = 5"),
    (Instruction(0x63, 10, 1, -4), "(63) *(u32 *)(r10 -4) = r1"),
    (Instruction(0x6B, 10, 1, -4), "(6b) *(u16 *)(r10 -4) = r1"),
    (Instruction(0x73, 10, 1, -4), "(73) *(u8 *)(r10 -4) = r1"),
    (Instruction(0x7B, 10, 1, -8), "(7b) *(u64 *)(r10 -8) = r1"),
    # atomic operations
    (Instruction(0xDB, 1, 2, 0, 0x00), "(db) lock *(u64 *)(r1 +0) += r2"),
    (Instruction(0xC3, 1, 2, 4, 0x40), "(c3) lock *(u32 *)(r1 +4) |= r2"),
    (Instruction(0xDB, 1, 2, 0, 0x50), "(db) lock *(u64 *)(r1 +0) &= r2"),
    (Instruction(0xDB, 1, 2, 0, 0xA0), "(db) lock *(u64 *)(r1 +0) ^= r2"),
    (Instruction(0xDB, 1, 2, 0, 0x01), "(db) r2 = atomic64_fetch_add((u64 *)(r1 +0), r2)"),
    (Instruction(0xC3, 1, 2, 0, 0x41), "(c3) r2 = atomic_fetch_or((u32 *)(r1 +0), r2)"),
    (Instruction(0xDB, 1, 2, 0, 0x51), "(db) r2 = atomic64_fetch_and((u64 *)(r1 +0), r2)"),
    (Instruction(0xDB, 1, 2, 0, 0xA1), "(db) r2 = atomic64_fetch_xor((u64 *)(r1 +0), r2)"),
    (Instruction(0xDB, 1, 2, -8, 0xE1), "(db) r2 = atomic64_xchg((u64 *)(r1 -8), r2)"),
    (Instruction(0xC3, 1, 2, 0, 0xF1), "(c3) r0 = atomic_cmpxchg((u32 *)(r1 +0), r0, r2)"),
    (Instruction(0xC3, 1, 2, 0, 0x100), "(c3) r1 = load_acquire((u32 *)(r2 +0))"),
    (Instruction(0xD3, 1, 2, 0, 0x100), "(d3) r1 = load_acquire((u8 *)(r2 +0))"),
    (Instruction(0xCB, 1, 2, 0, 0x110), "(cb) store_release((u16 *)(r1 +0), r2)"),
    # jumps without a condition, calls
    (Instruction(0x05, off=3), "(05) goto pc+3"),
    (Instruction(0x05, off=-3), "(05) goto pc-3"),
    (Instruction(0x06, imm=70000), "(06) gotol pc+70000"),
    (Instruction(0x0D, 1), "(0d) gotox r1"),
    (Instruction(0xE5, off=2), "(e5) may_goto pc+2"),
    (Instruction(0x95), "(95) exit"),
    (Instruction(0x85, imm=1), "(85) call bpf_map_lookup_elem#1"),
    (Instruction(0x85, imm=211), "(85) call bpf_cgrp_storage_delete#211"),
    (Instruction(0x85, imm=195896080), "(85) call unknown#195896080"),
    (Instruction(0x85, imm=-5), "(85) call unknown#-5"),
    (Instruction(0x85, src=1, imm=5), "(85) call pc+5"),
    (Instruction(0x85, src=2, imm=123), "(85) call kernel-function#123"),
    (Instruction(0x8D, 3), "(8d) call r3"),
    # the kernel's own, and nonsense
    (Instruction(0xC2), "(c2) nospec"),
    (Instruction(0x00), "(00) BUG_ld_00"),
    (Instruction(0x99, 1, 2), "(99) BUG_ldx_99"),
    (Instruction(0x01, 1, 2), "(01) BUG_ldx_01"),
    (Instruction(0x02, 1), "(02) BUG_st_02"),
    (Instruction(0x03, 1, 2), "(03) BUG_03"),
    (Instruction(0xDB, 1, 2, 0, 0x99), "(db) BUG_db"),
    (Instruction(0xE7, 1), "(e7) BUG_e7"),
    (Instruction(0xF6, 1), "(f6) BUG_f6"),
]


@pytest.mark.parametrize(("insn", "expected"), TEXTS, ids=[expected for _, expected in TEXTS])
def test_text(insn: Instruction, expected: str) -> None:
    assert text(insn) == expected


@pytest.mark.parametrize("order", ["little", "big"])
def test_lines_count_slots(order: str) -> None:
    program = encode([Instruction(0x18, 1, imm=7), Instruction(0xB7, 0, imm=0), Instruction(0x95)], order)
    assert disassemble(program, byte_order=order) == ["   0: (18) r1 = 0x7", "   2: (b7) r0 = 0", "   3: (95) exit"]


def test_words_of_the_caller() -> None:
    program = encode([Instruction(0x18, 1, src=1, imm=7), Instruction(0x85, imm=1), Instruction(0x85, src=1, imm=2)])
    lines = disassemble(
        program,
        calls=lambda index, insn: f"pc{insn.imm:+d}#helper" if insn.src == 1 else None,
        constants=lambda index, insn: f"map[id:{insn.imm}]" if insn.src == 1 else None,
    )
    assert lines == [
        "   0: (18) r1 = map[id:7]",
        "   2: (85) call bpf_map_lookup_elem#1",
        "   3: (85) call pc+2#helper",
    ]


@pytest.mark.parametrize("order", ["little", "big"])
@settings(deadline=None)
@given(data=st.binary(max_size=80))
def test_any_bytes_have_a_text_or_are_refused(order: str, data: bytes) -> None:
    try:
        lines = disassemble(data, byte_order=order)
    except ObjectError:
        return
    assert len(lines) <= len(data) // 8
    assert all(": (" in line for line in lines)


def test_every_opcode_has_a_text() -> None:
    for code in range(256):
        for src in (0, 1, 15):
            for imm in (-1, 0, 1, 0x100):
                assert text(Instruction(code, 1, src, 2, imm)).startswith(f"({code:02x}) ")
