"""kprobes and uprobes, one place at a time and many at once."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from affinity import on_cpu
from link_helpers import (
    Refuse,
    eventually,
    has_enumerator,
    needs_attach_type,
    needs_fprobe,
    needs_perf_link,
    probe_events,
)
from link_programs import Counter, exit_with, keep_cookie

from pybpf import constants as c
from pybpf import links
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError, NotSupportedError
from pybpf.links.kprobe import has_kprobes
from pybpf.links.many import attach_each
from pybpf.links.perf_names import event_numbers
from pybpf.links.uprobe import locate
from pybpf.program import Program
from pybpf.symbols import find_binary, function_offset, kernel_addresses
from pybpf.symbols.elf import Binary

LIBC = "libc.so.6"
NO_OPERATION = {"x86_64": b"\x90\xc3", "aarch64": bytes.fromhex("1f2003d5c0035fd6"), "s390x": bytes.fromhex("070707fe")}
"""An instruction that does nothing, and a return."""


def get_sid() -> None:
    os.getsid(os.getpid())  # security_task_getsid() runs only when a process is named


def get_ppid() -> None:
    os.getppid()


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


# kprobes


@pytest.mark.parametrize("mode", ["auto", "link", "perf", "legacy"])
@pytest.mark.parametrize("attach", [links.attach_kprobe, links.attach_kretprobe])
@pytest.mark.usefixtures("kprobes")
def test_kprobe(
    counting: Callable[..., Program], counter: Counter, attach: Callable[..., links.Link], mode: str
) -> None:
    if mode == "link":
        needs_perf_link()
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach_it() -> links.Link:
        link = attach(program, "security_task_getsid", mode=mode)
        assert link.target == "security_task_getsid"
        assert ("pybpf_" in probe_events()) == (mode == "legacy")
        return link

    attach_and_fire(counter, attach_it, get_sid)


@pytest.mark.parametrize("attach", [links.attach_ksyscall, links.attach_kretsyscall])
@pytest.mark.usefixtures("kprobes")
def test_ksyscall(counting: Callable[..., Program], counter: Counter, attach: Callable[..., links.Link]) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    attach_and_fire(counter, lambda: attach(program, "getsid"), get_sid)


@pytest.mark.usefixtures("kprobes")
def test_kprobe_at_an_address(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    address = kernel_addresses(["security_task_getsid"])["security_task_getsid"][0]
    attach_and_fire(counter, lambda: links.attach_kprobe(program, address), get_sid)


@pytest.mark.usefixtures("kprobes")
def test_kprobe_link_info(counting: Callable[..., Program]) -> None:
    needs_perf_link()
    with links.attach_kprobe(counting(c.BPF_PROG_TYPE_KPROBE), "security_task_getsid") as link:
        if has_enumerator("bpf_perf_event_type", "BPF_PERF_EVENT_KPROBE"):
            assert link.info().func_name == "security_task_getsid"
            with links.Link.from_id(link.id) as other:
                assert (other.kind, other.target) == ("kprobe", "security_task_getsid+0x0")


@pytest.mark.usefixtures("kprobes")
def test_kprobe_cookie(loader: Callable[..., Program], counter: Counter) -> None:
    needs_perf_link()
    program = loader(c.BPF_PROG_TYPE_KPROBE, [*keep_cookie(counter.fileno()), *exit_with(0)])
    with links.attach_kprobe(program, "security_task_getsid", cookie=99):
        get_sid()
        assert counter.value == 99


@pytest.mark.parametrize("attach", [links.attach_kprobe, links.attach_kretprobe])
@pytest.mark.usefixtures("kprobes")
def test_kprobe_on_a_pattern(
    counting: Callable[..., Program], counter: Counter, attach: Callable[..., links.Link]
) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach_it() -> links.Link:
        link = attach(program, "security_task_get?*")
        assert isinstance(link, links.ManyLink)
        assert {"security_task_getsid", "security_task_getpgid"} <= {one.target for one in link.links}
        return link

    attach_and_fire(counter, attach_it, get_sid)
    with pytest.raises(BPFNotFoundError, match="no traceable kernel function fits the pattern"):
        attach(program, "no_such_*")


@pytest.mark.usefixtures("kprobes")
def test_kprobe_on_a_pattern_that_only_partly_works(counting: Callable[..., Program], counter: Counter) -> None:
    """What cannot be probed is told; nothing at all is an error."""
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach(name: str) -> links.Link:
        return links.attach_kprobe(program, name)

    with attach_each("kprobe", "two", ["security_task_getsid", "no_such_function"], attach) as link:
        assert [name for name, _ in link.failed] == ["no_such_function"]
        assert repr(link) == "<ManyLink kprobe two: 1 links, 1 failed>"
        get_sid()
        assert counter.value == 1
    with pytest.raises(BPFNotFoundError, match="no function 'no_such'"):
        attach_each("kprobe", "one", ["no_such"], attach)


@pytest.mark.usefixtures("kprobes")
def test_kprobe_on_a_pattern_by_one_link(loader: Callable[..., Program], counter: Counter) -> None:
    needs_fprobe()
    program = loader(
        c.BPF_PROG_TYPE_KPROBE,
        [*keep_cookie(counter.fileno()), *exit_with(0)],
        attach_type=c.BPF_TRACE_KPROBE_MULTI,
    )
    with links.attach_kprobe(program, "security_task_gets?d", cookie=9) as link:
        assert link.kind == "kprobe_multi"
        get_sid()
        assert counter.value == 9


@pytest.mark.usefixtures("kprobes")
def test_kretprobe_of_many_calls_at_once(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach_it() -> links.Link:
        link = links.attach_kretprobe(program, "security_task_getsid", maxactive=100)
        assert "r100:kretprobes/pybpf_" in probe_events()
        return link

    attach_and_fire(counter, attach_it, get_sid)
    with pytest.raises(ValueError, match="maxactive is not negative"):
        links.attach_kretprobe(program, "security_task_getsid", maxactive=-1)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.usefixtures("kprobes")
def test_kprobe_on_what_is_no_function(counting: Callable[..., Program], mode: str) -> None:
    with pytest.raises(BPFNotFoundError, match=r"'probe' to kprobe no_such_function.*no function 'no_such_function'"):
        links.attach_kprobe(counting(c.BPF_PROG_TYPE_KPROBE), "no_such_function", mode=mode)


def test_kprobe_without_kprobes(counting: Callable[..., Program]) -> None:
    if has_kprobes():
        pytest.skip("this kernel has kprobes")
    with pytest.raises(NotSupportedError, match=r"'probe' to kprobe vfs_read.*CONFIG_KPROBE_EVENTS"):
        links.attach_kprobe(counting(c.BPF_PROG_TYPE_KPROBE), "vfs_read")


def test_kprobe_with_a_negative_offset(counting: Callable[..., Program]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        links.attach_kprobe(counting(c.BPF_PROG_TYPE_KPROBE), "vfs_read", offset=-1)


def multi_kprobe(counting: Callable[..., Program], attach_type: int = c.BPF_TRACE_KPROBE_MULTI) -> Program:
    needs_fprobe()
    needs_attach_type(c_name(attach_type))
    return counting(c.BPF_PROG_TYPE_KPROBE, attach_type=attach_type)


def c_name(attach_type: int) -> str:
    return "BPF_" + str(c.ATTACH_TYPE_NAMES[attach_type]).upper()


@pytest.mark.parametrize(
    "functions", ["security_task_getsi?", "security_task_getsid", ["security_task_getsid", "vfs_read"]]
)
@pytest.mark.parametrize("retprobe", [False, True])
@pytest.mark.usefixtures("kprobes")
def test_kprobe_multi(
    counting: Callable[..., Program], counter: Counter, functions: str | list[str], retprobe: bool
) -> None:
    program = multi_kprobe(counting)
    attach_and_fire(counter, lambda: links.attach_kprobe_multi(program, functions, retprobe=retprobe), get_sid)


@pytest.mark.usefixtures("kprobes")
def test_kprobe_multi_by_address_with_cookies(loader: Callable[..., Program], counter: Counter) -> None:
    needs_fprobe()
    program = loader(
        c.BPF_PROG_TYPE_KPROBE,
        [*keep_cookie(counter.fileno()), *exit_with(0)],
        attach_type=c.BPF_TRACE_KPROBE_MULTI,
    )
    addresses = [kernel_addresses([name])[name][0] for name in ("security_task_getsid", "security_task_getpgid")]
    with links.attach_kprobe_multi(program, addresses=addresses, cookies=[5, 6]):
        get_sid()
        assert counter.value == 5
        os.getpgid(os.getpid())
        assert counter.value == 6


@pytest.mark.usefixtures("kprobes")
def test_kprobe_session_runs_twice(counting: Callable[..., Program], counter: Counter) -> None:
    program = multi_kprobe(counting, c.BPF_TRACE_KPROBE_SESSION)
    with links.attach_kprobe_multi(program, "security_task_getsid") as link:
        assert link.kind == "kprobe_session"
        get_sid()
        assert counter.value == 2


@pytest.mark.usefixtures("kprobes")
def test_kprobe_multi_without_a_match(counting: Callable[..., Program]) -> None:
    program = multi_kprobe(counting)
    with pytest.raises(BPFNotFoundError, match=r"no traceable kernel function fits 'no_such_\*'"):
        links.attach_kprobe_multi(program, "no_such_*")
    with pytest.raises(BPFNotFoundError, match="kprobe_multi no_such_function"):
        links.attach_kprobe_multi(program, "no_such_function")


def test_kprobe_multi_arguments(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with pytest.raises(ValueError, match="give functions or addresses"):
        links.attach_kprobe_multi(program)
    with pytest.raises(ValueError, match="not with a pattern"):
        links.attach_kprobe_multi(program, "vfs_*", cookies=[1])
    with pytest.raises(ValueError, match="1 cookies for 2 functions"):
        links.attach_kprobe_multi(program, ["vfs_read", "vfs_write"], cookies=[1])


# uprobes


def libc() -> str:
    return find_binary(LIBC)


@pytest.mark.parametrize("mode", ["auto", "link", "perf", "legacy"])
@pytest.mark.parametrize("attach", [links.attach_uprobe, links.attach_uretprobe])
@pytest.mark.parametrize("pid", [-1, 0])
def test_uprobe(
    counting: Callable[..., Program], counter: Counter, attach: Callable[..., links.Link], mode: str, pid: int
) -> None:
    if mode == "link":
        needs_perf_link()
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach_it() -> links.Link:
        link = attach(program, LIBC, "getppid", mode=mode, pid=pid)
        assert link.target == "libc.so.6:getppid"
        assert ("pybpf_" in probe_events()) == (mode == "legacy")
        return link

    attach_and_fire(counter, attach_it, get_ppid)


def test_uprobe_of_a_versioned_symbol(counting: Callable[..., Program], counter: Counter) -> None:
    with Binary(libc()) as binary:
        version = next(symbol.version for symbol in binary._named("SHT_DYNSYM", "getppid"))
    assert version.startswith("GLIBC_")
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    attach_and_fire(counter, lambda: links.attach_uprobe(program, libc(), f"getppid@{version}"), get_ppid)
    with pytest.raises(BPFNotFoundError, match="defines no function 'getppid@GLIBC_0'"):
        links.attach_uprobe(program, libc(), "getppid@GLIBC_0")


def test_uprobe_at_a_file_offset(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    offset = function_offset(libc(), "getppid")
    attach_and_fire(counter, lambda: links.attach_uprobe(program, libc(), offset=offset), get_ppid)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_uprobe_of_a_file_whose_name_is_no_text(loader: Callable[..., Program], mode: str, tmp_path: Path) -> None:
    path = shutil.copy(libc(), tmp_path / "not\udcfftext.so")
    with links.attach_uprobe(loader(c.BPF_PROG_TYPE_KPROBE, exit_with(0)), str(path), "getppid", mode=mode) as link:
        assert link.target == f"{path}:getppid"


@pytest.mark.parametrize("attach", [links.attach_uprobe, links.attach_uretprobe])
def test_uprobe_on_a_pattern(
    counting: Callable[..., Program], counter: Counter, attach: Callable[..., links.Link]
) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)

    def attach_it() -> links.Link:
        link = attach(program, LIBC, "getp?id", pid=0)
        assert isinstance(link, links.ManyLink)
        assert len(link.links) > 1
        return link

    attach_and_fire(counter, attach_it, get_ppid)
    with pytest.raises(BPFNotFoundError, match=r"uprobe|uretprobe libc.so.6:no_such_\*: no function of"):
        attach(program, LIBC, "no_such_*")


def test_uprobe_on_a_pattern_by_one_link(loader: Callable[..., Program], counter: Counter) -> None:
    needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    program = loader(
        c.BPF_PROG_TYPE_KPROBE,
        [*keep_cookie(counter.fileno()), *exit_with(0)],
        attach_type=c.BPF_TRACE_UPROBE_MULTI,
    )
    with links.attach_uprobe(program, LIBC, "getppi?", pid=0, cookie=3) as link:
        assert link.kind == "uprobe_multi"
        get_ppid()
        assert counter.value == 3


def test_uprobe_of_a_library_that_only_the_process_has(
    counting: Callable[..., Program], counter: Counter, tmp_path: Path
) -> None:
    """A name is looked up in what the process has mapped: here a library that no directory of libraries has."""
    library = tmp_path / "libmapped.so.6"
    library.write_bytes(Path(libc()).read_bytes())
    with Binary(str(library)) as binary:
        text = next(one for one in binary.segments if one.is_code)
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with pytest.raises(BPFNotFoundError, match="library 'libmapped.so.6' is not found"):
        links.attach_uprobe(program, library.name, "getppid", pid=0)
    start = text.offset // mmap.PAGESIZE * mmap.PAGESIZE
    with library.open("rb") as file:
        mapped = mmap.mmap(
            file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC, offset=start
        )
    with mapped, links.attach_uprobe(program, library.name, "getppid", pid=0) as link:
        if has_enumerator("bpf_perf_event_type", "BPF_PERF_EVENT_UPROBE"):
            assert link.info().file_name == str(library)
    library.unlink()


def test_uprobe_of_another_process_only(counting: Callable[..., Program], counter: Counter) -> None:
    """Only the child's calls count, and only while it is attached."""
    program = counting(c.BPF_PROG_TYPE_KPROBE, everywhere=True)
    code = "import os, sys\nfor line in sys.stdin:\n    os.getppid()\n    print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout

        def fire() -> None:
            child.stdin.write("\n")
            child.stdin.flush()
            child.stdout.readline()

        with links.attach_uprobe(program, LIBC, "getppid", pid=child.pid):
            get_ppid()
            assert counter.value == 0
            fire()
            assert counter.value == 1
        fire()
        assert counter.value == 1
        child.stdin.close()


