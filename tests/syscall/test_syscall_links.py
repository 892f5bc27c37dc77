"""The link commands against the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
from array import array
from pathlib import Path

import pytest
from syscall_programs import NEEDS_ROOT, hash_map, load, python, signals

from pybpf import syscall
from pybpf.btf import kernel
from pybpf.constants import (
    BPF_CGROUP_INET_EGRESS,
    BPF_F_REPLACE,
    BPF_F_UPROBE_MULTI_RETURN,
    BPF_PERF_EVENT,
    BPF_PROG_TYPE_CGROUP_SKB,
    BPF_PROG_TYPE_KPROBE,
    BPF_PROG_TYPE_PERF_EVENT,
    BPF_PROG_TYPE_TRACING,
    BPF_TRACE_ITER,
    BPF_TRACE_KPROBE_MULTI,
    BPF_TRACE_RAW_TP,
    BPF_TRACE_UPROBE_MULTI,
    BTF_KIND_FUNC,
    BTF_KIND_TYPEDEF,
    PERF_COUNT_SW_PAGE_FAULTS,
    PERF_TYPE_SOFTWARE,
)
from pybpf.errors import BPFError, BPFPermissionError, NotSupportedError
from pybpf.syscall.links import _strings
from pybpf.syscall.record import Record

pytestmark = NEEDS_ROOT


@pytest.fixture(scope="module", autouse=True)
def kernel_types() -> None:
    """Open the index of the kernel's types, which stays open, before descriptors are counted."""
    kernel.vmlinux().get("task_struct")


def kernel_type(name: str, kind: int) -> int:
    found = kernel.vmlinux().get(name, kind)
    if found is None:
        pytest.skip(f"this kernel's BTF has no {name}")
    return found.id


def test_life_of_a_cgroup_link(cgroup: int) -> None:
    with (
        load(BPF_PROG_TYPE_CGROUP_SKB, 1) as first,
        load(BPF_PROG_TYPE_CGROUP_SKB, 1) as second,
        syscall.link_create(first, cgroup, BPF_CGROUP_INET_EGRESS) as link,
    ):
        info = syscall.link_info(link)
        assert info.prog_id == syscall.prog_info(first).id
        assert info.cgroup_id == os.fstat(cgroup).st_ino and info.attach_type == BPF_CGROUP_INET_EGRESS
        assert "cgroup_id" in repr(info)
        with pytest.raises(AttributeError):
            _ = info.ifindex
        syscall.link_update(link, second)
        assert syscall.link_info(link).prog_id == syscall.prog_info(second).id
        with pytest.raises(BPFPermissionError):
            syscall.link_update(link, second, flags=BPF_F_REPLACE, old_prog_fd=first)
        syscall.link_update(link, first, flags=BPF_F_REPLACE, old_prog_fd=second)
        with syscall.link_get_fd_by_id(info.id) as again:
            assert syscall.link_info(again).id == info.id
        syscall.link_detach(link)
        assert syscall.prog_query(cgroup, BPF_CGROUP_INET_EGRESS).prog_ids == []
        assert syscall.link_info(link).id == info.id


def test_a_perf_link_with_a_cookie() -> None:
    with (
        load(BPF_PROG_TYPE_PERF_EVENT, 0) as program,
        syscall.perf_event_open(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS, sample_period=10**9) as event,
    ):
        try:
            link = syscall.link_create(program, event, BPF_PERF_EVENT, bpf_cookie=99)
        except BPFError as error:
            pytest.skip(f"perf links came with Linux 5.15: {error}")
        with link:
            with pytest.raises(NotSupportedError):
                syscall.link_detach(link)
            info = syscall.link_info(link)
            if hasattr(info, "config"):  # Linux 6.6
                assert (info.perf_type, info.event_type, info.config) == (
                    6,
                    PERF_TYPE_SOFTWARE,
                    PERF_COUNT_SW_PAGE_FAULTS,
                )
                assert getattr(info, "cookie", 99) in (0, 99)


def test_a_bad_descriptor_is_told_from_a_missing_feature() -> None:
    with load(BPF_PROG_TYPE_PERF_EVENT, 0) as program, pytest.raises(BPFError) as error:
        syscall.link_create(program, -1, BPF_PERF_EVENT)
    assert error.value.errno in (errno.EBADF, errno.EINVAL)


