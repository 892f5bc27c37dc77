"""Reading the verifier's log: the formats of old and new kernels, and text that is no log at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybpf.verifier import Log, describe
from pybpf.verifier.advice import choose
from pybpf.verifier.log import state_values

OLD = """func#0 @0
0: R1=ctx(id=0,off=0,imm=0) R10=fp0
; __u32 key = 1;
0: (b7) r1 = 1
1: (63) *(u32 *)(r10 -4) = r1
2: (bf) r2 = r10
3: (07) r2 += -4
; __u64 *value = bpf_map_lookup_elem(&table, &key);
4: (18) r1 = 0xffff9b3e42a3e800
6: (85) call bpf_map_lookup_elem#1
7: R0_w=map_value_or_null(id=1,off=0,ks=4,vs=8,imm=0) R10=fp0 fp-8=mmmm????
; return *value;
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
verification time 79 usec
stack depth 8+16
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
"""Linux 5.10, log levels 1 and 4."""

NEW = """0: R1=ctx() R10=fp0
; __u32 key = 1; @ load_rejected.bpf.c:21
0: (b7) r1 = 1                        ; R1=1
1: (63) *(u32 *)(r10 -4) = r1         ; R1=1 R10=fp0 fp-8=mmmm????
2: (bf) r2 = r10                      ; R2=fp0 R10=fp0
3: (07) r2 += -4                      ; R2=fp-4
; __u64 *value = bpf_map_lookup_elem(&table, &key); @ load_rejected.bpf.c:22
4: (18) r1 = 0xffff888007a2c800       ; R1=map_ptr(map=table,ks=4,vs=8)
6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=table,ks=4,vs=8)
; return *value; @ load_rejected.bpf.c:24
7: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 3 peak_states 2 mark_read 1
"""


@pytest.mark.parametrize("text", [OLD, NEW])
def test_steps_states_and_reason(text: str) -> None:
    log = Log(text)
    assert [step.index for step in log.steps] == [0, 1, 2, 3, 4, 6, 7]
    assert log.last is not None
    assert log.last.text == "(79) r0 = *(u64 *)(r0 +0)"
    assert log.last.source == "return *value;"
    assert describe(log.last.before["R0"]).endswith("(8 bytes), or NULL")
    assert log.last.before["fp-8"] == "mmmm????"
    assert log.complaints == ["R0 invalid mem access 'map_value_or_null'"]
    assert log.statistics.instructions == 7 and log.statistics.limit == 1000000


def test_what_only_newer_logs_say() -> None:
    log = Log(NEW)
    assert log.last is not None and log.last.location == "load_rejected.bpf.c:24"
    assert log.steps[1].before == {"R1": "1", "R10": "fp0"}
    assert (log.statistics.total_states, log.statistics.peak_states, log.statistics.longest_mark_read) == (3, 2, 1)


def test_counts_of_log_level_4() -> None:
    statistics = Log(OLD).statistics
    assert statistics.microseconds == 79 and statistics.stacks == [8, 16]


def test_states_of_functions_that_are_called() -> None:
    log = Log(
        "0: R1=ctx() R10=fp0\n0: (85) call pc+1\ncaller:\n R10=fp0\ncallee:\n frame1: R1=ctx() R10=fp0\n"
        "2: frame1: R1=ctx() R10=fp0\n2: (b7) r0 = 1 ; frame1: R0_w=1\n3: (95) exit\nreturning from callee:\n"
        " frame1: R0=1 R10=fp0\nto caller at 1:\n R0=1 R10=fp0\n1: (95) exit\n"
    )
    assert [(step.index, step.frame) for step in log.steps] == [(0, 0), (2, 1), (3, 1), (1, 0)]
    assert log.steps[2].before["R0"] == "1"
    assert log.steps[3].before == {"R0": "1", "R10": "fp0"}
    assert not log.complaints


