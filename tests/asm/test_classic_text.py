"""Classic filters as text and numbers: the 1993 paper's notation, tcpdump's and bpf_asm's."""

from __future__ import annotations

import random

import pytest
from classic_samples import EXPRESSIONS, KERNEL_EXPRESSIONS, compiled, needs_tcpdump, random_program
from hypothesis import given, settings
from hypothesis import strategies as st

from pybpf.asm.classic import Filter, Instruction
from pybpf.errors import ObjectError

PAPER = """
; all IP packets (the BSD Packet Filter, 1993, section 3.3)
        ldh     [12]
        jeq     #ETHERTYPE_IP, L1, L2
L1:     ret     #TRUE
L2:     ret     #0
"""

FINGER = """
        ldh     [12]
        jeq     #ETHERTYPE_IP, L1, L5   ; TCP finger packets that are no later fragment
L1:     ldb     [23]
        jeq     #IPPROTO_TCP, L2, L5
L2:     ldh     [20]
        jset    #0x1fff, L5, L3
L3:     ldx     4*([14]&0xf)
        ldh     [x+16]
        jeq     #N, L4, L5
L4:     ret     #TRUE
L5:     ret     #0
"""


def test_the_paper_s_example() -> None:
    program = Filter.from_text(PAPER)
    assert str(program).splitlines() == [
        "(000) ldh      [12]",
        "(001) jeq      #0x800           jt 2\tjf 3",
        "(002) ret      #-1",
        "(003) ret      #0",
    ]
    assert program.to_ddd() == "4\n40 0 0 12\n21 0 1 2048\n6 0 0 4294967295\n6 0 0 0\n"
    assert program.to_line() == "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0,"
    assert program.to_dd().splitlines()[1] == "{ 0x15, 0, 1, 0x00000800 },"


def test_a_longer_one_with_a_constant_of_the_caller() -> None:
    program = Filter.from_text(FINGER, {"N": 79})
    program.check()
    assert len(program) == 11
    assert str(program).splitlines()[6:9] == [
        "(006) ldxb     4*([14]&0xf)",
        "(007) ldh      [x + 16]",
        "(008) jeq      #0x4f            jt 9\tjf 10",
    ]
    with pytest.raises(ObjectError, match=r"line 10: 'jeq     #N, L4, L5': 'N' is no number"):
        Filter.from_text(FINGER)