def test_uprobe_cookie(loader: Callable[..., Program], counter: Counter) -> None:
    needs_perf_link()
    program = loader(c.BPF_PROG_TYPE_KPROBE, [*keep_cookie(counter.fileno()), *exit_with(0)])
    with links.attach_uprobe(program, LIBC, "getppid", pid=0, cookie=7):
        get_ppid()
        assert counter.value == 7


def test_uprobe_link_info(counting: Callable[..., Program]) -> None:
    needs_perf_link()
    with links.attach_uprobe(counting(c.BPF_PROG_TYPE_KPROBE), LIBC, "getppid") as link:
        if has_enumerator("bpf_perf_event_type", "BPF_PERF_EVENT_UPROBE"):
            info = link.info()
            assert os.path.samefile(info.file_name, libc())
            assert info.offset == function_offset(libc(), "getppid")


@pytest.fixture
def semaphore(tmp_path: Path) -> Iterator[tuple[Path, mmap.mmap]]:
    """A file whose first page is code and whose second is data, both mapped as a program's would be."""
    code = NO_OPERATION[platform.machine()]
    path = tmp_path / "counted"
    path.write_bytes(code.ljust(mmap.PAGESIZE, b"\0") + bytes(mmap.PAGESIZE))
    with path.open("r+b") as file:
        text = mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
        data = mmap.mmap(
            file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=mmap.PAGESIZE
        )
    data[8:10] = bytes(2)
    yield path, data
    text.close()
    data.close()


