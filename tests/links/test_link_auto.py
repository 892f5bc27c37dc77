"""Attaching by section: what each form of section name leads to."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from link_helpers import needs_attach_type, needs_fprobe, typedef_id
from link_programs import Counter

from pybpf import constants as c
from pybpf import links
from pybpf.elf.functions import Function
from pybpf.elf.sections import definitions
from pybpf.errors import BPFNotFoundError, ObjectError
from pybpf.links.auto import METHODS, ROUTINES, parse_number
from pybpf.program import Program
from pybpf.spec import ProgramSpec


def in_section(program: Program, section: str) -> Program:
    """The same program, as if it had been loaded from a section."""
    program.spec = ProgramSpec(None, Function("probe", section, 1, 0, b""))
    return program


@pytest.mark.parametrize(
    "section", ["tp/syscalls/sys_enter_getsid", "tracepoint/syscalls/sys_enter_getsid", "?tp/syscalls/sys_enter_getsid"]
)
def test_tracepoint(counting: Callable[..., Program], section: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_TRACEPOINT), section)
    assert links.auto_attaches(program)
    with links.attach(program) as link:
        assert (link.kind, link.target) == ("tracepoint", "syscalls/sys_enter_getsid")


def test_target_that_was_changed(counting: Callable[..., Program]) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_TRACEPOINT), "tp")
    assert not links.auto_attaches(program)
    program.spec.attach_target = "syscalls/sys_exit_getsid"
    assert links.auto_attaches(program)
    with links.attach(program) as link:
        assert link.target == "syscalls/sys_exit_getsid"


@pytest.mark.parametrize("section", ["raw_tp/sys_enter", "raw_tracepoint/sys_enter"])
def test_raw_tracepoint(counting: Callable[..., Program], counter: Counter, section: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT), section)
    with links.attach(program) as link:
        assert (link.kind, link.target) == ("raw_tracepoint", "sys_enter")
        os.getppid()
        assert counter.value


def test_tp_btf(counting: Callable[..., Program]) -> None:
    loaded = counting(
        c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_TRACE_RAW_TP, attach_btf_id=typedef_id("btf_trace_sys_enter")
    )
    program = in_section(loaded, "tp_btf/sys_enter")
    assert links.auto_attaches(program)
    with links.attach(program) as link:
        assert (link.kind, link.target) == ("tp_btf", "sys_enter")


@pytest.mark.parametrize("prefix", ["kprobe", "kretprobe"])
@pytest.mark.usefixtures("kprobes")
def test_kprobe(counting: Callable[..., Program], prefix: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), f"{prefix}/security_task_getsid")
    with links.attach(program, mode="perf") as link:
        assert (link.kind, link.target) == (prefix, "security_task_getsid")


@pytest.mark.parametrize(("prefix", "kind"), [("ksyscall", "kprobe"), ("kretsyscall", "kretprobe")])
@pytest.mark.usefixtures("kprobes")
def test_ksyscall(counting: Callable[..., Program], prefix: str, kind: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), f"{prefix}/getsid")
    with links.attach(program) as link:
        assert link.kind == kind
        assert link.target.endswith("_sys_getsid")


@pytest.mark.usefixtures("kprobes")
@pytest.mark.parametrize(
    ("section", "kind", "attach_type"),
    [
        ("kprobe.multi/security_task_gets?d", "kprobe_multi", "BPF_TRACE_KPROBE_MULTI"),
        ("kretprobe.multi/security_task_getsid", "kretprobe_multi", "BPF_TRACE_KPROBE_MULTI"),
        ("kprobe.session/security_task_getsid", "kprobe_session", "BPF_TRACE_KPROBE_SESSION"),
    ],
)
def test_kprobe_multi(counting: Callable[..., Program], section: str, kind: str, attach_type: str) -> None:
    needs_fprobe()
    needs_attach_type(attach_type)
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE, attach_type=getattr(c, attach_type)), section)
    with links.attach(program) as link:
        assert link.kind == kind


@pytest.mark.parametrize("prefix", ["uprobe", "uretprobe"])
def test_uprobe(counting: Callable[..., Program], counter: Counter, prefix: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), f"{prefix}/libc.so.6:getppid")
    with links.attach(program, pid=0) as link:
        assert (link.kind, link.target) == (prefix, "libc.so.6:getppid")
        os.getppid()
        assert counter.value


def test_uprobe_with_an_offset(counting: Callable[..., Program]) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), "uprobe/libc.so.6:getppid+0x0")
    with links.attach(program) as link:
        assert link.target == "libc.so.6:getppid"


def test_uprobe_of_a_name_with_plus(counting: Callable[..., Program]) -> None:
    """Only a number after the last plus is an offset."""
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), "uprobe/libc.so.6:operator+x")
    with pytest.raises(BPFNotFoundError, match=r"defines no function 'operator\+x'"):
        links.attach(program)


@pytest.mark.parametrize(
    ("section", "kind"),
    [("uprobe.multi/libc.so.6:getpp?d", "uprobe_multi"), ("uretprobe.multi/libc.so.6:getppid", "uretprobe_multi")],
)
def test_uprobe_multi(counting: Callable[..., Program], section: str, kind: str) -> None:
    needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE, attach_type=c.BPF_TRACE_UPROBE_MULTI), section)
    with links.attach(program) as link:
        assert link.kind == kind


@pytest.mark.parametrize(
    "section",
    [
        "tp/sched",
        "tp//x",
        "kprobe/vfs read",
        "kprobe/vfs_read+x",
        "kprobe/vfs_read+-1",
        "kretprobe/vfs_read+4",
        "ksyscall/open*",
        "kprobe.multi/vfs[a]",
        "uprobe/libc.so.6",
        "uprobe/:f",
        "uretprobe/libc.so.6:getppid+4",
        "uprobe.multi/libc.so.6:",
        "usdt/libc.so.6:setjmp",
        "usdt/libc.so.6:libc:",
        "usdt.s/libc.so.6:libc:setjmp:x",
    ],
)
def test_malformed_sections(counting: Callable[..., Program], section: str) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_KPROBE), section)
    with pytest.raises(ObjectError, match=r"program 'probe': section '.*' is not of the form"):
        links.attach(program)


@pytest.mark.parametrize(
    ("section", "program_type", "method"),
    [
        ("xdp", c.BPF_PROG_TYPE_XDP, r"xdp programs need an interface: use program.attach_xdp\(interface\)"),
        ("tcx/ingress", c.BPF_PROG_TYPE_SCHED_CLS, "attach_tcx"),
        ("cgroup/sock_create", c.BPF_PROG_TYPE_CGROUP_SOCK, "attach_cgroup"),
        ("perf_event", c.BPF_PROG_TYPE_PERF_EVENT, "attach_perf_event"),
        ("socket", c.BPF_PROG_TYPE_SOCKET_FILTER, "attach_socket_filter"),
        ("sk_lookup", c.BPF_PROG_TYPE_SK_LOOKUP, "attach_netns"),
        ("netfilter", c.BPF_PROG_TYPE_NETFILTER, "attach_netfilter"),
        ("sk_msg", c.BPF_PROG_TYPE_SK_MSG, "attach_sockmap"),
        ("kprobe", c.BPF_PROG_TYPE_KPROBE, "attach_kprobe"),
        ("tp", c.BPF_PROG_TYPE_TRACEPOINT, "attach_tracepoint"),
        ("syscall", c.BPF_PROG_TYPE_SYSCALL, "test_run"),
        ("no such section", c.BPF_PROG_TYPE_XDP, "attach_xdp"),
    ],
)
def test_sections_without_a_target(
    counting: Callable[..., Program], section: str, program_type: int, method: str
) -> None:
    program = in_section(counting(c.BPF_PROG_TYPE_SOCKET_FILTER, everywhere=True), section)
    program.type_number = program_type
    assert not links.auto_attaches(program)
    with pytest.raises(ObjectError, match=f"program 'probe' .* cannot be attached without a target: .*{method}"):
        links.attach(program)


def test_program_without_a_spec(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_XDP, result=2, everywhere=True)
    assert not links.auto_attaches(program)
    with pytest.raises(ObjectError, match="program 'probe' cannot be attached without a target: xdp programs"):
        links.attach(program)


def test_every_routine_of_the_table_is_known() -> None:
    named = {definition.attach for definition in definitions() if definition.attach}
    assert set(ROUTINES) == named
    types = {definition.type for definition in definitions()}
    assert types - set(METHODS) == {c.BPF_PROG_TYPE_TRACING, c.BPF_PROG_TYPE_EXT}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("12", 12),
        ("0x1F", 31),
        ("010", 8),
        ("-4", -4),
        ("08", None),
        ("1_0", None),
        ("", None),
        ("x", None),
    ],
)
def test_numbers_of_strtol(text: str, number: int | None) -> None:
    assert parse_number(text) == number
