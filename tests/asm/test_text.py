"""Assembly as text: every form that a disassembler prints is read back, and what is wrong is named with its line."""

from __future__ import annotations

import pytest
from asm.test_disasm import TEXTS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pybpf.asm import Instruction, assemble, decode
from pybpf.asm.disasm import text
from pybpf.asm.text import parse_instruction
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec

READABLE = [(insn, line) for insn, line in TEXTS if "BUG" not in line]


@pytest.mark.parametrize(("insn", "line"), READABLE, ids=[line for _, line in READABLE])
def test_the_kernel_s_text_is_read_back(insn: Instruction, line: str) -> None:
    assert parse_instruction(line) == insn
    if insn.code != 0x18:  # whose opcode tells a small constant from a move
        assert parse_instruction(line.partition(") ")[2]) == insn


def code(source: str) -> list[str]:
    spec = assemble(source, "xdp")
    return [text(one).partition(") ")[2] for one in decode(spec.programs["program"].instructions)]


def test_what_llvm_prints() -> None:
    lines = """
0000000000000000 <f>:
       0:	79 18 10 00 00 00 00 00	r8 = *(u64 *)(r1 + 0x10)
       1:	18 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00	r1 = 0x0 ll
       3:	c5 02 05 00 00 00 00 00	if r2 s< -0x1 goto +0x5 <f+0x68>
       4:	05 00 75 00 00 00 00 00	goto -0x3 <f+0x470>
       5:	r2 = xchg_64(r1 + 0x8, r2)
       6:	w0 = cmpxchg32_32(r1 + 0x8, w0, w2)
       7:	w2 = atomic_fetch_add((u32 *)(r1 - 0x8), w2)
       8:	callx r1
       9:	r0 = *(u8 *)skb[r3]
""".splitlines()[2:]
    assert code("\n".join(lines)) == [
        "r8 = *(u64 *)(r1 +16)",
        "r1 = 0x0",
        "if r2 s< 0xffffffff goto pc+5",
        "goto pc-3",
        "r2 = atomic64_xchg((u64 *)(r1 +8), r2)",
        "r0 = atomic_cmpxchg((u32 *)(r1 +8), r0, r2)",
        "r2 = atomic_fetch_add((u32 *)(r1 -8), r2)",
        "call r1",
        "r0 = *(u8 *)skb[r3 + 0]",
    ]


def test_comments_names_and_several_instructions_in_a_line() -> None:
    source = """
        ; int f(void *ctx) @ f.c:1
        .equ LIMIT 0x10   # sixteen
        r0 = LIMIT; r1 = -LIMIT   // two
        again: w1 = XDP_DROP /* from the kernel's headers */
        if r0 > LIMIT goto again
        exit
    """
    assert code(source) == ["r0 = 16", "r1 = -16", "w1 = 1", "if r0 > 0x10 goto pc-2", "exit"]


def test_constants_take_as_many_bits_as_they_need() -> None:
    source = "r1 = 0x7fffffff; r1 = 0x80000000; r1 = -0x80000000; r1 = -0x80000001; r1 = 1 ll; w1 = 0xffffffff"
    assert [one.code for one in decode(assemble(source, "xdp").programs["program"].instructions)] == [
        0xB7, 0x18, 0xB7, 0x18, 0x18, 0xB4,
    ]  # fmt: skip


