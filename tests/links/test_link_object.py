"""What every link can do, shown on raw tracepoints, XDP and perf links."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import in_child
from link_helpers import Refuse, attached, eventually, has_enumerator, needs_perf_link, perf_descriptors
from link_network import private_network
from link_programs import Counter, exit_with
from thrift import few

from pybpf import abi, links, syscall
from pybpf import constants as c
from pybpf.errors import BPFError, BPFNotFoundError, ClosedError, NotSupportedError, ObjectError
from pybpf.links import Link, Links
from pybpf.program import Program

BPFFS = "/sys/fs/bpf"


@pytest.fixture
def pin_path() -> Iterator[str]:
    path = f"{BPFFS}/pybpf_test_{os.getpid()}"
    yield path
    Path(path).unlink(missing_ok=True)


@pytest.fixture
def link(counting: Callable[..., Program]) -> Iterator[Link]:
    with links.attach_raw_tracepoint(counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT), "sys_enter") as made:
        yield made


def fires(counter: Counter) -> bool:
    before = counter.value
    os.getppid()
    return counter.value > before


def test_close_detaches_and_may_be_called_twice(link: Link, counter: Counter) -> None:
    assert fires(counter)
    link.close()
    link.close()
    assert link.closed
    assert eventually(lambda: not fires(counter))


def test_closed_link_is_of_no_use(link: Link) -> None:
    link.close()
    for use in (link.fileno, link.info, lambda: link.pin(f"{BPFFS}/x")):
        with pytest.raises(ClosedError, match="raw_tracepoint sys_enter is closed"):
            use()
    link.detach()


def test_repr_names_kind_target_and_id(link: Link) -> None:
    assert repr(link) == f"<Link raw_tracepoint sys_enter id={link.id}>"
    assert link.id in attached()
    link.close()
    assert repr(link) == "<Link raw_tracepoint sys_enter closed>"


def test_info(link: Link) -> None:
    info = link.info()
    assert (info.id, info.tp_name) == (link.id, "sys_enter")
    assert link.type is abi.LinkType.RAW_TRACEPOINT
    assert any(found.id == link.id and found.prog_id == info.prog_id for found in links.iter_links())


def test_forgotten_link_warns_and_detaches(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT)
    link = links.attach_raw_tracepoint(program, "sys_enter")
    with pytest.warns(ResourceWarning, match="unclosed link: raw_tracepoint sys_enter"):
        del link
        gc.collect()
    assert eventually(lambda: not fires(counter))


def test_pinned_link_survives_close_and_is_opened_again(link: Link, counter: Counter, pin_path: str) -> None:
    link.pin(pin_path)
    assert link.pin_path == pin_path
    number = link.id
    link.close()
    assert fires(counter)
    with Link.open_pinned(pin_path) as again:
        assert (again.id, again.kind, again.target, again.pin_path) == (number, "raw_tracepoint", "sys_enter", pin_path)
        again.unpin()
        again.unpin()
        assert fires(counter)
    assert not Path(pin_path).exists()
    assert eventually(lambda: not fires(counter))


def test_detach_ends_a_pinned_link(link: Link, counter: Counter, pin_path: str) -> None:
    link.pin(pin_path)
    link.detach()
    assert link.closed
    assert not Path(pin_path).exists()
    assert eventually(lambda: not fires(counter))


def test_pinned_perf_link_stays_enabled(counting: Callable[..., Program], counter: Counter, pin_path: str) -> None:
    needs_perf_link()
    link = links.attach_tracepoint(counting(c.BPF_PROG_TYPE_TRACEPOINT), "syscalls", "sys_enter_getsid")
    link.pin(pin_path)
    link.close()
    os.getsid(os.getpid())
    assert counter.value == 1
    with Link.open_pinned(pin_path) as again:
        if has_enumerator("bpf_perf_event_type", "BPF_PERF_EVENT_TRACEPOINT"):
            assert (again.kind, again.target) == ("tracepoint", "sys_enter_getsid")
        else:
            assert (again.kind, again.target) == ("perf_event", "")
        again.unpin()


def test_pin_outside_of_a_bpf_file_system(link: Link, tmp_path: Path) -> None:
    with pytest.raises(BPFError, match=r"pinning raw_tracepoint sys_enter at .* BPF file system"):
        link.pin(tmp_path / "link")
    assert link.pin_path == ""


def test_open_pinned_refuses_what_is_no_link(counter: Counter, pin_path: str) -> None:
    syscall.obj_pin(pin_path, counter)
    with pytest.raises(ObjectError, match="is not a link"):
        Link.open_pinned(pin_path)
    with pytest.raises(BPFNotFoundError):
        Link.open_pinned(pin_path + "_missing")


def test_from_id_holds_the_attachment(link: Link, counter: Counter) -> None:
    with Link.from_id(link.id) as other:
        assert (other.id, other.kind, other.target) == (link.id, "raw_tracepoint", "sys_enter")
        link.close()
        assert fires(counter)
    with pytest.raises(BPFNotFoundError):
        assert eventually(lambda: not Link.from_id(other.id).close())


def test_update_exchanges_the_program(loader: Callable[..., Program], counting: Callable[..., Program]) -> None:
    first = loader(c.BPF_PROG_TYPE_XDP, exit_with(2))
    second = loader(c.BPF_PROG_TYPE_XDP, exit_with(1))
    with private_network(), links.attach_xdp(first, "lo") as link:
        assert link.info().prog_id == first.id
        link.update(second)
        assert link.info().prog_id == second.id
        with pytest.raises(BPFError, match="not the expected one"):
            link.update(first, old=first)
        link.update(first, old=second)
        assert link.info().prog_id == first.id


def test_update_of_a_link_that_has_none(link: Link, counting: Callable[..., Program]) -> None:
    with pytest.raises(BPFError, match="updating raw_tracepoint sys_enter to 'probe'"):
        link.update(counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT))


def test_detach_forces_links_that_others_hold(loader: Callable[..., Program]) -> None:
    program = loader(c.BPF_PROG_TYPE_XDP, exit_with(2))
    with private_network():
        link = links.attach_xdp(program, "lo")
        with Link.from_id(link.id) as other:
            link.detach()
            assert other.info().ifindex == 0
            with links.attach_xdp(program, "lo"):
                pass


def test_links_close_all_in_reverse_and_tell_the_first_error(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT)
    order: list[str] = []

    def leave(name: str) -> Callable[[], None]:
        def undo() -> None:
            order.append(name)
            if name == "b":
                raise OSError(errno.EIO, "gone")

        return undo

    made = [links.Attachment("test", name, leave(name)) for name in "abc"]
    with pytest.raises(OSError, match="gone"), Links(made) as group:
        group.append(links.attach_raw_tracepoint(program, "sys_enter"))
        assert not group.closed
        assert repr(group).startswith("<Links [<Link test a>, ")
    assert group.closed
    assert order == ["c", "b", "a"]
    group.close()
    assert order == ["c", "b", "a"]


def test_attachment_without_link_object() -> None:
    with links.Attachment("test", "x", lambda: None) as attachment:
        assert attachment.id == 0
        assert repr(attachment) == "<Link test x>"
        for use in (attachment.fileno, attachment.info, lambda: attachment.pin("/sys/fs/bpf/x")):
            with pytest.raises(NotSupportedError, match="test x has no link object"):
                use()


def test_a_child_only_lets_go_of_what_its_parent_has_attached(
    counting: Callable[..., Program], counter: Counter
) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT, everywhere=True)
    undone: list[str] = []
    with (
        links.Attachment("test", "x", lambda: undone.append("x")) as attachment,
        links.attach_perf_event(program, "cpu-clock", frequency=1000) as group,
    ):

        def close_all() -> None:
            group.close()
            attachment.close()
            assert group.closed and attachment.closed and not undone

        def detach() -> None:
            attachment.detach()
            assert undone == ["x"]

        assert in_child(close_all) == 0
        assert in_child(detach) == 0
        before = counter.value
        assert eventually(lambda: counter.value > before)
    assert undone == ["x"]


def test_a_link_that_is_forgotten_until_python_ends_goes_quietly() -> None:
    script = """
