"""What the tests of links share: a counter, programs that are closed, and a check that nothing stays attached."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from lacking import trampolines_needed
from link_helpers import attached, eventually, perf_descriptors, probe_events
from link_programs import Code, Counter, add_one, exit_with, load, only_for_this_process

from pybpf import probe
from pybpf.btf.kernel import vmlinux
from pybpf.btf.kinds import KIND_ENUM
from pybpf.links.kprobe import NO_KPROBES_HINT, has_kprobes
from pybpf.program import Program

#: What only a kernel has that was built for it (docs/kernel-matrix.md), and how it is known that this one does.
BUILT = {
    "lirc": lambda: bool(probe.has_program_type("lirc_mode2")),
    "netdevsim": lambda: Path("/sys/bus/netdevsim").exists(),
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "built(what): needs what no stock kernel has")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))
            if (marker := item.get_closest_marker("built")) and not BUILT[marker.args[0]]():
                item.add_marker(pytest.mark.skip(reason=f"the kernel was built without {marker.args[0]}"))


@pytest.fixture(scope="session", autouse=True)
def kernel_types() -> None:
    """The kernel's BTF is mapped once for all tests."""
    assert vmlinux().get("bpf_attach_type", KIND_ENUM) is not None


@pytest.fixture(scope="session", autouse=True)
def locked_memory() -> None:
    """Kernels before 5.11 charge maps and programs against RLIMIT_MEMLOCK."""
    with suppress(ValueError):  # root without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Links, perf events and probe events are the same after a test as before."""
    links_before, events, perf = attached(), probe_events(), perf_descriptors()
    yield
    gc.collect()
    assert eventually(lambda: not attached() - links_before), "links stay behind"
    assert probe_events() == events
    assert perf_descriptors() == perf


@pytest.fixture
def counter() -> Iterator[Counter]:
    with Counter() as made:
        yield made


@pytest.fixture
def loader() -> Iterator[Callable[..., Program]]:
    """A function that loads programs, which are closed at the end."""
    made: list[Program] = []

    def make(prog_type: int, code: Code, **options: object) -> Program:
        made.append(load(prog_type, code, **options))
        return made[-1]

    yield make
    for program in made:
        program.close()


@pytest.fixture
def counting(counter: Counter, loader: Callable[..., Program]) -> Callable[..., Program]:
    """A function that makes programs that count their runs in `counter`, in this process only."""

    def make(prog_type: int, *, result: int = 0, everywhere: bool = False, **options: object) -> Program:
        only = [] if everywhere else only_for_this_process(result)
        return loader(prog_type, [*only, *add_one(counter.fileno()), *exit_with(result)], **options)

    return make


@pytest.fixture
def trampoline(counting: Callable[..., Program]) -> Callable[..., Program]:
    """The same for programs on trampolines; the test is skipped where the kernel makes none."""

    def make(prog_type: int, **options: object) -> Program:
        with trampolines_needed():
            return counting(prog_type, **options)

    return make


@pytest.fixture
def kprobes() -> None:
    if not has_kprobes():
        pytest.skip(NO_KPROBES_HINT)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup of our own."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = [place for _, place, kind, *_ in mounts if kind == "cgroup2"]
    if not roots:
        pytest.skip("no cgroup version 2 file system is mounted")
    path = Path(roots[0], f"pybpf_test_{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        assert eventually(lambda: _remove(path))


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True
