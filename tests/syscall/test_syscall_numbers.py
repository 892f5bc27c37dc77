"""The generated numbers: against the header, against a C compiler, and against tables written down by hand."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from syscall_programs import ROOT

from pybpf import abi, constants
from pybpf.syscall import sysno
from pybpf.syscall.attrs import ATTR_SIZE, BITS, LAYOUTS, SIZES
from pybpf.syscall.numbers import SYSCALLS

SCRIPT = ROOT / "scripts/generate-abi"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    loader = SourceFileLoader("generate_abi", str(SCRIPT))
    spec = importlib.util.spec_from_loader("generate_abi", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_abi"] = module
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writing
    return module


@pytest.mark.slow
def test_the_committed_files_are_what_the_headers_say() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    if done.returncode == 2 and "cannot fetch" in done.stderr:
        pytest.skip(f"no headers in the cache and none to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_difference_is_reported(generator: ModuleType) -> None:
    old = {"A": 1, "T_NAMES": ("a", "b"), "LAYOUTS": {"x": {"f": (0, 4)}}, "MAX_A": 3}
    same = {"A": 1, "B": 2, "T_NAMES": ("a", "b", "c"), "LAYOUTS": {"x": {"f": (0, 4), "g": (4, 4)}}, "MAX_A": 4}
    assert list(generator.changed(old, same, "m")) == []
    assert list(generator.changed(old, {**same, "A": 2}, "m")) == ["m.A: 1 became 2"]
    assert list(generator.changed(old, {**same, "LAYOUTS": {"x": {}}}, "m")) == ["m.LAYOUTS.x.f is gone"]
    assert list(generator.changed(old, {**same, "T_NAMES": ("b", "a")}, "m")) == ["m.T_NAMES changed"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1U << 13", 8192),
        ("(1ULL << 32) | 0x1f", 0x10000001F),
        ("-1", -1),
        ("'$'", 36),
        ("010", 8),
        ("(__u64)-1", 2**64 - 1),
    ],
)
def test_c_expressions(generator: ModuleType, text: str, value: int) -> None:
    assert generator.evaluate(text, {}) == value


def test_c_layout(generator: ModuleType, tmp_path: Path) -> None:
    header = tmp_path / "x.h"
    header.write_text(
        """
        #define LENGTH 3
        enum { A = 5, B, /* a comment */ C = A | 8, };
        struct s {
            __u8 a; __u64 b; __u16 c[LENGTH];
            union { __u32 d; struct { __u8 e; __u32 f; } inner; };
            __u32 g : 3, h : 29; __u32 i : 4;
            char name[5];
        } __attribute__((aligned(8)));
        """
    )
    parsed = generator.Header(header, {})
    assert parsed.constants == {"A": 5, "B": 6, "C": 13, "LENGTH": 3}
    record = parsed.record("struct", "s")
    assert [(f.name, f.offset, f.size, f.bits) for f in record.fields] == [
        ("a", 0, 1, None),
        ("b", 8, 8, None),
        ("c", 16, 6, None),
        ("d", 24, 4, None),
        ("inner.e", 24, 1, None),
        ("inner.f", 28, 4, None),
        ("g", 32, 4, (0, 3)),
        ("h", 32, 4, (3, 29)),
        ("i", 36, 4, (0, 4)),
        ("name", 37, 5, None),
    ]
    assert record.size == 48


# From the kernel's documentation of union bpf_attr (7.2): "offset/size name".
WRITTEN = {
    "BPF_MAP_CREATE": "0/4 map_type 4/4 key_size 8/4 value_size 12/4 max_entries 16/4 map_flags 20/4 inner_map_fd "
    "24/4 numa_node 28/16 map_name 44/4 map_ifindex 48/4 btf_fd 52/4 btf_key_type_id 56/4 btf_value_type_id "
    "60/4 btf_vmlinux_value_type_id 64/8 map_extra 72/4 value_type_btf_obj_fd 76/4 map_token_fd 80/8 excl_prog_hash "
    "88/4 excl_prog_hash_size",
    "BPF_MAP_LOOKUP_ELEM": "0/4 map_fd 8/8 key 16/8 value 24/8 flags",
    "BPF_MAP_DELETE_ELEM": "0/4 map_fd 8/8 key",
    "BPF_MAP_GET_NEXT_KEY": "0/4 map_fd 8/8 key 16/8 next_key",
    "BPF_MAP_LOOKUP_BATCH": "0/8 in_batch 8/8 out_batch 16/8 keys 24/8 values 32/4 count 36/4 map_fd 40/8 elem_flags "
    "48/8 flags",
    "BPF_PROG_LOAD": "0/4 prog_type 4/4 insn_cnt 8/8 insns 16/8 license 24/4 log_level 28/4 log_size 32/8 log_buf "
    "40/4 kern_version 44/4 prog_flags 48/16 prog_name 64/4 prog_ifindex 68/4 expected_attach_type 72/4 prog_btf_fd "
    "76/4 func_info_rec_size 80/8 func_info 88/4 func_info_cnt 92/4 line_info_rec_size 96/8 line_info "
    "104/4 line_info_cnt 108/4 attach_btf_id 112/4 attach_prog_fd 112/4 attach_btf_obj_fd 116/4 core_relo_cnt "
    "120/8 fd_array 128/8 core_relos 136/4 core_relo_rec_size 140/4 log_true_size 144/4 prog_token_fd "
    "148/4 fd_array_cnt 152/8 signature 160/4 signature_size 164/4 keyring_id",
    "BPF_OBJ_PIN": "0/8 pathname 8/4 bpf_fd 12/4 file_flags 16/4 path_fd",
    "BPF_PROG_ATTACH": "0/4 target_fd 0/4 target_ifindex 4/4 attach_bpf_fd 8/4 attach_type 12/4 attach_flags "
    "16/4 replace_bpf_fd 20/4 relative_fd 20/4 relative_id 24/8 expected_revision",
    "BPF_PROG_TEST_RUN": "0/4 prog_fd 4/4 retval 8/4 data_size_in 12/4 data_size_out 16/8 data_in 24/8 data_out "
    "32/4 repeat 36/4 duration 40/4 ctx_size_in 44/4 ctx_size_out 48/8 ctx_in 56/8 ctx_out 64/4 flags 68/4 cpu "
    "72/4 batch_size",
    "BPF_PROG_GET_NEXT_ID": "0/4 start_id 4/4 next_id",
    "BPF_PROG_GET_FD_BY_ID": "0/4 prog_id",
    "BPF_MAP_GET_FD_BY_ID": "0/4 map_id 8/4 open_flags",
    "BPF_BTF_GET_FD_BY_ID": "0/4 btf_id 8/4 open_flags 12/4 fd_by_id_token_fd",
    "BPF_OBJ_GET_INFO_BY_FD": "0/4 bpf_fd 4/4 info_len 8/8 info",
    "BPF_PROG_QUERY": "0/4 target_fd 0/4 target_ifindex 4/4 attach_type 8/4 query_flags 12/4 attach_flags 16/8 "
    "prog_ids "
    "24/4 prog_cnt 24/4 count 32/8 prog_attach_flags 40/8 link_ids 48/8 link_attach_flags 56/8 revision",
    "BPF_RAW_TRACEPOINT_OPEN": "0/8 name 8/4 prog_fd 16/8 cookie",
    "BPF_BTF_LOAD": "0/8 btf 8/8 btf_log_buf 16/4 btf_size 20/4 btf_log_size 24/4 btf_log_level 28/4 btf_log_true_size "
    "32/4 btf_flags 36/4 btf_token_fd",
    "BPF_TASK_FD_QUERY": "0/4 pid 4/4 fd 8/4 flags 12/4 buf_len 16/8 buf 24/4 prog_id 28/4 fd_type 32/8 probe_offset "
    "40/8 probe_addr",
    "BPF_LINK_CREATE": "0/4 prog_fd 0/4 map_fd 4/4 target_fd 4/4 target_ifindex 8/4 attach_type 12/4 flags "
    "16/4 target_btf_id 16/8 iter_info 24/4 iter_info_len 16/8 perf_event.bpf_cookie 16/4 kprobe_multi.flags "
    "20/4 kprobe_multi.cnt 24/8 kprobe_multi.syms 32/8 kprobe_multi.addrs 40/8 kprobe_multi.cookies "
    "16/4 tracing.target_btf_id 24/8 tracing.cookie 16/4 netfilter.pf 20/4 netfilter.hooknum 24/4 netfilter.priority "
    "28/4 netfilter.flags 16/4 tcx.relative_fd 16/4 tcx.relative_id 24/8 tcx.expected_revision 16/8 uprobe_multi.path "
    "24/8 uprobe_multi.offsets 32/8 uprobe_multi.ref_ctr_offsets 40/8 uprobe_multi.cookies 48/4 uprobe_multi.cnt "
    "52/4 uprobe_multi.flags 56/4 uprobe_multi.pid 60/4 uprobe_multi.path_fd 16/4 netkit.relative_fd "
    "16/4 netkit.relative_id 24/8 netkit.expected_revision 16/4 cgroup.relative_fd 16/4 cgroup.relative_id "
    "24/8 cgroup.expected_revision 16/8 tracing_multi.ids 24/8 tracing_multi.cookies 32/4 tracing_multi.cnt",
    "BPF_LINK_UPDATE": "0/4 link_fd 4/4 new_prog_fd 4/4 new_map_fd 8/4 flags 12/4 old_prog_fd 12/4 old_map_fd",
    "BPF_LINK_DETACH": "0/4 link_fd",
    "BPF_ENABLE_STATS": "0/4 type",
    "BPF_ITER_CREATE": "0/4 link_fd 4/4 flags",
    "BPF_PROG_BIND_MAP": "0/4 prog_fd 4/4 map_fd 8/4 flags",
    "BPF_TOKEN_CREATE": "0/4 flags 4/4 bpffs_fd",
    "BPF_PROG_STREAM_READ_BY_FD": "0/8 stream_buf 8/4 stream_buf_len 12/4 stream_id 16/4 prog_fd",
    "BPF_PROG_ASSOC_STRUCT_OPS": "0/4 map_fd 4/4 prog_fd 8/4 flags",
    "bpf_common_attr": "0/8 log_buf 8/4 log_size 12/4 log_level 16/4 log_true_size",
    "bpf_map_info": "0/4 type 4/4 id 8/4 key_size 12/4 value_size 16/4 max_entries 20/4 map_flags 24/16 name "
    "40/4 ifindex "
    "44/4 btf_vmlinux_value_type_id 48/8 netns_dev 56/8 netns_ino 64/4 btf_id 68/4 btf_key_type_id 72/4 "
    "btf_value_type_id "
    "76/4 btf_vmlinux_id 80/8 map_extra 88/8 hash 96/4 hash_size",
    "bpf_btf_info": "0/8 btf 8/4 btf_size 12/4 id 16/8 name 24/4 name_len 28/4 kernel_btf",
    "bpf_prog_info": "0/4 type 4/4 id 8/8 tag 16/4 jited_prog_len 20/4 xlated_prog_len 24/8 jited_prog_insns "
    "32/8 xlated_prog_insns 40/8 load_time 48/4 created_by_uid 52/4 nr_map_ids 56/8 map_ids 64/16 name 80/4 ifindex "
    "84/4 gpl_compatible 88/8 netns_dev 96/8 netns_ino 104/4 nr_jited_ksyms 108/4 nr_jited_func_lens 112/8 jited_ksyms "
    "120/8 jited_func_lens 128/4 btf_id 132/4 func_info_rec_size 136/8 func_info 144/4 nr_func_info 148/4 nr_line_info "
    "152/8 line_info 160/8 jited_line_info 168/4 nr_jited_line_info 172/4 line_info_rec_size 176/4 "
    "jited_line_info_rec_size "
    "180/4 nr_prog_tags 184/8 prog_tags 192/8 run_time_ns 200/8 run_cnt 208/8 recursion_misses 216/4 verified_insns "
    "220/4 attach_btf_obj_id 224/4 attach_btf_id",
    "bpf_token_info": "0/8 allowed_cmds 8/8 allowed_maps 16/8 allowed_progs 24/8 allowed_attachs",
}


@pytest.mark.parametrize("title", WRITTEN)
def test_layouts_as_written_down(title: str) -> None:
    words = WRITTEN[title].split()
    expected = {name: tuple(map(int, place.split("/"))) for place, name in zip(words[::2], words[1::2], strict=True)}
    assert LAYOUTS[title] == expected


def test_sizes_as_written_down() -> None:
    assert ATTR_SIZE == 168
    expected = {
        "BPF_MAP_CREATE": 92,
        "BPF_PROG_LOAD": 168,
        "BPF_MAP_LOOKUP_ELEM": 32,
        "BPF_MAP_GET_NEXT_KEY": 24,
        "BPF_MAP_FREEZE": 4,
        "BPF_OBJ_GET": 20,
        "BPF_PROG_DETACH": 32,
        "BPF_BTF_LOAD": 40,
        "BPF_LINK_CREATE": 64,
        "BPF_PROG_QUERY": 64,
        "BPF_TASK_FD_QUERY": 48,
        "BPF_RAW_TRACEPOINT_OPEN": 24,
        "BPF_LINK_UPDATE": 16,
        "bpf_common_attr": 24,
        "bpf_prog_info": 232,
        "bpf_map_info": 104,
        "bpf_btf_info": 32,
        "bpf_link_info": 64,
        "bpf_token_info": 32,
        "bpf_iter_link_info": 16,
        "perf_event_attr": 144,
    }
    assert {title: SIZES[title] for title in expected} == expected
    assert LAYOUTS["perf_event_mmap_page"]["data_head"] == (1024, 8)
    assert LAYOUTS["perf_event_mmap_page"]["data_tail"] == (1032, 8)


def test_every_command_has_a_layout() -> None:
    assert all(name in LAYOUTS for name in constants.COMMAND_NAMES if name)
    assert len(constants.COMMAND_NAMES) >= 39


@pytest.mark.skipif(struct.calcsize("P") != 8, reason="a 64-bit compiler gives the layouts")
def test_layouts_as_a_compiler_makes_them(generator: ModuleType, tmp_path: Path) -> None:
    """Every field's offset and size, from the header and the C compiler of this machine."""
    compiler = shutil.which("cc")
    include = generator.cached_headers(generator.committed_version())
    if compiler is None or include is None:
        pytest.skip(
            "no C compiler" if compiler is None else "the headers are not in the cache: run scripts/generate-abi"
        )
    lines, keys = [], []
    for title, fields in LAYOUTS.items():
        if title.startswith("BPF_"):
            part = generator.COMMANDS[title].partition("/")[0].strip()
            named = part in NAMED_PARTS
            kind, prefix = "union bpf_attr", f"{part}." if named else ""
        else:
            kind, prefix = ("union " if title == "bpf_iter_link_info" else "struct ") + title, ""
        for field in fields:
            if field in BITS.get(title, {}):
                continue
            place = f"{prefix}{field}"
            base = f" - offsetof({kind}, {part})" if title.startswith("BPF_") and named else ""
            lines.append(f'printf("%zu %zu\\n", offsetof({kind}, {place}){base}, sizeof((({kind} *)0)->{place}));')
            keys.append((title, field))
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/bpf.h>\n#include <linux/perf_event.h>\n"
        f"int main(void) {{\n{chr(10).join(lines)}\nreturn 0; }}\n"
    )
    program = tmp_path / "layout"
    asm = next(Path("/usr/include").glob(f"{os.uname().machine}-linux-*/asm"), None)
    paths = [f"-I{include}"] + ([f"-idirafter{asm.parent}"] if asm else [])
    subprocess.run([compiler, *paths, "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    measured = [(int(a), int(b)) for a, b in zip(output[::2], output[1::2], strict=True)]
    assert dict(zip(keys, measured, strict=True)) == {key: LAYOUTS[key[0]][key[1]] for key in keys}


NAMED_PARTS = {
    "batch",
    "test",
    "info",
    "query",
    "raw_tracepoint",
    "task_fd_query",
    "link_create",
    "link_update",
    "link_detach",
    "enable_stats",
    "iter_create",
    "prog_bind_map",
    "token_create",
    "prog_stream_read",
    "prog_assoc_struct_ops",
}


def test_constants() -> None:
    assert constants.BPF_MAP_TYPE_RINGBUF == 27
    assert constants.BPF_PROG_TYPE_NETFILTER == 32
    assert constants.BPF_TRACE_FENTRY == 24
    assert constants.BPF_F_SLEEPABLE == 0x10
    assert constants.BPF_F_RB_OVERWRITE == 0x80000
    assert constants.BPF_CORE_TYPE_MATCHES == 12
    assert constants.BTF_KIND_ENUM64 == 19
    assert constants.PERF_SAMPLE_RAW == 0x400
    assert constants.PERF_COUNT_SW_BPF_OUTPUT == 10
    assert constants.BPF_F_CURRENT_CPU == 0xFFFFFFFF
    assert constants.BPF_F_CTXLEN_MASK == 0xFFFFF << 32
    assert constants.XDP_FLAGS_DRV_MODE == 4
    assert constants.MAP_TYPE_NAMES[1] == "hash"
    assert constants.MAP_TYPE_NAMES[19] == "cgroup_storage"
    assert constants.PROG_TYPE_NAMES[6] == "xdp"
    assert constants.ATTACH_TYPE_NAMES[44] == "struct_ops"
    assert constants.LINK_TYPE_NAMES[12] == "uprobe_multi"
    assert constants.COMMAND_NAMES[10] == "BPF_PROG_TEST_RUN"
    assert constants.HELPER_NAMES[1] == "map_lookup_elem"
    assert constants.HELPER_NAMES[211] == "cgrp_storage_delete"


def test_constants_import_nothing() -> None:
    assert not re.search(r"^\s*(import|from)\b", Path(constants.__file__).read_text(), flags=re.M)


def test_enums_hold_the_constants() -> None:
    for name, value in vars(constants).items():
        if name.startswith("BPF_MAP_TYPE_"):
            assert abi.MapType[name.removeprefix("BPF_MAP_TYPE_")] == value
        if name.startswith("BPF_PROG_TYPE_"):
            assert abi.ProgramType[name.removeprefix("BPF_PROG_TYPE_")] == value
    assert abi.AttachType(46).name == "TCX_INGRESS"
    assert abi.Command(10).name == "PROG_TEST_RUN"
    assert abi.LinkType(6).name == "XDP"
    assert abi.MapFlags(0x401) == abi.MapFlags.NO_PREALLOC | abi.MapFlags.MMAPABLE
    assert abi.ProgramFlags.SLEEPABLE == constants.BPF_F_SLEEPABLE
    assert abi.ElementFlags.NOEXIST == 1
    assert abi.UprobeMultiFlags.RETURN == 1
    assert abi.CoreRelocationKind.FIELD_EXISTS == 2


def test_unknown_values_are_tolerated() -> None:
    unknown = abi.MapType(99)
    assert unknown == 99 and unknown.name == "UNKNOWN_99" and isinstance(unknown, abi.MapType)
    assert "UNKNOWN_99" in repr(unknown)
    assert pickle.loads(pickle.dumps(unknown)) == unknown
    assert int(abi.MapFlags(1 << 30)) == 1 << 30
    with pytest.raises(ValueError, match="nonsense"):
        abi.MapType("nonsense")


# From the kernel's system call tables.
@pytest.mark.parametrize(
    ("machine", "pointer", "multiarch", "row"),
    [
        ("x86_64", 8, "x86_64-linux-gnu", (321, 298, 317)),
        ("x86_64", 4, "x86_64-linux-gnux32", (321 | 0x40000000, 298 | 0x40000000, 317 | 0x40000000)),
        ("x86_64", 4, "i386-linux-gnu", (357, 336, 354)),
        ("i686", 4, "", (357, 336, 354)),
        ("aarch64", 8, "", (280, 241, 277)),
        ("aarch64", 4, "", (386, 364, 383)),
        ("armv7l", 4, "", (386, 364, 383)),
        ("ppc64le", 8, "", (361, 319, 358)),
        ("ppc", 4, "", (361, 319, 358)),
        ("s390x", 8, "", (351, 331, 348)),
        ("riscv64", 8, "", (280, 241, 277)),
        ("riscv32", 4, "", (280, 241, 277)),
        ("loongarch64", 8, "", (280, 241, 277)),
        ("mips64", 8, "mips64el-linux-gnuabi64", (5315, 5292, 5312)),
        ("mips64", 4, "mips64el-linux-gnuabin32", (6319, 6296, 6316)),
        ("mips64", 4, "mipsel-linux-gnu", (4355, 4333, 4352)),
        ("sparc64", 8, "", (349, 327, 346)),
        ("alpha", 8, "", (515, 493, 514)),
        ("parisc64", 4, "", (341, 318, 338)),
        ("sh4a", 4, "", (375, 336, 372)),
        ("csky", 4, "", (280, 241, 277)),
    ],
)
def test_system_call_numbers(machine: str, pointer: int, multiarch: str, row: tuple[int, int, int]) -> None:
    assert SYSCALLS[sysno.abi_name(machine, pointer, multiarch)] == row


def test_a_machine_without_numbers_is_refused() -> None:
    with pytest.raises(OSError, match="xtensa"):
        sysno.abi_name("xtensa", 4)
