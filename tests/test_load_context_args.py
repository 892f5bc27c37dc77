"""Functions tagged ``arg:ctx`` in the running kernel, whether it knows the tag or not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lacking import RELEASE
from object_builder import ObjectBuilder

import pybpf
from pybpf.probe import features
from pybpf.probe.answer import Answer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("contexts"))("load_context_args.bpf.c", byte_order=sys.byteorder)


@pytest.mark.parametrize("knows", [True, False])
def test_tagged_functions_get_the_context(path: Path, knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if knows and not features.has_feature("context_tags"):
        pytest.skip("this kernel does not know the tag arg:ctx (Linux 6.8)")
    spec = pybpf.ObjectSpec.from_file(path)
    if not knows and features.has_feature("context_tags"):
        spec.programs["probe_program"].autoload = False  # newer kernels look through the name that older ones want
    monkeypatch.setattr(features, "has_feature", lambda name, token_fd: Answer("yes" if knows else "no"))
    packet = bytes(range(64))
    with spec.load() as obj:
        assert obj.programs.keys() >= {"socket_program", "tc_program", "tracepoint_program"}
        assert obj.programs["tc_program"].test_run(packet).retval == 11
        assert obj.programs["socket_program"].test_run(packet).retval > 0
        assert obj.programs["tc_program"].info(func_info=True).nr_func_info == 2


def test_the_probe_agrees_with_the_kernels_release() -> None:
    assert bool(features.has_feature("context_tags")) == (RELEASE >= (6, 8))