from pybpf import constants, links, syscall
from pybpf.program import Program
code = bytes.fromhex("b700000000000000 9500000000000000")
fd = syscall.prog_load(constants.BPF_PROG_TYPE_PERF_EVENT, code)
program = Program(fd, name="probe", type_number=constants.BPF_PROG_TYPE_PERF_EVENT)
group = links.attach_perf_event(program, "cpu-clock", frequency=1)
def function(): "holds these names until modules are gone"
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("BPF_LINK_CREATE", "bpf"),
        ("PERF_EVENT_IOC_ENABLE", "ioctl"),
        ("", "perf_event_open"),
    ],
)
def test_failed_attachment_leaves_nothing(counting: Callable[..., Program], command: str, name: str) -> None:
    needs_perf_link()
    program = counting(c.BPF_PROG_TYPE_TRACEPOINT)
    before, perf = attached(), perf_descriptors()
    with Refuse(command, errno.ENOMEM, name=name) as refuse, pytest.raises(BPFError) as raised:
        links.attach_tracepoint(program, "syscalls", "sys_enter_getsid")
    assert raised.value.errno == errno.ENOMEM
    assert refuse.refused == 1
    assert perf_descriptors() == perf
    assert eventually(lambda: attached() <= before)


def test_thousand_rounds(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_RAW_TRACEPOINT)
    before = len(os.listdir("/proc/self/fd"))
    end = time.monotonic() + 30
    for _ in range(few(1000)):
        links.attach_raw_tracepoint(program, "sys_enter").close()
        if time.monotonic() > end:
            break
    assert len(os.listdir("/proc/self/fd")) == before