def test_uprobe_raises_a_reference_counter(counting: Callable[..., Program], semaphore: tuple[Path, mmap.mmap]) -> None:
    path, data = semaphore
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with links.attach_uprobe(program, str(path), offset=0, ref_ctr_offset=mmap.PAGESIZE + 8):
        assert struct.unpack("=H", data[8:10]) == (1,)
    assert eventually(lambda: struct.unpack("=H", data[8:10]) == (0,))
    with pytest.raises(NotSupportedError, match="Reference counters"):
        links.attach_uprobe(program, str(path), ref_ctr_offset=mmap.PAGESIZE + 8, mode="legacy")
    with pytest.raises(ValueError, match="32 bits"):
        links.attach_uprobe(program, str(path), ref_ctr_offset=1 << 32)


def test_uprobe_in_an_archive(counting: Callable[..., Program], tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        zipped.writestr("readme", "." * (4096 - 30 - len("readme") - 30 - len("lib/c.so")))  # as zipalign does
        zipped.write(libc(), "lib/c.so")
    file, place = locate(f"{archive}!/lib/c.so", "getppid", 0)
    assert file == str(archive)
    plain = function_offset(libc(), "getppid")
    assert place == plain + 4096
    assert archive.read_bytes()[place : place + 16] == Path(libc()).read_bytes()[plain : plain + 16]
    with links.attach_uprobe(counting(c.BPF_PROG_TYPE_KPROBE), f"{archive}!/lib/c.so", "getppid") as link:
        assert link.target.endswith("!/lib/c.so:getppid")


def test_uprobe_on_what_does_not_exist(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    with pytest.raises(BPFNotFoundError, match=r"'probe' to uprobe libno.so.1:f.*library 'libno.so.1' is not found"):
        links.attach_uprobe(program, "libno.so.1", "f")
    with pytest.raises(BPFNotFoundError, match="'probe' to uprobe /no/file:f: /no/file"):
        links.attach_uprobe(program, "/no/file", "f")
    with pytest.raises(BPFNotFoundError, match="defines no function 'no_such_function'"):
        links.attach_uprobe(program, LIBC, "no_such_function")
    with pytest.raises(BPFNotFoundError, match="There is no process 4194304"):
        links.attach_uprobe(program, LIBC, "getppid", pid=4194304)


def test_uretprobe_has_no_offset(counting: Callable[..., Program]) -> None:
    with pytest.raises(ValueError, match="no offset"):
        links.attach_uretprobe(counting(c.BPF_PROG_TYPE_KPROBE), LIBC, "getppid", offset=4)


@pytest.mark.parametrize(
    ("command", "name"),
    [("", "perf_event_open"), ("PERF_EVENT_IOC_SET_BPF", "ioctl"), ("PERF_EVENT_IOC_ENABLE", "ioctl")],
)
def test_failed_legacy_uprobe_leaves_no_event(counting: Callable[..., Program], command: str, name: str) -> None:
    program = counting(c.BPF_PROG_TYPE_KPROBE)
    before = probe_events()
    with Refuse(command, errno.ENOMEM, name=name) as refuse, pytest.raises(BPFError):
        links.attach_uprobe(program, LIBC, "getppid", mode="legacy")
    assert refuse.refused == 1
    assert probe_events() == before


def multi_uprobe(counting: Callable[..., Program], attach_type: int = c.BPF_TRACE_UPROBE_MULTI) -> Program:
    needs_attach_type(c_name(attach_type))
    return counting(c.BPF_PROG_TYPE_KPROBE, attach_type=attach_type)


@pytest.mark.parametrize("symbols", ["getppi?", "getppid", ["getppid", "getpgid"]])
@pytest.mark.parametrize("retprobe", [False, True])
def test_uprobe_multi(
    counting: Callable[..., Program], counter: Counter, symbols: str | list[str], retprobe: bool
) -> None:
    program = multi_uprobe(counting)
    attach_and_fire(counter, lambda: links.attach_uprobe_multi(program, LIBC, symbols, retprobe=retprobe), get_ppid)


def test_uprobe_multi_with_cookies(loader: Callable[..., Program], counter: Counter) -> None:
    needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    program = loader(
        c.BPF_PROG_TYPE_KPROBE,
        [*keep_cookie(counter.fileno()), *exit_with(0)],
        attach_type=c.BPF_TRACE_UPROBE_MULTI,
    )
    offsets = [function_offset(libc(), name) for name in ("getppid", "getpgid")]
    with links.attach_uprobe_multi(program, LIBC, offsets=offsets, pid=0, cookies=[11, 12]) as link:
        get_ppid()
        assert counter.value == 11
        os.getpgid(0)
        assert counter.value == 12
        info = link.info(arrays=True)
        if has_enumerator("bpf_link_type", "BPF_LINK_TYPE_NETKIT"):  # Linux 6.7, as is this information
            assert sorted(info.offsets) == sorted(offsets)
            assert os.path.samefile(info.path, libc())


def test_uprobe_session_runs_twice(counting: Callable[..., Program], counter: Counter) -> None:
    program = multi_uprobe(counting, c.BPF_TRACE_UPROBE_SESSION)
    with links.attach_uprobe_multi(program, LIBC, "getppid", pid=0) as link:
        assert link.kind == "uprobe_session"
        get_ppid()
        assert counter.value == 2
    with pytest.raises(ValueError, match="retprobe has no meaning"):
        links.attach_uprobe_multi(program, LIBC, "getppid", retprobe=True)


def test_uprobe_multi_without_a_match(counting: Callable[..., Program]) -> None:
    program = multi_uprobe(counting)
    with pytest.raises(BPFNotFoundError, match=r"no function of .* fits 'no_such_\*'"):
        links.attach_uprobe_multi(program, LIBC, "no_such_*")
    with pytest.raises(ValueError, match="2 ref_ctr_offsets for 1 places"):
        links.attach_uprobe_multi(program, LIBC, "getppid", ref_ctr_offsets=[1, 2])


# perf events


def burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize("rate", [{"frequency": 1000}, {"period": 1_000_000}])
def test_perf_event(counting: Callable[..., Program], counter: Counter, rate: dict[str, int]) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT, everywhere=True)
    with links.attach_perf_event(program, "cpu-clock", **rate) as group:
        assert [link.target for link in group] == [f"cpu-clock cpu {cpu}" for cpu in sorted(os.sched_getaffinity(0))]
        burn(0.1)
        assert counter.value > 0
    assert eventually(lambda: _is_still(counter))


def _is_still(counter: Counter) -> bool:
    before = counter.value
    burn(0.05)
    return counter.value == before


def test_perf_event_of_one_process_and_cpu(counting: Callable[..., Program], counter: Counter) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    cpu = min(os.sched_getaffinity(0))
    with links.attach_perf_event(program, "page-faults", period=1, pid=0, cpus=[cpu]) as group:
        assert len(group) == 1
        with on_cpu(cpu), mmap.mmap(-1, 16 * mmap.PAGESIZE) as memory:
            for page in range(16):
                memory[page * mmap.PAGESIZE] = 1
        assert counter.value >= 16


def test_perf_event_that_was_opened_before(counting: Callable[..., Program], counter: Counter) -> None:
    from pybpf import syscall

    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    with syscall.perf_event_open(
        c.PERF_TYPE_SOFTWARE, c.PERF_COUNT_SW_PAGE_FAULTS, pid=0, cpu=-1, sample_period=1, disabled=1
    ) as perf:
        link = links.attach_perf_fd(program, perf)
    with link, mmap.mmap(-1, mmap.PAGESIZE) as memory:
        memory[0] = 1
        assert counter.value >= 1


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("page-faults", (1, 2)),
        ("instructions", (0, 1)),
        ("L1-dcache-loads", (3, 0)),
        ("LLC-load-misses", (3, 0x10002)),
        ("dTLB-store-misses", (3, 0x10103)),
        ("L1-icache-prefetches", (3, 0x201)),
        ("branch-loads", (3, 5)),
        ("r1a8", (4, 0x1A8)),
    ],
)
def test_event_names(name: str, numbers: tuple[int, int]) -> None:
    assert event_numbers(name) == numbers


