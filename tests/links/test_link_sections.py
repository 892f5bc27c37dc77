"""Every kind of section for tracing: a program of it is loaded, attached by its section alone, fired, and detached."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from lacking import has_jit
from link_helpers import eventually, needs_attach_type, needs_fprobe
from link_programs import Counter

from pybpf import constants as c
from pybpf import links, syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.elf.sections import definitions, lookup
from pybpf.errors import BPFError, BPFPermissionError, ObjectError, VerifierError
from pybpf.links import IterLink
from pybpf.links.kprobe import NO_KPROBES_HINT, has_kprobes
from pybpf.program import Program
from pybpf.symbols import syscall_function

COUNT = """
    call bpf_get_current_pid_tgid
    r0 >>= 32
    if r0 != {pid} goto out
    *(u32 *)(r10 -4) = 0
    r1 = map[counter]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r1 = 1
    lock *(u64 *)(r0 +0) += r1
out:
    r0 = 0
    exit
"""


def get_sid(link: links.Link) -> None:
    os.getsid(os.getpid())  # security_task_getsid() runs only when a process is named


def get_ppid(link: links.Link) -> None:
    os.getppid()


def open_file(link: links.Link) -> None:
    os.close(os.open("/dev/null", os.O_RDONLY))


def read(link: links.Link) -> None:
    assert isinstance(link, IterLink)
    link.read()


HOOK, SYSCALL, LIBRARY = "security_task_getsid", "{syscall}", "libc.so.6:getppid"

ROWS: list[tuple[str, str, Callable[[links.Link], None], int]] = [
    ("kprobe", HOOK, get_sid, 1),
    ("kretprobe", HOOK, get_sid, 1),
    ("kprobe.multi", "security_task_gets?d", get_sid, 1),
    ("kretprobe.multi", HOOK, get_sid, 1),
    ("kprobe.session", "security_task_getsi*", get_sid, 2),
    ("ksyscall", "getsid", get_sid, 1),
    ("kretsyscall", "getsid", get_sid, 1),
    ("uprobe", LIBRARY, get_ppid, 1),
    ("uprobe.s", LIBRARY, get_ppid, 1),
    ("uretprobe", LIBRARY, get_ppid, 1),
    ("uretprobe.s", LIBRARY, get_ppid, 1),
    ("uprobe.multi", "libc.so.6:getpp?d", get_ppid, 1),
    ("uprobe.multi.s", LIBRARY, get_ppid, 1),
    ("uretprobe.multi", LIBRARY, get_ppid, 1),
    ("uretprobe.multi.s", LIBRARY, get_ppid, 1),
    ("uprobe.session", "libc.so.6:getpp*", get_ppid, 2),
    ("uprobe.session.s", LIBRARY, get_ppid, 2),
    ("tracepoint", "syscalls/sys_enter_getsid", get_sid, 1),
    ("tp", "syscalls/sys_exit_getsid", get_sid, 1),
    ("tracepoint.s", "syscalls/sys_enter_getsid", get_sid, 1),
    ("tp.s", "syscalls/sys_exit_getsid", get_sid, 1),
    ("raw_tracepoint", "sys_enter", get_sid, 1),
    ("raw_tp", "sys_exit", get_sid, 1),
    ("raw_tracepoint.s", "sys_enter", get_sid, 1),
    ("raw_tp.s", "sys_exit", get_sid, 1),
    ("raw_tracepoint.w", "sys_enter", get_sid, 1),
    ("raw_tp.w", "sys_exit", get_sid, 1),
    ("tp_btf", "sys_enter", get_sid, 1),
    ("tp_btf.s", "sys_enter", get_sid, 1),
    ("fentry", HOOK, get_sid, 1),
    ("fexit", HOOK, get_sid, 1),
    ("fmod_ret", HOOK, get_sid, 1),
    ("fsession", HOOK, get_sid, 2),
    ("fentry.s", SYSCALL, get_sid, 1),
    ("fexit.s", SYSCALL, get_sid, 1),
    ("fmod_ret.s", SYSCALL, get_sid, 1),
    ("fsession.s", SYSCALL, get_sid, 2),
    ("fentry.multi", "security_task_gets?d", get_sid, 1),
    ("fexit.multi", HOOK, get_sid, 1),
    ("fsession.multi", HOOK, get_sid, 2),
    ("fentry.multi.s", SYSCALL, get_sid, 1),
    ("fexit.multi.s", SYSCALL, get_sid, 1),
    ("fsession.multi.s", SYSCALL, get_sid, 2),
    ("lsm", "task_getsid", get_sid, 1),
    ("lsm.s", "file_open", open_file, 1),
    ("iter", "task", read, 1),
    ("iter.s", "task", read, 1),
]
"""Name of the section, its target, what makes such a program run, and how often at least."""


KINDS_OF_MAPS = {
    "bpf_map_elem": (c.BPF_MAP_TYPE_HASH, 4, 8, 1, 0),
    "sockmap": (c.BPF_MAP_TYPE_SOCKHASH, 4, 4, 1, 0),
    "bpf_sk_storage_map": (c.BPF_MAP_TYPE_SK_STORAGE, 4, 4, 0, c.BPF_F_NO_PREALLOC),
}
"""Iterator of a map: the map's type, sizes and flags."""


