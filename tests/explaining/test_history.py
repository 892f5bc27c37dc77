"""Which kernel brought what: the table, held against the headers that this machine has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pybpf import constants
from pybpf.explaining.history import table
from pybpf.syscall.attrs import LAYOUTS

HEADER = Path("/usr/include/linux/bpf.h")
BACKPORTED = {"BPF_F_TEST_SKB_CHECKSUM_COMPLETE"}
"""In the headers of stable kernels that are older than what brought it."""


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_every_command_has_its_kernel() -> None:
    assert {name for name in constants.COMMAND_NAMES if name} <= set(table())
    assert table()["BPF_MAP_CREATE"].version == "3.18"
    assert table()["BPF_LINK_CREATE"].version == "5.7"


def test_every_kind_of_map_and_program_has_its_kernel() -> None:
    for prefix in ("BPF_MAP_TYPE_", "BPF_PROG_TYPE_"):
        names = {n for n in vars(constants) if n.startswith(prefix) and not n.endswith(("UNSPEC", "_DEPRECATED"))}
        assert names <= set(table())


def test_rows_are_well_formed() -> None:
    for name, since in table().items():
        assert (3, 15) <= version(since.version) <= (8, 0), name
        assert since.commit
        command, dot, field = name.partition(".")
        assert not dot or field in LAYOUTS[command], name
        assert dot or hasattr(constants, name), name


def test_fields_are_not_older_than_their_command() -> None:
    for name, since in table().items():
        command, dot, _ = name.partition(".")
        if dot and name != "BPF_PROG_LOAD.kern_version":
            assert version(since.version) >= version(table()[command].version), name


def test_the_headers_of_this_machine_agree() -> None:
    release = HEADER.parent / "version.h"
    if not release.exists():
        pytest.skip("no kernel headers (linux-libc-dev) on this machine")
    code = int(re.findall(r"LINUX_VERSION_CODE (\d+)", release.read_text())[0])
    here = (code >> 16, code >> 8 & 0xFF)
    text = HEADER.read_text()
    for name, since in table().items():
        if "." not in name and name not in BACKPORTED:
            there = re.search(rf"\b{name}\b", text) is not None
            assert there == (version(since.version) <= here), (name, since)
