"""The grammar of section names, against libbpf."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

from pybpf import constants
from pybpf.elf import sections
from pybpf.elf.sections import definitions, lookup


def test_the_table_is_complete_and_no_name_is_in_it_twice() -> None:
    assert len(definitions()) == 116
    names = [row.pattern.removesuffix("+") for row in definitions()]
    assert len(set(names)) == len(names)


def test_no_exact_name_begins_like_one_with_extras() -> None:
    with_extras = {row.pattern[:-1] for row in definitions() if row.pattern.endswith("+")}
    assert not [row for row in definitions() if row.pattern.partition("/")[0] in with_extras and row.pattern[-1] != "+"]
    assert not [name for name in with_extras if "/" in name]


@pytest.mark.parametrize(
    ("section", "pattern", "extras"),
    [
        ("kprobe", "kprobe+", ""),
        ("kprobe/do_unlinkat", "kprobe+", "do_unlinkat"),
        ("?kprobe/do_unlinkat", "kprobe+", "do_unlinkat"),
        ("uprobe.s//bin/bash:readline", "uprobe.s+", "/bin/bash:readline"),
        ("tp/sched/sched_switch", "tp+", "sched/sched_switch"),
        ("fentry.multi.s/tcp_*", "fentry.multi.s+", "tcp_*"),
        ("xdp.frags/devmap", "xdp.frags/devmap", ""),
        ("cgroup/connect_unix", "cgroup/connect_unix", ""),
        ("struct_ops.s/anything", "struct_ops.s+", "anything"),
    ],
)
def test_names_that_match(section: str, pattern: str, extras: str) -> None:
    found = lookup(section)
    assert found is not None
    assert (found[0].pattern, found[1]) == (pattern, extras)


@pytest.mark.parametrize(
    "section", ["", "?", "xdp/foo", "tc/foo", "socket1", "cgroup_skb/ingress/x", "kprobes/x", "kprobe.multi.x", "??xdp"]
)
def test_names_that_do_not_match(section: str) -> None:
    assert lookup(section) is None


def test_flags_become_those_of_the_program() -> None:
    flags = {row.pattern: row.program_flags for row in definitions()}
    assert flags["xdp.frags"] == constants.BPF_F_XDP_HAS_FRAGS
    assert flags["lsm.s+"] == constants.BPF_F_SLEEPABLE
    assert flags["syscall"] == constants.BPF_F_SLEEPABLE
    assert flags["xdp"] == 0


def test_routines_are_the_known_ones() -> None:
    assert {row.attach for row in definitions()} == {
        None,
        "kprobe",
        "uprobe",
        "kprobe_multi",
        "kprobe_session",
        "uprobe_multi",
        "ksyscall",
        "usdt",
        "tracepoint",
        "raw_tracepoint",
        "trace",
        "tracing_multi",
        "lsm",
        "iter",
    }


def test_types_are_those_of_libbpf() -> None:
    """Libbpf 1.1 does not know the newest names; of those that it knows every number has to be the same."""
    try:
        libbpf = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("no libbpf to compare with")
    libbpf.libbpf_set_print(None)
    known = 0
    for row in definitions():
        name = row.pattern.replace("+", "/x")
        type_number, attach_type = ctypes.c_int(-1), ctypes.c_int(-1)
        if libbpf.libbpf_prog_type_by_name(name.encode(), ctypes.byref(type_number), ctypes.byref(attach_type)) < 0:
            continue
        known += 1
        assert (row.type, row.attach_type) == (type_number.value, attach_type.value), name
        if (
            row.flags & sections.ATT
            and libbpf.libbpf_attach_type_by_name(name.encode(), ctypes.byref(attach_type)) == 0
        ):
            assert row.attach_type == attach_type.value
    assert known > 80
