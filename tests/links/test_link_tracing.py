"""Tracepoints, raw tracepoints, and programs whose target was fixed at load."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

import pytest
from lacking import trampolines_needed
from link_helpers import (
    Refuse,
    eventually,
    function_id,
    has_enumerator,
    has_member,
    needs_attach_type,
    needs_perf_link,
    typedef_id,
)
from link_programs import Counter, exit_with, keep_cookie

from pybpf import abi, links, syscall
from pybpf import constants as c
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError, NotSupportedError, ObjectError
from pybpf.links import PerfLink
from pybpf.program import Program
from pybpf.symbols import syscall_function


def attach_and_fire(counter: Counter, attach: Callable[[], links.Link], fire: Callable[[], object]) -> None:
    """The program runs while it is attached, and not afterwards."""
    fire()
    assert counter.value == 0
    with attach():
        fire()
        assert counter.value > 0

    def is_quiet() -> bool:
        before = counter.value
        fire()
        return counter.value == before

    assert eventually(is_quiet)


@pytest.mark.parametrize("mode", ["auto", "link", "perf"])
def test_tracepoint(counting: Callable[..., Program], counter: Counter, mode: str) -> None:
    if mode == "link":
        needs_perf_link()
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)

    def attach() -> PerfLink:
        link = links.attach_tracepoint(program, "syscalls", "sys_enter_getsid", mode=mode)
        assert (link.kind, link.target) == ("tracepoint", "syscalls/sys_enter_getsid")
        assert not link.perf_fd.closed
        if mode == "perf":
            assert link.id == 0
        return link

    attach_and_fire(counter, attach, get_sid)


def test_tracepoint_link_info(counting: Callable[..., Program]) -> None:
    needs_perf_link()
    with links.attach_tracepoint(counting(c.BPF_PROG_TYPE_TRACEPOINT), "syscalls", "sys_enter_getsid") as link:
        assert link.type is abi.LinkType.PERF_EVENT
        if has_enumerator("bpf_perf_event_type", "BPF_PERF_EVENT_TRACEPOINT"):
            assert link.info().tp_name == "sys_enter_getsid"


def test_tracepoint_cookie(loader: Callable[..., Program], counter: Counter) -> None:
    needs_perf_link()
    program = loader(c.BPF_PROG_TYPE_TRACEPOINT, [*keep_cookie(counter.fileno()), *exit_with(0)])
    with links.attach_tracepoint(program, "syscalls", "sys_enter_getsid", cookie=0x1122334455667788):
        get_sid()
        assert counter.value == 0x1122334455667788


def test_tracepoint_cookie_needs_a_link(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)
    with pytest.raises(NotSupportedError, match=r"'probe' to tracepoint syscalls/sys_enter_getsid.*Linux 5.15"):
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid", cookie=1, mode="perf")


def test_unknown_tracepoint(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)
    with pytest.raises(BPFNotFoundError, match="attaching 'probe': tracepoint 'syscalls/nothing' does not exist"):
        links.attach_tracepoint(program, "syscalls", "nothing")
    with pytest.raises(ValueError, match="not the name of a tracepoint"):
        links.attach_tracepoint(program, "../syscalls", "sys_enter_getsid")
    with pytest.raises(ValueError, match="mode is one of"):
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid", mode="best")


def test_program_of_another_type(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with pytest.raises(BPFError, match=r"attaching 'probe' to tracepoint syscalls/sys_enter_getsid.*type does not fit"):
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid")


def test_raw_tracepoint(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT)
    attach_and_fire(counter, lambda: links.attach_raw_tracepoint(program, "sys_enter"), os.getppid)


def test_raw_tracepoint_cookie(loader: Callable[..., Program], counter: Counter) -> None:
    if not has_member("bpf_raw_tp_link", "cookie"):
        pytest.skip("the kernel has no cookies of raw tracepoints (Linux 6.10)")
    program = loader(c.BPF_PROG_TYPE_RAW_TRACEPOINT, [*keep_cookie(counter.fileno()), *exit_with(0)])
    with links.attach_raw_tracepoint(program, "sys_enter", cookie=4711) as link:
        os.getppid()
        assert counter.value == 4711
        assert link.info().cookie in (0, 4711)  # told since Linux 6.15


def test_unknown_raw_tracepoint(counting: Callable[..., Program]) -> None:
    with pytest.raises(BPFNotFoundError, match="'probe' to raw tracepoint 'nothing', which does not exist"):
        links.attach_raw_tracepoint(counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT), "nothing")


def test_writable_raw_tracepoint(loader: Callable[..., Program]) -> None:
    """A program that writes to no buffer goes on any tracepoint; one that does is refused where nothing is writable."""
    harmless = loader(c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, exit_with(0))
    with links.attach_raw_tracepoint(harmless, "sys_enter") as link:
        assert link.target == "sys_enter"
    writing = [(0x79, 6, 1, 0, 0), (0xB7, 0, 0, 0, 0), (0x61, 0, 6, 0, 0), *exit_with(0)]
    program = loader(c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, writing)
    with pytest.raises(BPFError, match="is not writable that far"):
        links.attach_raw_tracepoint(program, "sys_enter")


def test_tp_btf(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(
        c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_TRACE_RAW_TP, attach_btf_id=typedef_id("btf_trace_sys_enter")
    )

    def attach() -> links.Link:
        link = links.attach_trace(program)
        assert link.kind == "tp_btf"
        assert link.info().prog_id == program.id
        return link

    attach_and_fire(counter, attach, os.getppid)


def test_trace_of_an_untracing_program(counting: Callable[..., Program]) -> None:
    with pytest.raises(ObjectError, match="is not a tracing or lsm program"):
        links.attach_trace(counting(c.BPF_PROG_TYPE_KPROBE))


def get_sid() -> None:
    """A system call that hardly anybody makes, and that asks the security modules when a process is named."""
    os.getsid(os.getpid())


@pytest.mark.parametrize("attach_type", [c.BPF_TRACE_FENTRY, c.BPF_TRACE_FEXIT])
def test_fentry_and_fexit(trampoline: Callable[..., Program], counter: Counter, attach_type: int) -> None:
    program = trampoline(
        c.BPF_PROG_TYPE_TRACING, attach_type=attach_type, attach_btf_id=function_id(syscall_function("getsid"))
    )
    attach_and_fire(counter, lambda: links.attach_trace(program), get_sid)


def test_fmod_ret(trampoline: Callable[..., Program], counter: Counter) -> None:
    program = trampoline(
        c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_MODIFY_RETURN, attach_btf_id=function_id("security_task_getsid")
    )
    attach_and_fire(counter, lambda: links.attach_trace(program), get_sid)


def test_lsm(trampoline: Callable[..., Program], counter: Counter) -> None:
    program = trampoline(
        c.BPF_PROG_TYPE_LSM, attach_type=c.BPF_LSM_MAC, attach_btf_id=function_id("bpf_lsm_task_getsid")
    )
    attach_and_fire(counter, lambda: links.attach_trace(program), get_sid)


def test_fentry_cookie(loader: Callable[..., Program], counter: Counter) -> None:
    if not has_member("bpf_tramp_link", "cookie") and not has_member("bpf_tramp_node", "cookie"):
        pytest.skip("the kernel has no cookies of tracing programs (Linux 5.18)")
    with trampolines_needed():
        program = loader(
            c.BPF_PROG_TYPE_TRACING,
            [*keep_cookie(counter.fileno()), *exit_with(0)],
            attach_type=c.BPF_TRACE_FENTRY,
            attach_btf_id=function_id(syscall_function("getsid")),
        )
    with links.attach_trace(program, cookie=815):
        get_sid()
        assert counter.value == 815


def two_functions() -> tuple[BTFBuilder, int]:
    """BTF of `int main(ctx)` and `int replaced(ctx)`, and the id of the first."""
    btf = BTFBuilder(sys.byteorder)
    number = btf.add_int("int", 4, 32, 1)
    context = btf.add_ptr(btf.add_struct("xdp_md", 24, [("data", btf.add_int("unsigned int", 4, 32, 0), 0, 0)]))
    proto = btf.add_func_proto(number, [("ctx", context)])
    main = btf.add_func("main", proto, 1)
    btf.add_func("replaced", proto, 1)
    return btf, main


def function_info(*entries: tuple[int, int]) -> bytes:
    return b"".join(offset.to_bytes(4, sys.byteorder) + number.to_bytes(4, sys.byteorder) for offset, number in entries)


def test_freplace(loader: Callable[..., Program]) -> None:
    btf, main = two_functions()
    with syscall.btf_load(btf.to_bytes()) as btf_fd:
        common = {"btf_fd": btf_fd, "func_info_rec_size": 8}
        target = loader(
            c.BPF_PROG_TYPE_XDP,
            [(0x85, 0, c.BPF_PSEUDO_CALL, 0, 1), (0x95, 0, 0, 0, 0), *exit_with(1)],
            func_info=function_info((0, main), (2, main + 1)),
            name="main",
            **common,
        )
        with trampolines_needed():
            program = loader(
                c.BPF_PROG_TYPE_EXT,
                exit_with(2),
                func_info=function_info((0, main + 1)),
                attach_btf_id=main + 1,
                attach_prog_fd=target,
                **common,
            )

    def answer() -> int:
        return target.test_run(bytes(64)).retval

    assert answer() == 1
    with links.attach_freplace(program, function="replaced") as link:
        assert repr(link) == f"<Link freplace replaced id={link.id}>"
        assert answer() == 2
    assert eventually(lambda: answer() == 1)
    with links.attach_freplace(program, target, "replaced"):
        assert answer() == 2
    assert eventually(lambda: answer() == 1)
    with pytest.raises(ObjectError, match="'main' has no function 'nothing'"):
        links.attach_freplace(program, target, "nothing")


def test_refusals_name_what_is_missing(counting: Callable[..., Program], trampoline: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)
    with (
        Refuse("", errno.EACCES, name="perf_event_open"),
        pytest.raises(
            BPFPermissionError, match=r"'probe' to tracepoint syscalls/sys_enter_getsid.*perf_event_paranoid"
        ),
    ):
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid")
    fentry = trampoline(
        c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_TRACE_FENTRY, attach_btf_id=function_id(syscall_function("getsid"))
    )
    with Refuse("BPF_LINK_CREATE", errno.EPERM), pytest.raises(BPFPermissionError, match="run on a BPF trampoline"):
        links.attach_trace(fentry)


def test_trace_without_links(counting: Callable[..., Program], counter: Counter) -> None:
    """As on a kernel before 5.18: BPF_RAW_TRACEPOINT_OPEN does it, without cookies."""
    program = counting(
        c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_TRACE_RAW_TP, attach_btf_id=typedef_id("btf_trace_sys_enter")
    )
    with Refuse("BPF_LINK_CREATE", errno.EINVAL):
        attach_and_fire(counter, lambda: links.attach_trace(program), os.getppid)
        with pytest.raises(NotSupportedError, match=r"need Linux 5\.18"):
            links.attach_trace(program, cookie=1)


def test_perf_event_without_links(counting: Callable[..., Program], counter: Counter) -> None:
    """As on a kernel before 5.15: the program is set on the event by ioctl."""
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)

    def attach() -> PerfLink:
        with Refuse("BPF_LINK_CREATE", errno.EINVAL) as refuse:
            link = links.attach_tracepoint(program, "syscalls", "sys_enter_getsid")
        assert (refuse.refused, link.id) == (2, 0)
        assert repr(link) == "<Link tracepoint syscalls/sys_enter_getsid>"
        return link

    attach_and_fire(counter, attach, get_sid)
    with (
        Refuse("BPF_LINK_CREATE", errno.EINVAL),
        pytest.raises(NotSupportedError, match=r"Linux 5\.15 brought perf links"),
    ):
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid", mode="link")


MULTI = {
    "BPF_TRACE_FENTRY_MULTI": 1,
    "BPF_TRACE_FEXIT_MULTI": 1,
    "BPF_TRACE_FSESSION_MULTI": 2,
}
"""Attach type, and how often its program runs for one call."""


@pytest.mark.parametrize("attach_type", MULTI)
@pytest.mark.parametrize("functions", ["security_task_gets?d", "security_task_getsid", ["security_task_getsid"]])
def test_tracing_multi(
    trampoline: Callable[..., Program], counter: Counter, attach_type: str, functions: str | list[str]
) -> None:
    needs_attach_type(attach_type)
    program = trampoline(c.BPF_PROG_TYPE_TRACING, attach_type=getattr(c, attach_type))
    with links.attach_tracing_multi(program, functions) as link:
        assert link.target == "security_task_gets?d" if functions == "security_task_gets?d" else "security_task_getsid"
        get_sid()
        assert counter.value == MULTI[attach_type]

    def is_quiet() -> bool:
        before = counter.value
        get_sid()
        return counter.value == before

    assert eventually(is_quiet)


def test_tracing_multi_refusals(trampoline: Callable[..., Program], counting: Callable[..., Program]) -> None:
    with pytest.raises(ObjectError, match=r"was not loaded for fentry\.multi"):
        links.attach_tracing_multi(counting(c.BPF_PROG_TYPE_TRACEPOINT), "vfs_*")
    needs_attach_type("BPF_TRACE_FENTRY_MULTI")
    program = trampoline(c.BPF_PROG_TYPE_TRACING, attach_type=c.BPF_TRACE_FENTRY_MULTI)
    with pytest.raises(BPFNotFoundError, match=r"no traceable function of the kernel fits 'no_such_\*'"):
        links.attach_tracing_multi(program, "no_such_*")
    with pytest.raises(BPFNotFoundError, match="the BTF of the kernel has no function 'no_such'"):
        links.attach_tracing_multi(program, "no_such")
    with pytest.raises(BPFNotFoundError, match="no_such_module"):
        links.attach_tracing_multi(program, "no_such_module:f")
    with pytest.raises(ValueError, match="2 cookies for 1 functions"):
        links.attach_tracing_multi(program, "vfs_read", cookies=[1, 2])
