"""What is attached to a hook: `links.query` and `program.query`, for each hook that the kernel tells about."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_helpers import Refuse, eventually, has_member, needs_attach_type
from link_network import private_network
from link_programs import exit_with

from pybpf import abi, links, syscall
from pybpf import constants as c
from pybpf.errors import BPFError, BPFNotFoundError, ObjectError
from pybpf.program import Program
from pybpf.syscall.attrs import LAYOUTS

NEXT, PASS, ALLOW = -1, 2, 1


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with private_network():
        yield


def needs_query(what: str, target: object, hook: int) -> None:
    try:
        links.query(target, hook)
    except BPFError as error:
        pytest.skip(f"the kernel does not tell about {what}: {error}")


def test_tcx(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    one, two = (loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS) for _ in range(2))
    assert len(links.query("lo", abi.AttachType.TCX_INGRESS)) == 0
    with links.attach_tcx(one, "lo") as link, links.attach_tcx(two, "lo", first=True):
        found = one.query("lo")
        assert (found.hook, found.prog_ids) == ("tcx_ingress", [two.id, one.id])
        assert found.revision > 0
        assert found.programs[1].link_id == link.id
        with found.programs[1].open_link() as same, found.programs[1].open() as program:
            assert (same.id, program.id, program.name) == (link.id, one.id, "probe")
        assert one in found
        assert 0 not in found
        assert repr(found.programs[1]) == f"<AttachedProgram {one.id} link={link.id}>"
        assert repr(found) == f"<Attached tcx_ingress [{two.id}, {one.id}] revision={found.revision}>"
        with pytest.raises(BPFError, match="revision is not the expected one"):
            links.attach_tcx(two, "lo", "egress", expected_revision=77)
    assert eventually(lambda: one not in one.query(socket.if_nametoindex("lo")))
    with pytest.raises(BPFNotFoundError, match="interface 'nope'"):
        one.query("nope")


def test_program_without_a_link(loader: Callable[..., Program]) -> None:
    needs_attach_type("BPF_TCX_INGRESS")
    program = loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT), attach_type=c.BPF_TCX_INGRESS)
    index = socket.if_nametoindex("lo")
    syscall.prog_attach(index, program, c.BPF_TCX_INGRESS)
    try:
        (found,) = program.query(index)
        assert (found.prog_id, found.link_id) == (program.id, 0)
        with pytest.raises(ObjectError, match="without a link"):
            found.open_link()
    finally:
        syscall.prog_detach(index, c.BPF_TCX_INGRESS, prog_fd=program)


def cgroup_program(loader: Callable[..., Program]) -> Program:
    return loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(ALLOW), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)


def test_cgroup(loader: Callable[..., Program], cgroup: Path) -> None:
    upper, lower = cgroup_program(loader), cgroup_program(loader)
    below = cgroup / "below"
    below.mkdir()
    try:
        with links.attach_cgroup(upper, cgroup), links.attach_cgroup(lower, below):
            found = lower.query(below)
            assert (found.hook, found.prog_ids, found.flags) == (
                "cgroup_inet_sock_create",
                [lower.id],
                c.BPF_F_ALLOW_MULTI,
            )
            assert sorted(lower.query(below, effective=True).prog_ids) == sorted([upper.id, lower.id])
            fd = os.open(cgroup, os.O_RDONLY)
            try:
                assert links.query(fd, c.BPF_CGROUP_INET_SOCK_CREATE).prog_ids == [upper.id]
            finally:
                os.close(fd)
            if has_member("cgroup_bpf", "revisions"):
                assert found.revision > 0
    finally:
        below.rmdir()
    with pytest.raises(BPFNotFoundError, match="cgroup version 2"):
        lower.query(below)


def test_cgroup_of_a_kernel_that_tells_no_flags(loader: Callable[..., Program], cgroup: Path) -> None:
    program = cgroup_program(loader)

    class Old(Refuse):
        def before(self, call: syscall.Call) -> int | None:
            if call.command == self.command and call.buffers.get("prog_attach_flags"):
                self.refused += 1
                return self.errno
            return None

    with links.attach_cgroup(program, cgroup), Old("BPF_PROG_QUERY", errno.EINVAL) as refuse:
        assert program.query(cgroup).prog_ids == [program.id]
        assert refuse.refused == 1


def test_network_namespace(loader: Callable[..., Program]) -> None:
    lookup = loader(c.BPF_PROG_TYPE_SK_LOOKUP, exit_with(1), attach_type=c.BPF_SK_LOOKUP)
    dissector = loader(c.BPF_PROG_TYPE_FLOW_DISSECTOR, exit_with(0))
    with links.attach_netns(lookup), links.attach_netns(dissector):
        assert lookup.query().prog_ids == [lookup.id]
        assert lookup.query(os.getpid()).prog_ids in ([], [lookup.id])  # the process's first thread may be elsewhere
        assert dissector.query("/proc/thread-self/ns/net").prog_ids == [dissector.id]
    assert eventually(lambda: lookup.query().prog_ids == [])


def test_sockmap(loader: Callable[..., Program]) -> None:
    program = loader(c.BPF_PROG_TYPE_SK_MSG, exit_with(1), attach_type=c.BPF_SK_MSG_VERDICT)
    with syscall.map_create(c.BPF_MAP_TYPE_SOCKMAP, key_size=4, value_size=4, max_entries=1) as sockets:
        needs_query("socket maps", sockets, c.BPF_SK_MSG_VERDICT)
        with links.attach_sockmap(program, sockets):
            assert program.query(sockets).prog_ids == [program.id]
        assert eventually(lambda: program.query(sockets).prog_ids == [])


def test_xdp(loader: Callable[..., Program]) -> None:
    pytest.importorskip("pyroute2", reason="the extra 'net' is not installed")
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(PASS))
    assert program.query("lo").prog_ids == []
    with links.attach_xdp(program, "lo"):
        found = program.query(socket.if_nametoindex("lo"))
        assert (found.hook, found.prog_ids) == ("xdp", [program.id])
    with pytest.raises(TypeError, match="an interface is a name or a number"):
        program.query(None)


def test_refusals(loader: Callable[..., Program], cgroup: Path) -> None:
    with pytest.raises(BPFError, match="asking what is attached to trace_fentry"):
        links.query(0, c.BPF_TRACE_FENTRY)
    assert links.query(cgroup, "cgroup_device").hook == "cgroup_device"
    with pytest.raises(ValueError, match="no hook is called 'ingress'"):
        links.query("lo", "ingress")
    with pytest.raises(TypeError, match="trace_fentry is asked of a descriptor, not of 'lo'"):
        links.query("lo", c.BPF_TRACE_FENTRY)
    with pytest.raises(ObjectError, match="was loaded for no hook"):
        loader(c.BPF_PROG_TYPE_SCHED_CLS, exit_with(NEXT)).query("lo")


# LIRC: no receiver here; what is asked of the kernel is read at the door.


class Receiver:
    """An observer that stands for an infrared receiver: it keeps the programs that are attached to a descriptor."""

    def __init__(self, path: Path) -> None:
        self.inode = path.stat().st_ino
        self.programs: list[int] = []
        self.calls: list[str] = []

    def before(self, call: syscall.Call) -> int | None:
        if call.command not in ("BPF_PROG_ATTACH", "BPF_PROG_DETACH", "BPF_PROG_QUERY"):
            return None
        fields = call.fields()
        assert fields["attach_type"] == c.BPF_LIRC_MODE2
        assert os.fstat(int(fields["target_fd"])).st_ino == self.inode
        self.calls.append(call.command)
        call.result = 0
        if call.command == "BPF_PROG_QUERY":
            answer = b"".join(number.to_bytes(4, sys.byteorder) for number in self.programs)
            place = call.buffers["prog_ids"]
            assert isinstance(place, bytearray)
            place[: len(answer)] = answer
            offset, size = LAYOUTS["BPF_PROG_QUERY"]["prog_cnt"]
            call.data[offset : offset + size] = len(self.programs).to_bytes(size, sys.byteorder)
        else:
            number = int(syscall.prog_info(int(fields["attach_bpf_fd"])).id)
            if call.command == "BPF_PROG_DETACH":
                if number not in self.programs:
                    return errno.ENOENT
                self.programs.remove(number)
            elif number in self.programs:
                return errno.EEXIST
            else:
                self.programs.append(number)
        return None

    def after(self, call: syscall.Call) -> None:
        pass


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[tuple[str, Receiver]]:
    path = tmp_path / "lirc0"
    path.touch()
    observer = Receiver(path)
    syscall.add_observer(observer)
    yield str(path), observer
    syscall.remove_observer(observer)


def lirc_program(loader: Callable[..., Program]) -> Program:
    try:
        return loader(c.BPF_PROG_TYPE_LIRC_MODE2, exit_with(0))
    except BPFError as error:  # the kernel was built without it: any other program is handed over as well
        assert error.errno == errno.EINVAL
        return loader(c.BPF_PROG_TYPE_SOCKET_FILTER, exit_with(0))


def test_lirc(loader: Callable[..., Program], receiver: tuple[str, Receiver]) -> None:
    path, observer = receiver
    program = lirc_program(loader)
    with links.attach_lirc(program, path) as link:
        assert (link.kind, link.target, link.id) == ("lirc", path, 0)
        assert observer.programs == [program.id]
        found = links.query(path, c.BPF_LIRC_MODE2)
        assert (found.hook, found.prog_ids) == ("lirc_mode2", [program.id])
        with pytest.raises(BPFError, match="This program is attached there already"):
            links.attach_lirc(program, path)
    assert observer.programs == []
    assert [name for name in observer.calls if name != "BPF_PROG_QUERY"] == [
        "BPF_PROG_ATTACH",
        "BPF_PROG_ATTACH",
        "BPF_PROG_DETACH",
    ]


def test_lirc_refusals(loader: Callable[..., Program], tmp_path: Path) -> None:
    program = lirc_program(loader)
    with pytest.raises(BPFNotFoundError, match="A LIRC device is needed"):
        links.attach_lirc(program, tmp_path / "lirc7")
    with pytest.raises(BPFError, match="attaching 'probe' to /dev/null"):
        links.attach_lirc(program, "/dev/null")