@pytest.mark.parametrize("name", ["", "r", "rx", "LLC", "LLC-loads-misses", "L9-loads", "LLC-load-hits"])
def test_event_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="unknown event"):
        event_numbers(name)


RAW = "r00c0" if platform.machine() == "x86_64" else "r0011"
"""Instructions retired on x86-64, cycles on arm64."""


@pytest.mark.parametrize("event", ["instructions", "L1-dcache-loads", RAW])
def test_perf_event_of_hardware(counting: Callable[..., Program], counter: Counter, event: str) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    try:
        group = links.attach_perf_event(program, event, period=10_000, pid=0)
    except BPFNotFoundError as error:
        assert "does not count this event" in str(error)
        return  # virtual machines have no such counters
    with group:
        burn(0.1)
        assert counter.value > 0


@pytest.mark.parametrize("access", ["w", "rw", "x"])
def test_breakpoint(counting: Callable[..., Program], counter: Counter, access: str) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    memory = (ctypes.c_uint32 * 4)()
    function = ctypes.CDLL(None).getppid
    address = ctypes.addressof(memory) if access != "x" else ctypes.cast(function, ctypes.c_void_p).value

    def fire() -> None:
        memory[0] = 1
        function()

    try:
        group = links.attach_breakpoint(program, address, access=access)
    except BPFNotFoundError as error:
        pytest.skip(f"this machine has no breakpoints: {error}")
    assert [link.target for link in group] == [f"{address:#x}"]
    with group:
        before = counter.value
        fire()
        assert counter.value > before

    def is_quiet() -> bool:
        before = counter.value
        fire()
        return counter.value == before

    assert eventually(is_quiet)


