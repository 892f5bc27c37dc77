"""The probes and the running kernel: against bpftool, against what releases brought, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lacking import RELEASE, has_jit

from pybpf import probe
from pybpf.abi import AttachType, LinkType
from pybpf.btf.kernel import vmlinux
from pybpf.probe.answer import Answer
from pybpf.probe.names import canonical, known
from pybpf.probe.survey import LOUD, helpers

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")]

BY_TARGET_ONLY = ("tracing", "ext", "lsm", "struct_ops")
"""Program types whose helpers bpftool cannot ask for."""

TAKEN_FOR_YES = ("program of this type cannot use helper", "helper call is not allowed in probe")
"""Refusals that bpftool takes for a yes: the first, of newer kernels, only older bpftool."""


@pytest.fixture(scope="module")
def bpftool() -> dict[str, dict[str, object]]:
    """What bpftool finds; its probes are libbpf's."""
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    done = subprocess.run(["bpftool", "feature", "probe", "-j", "full"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"bpftool feature probe: {done.stderr.strip()}")
    found: dict[str, dict[str, object]] = json.loads(done.stdout)
    return found


def agrees(answer: Answer, theirs: object) -> bool:
    """bpftool knows two values: what it could not find out is a no."""
    return theirs is bool(answer)


def test_program_types_agree_with_bpftool(bpftool: dict[str, dict[str, object]]) -> None:
    compared = 0
    for name in canonical("program type").values():
        theirs = bpftool["program_types"].get(f"have_{name}_prog_type")
        if theirs is None:  # newer than this bpftool
            continue
        answer = probe.has_program_type(name)
        if name == "tracing" and not probe.has_attach_type("trace_fentry").is_known:
            assert answer and theirs is False  # bpftool asks for fentry only
            continue
        assert agrees(answer, theirs), (name, answer)
        compared += 1
    assert compared > 25


def test_map_types_agree_with_bpftool(bpftool: dict[str, dict[str, object]]) -> None:
    compared = 0
    for name in canonical("map type").values():
        theirs = bpftool["map_types"].get(f"have_{name}_map_type")
        if theirs is not None:
            assert agrees(probe.has_map_type(name), theirs), (name, probe.has_map_type(name))
            compared += 1
    assert compared > 28


def test_instructions_agree_with_bpftool(bpftool: dict[str, dict[str, object]]) -> None:
    pairs = {
        "have_large_insn_limit": "large_programs",
        "have_bounded_loops": "bounded_loops",
        "have_v2_isa_extension": "isa_v2",
        "have_v3_isa_extension": "isa_v3",
    }
    for theirs, ours in pairs.items():
        assert agrees(probe.has_feature(ours), bpftool["misc"][theirs]), ours


def test_helpers_agree_with_bpftool(bpftool: dict[str, dict[str, object]]) -> None:
    names = list(known("helper"))
    compared = 0
    for program in canonical("program type").values():
        theirs = bpftool["helpers"].get(f"{program}_available_helpers")
        if not isinstance(theirs, list) or program in BY_TARGET_ONLY:
            continue
        last = max(names.index(name.removeprefix("bpf_")) for name in theirs) if theirs else 0
        if not probe.has_program_type(program):  # bpftool counts what failed without a log as there
            continue
        for name in names[: last + 1]:
            answer = probe.has_helper(program, name)
            if any(words in answer.log for words in TAKEN_FOR_YES) and f"bpf_{name}" in theirs:
                assert answer.verdict == "no"
                continue
            assert agrees(answer, f"bpf_{name}" in theirs), (program, name, answer)
            compared += 1
    assert compared > 1000


def test_no_helper_is_left_undecided_for_root() -> None:
    if not probe.has_program_type("xdp"):
        pytest.skip("the kernel has no XDP programs")
    assert all(probe.has_helper("xdp", name).is_known for name in known("helper") if name not in LOUD)
    assert probe.has_helper("xdp", "redirect_map") and not probe.has_helper("xdp", "override_return")


def test_helpers_of_programs_with_targets() -> None:
    """bpftool cannot ask for these; a target in the kernel's BTF makes it possible."""
    if not probe.has_program_type("tracing"):
        pytest.skip(f"no tracing programs: {probe.has_program_type('tracing').evidence}")
    assert probe.has_helper("tracing", "get_current_task_btf" if RELEASE >= (5, 11) else "get_current_task")
    assert probe.has_helper("tracing", "xdp_adjust_head").verdict == "no"
    if RELEASE >= (5, 13) and probe.has_feature("jit"):
        assert probe.has_helper("struct_ops", "tcp_send_ack")
    assert probe.has_helper("ext", "map_lookup_elem").verdict == "cannot tell"


BROUGHT: list[tuple[tuple[int, int], Callable[[], Answer]]] = [
    ((5, 8), lambda: probe.has_map_type("ringbuf")),
    ((5, 10), lambda: probe.has_command("prog_bind_map")),
    ((5, 11), lambda: probe.has_map_type("task_storage")),
    ((5, 11), lambda: probe.has_feature("memcg_accounting")),
    ((5, 11), lambda: probe.has_feature("module_btf")),
    ((5, 13), lambda: probe.has_btf("float")),
    ((5, 14), lambda: probe.has_program_type("syscall")),
    ((5, 14), lambda: probe.has_attach_type("sk_reuseport_select_or_migrate")),
    ((5, 15), lambda: probe.has_link_type("perf_event")),
    ((5, 15), lambda: probe.has_feature("cookies")),
    ((5, 16), lambda: probe.has_map_type("bloom_filter")),
    ((5, 16), lambda: probe.has_btf("decl_tag")),
    ((5, 17), lambda: probe.has_btf("type_tag")),
    ((5, 17), lambda: probe.has_helper("xdp", "loop")),
    ((6, 0), lambda: probe.has_btf("enum64")),
    ((6, 0), lambda: probe.has_attach_type("lsm_cgroup")),
    ((6, 1), lambda: probe.has_map_type("user_ringbuf")),
    ((6, 2), lambda: probe.has_map_type("cgrp_storage")),
    ((6, 4), lambda: probe.has_link_type("struct_ops")),
    ((6, 4), lambda: probe.has_link_type("netfilter")),
    ((6, 6), lambda: probe.has_link_type("tcx")),
    ((6, 6), lambda: probe.has_attach_type("tcx_egress")),
    ((6, 6), lambda: probe.has_link_type("uprobe_multi")),
    ((6, 6), lambda: probe.has_feature("isa_v4")),
    ((6, 7), lambda: probe.has_attach_type("cgroup_unix_connect")),
    ((6, 8), lambda: probe.has_feature("context_tags")),
    ((6, 9), lambda: probe.has_btf("datasec_question")),
    ((6, 9), lambda: probe.has_command("token_create")),
    ((6, 10), lambda: probe.has_link_type("sockmap")),
    ((6, 13), lambda: probe.has_attach_type("trace_uprobe_session")),
    ((6, 17), lambda: probe.has_command("prog_stream_read_by_fd")),
    ((6, 19), lambda: probe.has_map_type("insn_array")),
    ((7, 0), lambda: probe.has_feature("full_range_offsets")),
    ((7, 0), lambda: probe.has_command("prog_assoc_struct_ops")),
]


@pytest.mark.parametrize("index", range(len(BROUGHT)))
def test_the_release_that_brought_it_has_it_and_no_older_one(index: int) -> None:
    release, ask = BROUGHT[index]
    answer = ask()
    if release == (6, 4) and not answer and not probe.has_feature("jit"):
        pytest.skip(f"struct_ops needs the JIT: {answer.evidence}")
    assert answer.verdict == ("yes" if release <= RELEASE else "no"), (release, answer)


ALWAYS = """
features: jit program_names expected_attach_type large_programs bounded_loops isa_v2 isa_v3 global_data array_mmap
    probe_read_kernel
link_types: raw_tracepoint cgroup netns iter xdp
attach_types: cgroup_inet_ingress cgroup_sysctl sk_skb_stream_parser sk_msg_verdict flow_dissector sk_lookup
    trace_raw_tp trace_iter xdp xdp_devmap xdp_cpumap cgroup_inet_sock_release
commands: map_create obj_pin obj_get_info_by_fd link_create link_detach enable_stats iter_create task_fd_query
btf_kinds: func func_global datasec
"""


def test_what_every_kernel_since_5_10_has() -> None:
    found = probe.report()
    for text in ALWAYS.replace("\n    ", " ").strip().splitlines():
        section, _, names = text.partition(": ")
        for name in names.split():
            if name == "jit" and not has_jit():
                continue
            assert found[section][name], (name, found[section][name])


def test_every_type_that_pybpf_knows_can_be_asked_for() -> None:
    found = probe.report()
    assert len(found["attach_types"]) == len({member.value for member in AttachType})
    assert len(found["link_types"]) == len({member.value for member in LinkType}) - 1  # without UNSPEC
    undecided = {name for answers in found.values() for name, answer in answers.items() if not answer.is_known}
    assert undecided <= {"ext", "lsm", "tracing", "trace_fentry", "trace_fexit", "modify_return", "lsm_mac"}
    for answers in found.values():
        assert all(answer.evidence for answer in answers.values() if not answer)


def test_trampolines_are_made_for_real() -> None:
    answer = probe.has_link_type("tracing")
    if not answer.is_known:
        pytest.skip(f"this kernel refuses to make trampolines: {answer.evidence}")
    assert answer
    assert probe.has_program_type("lsm") and probe.has_program_type("ext")
    assert probe.has_attach_type("trace_fentry") and probe.has_attach_type("modify_return")


def test_multi_kprobes_need_kprobes() -> None:
    if RELEASE < (5, 18):
        assert probe.has_link_type("kprobe_multi").verdict == "no"
    if not probe.has_feature("kprobes"):
        assert probe.has_link_type("kprobe_multi").verdict == "no"
        assert "CONFIG_KPROBE_EVENTS" in probe.has_feature("kprobes").evidence


def test_kernel_functions() -> None:
    if not probe.has_feature("jit"):
        assert "JIT is required" in probe.has_kfunc("bpf_rdonly_cast", "xdp").evidence
        pytest.skip("kernel functions need the JIT")
    if RELEASE < (5, 18):
        assert probe.has_kfunc("bpf_rdonly_cast").verdict == "no"
        pytest.skip("kernel functions for programs of all kinds came later")
    assert probe.has_kfunc("schedule").verdict == "no"
    assert "is not allowed" in probe.has_kfunc("schedule", "xdp").evidence
    answer = probe.has_kfunc("no_such_function")
    assert answer.verdict == "no" and "it has no function no_such_function" in answer.evidence
    if RELEASE >= (6, 2):
        assert probe.has_kfunc("bpf_rdonly_cast") and probe.has_kfunc("bpf_rdonly_cast", "xdp")
    if RELEASE >= (6, 13):
        assert probe.has_kfunc("bpf_task_acquire", "sched_cls")
        assert probe.has_kfunc("bpf_task_acquire", "socket_filter").verdict == "no"


def test_nothing_stays() -> None:
    """What has no descriptor, no pin and no attachment is gone; links are descriptors too."""
    vmlinux()
    before = sorted(os.listdir("/proc/self/fd"))
    probe.report()
    helpers()
    probe.has_kfunc("bpf_task_acquire")
    assert sorted(os.listdir("/proc/self/fd")) == before


AS_NOBODY = """
from pybpf import probe
for section, answers in probe.report().items():
    for name, answer in answers.items():
        print(section, name, answer.verdict, answer.evidence, sep="|")
"""


def test_without_privileges_nothing_is_called_missing_that_is_there() -> None:
    """The kernel says EPERM to the unprivileged for nearly everything: the answer is that it cannot be told."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() == "0":
        pytest.skip("kernel.unprivileged_bpf_disabled is 0: the unprivileged may load")
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", AS_NOBODY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = probe.report()
    undecided = set()
    for section, name, verdict, evidence in (line.split("|") for line in done.stdout.splitlines()):
        if verdict == "cannot tell":
            undecided.add((section, name))
            assert evidence
        else:
            assert verdict == found[section][name].verdict, (section, name, evidence)
    assert {
        ("map_types", "ringbuf"),
        ("program_types", "xdp"),
        ("link_types", "xdp"),
        ("btf_kinds", "float"),
    } < undecided
    assert "Run it as root" in done.stdout
