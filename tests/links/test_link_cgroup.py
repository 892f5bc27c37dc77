"""cgroup hooks, on an empty cgroup that a child process enters."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from link_helpers import Refuse, eventually, has_member
from link_programs import Counter, exit_with

import pybpf.links.cgroup
from pybpf import abi, links, syscall
from pybpf import constants as c
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError, ObjectError
from pybpf.program import Program

ALLOW, REFUSE = 1, 0


def make_socket_in(cgroup: Path) -> bool:
    """Whether a process of the cgroup can make a socket."""
    child = os.fork()
    if not child:
        status = 2
        try:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
            status = 0
        except PermissionError:
            status = 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1)
    return status == 0


@pytest.fixture
def program(counting: Callable[..., Program]) -> Program:
    return counting(
        c.BPF_PROG_TYPE_CGROUP_SOCK, attach_type=c.BPF_CGROUP_INET_SOCK_CREATE, result=ALLOW, everywhere=True
    )


def attach_and_fire(counter: Counter, cgroup: Path, attach: Callable[[], links.Link]) -> None:
    make_socket_in(cgroup)
    assert counter.value == 0
    with attach():
        assert make_socket_in(cgroup)
        assert counter.value == 1

    def is_quiet() -> bool:
        before = counter.value
        make_socket_in(cgroup)
        return counter.value == before

    assert eventually(is_quiet)


@pytest.mark.parametrize("by", ["path", "string", "descriptor"])
def test_cgroup(program: Program, counter: Counter, cgroup: Path, by: str) -> None:
    def attach() -> links.Link:
        if by == "descriptor":
            fd = os.open(cgroup, os.O_RDONLY)
            try:
                return links.attach_cgroup(program, fd)
            finally:
                os.close(fd)
        link = links.attach_cgroup(program, str(cgroup) if by == "string" else cgroup)
        assert link.target == f"cgroup_inet_sock_create of {cgroup}"
        assert link.info().cgroup_id == cgroup.stat().st_ino
        assert link.type is abi.LinkType.CGROUP
        return link

    attach_and_fire(counter, cgroup, attach)


def test_cgroup_program_that_refuses(loader: Callable[..., Program], cgroup: Path) -> None:
    program = loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(REFUSE), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
    with links.attach_cgroup(program, cgroup):
        assert not make_socket_in(cgroup)
    assert eventually(lambda: make_socket_in(cgroup))


def test_cgroup_without_links(program: Program, counter: Counter, cgroup: Path) -> None:
    """As on a kernel that does not know links of cgroups: the program is attached by BPF_PROG_ATTACH."""

    def attach() -> links.Link:
        with Refuse("BPF_LINK_CREATE", errno.EINVAL) as refuse:
            link = links.attach_cgroup(program, cgroup)
        assert refuse.refused == 2
        assert (link.id, repr(link)) == (0, f"<Link cgroup cgroup_inet_sock_create of {cgroup}>")
        query = syscall.prog_query(directory, c.BPF_CGROUP_INET_SOCK_CREATE)
        assert (query.prog_ids, query.attach_flags) == ([program.id], c.BPF_F_ALLOW_MULTI)
        return link

    directory = os.open(cgroup, os.O_RDONLY)
    try:
        attach_and_fire(counter, cgroup, attach)
        assert syscall.prog_query(directory, c.BPF_CGROUP_INET_SOCK_CREATE).prog_ids == []
    finally:
        os.close(directory)


def test_cgroup_without_links_holds_the_program(
    counting: Callable[..., Program], counter: Counter, cgroup: Path
) -> None:
    program = counting(
        c.BPF_PROG_TYPE_CGROUP_SOCK, attach_type=c.BPF_CGROUP_INET_SOCK_CREATE, result=ALLOW, everywhere=True
    )
    with Refuse("BPF_LINK_CREATE", errno.EINVAL):
        link = links.attach_cgroup(program, cgroup)
    program.close()
    with link:
        make_socket_in(cgroup)
        assert counter.value == 1


def test_failed_cgroup_attachment_leaves_nothing(program: Program, cgroup: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with (
        Refuse("BPF_LINK_CREATE", errno.EINVAL),
        Refuse("BPF_PROG_ATTACH", errno.ENOMEM),
        pytest.raises(BPFError, match="attaching 'probe' to cgroup_inet_sock_create of"),
    ):
        links.attach_cgroup(program, cgroup)
    with pytest.raises(BPFError, match="does not fit this hook"):
        links.attach_cgroup(program, cgroup, c.BPF_CGROUP_INET_INGRESS)
    assert len(os.listdir("/proc/self/fd")) == before


def test_cgroup_places(loader: Callable[..., Program], cgroup: Path) -> None:
    a, b, d = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(ALLOW), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for _ in range(3)
    )
    if not has_member("cgroup_bpf", "revisions"):
        with pytest.raises(BPFError, match="Linux 6.17"):
            links.attach_cgroup(a, cgroup, first=True)
        return
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        with (
            links.attach_cgroup(a, cgroup),
            links.attach_cgroup(b, cgroup, first=True) as first,
            links.attach_cgroup(d, cgroup, after=first),
        ):
            query = syscall.prog_query(directory, c.BPF_CGROUP_INET_SOCK_CREATE)
            assert query.prog_ids == [b.id, d.id, a.id]
    finally:
        os.close(directory)


def test_hook_of_programs_loaded_for_none(loader: Callable[..., Program], cgroup: Path) -> None:
    program = loader(c.BPF_PROG_TYPE_CGROUP_DEVICE, exit_with(ALLOW))
    with links.attach_cgroup(program, cgroup) as link:
        assert link.info().attach_type == c.BPF_CGROUP_DEVICE
    ingress = loader(c.BPF_PROG_TYPE_CGROUP_SKB, exit_with(ALLOW))
    with links.attach_cgroup(ingress, cgroup) as link:
        assert link.info().attach_type == c.BPF_CGROUP_INET_INGRESS
    with links.attach_cgroup(ingress, cgroup, abi.AttachType.CGROUP_INET_EGRESS) as link:
        assert link.info().attach_type == c.BPF_CGROUP_INET_EGRESS
    with pytest.raises(ObjectError, match="was loaded for no hook"):
        links.attach_cgroup(loader(c.BPF_PROG_TYPE_XDP, exit_with(2)), cgroup)


def test_what_is_no_cgroup(program: Program, cgroup: Path, tmp_path: Path) -> None:
    with pytest.raises(BPFNotFoundError, match=r"no_such_group.*cgroup version 2"):
        links.attach_cgroup(program, cgroup / "no_such_group")
    with pytest.raises(BPFError, match="not one of a cgroup version 2"):
        links.attach_cgroup(program, tmp_path)


def test_cgroup_that_forbids_others(loader: Callable[..., Program], cgroup: Path) -> None:
    a, b = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(ALLOW), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for _ in range(2)
    )
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        syscall.prog_attach(directory, a, c.BPF_CGROUP_INET_SOCK_CREATE)
        with pytest.raises(BPFPermissionError, match="forbids others"):
            links.attach_cgroup(b, cgroup)
    finally:
        syscall.prog_detach(directory, c.BPF_CGROUP_INET_SOCK_CREATE, prog_fd=a)
        os.close(directory)


@pytest.mark.parametrize("allow", ["override", "none"])
def test_cgroup_that_takes_one_program(loader: Callable[..., Program], cgroup: Path, allow: str) -> None:
    """With "override" a cgroup below may have a program that runs in the place of this one; with "none" it may not."""
    upper, lower, other = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(result), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for result in (REFUSE, ALLOW, ALLOW)
    )
    below = cgroup / "below"
    below.mkdir()
    try:
        with links.attach_cgroup(upper, cgroup, allow=allow) as link:
            assert upper.query(cgroup).flags == pybpf.links.cgroup.ALLOW[allow]
            assert not make_socket_in(below)
            if allow == "none":
                with pytest.raises(BPFPermissionError, match="forbids others"):
                    links.attach_cgroup(lower, below, allow="override")
            else:
                with links.attach_cgroup(lower, below, allow="override"):
                    assert make_socket_in(below)
                assert not make_socket_in(below)
            link.update(other, old=upper)
            assert make_socket_in(below)
            with pytest.raises(BPFPermissionError, match="not the expected one"):
                link.update(lower, old=upper)
            assert upper.query(cgroup).prog_ids == [other.id]
            with links.attach_cgroup(lower, cgroup, allow=allow) as newer:
                link.close()  # leaves alone what has taken its place
                assert upper.query(cgroup).prog_ids == [lower.id]
            assert newer.closed
        assert upper.query(cgroup).prog_ids == []
    finally:
        below.rmdir()


def test_cgroup_replacing(loader: Callable[..., Program], cgroup: Path) -> None:
    one, two, three = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(result), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for result in (ALLOW, REFUSE, ALLOW)
    )
    with Refuse("BPF_LINK_CREATE", errno.EINVAL):
        old = links.attach_cgroup(one, cgroup)
    with links.attach_cgroup(three, cgroup), links.attach_cgroup(two, cgroup, replace=one) as link:
        old.close()
        assert sorted(one.query(cgroup).prog_ids) == sorted([two.id, three.id])
        assert not make_socket_in(cgroup)
        link.update(one)
        assert make_socket_in(cgroup)
        with pytest.raises(ValueError, match="leave out allow= and replace="):
            links.attach_cgroup(two, cgroup, replace=one, preorder=True)
        with pytest.raises(BPFError, match="attaching 'probe' to cgroup_inet_sock_create"):
            links.attach_cgroup(three, cgroup, replace=two)
    with pytest.raises(ValueError, match="allow is one of multi, override, none"):
        links.attach_cgroup(one, cgroup, allow="all")
    assert eventually(lambda: one.query(cgroup).prog_ids == [])


def test_cgroup_preorder(loader: Callable[..., Program], cgroup: Path) -> None:
    """A program in preorder runs before those of the cgroups below; the others after them."""
    upper, lower = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(ALLOW), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for _ in range(2)
    )
    below = cgroup / "below"
    below.mkdir()
    try:
        with links.attach_cgroup(lower, below):
            with links.attach_cgroup(upper, cgroup):
                assert lower.query(below, effective=True).prog_ids == [lower.id, upper.id]
            try:
                link = links.attach_cgroup(upper, cgroup, preorder=True)
            except BPFError as error:
                pytest.skip(f"the kernel knows no preorder (Linux 6.15): {error}")
            with link:
                assert lower.query(below, effective=True).prog_ids == [upper.id, lower.id]
    finally:
        below.rmdir()


def test_cgroup_link_updates_and_detaches(loader: Callable[..., Program], cgroup: Path) -> None:
    one, two = (
        loader(c.BPF_PROG_TYPE_CGROUP_SOCK, exit_with(result), attach_type=c.BPF_CGROUP_INET_SOCK_CREATE)
        for result in (ALLOW, REFUSE)
    )
    with links.attach_cgroup(one, cgroup) as link, links.Link.from_id(link.id) as holder:
        link.update(two, old=one)
        assert not make_socket_in(cgroup)
        with pytest.raises(BPFPermissionError, match="not the expected one"):
            link.update(one, old=one)
        link.detach()
        assert make_socket_in(cgroup)  # though somebody else has it open
        assert not holder.closed


def test_lsm_cgroup(trampoline: Callable[..., Program], counter: Counter, cgroup: Path) -> None:
    from link_helpers import function_id, needs_attach_type

    needs_attach_type("BPF_LSM_CGROUP")
    program = trampoline(
        c.BPF_PROG_TYPE_LSM,
        attach_type=c.BPF_LSM_CGROUP,
        attach_btf_id=function_id("bpf_lsm_socket_post_create"),
        result=ALLOW,
        everywhere=True,
    )
    attach_and_fire(counter, cgroup, lambda: links.attach_cgroup(program, cgroup))
