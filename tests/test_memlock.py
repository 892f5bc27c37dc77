"""RLIMIT_MEMLOCK: lifted where the kernel charges BPF memory to it (before Linux 5.11), and left alone elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pybpf.btf.kernel import vmlinux
from pybpf.compat import charges_memlock

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

OBJECT = Path(__file__).resolve().parents[1] / "kernels" / f"runqlat.{'' if sys.byteorder == 'little' else 'eb.'}bpf.o"
LIMIT = 1 << 16
LOAD = """
import resource, sys
import pybpf
resource.setrlimit(resource.RLIMIT_MEMLOCK, ({limit}, resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]))
with pybpf.load(sys.argv[1]) as obj:
    print(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
"""


def kernel_charges_memlock() -> bool:
    """What maps were charged with until Linux 5.11 shows in their type."""
    return vmlinux().get("bpf_map_memory") is not None


def test_whether_the_kernel_charges_it_is_found_out() -> None:
    assert charges_memlock() == kernel_charges_memlock()


def test_a_load_beyond_the_limit_lifts_it_where_it_counts() -> None:
    code = LOAD.format(limit=LIMIT)
    done = subprocess.run([sys.executable, "-c", code, str(OBJECT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) != LIMIT) == kernel_charges_memlock()
