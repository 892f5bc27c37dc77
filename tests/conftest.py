"""What every test shares: a leak is a failure, and tests that need the kernel say why they are skipped."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from thrift import EMULATED, few


def descriptors() -> dict[int, str]:
    """Every open descriptor of this process and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def left_open(before: dict[int, str]) -> dict[int, str]:
    """Descriptors of the kernel's objects that are open now and were not before."""
    return {fd: what for fd, what in descriptors().items() if before.get(fd) != what and what.startswith("anon_inode:")}


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Short names for long texts, the same with every release of pytest: the kernel matrix joins results by name."""
    written = ascii(val) if isinstance(val, (str, bytes)) else ""
    return argname if len(written) > 60 or "\\" in written else None


@pytest.fixture(autouse=True)
def no_leaked_descriptors(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test must close what it opens: BPF descriptors, and any other that it leaves behind."""
    if request.node.get_closest_marker("keeps_descriptors"):
        yield
        return
    before = descriptors()
    yield
    if left_open(before):
        gc.collect()  # what waits for the garbage collector is not kept by anybody
    left = left_open(before)
    assert not left, f"left open: {left}"


#: Tests that ask nothing of the kernel: bytes in, values out. The kernel matrix runs them on one kernel of each
#: architecture. Those among them that look at the running kernel carry the marker `kernel` or are listed below.
_PURE = """
    asm/* btf/* elf/* scripts/* events/test_perfring.py events/test_ring.py events/test_types.py
    explaining/test_fields.py explaining/test_history.py probe/test_probe_answers.py symbols/test_binaries.py
    symbols/test_ld_cache.py symbols/test_usdt.py verifier/test_advice.py verifier/test_log.py test_built_objects.py
    test_house.py test_kernels.py test_package.py test_relocation_report.py test_spec.py test_typing.py
"""
PURE = _PURE.split()
NOT_PURE = ("*/test_*_kernel.py", "btf/test_kernel_btf.py")


def is_pure_file(path: Path) -> bool:
    """Whether a file lies where tests ask nothing of the kernel."""
    name = path.relative_to(Path(__file__).parent).as_posix()
    return any(fnmatch(name, pattern) for pattern in PURE) and not any(fnmatch(name, pattern) for pattern in NOT_PURE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of which no test is wanted are not even read: that takes a guest half a minute."""
    if config.option.markexpr == "not pure" and collection_path.suffix == ".py" and is_pure_file(collection_path):
        return None if "mark.kernel" in collection_path.read_text() else True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_pure_file(item.path) and not item.get_closest_marker("kernel"):
            item.add_marker("pure")


def pytest_configure(config: pytest.Config) -> None:
    # What a shell starts in the background ignores SIGINT, and so would all that the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if EMULATED:
        from hypothesis import HealthCheck, settings

        settings.register_profile(
            "emulated", max_examples=few(100), deadline=None, suppress_health_check=list(HealthCheck)
        )
        settings.load_profile("emulated")
    config.addinivalue_line("markers", "keeps_descriptors: the descriptors that this test leaves are counted by itself")
