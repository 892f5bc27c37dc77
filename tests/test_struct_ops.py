"""struct_ops: matching structs of the object with the kernel's offline, and TCP congestion controls for real."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf import syscall
from pybpf.btf.kinds import KIND_STRUCT
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.constants import BPF_MAP_TYPE_STRUCT_OPS
from pybpf.errors import RelocationError
from pybpf.loading.struct_ops import StructOps, Target, match
from pybpf.mapspec import MapSpec, StructOpsSpec

SOURCE = "load_struct_ops.bpf.c"
TCP_CONGESTION = 13


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("struct_ops"))


@pytest.fixture(scope="module")
def path(build: ObjectBuilder) -> Path:
    return build(SOURCE, byte_order=sys.byteorder)


# Matching, without a kernel

LOCAL = [("size", "int"), ("run", "function"), ("stop", "function"), ("text", "text")]


def declare(builder: BTFBuilder, name: str, members: list[tuple[str, str]], *, value: bool) -> int:
    """A struct with members of these types and, for a kernel, the struct that holds it at offset 8."""
    types = {"int": (builder.add_int("int", 4, 32, 1), 4), "long": (builder.add_int("long", 8, 64, 1), 8)}
    function = builder.add_ptr(builder.add_func_proto(0, []))
    character = builder.add_int("char", 1, 8, 1)
    types["function"] = (function, 8)
    types["pointer"] = (builder.add_ptr(types["int"][0]), 8)
    types["text"] = (builder.add_array(character, types["int"][0], 8), 8)
    placed, offset = [], 0
    for member, kind in members:
        type_id, size = types[kind]
        offset = -(-offset // size) * size
        placed.append((member, type_id, offset * 8))
        offset += size
    struct = builder.add_struct(name, offset, placed)
    if value:
        state = types["long"][0]
        builder.add_struct(f"bpf_struct_ops_{name}", offset + 8, [("common", state, 0), ("data", struct, 64)])
    return struct


def local_map(members: list[tuple[str, str]], name: str = "ops___flavor") -> MapSpec:
    """A map of a struct of these members, all zero."""
    builder = BTFBuilder()
    struct = declare(builder, name, members, value=False)
    btf = BTF.from_bytes(builder.to_bytes())
    spec = MapSpec("mine", BPF_MAP_TYPE_STRUCT_OPS, key_size=4, value_size=btf.size_of(struct), max_entries=1, btf=btf)
    spec.struct_ops = StructOpsSpec(spec, struct, name.partition("___")[0])
    spec.data = bytes(btf.size_of(struct))
    return spec


def kernel(members: list[tuple[str, str]], name: str = "ops") -> BTF:
    builder = BTFBuilder()
    declare(builder, name, members, value=True)
    return BTF.from_bytes(builder.to_bytes(), name="vmlinux")


def test_members_go_where_the_kernel_has_them() -> None:
    spec = local_map(LOCAL)
    assert spec.struct_ops is not None
    spec.struct_ops["size"] = 77
    spec.struct_ops["text"] = "abc"
    spec.struct_ops["stop"] = "stopper"
    vmlinux = kernel([("text", "text"), ("other", "long"), ("stop", "function"), ("size", "int"), ("run", "function")])
    layout = match(spec, [vmlinux])
    assert layout.value_type_id == vmlinux.find("bpf_struct_ops_ops", KIND_STRUCT).id
    assert layout.module == ""
    struct = vmlinux.find("ops", KIND_STRUCT)
    assert layout.targets == {"stopper": Target(struct.id, 2, "")}
    expected = bytearray(layout.value_size)
    expected[8:11] = b"abc"
    expected[8 + 16 : 8 + 24] = (4711).to_bytes(8, sys.byteorder)
    expected[8 + 24 : 8 + 28] = (77).to_bytes(4, sys.byteorder)
    assert layout.value({"stopper": 4711}) == expected


def test_a_member_that_the_kernel_lacks_must_be_zero() -> None:
    spec = local_map([*LOCAL, ("new_number", "int"), ("new_function", "function")])
    assert spec.struct_ops is not None
    vmlinux = kernel(LOCAL)
    assert match(spec, [vmlinux]).slots == []
    spec.struct_ops["new_number"] = 1
    with pytest.raises(RelocationError, match="map 'mine': member 'new_number' of struct ops: .* does not have it"):
        match(spec, [vmlinux])
    spec.struct_ops["new_number"] = 0
    spec.struct_ops["new_function"] = "program"
    with pytest.raises(RelocationError, match="member 'new_function'"):
        match(spec, [vmlinux])
    spec.struct_ops["new_function"] = None
    assert match(spec, [vmlinux]).slots == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("size", "long")], "member 'size' of struct ops: it has 4 bytes here and 8 in the kernel"),
        ([("size", "pointer")], "member 'size' of struct ops: it is of kind int here and ptr in the kernel"),
        ([("run", "pointer")], "member 'run' of struct ops: it is no function in the kernel"),
    ],
)
def test_members_that_differ_are_refused(members: list[tuple[str, str]], message: str) -> None:
    spec = local_map(LOCAL)
    assert spec.struct_ops is not None
    spec.struct_ops["run"] = "runner"
    with pytest.raises(RelocationError, match=message):
        match(spec, [kernel(members)])


def test_a_struct_that_is_no_struct_ops_is_named() -> None:
    with pytest.raises(RelocationError, match="struct ops: the kernel has no struct bpf_struct_ops_ops"):
        match(local_map(LOCAL), [kernel(LOCAL, "others")])


def module(base: BTF, members: list[tuple[str, str]], name: str) -> BTF:
    builder = BTFBuilder(base=base)
    declare(builder, "ops", members, value=True)
    return BTF.from_bytes(builder.to_bytes(), base=base, name=name)


def test_a_module_is_searched_when_the_kernel_has_no_such_struct() -> None:
    vmlinux = kernel(LOCAL, "others")
    added = module(vmlinux, LOCAL, "added")
    spec = local_map(LOCAL)
    assert spec.struct_ops is not None
    spec.struct_ops["run"] = "runner"
    layout = match(spec, [vmlinux, added])
    assert layout.module == "added"
    assert layout.value_type_id >= len(vmlinux)
    assert layout.targets["runner"].module == "added"


def test_one_program_stands_for_one_member() -> None:
    spec = local_map(LOCAL)
    assert spec.struct_ops is not None
    spec.struct_ops["run"] = "both"
    spec.struct_ops["stop"] = "both"
    with pytest.raises(pybpf.ObjectError, match="program 'both' stands for another member too"):
        match(spec, [kernel(LOCAL)])


def test_members_are_set_by_name(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    ops = spec.maps["plain"].struct_ops
    assert ops is not None
    before = spec.fingerprint()
    assert ops["name"] == "pybpf_plain"
    assert ops["init"] == "start_plain"
    assert ops["no_such_function"] is None
    ops["init"] = "start_spare"
    assert spec.fingerprint() != before
    with pytest.raises(TypeError, match="takes the name of a program"):
        ops["init"] = 5
    with pytest.raises(KeyError, match="no member 'nosuch'"):
        ops["nosuch"] = 5
    with pytest.raises(OverflowError):
        ops["flags"] = 1 << 32


def tcp_kernel() -> BTF:
    """Something with the functions of tcp_congestion_ops, for questions about what is loaded."""
    members = [(name, "function") for name in ("init", "ssthresh", "cong_avoid", "undo_cwnd")]
    builder = BTFBuilder()
    number = builder.add_int("unsigned int", 4, 32, 0)
    character = builder.add_int("char", 1, 8, 1)
    text = builder.add_array(character, number, 16)
    function = builder.add_ptr(builder.add_func_proto(0, []))
    placed = [(name, function, 64 * index) for index, (name, _) in enumerate(members)]
    placed += [("name", text, 64 * 4), ("flags", number, 64 * 6)]
    struct = builder.add_struct("tcp_congestion_ops", 56, placed)
    builder.add_struct("bpf_struct_ops_tcp_congestion_ops", 64, [("data", struct, 64)])
    return BTF.from_bytes(builder.to_bytes(), name="vmlinux")


def loaded(spec: pybpf.ObjectSpec) -> set[str]:
    ops = StructOps(spec, lambda: [tcp_kernel()])
    return {name for name, program in spec.programs.items() if ops.is_loaded(program)}


COMMON = {"threshold", "avoid", "undo"}


def test_maps_decide_which_programs_are_loaded(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    assert loaded(spec) == COMMON | {"start_plain"}
    spec.maps["spare"].autocreate = True
    spec.programs["start_spare"].autoload = False  # has no say
    assert loaded(spec) == COMMON | {"start_plain", "start_spare"}
    for name in ("plain", "spare"):
        spec.maps[name].autocreate = False
    assert loaded(spec) == set()


def test_a_program_that_was_replaced_is_not_loaded(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    ops = spec.maps["plain"].struct_ops
    assert ops is not None
    ops["init"] = "start_spare"
    assert loaded(spec) == COMMON | {"start_spare"}
    ops["init"] = None
    assert loaded(spec) == COMMON


def test_only_struct_ops_programs_can_be_members(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    ops = spec.maps["plain"].struct_ops
    assert ops is not None
    ops["init"] = "nosuch"
    with pytest.raises(pybpf.ObjectError, match="map 'plain': 'nosuch' is no struct_ops program"):
        loaded(spec)


def test_a_program_without_a_map_cannot_be_loaded(build: ObjectBuilder) -> None:
    text = '#include "bpf_min.h"\nSEC("struct_ops/x") int lonely(void *c) { return 0; }\n'
    spec = pybpf.ObjectSpec.from_file(build.compile_text("lonely.c", text))
    with pytest.raises(pybpf.ObjectError, match="program 'lonely': no struct_ops map names it"):
        loaded(spec)
    spec.programs["lonely"].autoload = False
    assert loaded(spec) == set()


# For real

needs_kernel = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


def lacks(error: pybpf.BPFError | RelocationError, what: str) -> None:
    """Skip: this kernel cannot do it."""
    pytest.skip(f"{what}: {error}")


@pytest.fixture
def linked(path: Path) -> pybpf.ObjectSpec:
    """The two maps with BPF_F_LINK; skips on kernels that have no links of struct_ops."""
    spec = pybpf.ObjectSpec.from_file(path)
    spec.maps["plain"].autocreate = False
    for name in ("first", "second"):
        spec.maps[name].autocreate = True
    return spec


def load(spec: pybpf.ObjectSpec, *, links: bool = False) -> pybpf.Object:
    try:
        return spec.load()
    except RelocationError as error:
        lacks(error, "no TCP congestion control by struct_ops")
    except pybpf.BPFError as error:
        if not links or error.command != "BPF_MAP_CREATE":
            raise
        lacks(error, "no struct_ops links before Linux 6.4")
    raise AssertionError


def use(control: str) -> None:
    """Make a TCP connection over the loopback interface with this congestion control."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, control.encode())
        client.connect(server.getsockname())
        client.sendall(b"x")


