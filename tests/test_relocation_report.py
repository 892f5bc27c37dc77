"""The report of CO-RE relocations against a kernel's types, and the command that prints it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import CoreRelocation, Relocator
from pybpf.elf.relocation_report import Row

ROOT = Path(__file__).resolve().parent.parent

LOCAL = """
#include "bpf_min.h"
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct thing { int first; long second; int gone; };
struct twice { int field; };
struct shrunk { signed long field; };
struct absent { int field; };
#pragma clang attribute pop

#define EXISTS(what) __builtin_preserve_field_info(what, 2)
#define TYPE_EXISTS(type) __builtin_preserve_type_info(*(type *)0, 0)

SEC("raw_tp") int works(struct thing *t) { return t->second; }
SEC("raw_tp") int lacks(struct thing *t) { return t->gone; }
SEC("raw_tp") int asks(struct thing *t) { return EXISTS(t->gone) ? t->gone : t->first; }
SEC("raw_tp") int doubts(struct twice *t) { return t->field; }
SEC("raw_tp") int resizes(struct shrunk *t) { return t->field; }
SEC("raw_tp") int wonders(struct absent *t) { return TYPE_EXISTS(struct absent); }
SEC("?raw_tp") int optional(struct thing *t) { return t->gone; }
"""

KERNEL = """
struct thing { long pad; long second; int first; } thing;
struct twice { int field; } twice;
struct twice___other { int pad; int field; } other;
struct shrunk { int field; } shrunk;
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def path(build: ObjectBuilder) -> Path:
    return build.compile_text("local.c", LOCAL)


@pytest.fixture(scope="module")
def kernel(build: ObjectBuilder) -> Path:
    return build.compile_text("kernel.c", KERNEL)


def rows(path: Path, kernel: Path) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in pybpf.ObjectSpec.from_file(path).relocate(kernel).rows:
        found.setdefault(row.function, []).append(row)
    return found


def test_each_outcome(path: Path, kernel: Path) -> None:
    found = rows(path, kernel)
    assert "optional" not in found
    [row] = found["works"]
    assert (row.outcome, row.value, row.kind, row.name) == ("value", 8, "byte_off", "struct thing.second")
    assert row.target == "struct thing.second (0:1 @ offset 8)"
    assert row.reason == ""
    [row] = found["lacks"]
    assert (row.outcome, row.value, row.is_dead, row.is_failure) == ("poisoned", None, False, True)
    assert row.reason == "the kernel has no struct thing.gone"
    assert row.source.startswith('SEC("raw_tp") int lacks')
    assert "local.c:" in row.location
    [row] = found["doubts"]
    assert (row.outcome, row.is_failure) == ("ambiguous", True)
    assert "candidates disagree" in row.reason
    [row] = found["resizes"]
    assert (row.outcome, row.is_failure) == ("poisoned", True)
    assert row.reason == "the field's size differs, and this access cannot be adjusted"
    [row] = found["wonders"]
    assert (row.outcome, row.value, row.is_failure) == ("missing", 0, False)
    assert row.reason == "the kernel has no struct absent"


def test_what_a_question_leads_around_is_no_failure(path: Path, kernel: Path) -> None:
    question, poisoned, fallback = rows(path, kernel)["asks"]
    assert (question.kind, question.outcome, question.value) == ("field_exists", "missing", 0)
    assert (poisoned.outcome, poisoned.is_dead, poisoned.is_failure) == ("poisoned", True, False)
    assert (fallback.outcome, fallback.value) == ("value", 16)


def test_the_instructions_are_those_of_a_load(path: Path, kernel: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    assert spec.btf is not None
    report = spec.relocate(BTF.from_file(str(kernel)))
    relocator = Relocator(spec.btf, BTF.from_file(str(kernel)), custom=True)
    for name in ("works", "lacks", "asks"):
        function = spec.programs[name].function
        code = bytearray(function.instructions)
        relocator.apply(code, function.core_relocations, name)
        assert report.instructions(name) == code
    assert report.instructions("lacks") != spec.programs["lacks"].instructions
    with pytest.raises(KeyError):
        report.instructions("nosuch")


def test_programs_that_are_asked_for_are_reported(path: Path, kernel: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.programs["optional"].autoload = True
    spec.programs["lacks"].autoload = False
    names = {row.function for row in spec.relocate(kernel).failures}
    assert names == {"optional", "doubts", "resizes"}


def test_malformed_relocations_have_rows_too(path: Path, kernel: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(path)
    for name, type_id, access in (("works", None, "0:99"), ("lacks", 1 << 30, None)):
        function = spec.programs[name].function
        [one] = function.core_relocations
        wrong = CoreRelocation(one.index, type_id or one.type_id, access or one.access, one.kind)
        function.core_relocations = [wrong]
    failed = [row for row in spec.relocate(kernel).rows if row.outcome == "failed"]
    assert [row.function for row in failed] == ["works", "lacks"]
    assert "no member 99" in failed[0].reason
    assert failed[1].name == f"type {1 << 30}"


def test_an_object_without_relocations(build: ObjectBuilder, kernel: Path) -> None:
    plain = build.compile_text("plain.c", '#include "bpf_min.h"\nSEC("xdp") int p(void *c) { return 2; }\n')
    report = pybpf.ObjectSpec.from_file(plain).relocate(kernel)
    assert (report.rows, report.functions, report.failures) == ([], {}, [])


@pytest.mark.skipif(not os.path.exists("/sys/kernel/btf/vmlinux"), reason="the kernel has no BTF")
@pytest.mark.parametrize("name", ["execsnoop", "tcpstates", "runqlat"])
def test_the_running_kernel(name: str) -> None:
    ending = ".bpf.o" if sys.byteorder == "little" else ".eb.bpf.o"
    report = pybpf.ObjectSpec.from_file(ROOT / "kernels" / (name + ending)).relocate()
    assert report.rows
    assert report.failures == []
    assert {row.module for row in report.rows if row.value} == {"vmlinux"}


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "pybpf", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_the_command_prints_failures(path: Path, kernel: Path) -> None:
    done = check(path, "--btf", kernel)
    assert (done.returncode, done.stderr) == (6, "")
    assert "lacks, instruction 0: <byte_off> struct thing.gone: poisoned: the kernel has no struct thing.gone" in (
        done.stdout.splitlines()
    )
    assert "asks, instruction" not in done.stdout
    summary = done.stdout.splitlines()[-1]
    assert summary.endswith("2 value, 3 poisoned, 2 missing, 1 ambiguous (1 of them never reached)")


def test_the_command_succeeds_when_nothing_fails(kernel: Path, build: ObjectBuilder) -> None:
    good = build.compile_text("good.c", LOCAL.partition('SEC("raw_tp") int lacks')[0])
    done = check(good, "--btf", kernel)
    assert (done.returncode, done.stdout) == (0, f"{good} on {kernel}: 1 relocations: 1 value\n")


def test_json_has_every_relocation(path: Path, kernel: Path) -> None:
    done = check(path, "--btf", kernel, "--json")
    assert done.returncode == 6
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert len(found["relocations"]) == 8
    [row] = [row for row in found["relocations"] if row["function"] == "works"]
    assert row["value"] == 8
    assert set(row) == set(Row.__slots__)


def test_wrong_files(path: Path, tmp_path: Path) -> None:
    assert check(path, "--btf", tmp_path / "nosuch").returncode == 3
    assert check(tmp_path / "nosuch.o").returncode == 3
    (tmp_path / "bad").write_bytes(b"not BTF")
    assert check(path, "--btf", tmp_path / "bad").returncode == 3