def test_an_iterator() -> None:
    target = kernel_type("bpf_iter_task", BTF_KIND_FUNC)
    with (
        load(BPF_PROG_TYPE_TRACING, 0, expected_attach_type=BPF_TRACE_ITER, attach_btf_id=target) as program,
        syscall.link_create(program, 0, BPF_TRACE_ITER) as link,
    ):
        assert syscall.link_info(link).target_name == "task"
        with syscall.iter_create(link) as iteration:
            assert os.read(iteration.fileno(), 100) == b""
        with pytest.raises(BPFError) as error:
            syscall.iter_create(link, flags=1)
        assert error.value.errno == errno.EINVAL


def test_an_iterator_over_a_map() -> None:
    target = kernel_type("bpf_iter_bpf_map_elem", BTF_KIND_FUNC)
    which = Record("bpf_iter_link_info")
    with hash_map(2) as subject:
        which["map.map_fd"] = subject.fileno()
        with (
            load(BPF_PROG_TYPE_TRACING, 0, expected_attach_type=BPF_TRACE_ITER, attach_btf_id=target) as program,
            syscall.link_create(program, 0, BPF_TRACE_ITER, iter_info=which.data) as link,
        ):
            info = syscall.link_info(link)
            assert (info.target_name, info.map_id) == ("bpf_map_elem", syscall.map_info(subject).id)


def test_an_iterator_over_one_process() -> None:
    target = kernel_type("bpf_iter_task", BTF_KIND_FUNC)
    which = Record("bpf_iter_link_info")
    which["task.pid"] = os.getpid()
    with load(BPF_PROG_TYPE_TRACING, 0, expected_attach_type=BPF_TRACE_ITER, attach_btf_id=target) as program:
        try:
            link = syscall.link_create(program, 0, BPF_TRACE_ITER, iter_info=which.data)
        except BPFError as error:
            pytest.skip(f"parameters of task iterators came with Linux 6.1: {error}")
        with link:
            assert syscall.link_info(link).pid == os.getpid()


@pytest.mark.parametrize("way", ["link", "raw_tracepoint_open"])
def test_a_typed_tracepoint(way: str) -> None:
    target = kernel_type("btf_trace_sched_switch", BTF_KIND_TYPEDEF)
    options = {"expected_attach_type": BPF_TRACE_RAW_TP, "attach_btf_id": target}
    with load(BPF_PROG_TYPE_TRACING, 0, **options) as program:
        if way == "link":
            try:
                link = syscall.link_create(program, 0, BPF_TRACE_RAW_TP, cookie=5)
            except BPFError as error:
                pytest.skip(f"such links came with Linux 5.19, their cookies with 6.10: {error}")
        else:
            link = syscall.raw_tracepoint_open(program)
        with link:
            info = syscall.link_info(link)
            assert info.tp_name == "sched_switch" and info.prog_id == syscall.prog_info(program).id
            assert info.cookie in (5 if way == "link" else 0, 0)  # it is told since Linux 6.16


def where_in_the_c_library(*names: str) -> tuple[str, list[int]]:
    """The C library's path, and where its functions are in the file."""
    library = ctypes.CDLL(None)
    addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *path = line.split()
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= addresses[0] < end:
            return path[0], [address - start + int(offset, 16) for address in addresses]
    raise AssertionError("the C library is not mapped")


def test_many_uprobes() -> None:
    """The kernel takes the arrays and gives them back."""
    library, offsets = where_in_the_c_library("getpid", "getppid")
    with load(BPF_PROG_TYPE_KPROBE, 0, expected_attach_type=BPF_TRACE_UPROBE_MULTI) as program:
        cookies = [7, 8]
        try:
            link = syscall.link_create(
                program,
                0,
                BPF_TRACE_UPROBE_MULTI,
                path=library,
                offsets=offsets,
                cookies=cookies,
                pid=os.getpid(),
                multi_flags=BPF_F_UPROBE_MULTI_RETURN,
            )
        except BPFError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.E2BIG):
                pytest.skip(f"uprobe_multi came with Linux 6.6: {error}")
            raise
        with link:
            info = syscall.link_info(link, arrays=True)
            assert info.type == 12
            if hasattr(info, "path") and info.path:  # Linux 6.8
                assert os.path.samefile(info.path, library)
                assert (info.offsets, info.cookies, info.count, info.pid) == (offsets, cookies, 2, os.getpid())
                assert info.ref_ctr_offsets == [0, 0] and info.flags == BPF_F_UPROBE_MULTI_RETURN