def is_registered(control: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, control.encode())
        except FileNotFoundError:
            return False
    return True


@needs_kernel
def test_registered_by_its_value(path: Path) -> None:
    with load(pybpf.ObjectSpec.from_file(path)) as obj:
        assert set(obj.programs) == COMMON | {"start_plain"}
        made = obj.maps["plain"]
        assert made.value_size > 64
        with made.attach() as link:
            assert link.kind == "struct_ops"
            use("pybpf_plain")
            assert obj.globals["started_plain"] == 1
            value = made[0]
            assert value.data.name == "pybpf_plain"
            assert value.data.init == obj.programs["start_plain"].id
            assert value.data.ssthresh == obj.programs["threshold"].id
            assert value.data.release == 0
        assert not is_registered("pybpf_plain")
        with pytest.raises(pybpf.BPFError, match="registered only once"):
            made.attach()


@needs_kernel
def test_two_of_one_name_are_refused(path: Path) -> None:
    with load(pybpf.ObjectSpec.from_file(path)) as one, load(pybpf.ObjectSpec.from_file(path)) as two:
        with one.maps["plain"].attach(), pytest.raises(FileExistsError, match="struct_ops map 'plain'"):
            two.maps["plain"].attach()
        with two.maps["plain"].attach():
            assert is_registered("pybpf_plain")


