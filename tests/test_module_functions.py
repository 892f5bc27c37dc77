"""Programs that call and trace functions of a kernel module."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from lacking import trampolines_needed
from object_builder import ObjectBuilder

import pybpf

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

MODULE = "nf_conntrack"
PACKET = bytes(64)


@pytest.fixture
def spec(tmp_path_factory: pytest.TempPathFactory) -> pybpf.ObjectSpec:
    if modprobe := shutil.which("modprobe", path="/usr/sbin:/sbin"):
        subprocess.run([modprobe, "-q", MODULE], check=False)
    if not os.path.exists(f"/sys/kernel/btf/{MODULE}"):
        pytest.skip(f"the kernel has no module {MODULE} with BTF")
    build = ObjectBuilder(tmp_path_factory.mktemp("modules"))
    return pybpf.ObjectSpec.from_file(build("load_module_functions.bpf.c", byte_order=sys.byteorder))


@pytest.fixture
def obj(spec: pybpf.ObjectSpec) -> Iterator[pybpf.Object]:
    for program in spec.programs.values():
        program.autoload = True
    try:
        with trampolines_needed():
            loaded = spec.load()
    except pybpf.ObjectError as error:
        if "bpf_xdp_ct_lookup" not in str(error):
            raise
        pytest.skip(f"functions that look connections up came with Linux 6.0: {error}")
    with loaded:
        yield loaded


def test_a_function_of_a_module_is_called(obj: pybpf.Object) -> None:
    """It answers as its source says: EPROTO for what is neither TCP nor UDP, ENOENT for an unknown connection."""
    obj.globals["protocol"] = 99
    assert obj.programs["look_up"].test_run(PACKET).retval == errno.EPROTO
    obj.globals["protocol"] = socket.IPPROTO_UDP
    assert obj.programs["look_up"].test_run(PACKET).retval == errno.ENOENT


def test_a_function_of_a_module_is_traced(obj: pybpf.Object) -> None:
    obj.globals["protocol"] = socket.IPPROTO_UDP
    program = obj.programs["look_up"]
    program.test_run(PACKET)
    assert obj.globals["lookups"] == 0
    with trampolines_needed():
        link = obj.programs["on_lookup"].attach()
    with link:
        program.test_run(PACKET)
        assert obj.globals["lookups"] == 1
    program.test_run(PACKET)
    assert obj.globals["lookups"] == 1