FORMS = [
    ("ld [4]", 0x20, 4), ("ldh [4]", 0x28, 4), ("ldb [4]", 0x30, 4), ("ldb [-1048576]", 0x30, 0xFFF00000),
    ("ld [x + 4]", 0x40, 4), ("ldh [x+4]", 0x48, 4), ("ldb x + 4", 0x50, 4), ("ldb [%x + 4]", 0x50, 4),
    ("ld #4", 0x00, 4), ("ld #-4", 0x00, 0xFFFFFFFC), ("ldi 4", 0x00, 4), ("ldi #4", 0x00, 4), ("ld M[4]", 0x60, 4),
    ("ld #len", 0x80, 0), ("ld len", 0x80, 0), ("ld #pktlen", 0x80, 0),
    ("ldx #4", 0x01, 4), ("ldxi #4", 0x01, 4), ("ldx M[15]", 0x61, 15), ("ldx len", 0x81, 0),
    ("ldx 4*([14]&0xf)", 0xB1, 14), ("ldxb 4*([14]&0xf)", 0xB1, 14), ("ldxb 4 * ( [14] & 0xf )", 0xB1, 14),
    ("st M[1]", 0x02, 1), ("stx M[1]", 0x03, 1),
    ("add #1", 0x04, 1), ("add x", 0x0C, 0), ("sub #1", 0x14, 1), ("sub %x", 0x1C, 0), ("mul #3", 0x24, 3),
    ("mul x", 0x2C, 0), ("div #3", 0x34, 3), ("div x", 0x3C, 0), ("mod #3", 0x94, 3), ("mod x", 0x9C, 0),
    ("or #0xff", 0x44, 255), ("or x", 0x4C, 0), ("and #0b11", 0x54, 3), ("and x", 0x5C, 0), ("xor #1", 0xA4, 1),
    ("xor x", 0xAC, 0), ("lsh #2", 0x64, 2), ("lsh x", 0x6C, 0), ("rsh #2", 0x74, 2), ("rsh x", 0x7C, 0),
    ("neg", 0x84, 0), ("tax", 0x07, 0), ("txa", 0x87, 0), ("ret #1", 0x06, 1), ("ret a", 0x16, 0), ("ret %a", 0x16, 0),
    ("ret", 0x16, 0), ("RET #TRUE", 0x06, 0xFFFFFFFF), ("ret #FALSE", 0x06, 0),
    ("ld vlan_tci", 0x20, 0xFFFFF02C), ("ldb [vlan_tci]", 0x30, 0xFFFFF02C), ("ld #proto", 0x20, 0xFFFFF000),
    ("ld vlan_avail", 0x20, 0xFFFFF030), ("ld vlan_pr", 0x20, 0xFFFFF030), ("ldb [vlanp]", 0x30, 0xFFFFF030),
    ("ld rand", 0x20, 0xFFFFF038), ("ldh [random]", 0x28, 0xFFFFF038), ("ld cpu", 0x20, 0xFFFFF024),
    ("ld [ifidx]", 0x20, 0xFFFFF008), ("ld poff", 0x20, 0xFFFFF034), ("ld nla", 0x20, 0xFFFFF00C),
    ("ret #ETH_P_ARP", 0x06, 0x806), ("ret #ETHERTYPE_VLAN", 0x06, 0x8100), ("ret #ETHERTYPE_IPV6", 0x06, 0x86DD),
    ("ret #IPPROTO_UDP", 0x06, 17), ("ret #ETHERTYPE_REVARP", 0x06, 0x8035),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "k"), FORMS, ids=[line for line, *_ in FORMS])
def test_every_form(line: str, code: int, k: int) -> None:
    (insn,) = Filter.from_text(line)
    assert insn == Instruction(code, k=k)


JUMPS = [
    ("jeq #1, a, b", 0x15, 0, 1), ("jeq x, a, b", 0x1D, 0, 1), ("jeq #1, b", 0x15, 1, 0), ("jgt #1, b, a", 0x25, 1, 0),
    ("jge %x, a, b", 0x3D, 0, 1), ("jset #1, a, b", 0x45, 0, 1), ("jne #1, b", 0x15, 0, 1), ("jneq x, b", 0x1D, 0, 1),
    ("jlt #1, b", 0x35, 0, 1), ("jle #1, b", 0x25, 0, 1), ("jeq #1 jt 1 jf 2", 0x15, 0, 1),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "jt", "jf"), JUMPS, ids=[line for line, *_ in JUMPS])
def test_jumps(line: str, code: int, jt: int, jf: int) -> None:
    insn, *_ = Filter.from_text(f"{line}\na: ret #0\nb: ret #1")
    assert (insn.code, insn.jt, insn.jf) == (code, jt, jf)


def test_unconditional_jumps() -> None:
    for line in ("ja b", "jmp b", "ja 2"):
        assert Filter.from_text(f"{line}\na: ret #0\nb: ret #1").instructions[0] == Instruction(0x05, k=1)