@needs_kernel
def test_what_the_kernel_refuses_says_so(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    ops = spec.maps["plain"].struct_ops
    assert ops is not None
    ops["ssthresh"] = None
    with load(spec) as obj, pytest.raises(pybpf.BPFError, match="The kernel wants a member that is not set"):
        obj.maps["plain"].attach()


@needs_kernel
def test_a_link_and_its_update(linked: pybpf.ObjectSpec) -> None:
    with load(linked, links=True) as obj:
        first, second = obj.maps["first"], obj.maps["second"]
        link = first.attach()
        with link:
            use("pybpf_link")
            assert (obj.globals["started_first"], obj.globals["started_second"]) == (1, 0)
            assert link.info().map_id == first.id
            link.update(second, old=first)
            use("pybpf_link")
            assert (obj.globals["started_first"], obj.globals["started_second"]) == (1, 1)
            assert link.info().map_id == second.id
            with pytest.raises(PermissionError, match="not the expected one"):
                link.update(second, old=first)
            link.update(first)
            assert link.info().map_id == first.id
        assert not is_registered("pybpf_link")
        with first.attach():  # its value was written before
            assert is_registered("pybpf_link")


@needs_kernel
def test_a_link_takes_only_maps_of_links(linked: pybpf.ObjectSpec) -> None:
    linked.maps["plain"].autocreate = True
    with load(linked, links=True) as obj, obj.maps["first"].attach() as link:
        with pytest.raises(pybpf.ObjectError, match="takes a struct_ops map with BPF_F_LINK"):
            link.update(obj.maps["plain"])
        with pytest.raises(pybpf.ObjectError, match="takes a struct_ops map with BPF_F_LINK"):
            link.update(obj.programs["undo"])


@needs_kernel
def test_a_pinned_link_is_found_again(linked: pybpf.ObjectSpec) -> None:
    if not os.path.ismount("/sys/fs/bpf"):
        pytest.skip("no bpf file system at /sys/fs/bpf")
    place = f"/sys/fs/bpf/pybpf-ops-{os.getpid()}"
    with load(linked, links=True) as obj:
        with obj.maps["first"].attach() as link:
            link.pin(place)
        assert is_registered("pybpf_link")
        with pybpf.Link.open_pinned(place) as again:
            again.update(obj.maps["second"])
            use("pybpf_link")
            assert obj.globals["started_second"] == 1
            again.unpin()
    assert not is_registered("pybpf_link")


@needs_kernel
def test_detaching_under_another_holder(linked: pybpf.ObjectSpec) -> None:
    """Linux 6.11 and later can; before it, the struct stays registered as long as somebody holds the link."""
    with load(linked, links=True) as obj, obj.maps["first"].attach() as link, pybpf.Link.from_id(link.id) as holder:
        link.detach()
        assert link.closed
        if is_registered("pybpf_link"):
            with pytest.raises(pybpf.NotSupportedError):
                syscall.link_detach(holder)
    assert not is_registered("pybpf_link")


@needs_kernel
def test_the_object_attaches_its_maps(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.maps["spare"].autocreate = True
    spec.maps["spare"].autoattach = False
    with load(spec) as obj:
        with obj.attach() as links:
            assert [link.target for link in links] == ["plain"]
            assert [(left.name, reason) for left, reason in links.skipped] == [("spare", "autoattach is off")]
            assert is_registered("pybpf_plain")
            assert not is_registered("pybpf_spare")
        assert not is_registered("pybpf_plain")


@needs_kernel
def test_an_object_attached_in_part(path: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.maps["spare"].autocreate = True
    assert spec.maps["spare"].struct_ops is not None
    spec.maps["spare"].struct_ops["name"] = "pybpf_plain"
    with load(spec) as obj:
        with pytest.raises(FileExistsError):
            obj.attach()
        assert not is_registered("pybpf_plain")
    with load(spec) as obj, obj.attach(strict=False) as links:
        assert [link.target for link in links] == ["plain"]
        assert [left.name for left, _ in links.failed] == ["spare"]
