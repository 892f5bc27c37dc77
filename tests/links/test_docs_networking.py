"""The examples of docs/networking.md run as they stand."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_helpers import has_enumerator
from link_network import add_pair, private_network, set_up
from object_builder import ObjectBuilder

import pybpf
from pybpf import abi, links
from pybpf.errors import BPFError

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = re.findall(r"^## (.+?)$|```python\n(.*?)```", (ROOT / "docs/networking.md").read_text(), re.S | re.M)


def numbered() -> dict[str, str]:
    """Title and number -> example."""
    found: dict[str, str] = {}
    title = ""
    for heading, code in EXAMPLES:
        title = heading or title
        if code:
            found[f"{title} {sum(name.startswith(title) for name in found) + 1}"] = code
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("docs"))("load_network.bpf.c", byte_order=sys.byteorder)


@pytest.fixture
def obj(path: Path) -> Iterator[pybpf.Object]:
    """The test object; this kernel loads all that the examples name, but may lack netkit, LIRC and the like."""
    spec = pybpf.ObjectSpec.from_file(str(path))
    spec.globals["answer"] = 1
    names = {name for code in numbered().values() for name in re.findall(r'programs\["(\w+)"\]', code)}
    assert names <= set(spec.programs)
    for name in names:
        spec.programs[name].autoload = True
    try:
        loaded = spec.load()
    except BPFError as error:
        pytest.skip(f"the kernel does not load all of the programs: {error}")
    with loaded:
        yield loaded


@pytest.mark.parametrize("example", numbered())
def test_example(obj: pybpf.Object, cgroup: Path, example: str) -> None:
    pytest.importorskip("pyroute2", reason="the extra 'net' is not installed")
    if not has_enumerator("bpf_attach_type", "BPF_TCX_INGRESS"):
        pytest.skip("the kernel has no tcx")
    with private_network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            add_pair("veth", "eth0")
        except OSError as error:
            pytest.skip(f"the kernel makes no veth pairs: {error}")
        for _, name in socket.if_nameindex():
            set_up(name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        names = {"obj": obj, "pybpf": pybpf, "links": links, "abi": abi, "cgroup": cgroup, "sock": sock}
        exec(compile(numbered()[example], f"docs/networking.md, {example}", "exec"), names)


def test_there_are_examples() -> None:
    assert len(numbered()) > 10