@pytest.mark.parametrize("target", KINDS_OF_MAPS)
def test_iterators_of_maps(make: Callable[[str], Program], counter: Counter, target: str) -> None:
    """At the end of each run the program is called once more, without an element: so also for an empty map."""
    map_type, key, value, entries, flags = KINDS_OF_MAPS[target]
    btf = BTFBuilder(sys.byteorder)
    number = btf.add_int("int", 4, 32, 1)
    with syscall.btf_load(btf.to_bytes()) as btf_fd:
        types = {"btf_fd": btf_fd, "btf_key_type_id": number, "btf_value_type_id": number}
        made = syscall.map_create(
            map_type,
            key_size=key,
            value_size=value,
            max_entries=entries,
            map_flags=flags,
            **(types if map_type == c.BPF_MAP_TYPE_SK_STORAGE else {}),
        )
    with made, make(f"iter/{target}").attach_iter(map=made) as link:
        if target != "sockmap":  # of those the kernel does not tell it
            assert link.info().map_id == syscall.map_info(made).id
        assert link.read() == b""
        assert counter.value == 1


def test_a_sleepable_program_at_a_tracepoint_that_cannot_sleep(make: Callable[[str], Program]) -> None:
    with pytest.raises(BPFError, match="where the kernel may sleep: sys_enter and sys_exit"):
        make("raw_tp.s/sched_switch").attach()


def test_every_tracing_section_is_here() -> None:
    elsewhere = {"usdt", "usdt.s", "freplace"}  # test_link_usdt.py, test_link_tracing.py
    assert {row[0] for row in ROWS} | elsewhere == {
        one.pattern.removesuffix("+") for one in definitions() if one.attach is not None
    }


@pytest.fixture
def make(counter: Counter) -> Iterator[Callable[[str], Program]]:
    """A function that loads a counting program of a section; the test is skipped where the kernel has no such kind."""
    made: list[Program] = []

    def load(section: str) -> Program:
        try:
            made.append(Program.from_asm(COUNT.format(pid=os.getpid()), section, maps={"counter": counter.fd}))
        except BPFPermissionError as error:
            pytest.skip(f"the kernel refuses to load programs for trampolines: {error}")
        except ObjectError as error:
            if "has no bpf_lsm_" not in str(error):
                raise
            pytest.skip(f"the kernel was built without the BPF LSM: {error}")
        except VerifierError as error:
            if "sleepable" not in error.log and "is not modifiable" not in error.log:
                raise
            pytest.skip(f"the kernel has no such sleepable programs: {error.reason}")
        return made[-1]

    yield load
    for program in made:
        program.close()


@pytest.mark.parametrize(("name", "target", "fire", "times"), ROWS, ids=[row[0] for row in ROWS])
def test_section(
    make: Callable[[str], Program],
    counter: Counter,
    name: str,
    target: str,
    fire: Callable[[links.Link], None],
    times: int,
) -> None:
    found = lookup(name)
    assert found is not None
    if found[0].attach in ("kprobe", "kprobe_multi", "kprobe_session", "ksyscall") and not has_kprobes():
        pytest.skip(NO_KPROBES_HINT)
    if found[0].attach_type:
        needs_attach_type("BPF_" + str(c.ATTACH_TYPE_NAMES[found[0].attach_type]).upper())
    if found[0].attach in ("kprobe_multi", "kprobe_session"):
        needs_fprobe()
    if name.startswith(("fentry", "fexit", "fmod_ret", "fsession")) and not has_jit():
        pytest.skip("this kernel has no JIT, and so no trampolines")
    program = make(f"{name}/{target.format(syscall=syscall_function('getsid'))}")
    assert links.auto_attaches(program)
    with program.attach() as link:
        fire(link)
        assert counter.value >= times
        if isinstance(link, IterLink):
            return  # it runs only when it is read

    def is_quiet() -> bool:
        before = counter.value
        fire(link)
        return counter.value == before

    assert eventually(is_quiet)
