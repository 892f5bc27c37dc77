"""What attaching does on kernels that lack something: the kernel's own lack, not one made by the test."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from link_helpers import has_enumerator
from link_programs import Counter

from pybpf import constants as c
from pybpf import links
from pybpf.errors import BPFError, NotSupportedError
from pybpf.links.kprobe import has_kprobes
from pybpf.program import Program


def get_sid() -> None:
    os.getsid(os.getpid())


@pytest.fixture
def no_perf_links() -> None:
    if has_enumerator("bpf_link_type", "BPF_LINK_TYPE_PERF_EVENT"):
        pytest.skip("this kernel has perf links: before Linux 5.15 there were none")


PLACES = {
    "tracepoint": lambda program, **options: links.attach_tracepoint(
        program, "syscalls", "sys_enter_getsid", **options
    ),
    "kprobe": lambda program, **options: links.attach_kprobe(program, "security_task_getsid", **options),
    "uprobe": lambda program, **options: links.attach_uprobe(program, "libc.so.6", "getsid", **options),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    if request.param == "kprobe" and not has_kprobes():
        pytest.skip("this kernel has no kprobes")
    return str(request.param)


@pytest.mark.usefixtures("no_perf_links")
def test_events_without_perf_links(counting: Callable[..., Program], counter: Counter, place: str) -> None:
    """The program is set on the perf event: there is no link, and closing detaches."""
    kind = c.BPF_PROG_TYPE_TRACEPOINT if place == "tracepoint" else c.BPF_PROG_TYPE_KPROBE
    with PLACES[place](counting(kind)) as link:
        assert link.id == 0
        get_sid()
        assert counter.value == 1
    get_sid()
    assert counter.value == 1


@pytest.mark.usefixtures("no_perf_links")
def test_cookies_without_perf_links(counting: Callable[..., Program], place: str) -> None:
    kind = c.BPF_PROG_TYPE_TRACEPOINT if place == "tracepoint" else c.BPF_PROG_TYPE_KPROBE
    program = counting(kind)
    with pytest.raises(NotSupportedError, match=r"Linux 5\.15"):
        PLACES[place](program, cookie=1)


@pytest.mark.parametrize(
    ("attach_type", "release"), [("BPF_TRACE_KPROBE_MULTI", "5.18"), ("BPF_TRACE_UPROBE_MULTI", "6.6")]
)
def test_kernels_without_multi_links_say_so(counting: Callable[..., Program], attach_type: str, release: str) -> None:
    if has_enumerator("bpf_attach_type", attach_type):
        pytest.skip(f"this kernel has {attach_type}")
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with pytest.raises(BPFError, match=f"older than Linux {release}") as raised:
        if attach_type == "BPF_TRACE_KPROBE_MULTI":
            links.attach_kprobe_multi(program, ["security_task_getsid"])
        else:
            links.attach_uprobe_multi(program, "libc.so.6", ["getsid"])
    assert raised.value.errno == errno.EINVAL