def test_breakpoint_arguments(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    with pytest.raises(ValueError, match="access is one of r, w, rw, x"):
        links.attach_breakpoint(program, 0x1000, access="z")
    with pytest.raises(BPFNotFoundError, match="attaching 'probe' to breakpoint no_such_symbol.*kallsyms"):
        links.attach_breakpoint(program, "no_such_symbol")
    with pytest.raises(BPFError, match="breakpoint 0x1001"):
        links.attach_breakpoint(program, 0x1001, length=16)


def test_breakpoint_in_the_kernel(counting: Callable[..., Program], counter: Counter) -> None:
    """On a variable of the kernel that each timer tick writes."""
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT, everywhere=True)
    try:
        group = links.attach_breakpoint(program, "jiffies", length=8, pid=-1)
    except (BPFNotFoundError, BPFPermissionError) as error:
        pytest.skip(f"this machine has no breakpoints in the kernel: {error}")
    with group:
        assert eventually(lambda: counter.value > 0)


def test_perf_event_arguments(counting: Callable[..., Program]) -> None:
    program = counting(c.BPF_PROG_TYPE_PERF_EVENT)
    with pytest.raises(ValueError, match=r"give frequency .* or period"):
        links.attach_perf_event(program, "cpu-clock")
    with pytest.raises(ValueError, match="unknown event 'cpu-clok'"):
        links.attach_perf_event(program, "cpu-clok", frequency=1)
    with pytest.raises(BPFNotFoundError, match="does not count this event"):
        links.attach_perf_event(program, (c.PERF_TYPE_SOFTWARE, 999), period=1)
    with pytest.raises(BPFError, match="max_sample_rate"):
        links.attach_perf_event(program, "cpu-clock", frequency=1 << 40)
    with pytest.raises(BPFNotFoundError, match="CPU 4000 is not online"):
        links.attach_perf_event(program, "cpu-clock", frequency=1, cpus=[0, 4000])