def test_a_branch_starts_from_its_own_state() -> None:
    log = Log("0: (b7) r0 = 1 ; R0=1\nfrom 3 to 7: R0=scalar(umax=3,var_off=(0x0; 0x3)) R10=fp0\n7: (95) exit\n")
    assert log.steps[1].before == {"R0": "scalar(umax=3,var_off=(0x0; 0x3))", "R10": "fp0"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("scalar(id=1,smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))", "a number from 0 to 255"),
        ("inv(id=0,umax_value=255,var_off=(0x0; 0xff))", "a number from 0 to 255"),
        ("scalar(smin=-5,smax=7)", "a number from -5 to 7"),
        ("scalar()", "any number"),
        ("inv5", "the number 5"),
        ("P0", "the number 0"),
        ("0", "the number 0"),
        ("0x3d08f", "the number 0x3d08f"),
        ("ctx(off=8)", "the context, at offset 8"),
        ("map_value(map=t,vs=16,umax=9)", "a value of map 't' (16 bytes), plus a number from 0 to 9"),
        ("map_value_or_null(id=1,off=0,ks=4,vs=8,imm=0)", "a value of a map (8 bytes), or NULL"),
        ("trusted_ptr_or_null_task_struct(id=1)", "a kernel pointer to struct task_struct (trusted), or NULL"),
        ("ringbuf_mem(ref_obj_id=2,sz=8)", "a record of a ring buffer of 8 bytes"),
        ("pkt(id=0,off=0,r=14)", "a place in the packet, checked up to byte 14"),
        ("fp0", "the top of the stack (fp)"),
        ("fp-16", "a place on the stack, fp-16"),
        ("mmmm????", "4 of 8 bytes written"),
        ("00000000", "zero"),
        ("something_new(x=1)", "something_new(x=1)"),
    ],
)  # fmt: skip
def test_values_in_words(value: str, words: str) -> None:
    assert describe(value) == words


def test_the_report_of_newer_kernels() -> None:
    log = Log(
        NEW.partition("processed")[0]
        + "\nVerification failed: Register Type Safety: Invalid dereference\n\nReason:\n  R0 may be NULL here.\n\n"
        "Suggestion:\n  Add a NULL check before the access and\n  dereference only then.\n\n"
        "processed 7 insns (limit 1000000)\n"
    )
    assert log.suggestion == "Add a NULL check before the access and dereference only then."
    assert log.complaints == ["R0 invalid mem access 'map_value_or_null'"]
    assert log.statistics.instructions == 7


PIECES = st.sampled_from(
    ["R1=", "0: ", "(79) ", "; ", "from 1 to 2: ", "frame1: ", "fp-8=", "(((", ")))", "\n", "\0", "processed ",
     "limit 99999999999999999999999", " @ f:9", "stack depth 1+", "verification time ", "99999999999999", "=", "²"]
)  # fmt: skip


@given(st.lists(PIECES | st.text(max_size=8), max_size=40).map("".join))
def test_hostile_logs_never_raise(text: str) -> None:
    log = Log(text)
    choose(log.complaints)
    for step in log.steps:
        for value in step.before.values():
            describe(value)
    describe(text)
    list(state_values(text))


def test_a_long_line_takes_no_quadratic_time() -> None:
    Log("R1=" + "(" * 200_000 + "\n; " + " ;" * 100_000 + "\n" + "1" * 100_000)


def test_complaints_that_only_echo_are_passed_over() -> None:
    reason, found = choose(
        ["invalid access to packet, off=12 size=2, R1(id=0,off=12,r=0)", "R1 offset is outside of the packet"]
    )
    assert reason.startswith("invalid access") and found is not None and found.key == "packet-bounds"
    reason, found = choose(
        [
            "invalid access to map value, value_size=8 off=255 size=1",
            "R0 max value is outside of the allowed memory range",
        ]
    )
    assert found is not None and found.key == "maximum-outside"
    assert choose([]) == ("", None)
    assert choose(["something new"]) == ("something new", None)
