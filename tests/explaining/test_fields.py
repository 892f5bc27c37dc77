"""The fields of calls in words: which of them count, and what each says."""

from __future__ import annotations

import pytest

from pybpf import abi
from pybpf import constants as c
from pybpf.explaining.descriptors import Descriptors
from pybpf.explaining.fields import flag_names, tell
from pybpf.explaining.meanings import COMMANDS, meaning
from pybpf.explaining.story import FieldStory
from pybpf.syscall import Call
from pybpf.syscall.attrs import LAYOUTS
from pybpf.syscall.record import Record


class Known(Descriptors):
    """Descriptors that are what the test says."""

    def __init__(self, **names: str) -> None:
        super().__init__(invented=True)
        self._learned = {int(fd.removeprefix("fd")): what for fd, what in names.items()}


def told(command: str, descriptors: Descriptors | None = None, **fields: int) -> dict[str, FieldStory]:
    record = Record(command)
    for name, value in fields.items():
        record[name.replace("__", ".")] = value
    call = Call("bpf", command, 0, record.data, None, record.buffers)
    return {one.name: one for one in tell(call, call.fields(), descriptors or Known())}


def test_every_command_and_every_field_has_a_meaning() -> None:
    for command, layout in LAYOUTS.items():
        if command.startswith("BPF_"):
            assert COMMANDS[command]
            for name in layout:
                assert meaning(name, command)[1], f"{command}.{name}"


def test_kinds_name_what_there_is() -> None:
    kinds = {meaning(name, command)[0] for command, layout in LAYOUTS.items() for name in layout}
    for kind in kinds:
        word, _, detail = kind.partition(" ")
        if word == "flags":
            assert hasattr(abi, detail) and flag_names(detail)
        elif word == "enum" and detail != "attach":
            assert any(name.startswith(detail) for name in vars(c))


def test_constants_and_flags_by_name() -> None:
    fields = told(
        "BPF_MAP_CREATE",
        map_type=c.BPF_MAP_TYPE_RINGBUF,
        max_entries=4096,
        map_flags=c.BPF_F_NUMA_NODE | c.BPF_F_RB_OVERWRITE | 1 << 30,
    )
    assert fields["map_type"].text == "BPF_MAP_TYPE_RINGBUF" and fields["map_type"].since == "5.8"
    assert fields["map_flags"].text == "BPF_F_NUMA_NODE | BPF_F_RB_OVERWRITE | 0x40000000"
    assert fields["map_flags"].since == "6.19"
    assert fields["max_entries"].since == ""
    assert "key_size" not in fields


def test_what_is_as_large_as_minus_one() -> None:
    assert told("BPF_MAP_CREATE", max_entries=0xFFFFFFFF)["max_entries"].text == "4294967295"
    assert told("BPF_MAP_CREATE", inner_map_fd=-1)["inner_map_fd"].text == "-1: none"


def test_unknown_numbers_stay_numbers() -> None:
    fields = told("BPF_PROG_LOAD", prog_type=4000, expected_attach_type=4000)
    assert fields["prog_type"].text == "4000" and fields["expected_attach_type"].text == "4000"


@pytest.mark.parametrize(
    ("attach_type", "given", "there"),
    [
        (c.BPF_XDP, {"target_ifindex": 1}, {"target_ifindex"}),
        (c.BPF_CGROUP_DEVICE, {"target_fd": 5}, {"target_fd"}),
        (c.BPF_TCX_INGRESS, {"target_ifindex": 1, "tcx__relative_fd": 6}, {"target_ifindex", "tcx.relative_fd"}),
        (c.BPF_PERF_EVENT, {"target_fd": 5, "perf_event__bpf_cookie": 7}, {"target_fd", "perf_event.bpf_cookie"}),
        (c.BPF_TRACE_KPROBE_MULTI, {"kprobe_multi__cnt": 3}, {"kprobe_multi.cnt"}),
        (c.BPF_TRACE_UPROBE_MULTI, {"uprobe_multi__cnt": 3}, {"uprobe_multi.cnt"}),
        (c.BPF_TRACE_FENTRY, {"tracing__cookie": 9}, {"tracing.cookie"}),
        (c.BPF_TRACE_FENTRY_MULTI, {"tracing_multi__cnt": 2}, {"tracing_multi.cnt"}),
        (c.BPF_NETFILTER, {"netfilter__pf": 2, "netfilter__priority": -5}, {"netfilter.pf", "netfilter.priority"}),
        (c.BPF_TRACE_ITER, {"iter_info_len": 16}, {"iter_info_len"}),
    ],
)
def test_the_variant_part_of_a_link(attach_type: int, given: dict[str, int], there: set[str]) -> None:
    fields = told("BPF_LINK_CREATE", Known(fd4='program "p" (xdp)'), prog_fd=4, attach_type=attach_type, **given)
    assert set(fields) - {"prog_fd", "attach_type"} == there
    assert fields["prog_fd"].text == '4: program "p" (xdp)'


def test_an_extension_and_struct_ops() -> None:
    fields = told("BPF_LINK_CREATE", Known(fd4='program "p" (ext)'), prog_fd=4, target_fd=5, target_btf_id=77)
    assert set(fields) == {"prog_fd", "target_fd", "target_btf_id"}
    fields = told("BPF_LINK_CREATE", Known(fd4='map "m" (struct_ops)'), map_fd=4, attach_type=c.BPF_STRUCT_OPS)
    assert set(fields) == {"map_fd", "attach_type"}


def test_fields_that_share_a_place() -> None:
    program, btf = Known(fd4='program "p" (xdp)'), Known(fd4="BTF (7 bytes)")
    assert "attach_prog_fd" in told("BPF_PROG_LOAD", program, attach_prog_fd=4)
    assert "attach_btf_obj_fd" not in told("BPF_PROG_LOAD", program, attach_prog_fd=4)
    assert "attach_btf_obj_fd" in told("BPF_PROG_LOAD", btf, attach_prog_fd=4)
    assert set(told("BPF_PROG_ATTACH", relative_fd=4)) == {"relative_fd"}
    assert set(told("BPF_PROG_ATTACH", relative_id=4, attach_flags=c.BPF_F_ID)) == {"relative_id", "attach_flags"}
    assert set(told("BPF_LINK_UPDATE", Known(fd4='map "m" (struct_ops)'), new_map_fd=4)) == {"new_map_fd"}


def test_memory() -> None:
    record = Record("BPF_PROG_LOAD")
    record.point("license", b"GPL\0")
    record.point("insns", bytes(16))
    record.point("fd_array", bytes(4) * 10)
    record.point("log_buf", bytearray(b"so it is\0\0\0"))
    call = Call("bpf", "BPF_PROG_LOAD", 0, record.data, None, record.buffers)
    fields = {one.name: one.text for one in tell(call, call.fields(), Known())}
    assert fields["license"] == '"GPL"'
    assert fields["insns"] == "2 instructions"
    assert fields["fd_array"] == "[0, 0, 0, 0, 0, 0, 0, 0, and 2 more]"
    assert fields["log_buf"] == "8 characters"


def test_what_the_kernel_wrote_is_marked() -> None:
    record = Record("BPF_PROG_TEST_RUN")
    record["prog_fd"] = 4
    call = Call("bpf", "BPF_PROG_TEST_RUN", 0, record.data, None, record.buffers)
    before = call.fields()
    record["retval"] = 7
    fields = {one.name: one for one in tell(call, before, Known())}
    assert fields["retval"].is_output and fields["retval"].text == "7"
    assert not fields["prog_fd"].is_output