MISTAKES = [
    ("ldh #1", r"ldh takes \[k\] or \[x \+ k\]"), ("ld 1", "constants begin with #"), ("ldxb #1", "ldxb takes"),
    ("st 1", r"needs M\[k\]"), ("frob #1", "no instruction 'frob'"), ("jeq #1", "one or two labels"),
    ("jeq #1, a, b, c", "one or two labels"), ("jne #1, a, b", "takes one label"), ("jeq #1, nowhere", "no label"),
    ("a: a: ret #0", "no instruction"), ("tax #1", "no operand"), ("ret #x y", "no number"), ("?", "no instruction"),
    ("ret #4294967296", "k 4294967296 is not in"), ("a: ret #0\na: ret #0", "'a' is there twice"),
    ("a: ret #0\njeq #1, a", "cannot jump to a"), ("ja 7", "cannot jump to 7"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_mistakes_are_named_with_their_line(line: str, message: str) -> None:
    with pytest.raises(ObjectError, match=rf"line [34]: .*{message}"):
        Filter.from_text(f"ld [0]\n\n{line}\n")


def test_jumps_that_are_too_far() -> None:
    with pytest.raises(ObjectError, match="line 1: .*jt 256 is not in"):
        Filter.from_text("jeq #1, far\n" + "ld [0]\n" * 256 + "far: ret #0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with ''"),
        ("x", "begins with 'x'"),
        ("2\n6 0 0 0\n", "has 1 instructions, and says 2"),
        ("1\n6 0 0\n", "'6 0 0': these are not four"),
        ("1\n6 0 0 x\n", "these are not four"),
        ("1\n6 256 0 0\n", "jt 256"),
        ("1,6 0 0 0,6 0 0 0,", "has 2 instructions, and says 1"),
    ],
)
def test_bad_numbers(text: str, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        Filter.from_ddd(text)


def test_bad_initialisers() -> None:
    for text in ("", "{ 1, 2, 3 }", "{ 6, 0, 0, 0 }, { 1, 2 }", "{ 6, 0, 0, x }"):
        with pytest.raises(ObjectError):
            Filter.from_dd(text)
    with pytest.raises(ObjectError, match="12 bytes are not a multiple of 8"):
        Filter.from_bytes(bytes(12))


@pytest.mark.parametrize("order", ["little", "big"])
def test_random_programs_through_every_form(order: str) -> None:
    chance = random.Random(4)
    for _ in range(200):
        program = random_program(chance)
        assert Filter.from_ddd(program.to_ddd()) == program
        assert Filter.from_ddd(program.to_line()) == program
        assert Filter.from_dd(program.to_dd()) == program
        assert Filter.from_bytes(program.to_bytes(order), order) == program
        clean = Filter.from_text(str(program))  # text does not show fields that an instruction has no use for
        assert str(clean) == str(program)
        assert Filter.from_text(clean.source()) == clean
        assert {Filter.parse(text) for text in (str(clean), clean.to_ddd(), clean.to_dd(), clean.source())} == {clean}


@settings(deadline=None)
@given(st.text(alphabet="ldhbxj eq#[]+M0123,aLr:t&*()f\n;", max_size=40))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    for read in (Filter.from_text, Filter.from_ddd, Filter.from_dd):
        try:
            read(text)
        except ObjectError:
            continue


NUMBERLESS = (0x07, 0x87)
"""tax and txa, in which libpcap now and then leaves a number without a meaning, which its own text does not show."""


def _without_number(insn: Instruction) -> Instruction:
    return Instruction(insn.code, insn.jt, insn.jf)


@needs_tcpdump
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_tcpdump(expression: str) -> None:
    """Our text is tcpdump's, and our numbers of its text are tcpdump's numbers."""
    numbers, text, c = (compiled(expression, form) for form in ("-ddd", "-d", "-dd"))
    program = Filter.from_ddd(numbers)
    assert f"{program}\n" == text
    assert program.to_dd() == c
    assert Filter.from_dd(c) == program
    shown = Filter(_without_number(one) if one.code in NUMBERLESS else one for one in program)
    assert Filter.from_text(text).to_ddd() == shown.to_ddd()
    assert Filter.from_text(program.source()) == shown
    if expression in KERNEL_EXPRESSIONS:
        program.check()
    else:
        with pytest.raises(ObjectError, match="jumps beyond the end"):
            program.check()


def test_there_are_many_expressions() -> None:
    assert len(EXPRESSIONS) >= 60