def test_many_kprobes() -> None:
    with load(BPF_PROG_TYPE_KPROBE, 0, expected_attach_type=BPF_TRACE_KPROBE_MULTI) as program:
        names = ["do_nanosleep", "schedule"]
        try:
            link = syscall.link_create(program, 0, BPF_TRACE_KPROBE_MULTI, syms=names, cookies=[1, 2])
        except BPFError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                pytest.skip(f"this kernel has no kprobe_multi (Linux 5.18, CONFIG_FPROBE): {error}")
            raise
        with link:
            info = syscall.link_info(link, arrays=True)
            assert getattr(info, "count", 0) in (0, 2)
            if getattr(info, "cookies", []):
                assert sorted(info.cookies) == [1, 2]


def test_strings_lie_one_after_the_other() -> None:
    """What the kernel is handed for names: an array of pointers."""
    attr = Record("BPF_LINK_CREATE")
    _strings(attr, "kprobe_multi.syms", ["one", "three", ""])
    places = array("L", bytes(attr.buffers["kprobe_multi.syms"]))
    assert [ctypes.string_at(place) for place in places] == [b"one", b"three", b""]


def test_arrays_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="cookies has 1 entries, not 2"):
        syscall.link_create(5, 0, BPF_TRACE_KPROBE_MULTI, addrs=[1, 2], cookies=[1])
    with pytest.raises(ValueError, match="tracing_multi: cookies has 3 entries, not 2"):
        syscall.link_create(5, 0, 59, ids=[1, 2], cookies=[1, 2, 3])


IN_A_NAMESPACE = """
import os
from syscall_programs import load
from pybpf import syscall
from pybpf.constants import *
with load(BPF_PROG_TYPE_XDP, 2) as program:
    with syscall.link_create(program, 1, BPF_XDP, flags=XDP_FLAGS_SKB_MODE) as link:
        info = syscall.link_info(link)
        assert info.type == BPF_LINK_TYPE_XDP and info.ifindex == 1
        syscall.link_detach(link)
        assert syscall.link_info(link).ifindex == 0
namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
with load(BPF_PROG_TYPE_SK_LOOKUP, 1, expected_attach_type=BPF_SK_LOOKUP) as program:
    with syscall.link_create(program, namespace, BPF_SK_LOOKUP) as link:
        info = syscall.link_info(link)
        assert info.netns_ino == os.fstat(namespace).st_ino and info.attach_type == BPF_SK_LOOKUP
        assert syscall.prog_query(namespace, BPF_SK_LOOKUP).prog_ids == [syscall.prog_info(program).id]
done = ["xdp", "sk_lookup"]
try:
    program = load(BPF_PROG_TYPE_NETFILTER, 1, expected_attach_type=BPF_NETFILTER)
    link = syscall.link_create(program, 0, BPF_NETFILTER, pf=2, hooknum=1, priority=-128)
except OSError as error:
    done.append(f"no netfilter: {error}")
else:
    info = syscall.link_info(link)
    assert (info.pf, info.hooknum, info.priority, info.flags) == (2, 1, -128, 0)
    link.close()
    program.close()
    done.append("netfilter")
print(*done)
"""


def test_links_in_a_network_namespace() -> None:
    out = python(IN_A_NAMESPACE, prefix=("unshare", "-n"))
    assert out.startswith("xdp sk_lookup")
    assert "netfilter" in out


def test_a_signal_handler_may_make_links(cgroup: int) -> None:
    """The door is re-entrant: a handler that calls it leaves the call that it interrupted alone."""
    made: list[int] = []

    def handler() -> None:
        with (
            load(BPF_PROG_TYPE_CGROUP_SKB, 1) as program,
            syscall.link_create(program, cgroup, BPF_CGROUP_INET_EGRESS) as link,
        ):
            made.append(syscall.link_info(link).id)
        with pytest.raises(BPFError):
            syscall.map_create(99)

    with signals(handler, 0.001):
        while len(made) < 20:
            with pytest.raises(BPFError) as missing:
                syscall.prog_get_fd_by_id(0x7FFFFFFF)
            assert missing.value.errno == errno.ENOENT
