"""The kernel side: what is generated from the kernel's headers, and that its objects are whole in both byte orders."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pybpf import constants
from pybpf.spec import ObjectSpec

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted(
    str(path.relative_to(ROOT / "kernels")).removesuffix(".bpf.c") for path in (ROOT / "kernels").rglob("*.bpf.c")
)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["generate-helpers", "generate-classic", "generate-seccomp"])
def test_what_is_generated_is_what_the_headers_say(generator: str) -> None:
    script = str(ROOT / "scripts" / generator)
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    if done.returncode == 2 and "cannot fetch" in done.stderr:
        pytest.skip(f"no headers in the cache and none to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_numbers_in_vmlinux_h_are_those_of_the_kernel() -> None:
    text = (ROOT / "kernels" / "vmlinux.h").read_text()
    found = re.findall(r"^\t(BPF_\w+) = ([^,]+),", text, re.MULTILINE)
    assert len(found) > 20
    for name, expression in found:
        assert eval(expression.replace("ULL", "")) == getattr(constants, name), name


@pytest.mark.parametrize("name", KERNELS)
def test_both_byte_orders_hold_the_same(name: str) -> None:
    little = ObjectSpec.from_file(ROOT / "kernels" / f"{name}.bpf.o")
    big = ObjectSpec.from_file(ROOT / "kernels" / f"{name}.eb.bpf.o")
    assert (little.byte_order, big.byte_order) == ("little", "big")
    assert list(little.programs) == list(big.programs)
    assert list(little.maps) == list(big.maps)
    assert list(little.variables) == list(big.variables)
    assert little.license == big.license == ("" if name.endswith("no_license") else "Dual BSD/GPL")


@pytest.mark.parametrize("name", KERNELS)
def test_every_line_of_a_kernel_has_its_source(name: str) -> None:
    """Line info is there for the verifier to point at a line, and names no folder of the machine it was built on."""
    spec = ObjectSpec.from_file(ROOT / "kernels" / f"{name}.bpf.o")
    assert spec.btf is not None
    assert spec.ext is not None
    assert set(spec.ext.line_info) == {function.section for function in spec.functions}
    assert str(ROOT).encode() not in bytes(spec.btf.data)