def test_directives() -> None:
    spec = assemble(
        """
        .license "Dual BSD/GPL"
        .map events ringbuf entries=4096
        .map counts hash key=4 value=8 entries=10 flags=BPF_F_NO_PREALLOC
        .program one xdp
            call two
            exit
        .program three tracepoint/syscalls/sys_enter_write
            r1 = map[events]
            r2 = map[counts][0]+4
            r3 = map[fd:7]
            r4 = map[fd:7][0]+4
            r5 = subprog[two]
            r6 = subprog[+3]
            exit
        .function two
            r0 = 0
            exit
        """
    )
    assert spec.license == "Dual BSD/GPL"
    assert [(one.name, one.type_name, one.key_size, one.value_size, one.flags) for one in spec.maps.values()] == [
        ("events", "ringbuf", 0, 0, 0),
        ("counts", "hash", 4, 8, 1),
    ]
    assert list(spec.programs) == ["one", "three"]
    assert spec.programs["three"].attach_target == "syscalls/sys_enter_write"
    assert [one.name for one in spec.subprograms] == ["two"]
    three = spec.programs["three"].function
    assert [(one.index, one.kind, one.name, one.offset) for one in three.relocations] == [
        (0, "map", "events", 0),
        (2, "data", "counts", 4),
        (8, "function", "", 0),
    ]
    lines = decode(three.instructions)
    assert [(one.src, one.imm, one.high) for one in lines[2:4]] == [(1, 7, 0), (2, 7, 4)]
    assert (lines[5].src, lines[5].imm) == (4, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r12 = 1", "no register r12"),
        ("w11 = r1", "not of the same width"),
        ("r1 = r2 + r3", "no such instruction"),
        ("r1 ** 2", "no such instruction"),
        ("(07) r1 -= 2", "its opcode is not 07"),
        ("r1 += nonsense", "'nonsense' is no number"),
        ("r1 = -r2", "in place"),
        ("r1 = be16 r2", "in place"),
        ("if r1 ~ 2 goto +1", "compared with ~"),
        ("*(u32 *)(r1 + 70000) = 1", "off 70000"),
        ("*(s32 *)(r1 + 4) = 1", "only be loaded"),
        ("r1 = *(u65 *)(r1 + 4)", "no type u65"),
        ("r0 = *(u64 *)skb[r1 + 4]", "not as u64"),
        ("r0 = *(s8 *)skb[4]", "not as s8"),
        ("r1 = atomic64_xchg((u64 *)(r1 +0), r2)", "source register"),
        ("r1 = xchg_64(r1 + 0, r2)", "source register"),
        ("r1 = map[id:7]", "programs name their maps"),
        ("BUG_e7", "no such instruction"),
        ("a: a: exit", "label 'a' is there twice"),
        (".nonsense", "no such directive"),
        (".map m nonsense", "no such type"),
        (".map m hash size=1", "not 'size'"),
        (".map m hash key=x", "'x' is no number"),
        (".map m hash key=-1", "-1 is not in"),
        (".equ x", "no such directive"),
        ("exit exit", "no such instruction"),
    ],
)
def test_mistakes_are_named_with_their_line(line: str, message: str) -> None:
    with pytest.raises(ObjectError, match=rf"asm: line 3: .*{message}"):
        assemble(f"r0 = 0\n\n{line}\n", "xdp")


def test_an_instruction_that_needs_its_program() -> None:
    for line in ("goto out", "r1 = map[m]", "", "exit; exit"):
        with pytest.raises(ObjectError, match="not one instruction"):
            parse_instruction(line)


WORDS = st.sampled_from(
    [
        *("r1", "r0", "w2", "r10", "=", "+=", "s>>=", "*(u64", "*)(r1", "+8)", "goto", "if", "call", "exit", "map[m]"),
        *("lock", "0x10", "-5", "ll", "pc+3", ";", ":", ",", ".map", ".program", "hash", "a:", "atomic64_xchg((u64"),
        *("cmpxchg", "skb[", "]", "(", ")", "(bf)", "0:", "#", "//", ""),
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=30))
def test_no_text_does_worse_than_being_refused(source: str) -> None:
    try:
        assemble(source, "xdp")
    except ObjectError:
        pass


@example(code=0x38, dst=0, src=0, off=0, imm=0)
@example(code=0x58, dst=0, src=0, off=0, imm=0)
@settings(deadline=None, max_examples=300)
@given(
    code=st.integers(0, 255),
    dst=st.integers(0, 10),
    src=st.integers(0, 10),
    off=st.integers(-0x8000, 0x7FFF),
    imm=st.integers(-0x80000000, 0x7FFFFFFF) | st.sampled_from([0, 1, 0x40, 0x41, 0xE1, 0xF1, 0x100, 0x110, 16, 64]),
)
def test_text_and_back_and_text_is_the_same(code: int, dst: int, src: int, off: int, imm: int) -> None:
    """Of any instruction; those that have fields set that their text does not show lose them."""
    line = text(Instruction(code, dst, src, off, imm))
    if "BUG" in line:
        return
    try:
        again = parse_instruction(line)
    except ObjectError as error:  # widths that do not exist; an opcode with a bit that it does not need
        reasons = "cannot be swapped", "atomic operations are for", "its opcode is not", "packets are loaded from as"
        assert any(reason in str(error) for reason in reasons), line
        return
    assert text(again) == line


def test_spec_of_nothing() -> None:
    with pytest.raises(ObjectError, match="no function has a section"):
        assemble("")
    assert isinstance(assemble("exit", "xdp"), ObjectSpec)
