"""The reader against bpftool and pahole: the kernel's BTF, compiled objects of both byte orders, built BTF."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from btf_samples import ORDERS, every_kind

from pybpf.btf import kinds
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFEditor

VMLINUX = Path("/sys/kernel/btf/vmlinux")
BPFTOOL = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
CLANG = next(filter(None, map(shutil.which, ("clang-19", "clang-16", "clang-14", "clang"))), None)

pytestmark = pytest.mark.skipif(BPFTOOL is None, reason="bpftool is not installed")

LINKAGES = {0: "static", 1: "global", 2: "extern"}
ENCODINGS = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}

SOURCE = r"""
typedef unsigned long long u64;
typedef _Bool flag;
enum small { ONE = 1, NEGATIVE = -1 };
enum wide { LARGE = 0x123456789abcULL };
struct later;
union inner { int a; u64 b; };
struct event {
    volatile const int pid;
    union inner either;
    struct { unsigned low : 3, high : 7; long : 5; signed last : 9; };
    char comm[16];
    struct later *restrict later;
    int (*call)(const char *, ...);
    enum small small;
    enum wide wide;
    flag yes;
    double matrix[2][3];
    int tail[];
} __attribute__((preserve_access_index));
#define TAG(x) __attribute__((btf_decl_tag(x)))
#define USER __attribute__((btf_type_tag("user")))
struct tagged { int member TAG("member"); int USER *pointer; } TAG("whole");
struct event *keep;
struct tagged tagged;
static volatile int hidden = 3;
const volatile int setting = 4;
extern int missing __attribute__((section(".kconfig")));
__attribute__((noinline)) static int inner(struct event *e, enum wide w) { return e->pid + (w > 3) + hidden; }
__attribute__((section("tp/first"))) int first(struct event *e) TAG("function") { return inner(e, LARGE) + setting; }
__attribute__((section("tp/second"))) int second(void *ctx) { return missing + tagged.member + (keep != 0); }
char _license[] __attribute__((section("license"))) = "GPL";
"""


def bpftool(path: Path) -> list[dict[str, Any]]:
    """The types as bpftool shows them."""
    assert BPFTOOL is not None
    command = [BPFTOOL, "btf", "dump", "file", str(path), "-j"]
    result = subprocess.run(command, capture_output=True, check=True)
    types: list[dict[str, Any]] = json.loads(result.stdout)["types"]
    return types


def shown(found: kinds.Type) -> dict[str, Any]:
    """A type in the words of bpftool."""
    name = found.name or "(anon)"
    common = {"id": found.id, "kind": kinds.kind_name(found.kind).upper(), "name": name}
    match found:
        case kinds.Int():
            encoding = ENCODINGS.get(found.encoding, "UNKN")
            return common | {
                "size": found.size,
                "bits_offset": found.bit_offset,
                "nr_bits": found.bits,
                "encoding": encoding,
            }
        case kinds.Array():
            return common | {
                "type_id": found.type_id,
                "index_type_id": found.index_type_id,
                "nr_elems": found.nelems,
            }
        case kinds.Composite():
            members = []
            for member in found.members:
                entry: dict[str, Any] = {
                    "name": member.name or "(anon)",
                    "type_id": member.type_id,
                    "bits_offset": member.bit_offset,
                }
                if member.bitfield_size:
                    entry["bitfield_size"] = member.bitfield_size
                members.append(entry)
            return common | {"size": found.size, "vlen": len(members), "members": members}
        case kinds.Enumeration():
            return common | {
                "encoding": "SIGNED" if found.is_signed else "UNSIGNED",
                "size": found.size,
                "vlen": len(found.values),
                "values": [{"name": text or "(anon)", "val": number} for text, number in found.values],
            }
        case kinds.Fwd():
            return common | {"fwd_kind": "union" if found.is_union else "struct"}
        case kinds.Func() | kinds.Var():
            return common | {"type_id": found.type_id, "linkage": LINKAGES[found.linkage]}
        case kinds.FuncProto():
            params = [{"name": param.name or "(anon)", "type_id": param.type_id} for param in found.params]
            return common | {"ret_type_id": found.type_id, "vlen": len(params), "params": params}
        case kinds.Datasec():
            entries = [{"type_id": e.type_id, "offset": e.offset, "size": e.size} for e in found.entries]
            return common | {"size": found.size, "vlen": len(entries), "vars": entries}
        case kinds.Float():
            return common | {"size": found.size}
        case kinds.DeclTag():
            return common | {"type_id": found.type_id, "component_idx": found.component_index}
        case kinds.Reference():
            return common | {"type_id": found.type_id}
    raise AssertionError(found)


def without_extras(theirs: dict[str, Any]) -> dict[str, Any]:
    """What bpftool says, mended: newer ones name a section's variables, all sign-extend values of unsigned enums."""
    for entry in theirs.get("vars", ()):
        entry.pop("name", None)
    if theirs["kind"] == "ENUM" and theirs["encoding"] == "UNSIGNED":
        for entry in theirs["values"]:
            entry["val"] &= 0xFFFFFFFF
    return theirs


@pytest.mark.parametrize("byte_order", ORDERS)
def test_built_btf(byte_order: str, tmp_path: Path) -> None:
    path = tmp_path / "built.btf"
    path.write_bytes(every_kind(byte_order))
    ours = [shown(found) for found in BTF.from_file(str(path)).types()]
    assert ours == [without_extras(theirs) for theirs in bpftool(path)]


@pytest.mark.skipif(CLANG is None, reason="clang is not installed")
@pytest.mark.parametrize(("target", "byte_order"), [("bpfel", "little"), ("bpfeb", "big")])
def test_compiled_objects(target: str, byte_order: str, tmp_path: Path) -> None:
    source, built = tmp_path / "object.c", tmp_path / "object.o"
    source.write_text(SOURCE)
    assert CLANG is not None
    subprocess.run(
        [CLANG, "-target", target, "-g", "-O2", "-Wno-everything", "-c", str(source), "-o", str(built)], check=True
    )
    btf = BTF.from_file(str(built))
    assert btf.byte_order == byte_order
    assert {found.kind for found in btf.types()} == set(range(1, 20))
    theirs = [without_extras(theirs) for theirs in bpftool(built)]
    assert [shown(found) for found in btf.types()] == theirs

    for entry in theirs:
        if entry["name"] != "(anon)":
            same = [other["id"] for other in theirs if other["name"] == entry["name"]]
            assert btf.own_ids(entry["name"]) == same
    edited = tmp_path / "edited.btf"
    edited.write_bytes(BTFEditor(btf).to_bytes())
    assert [without_extras(entry) for entry in bpftool(edited)] == theirs


@pytest.mark.skipif(not VMLINUX.exists(), reason="the kernel has no BTF")
def test_the_kernel() -> None:
    """Every id's kind and name, some types of each kind in full, and thousands of names."""
    theirs = bpftool(VMLINUX)
    data = VMLINUX.read_bytes()
    table = BTF.from_bytes(data, name="table")
    scan = BTF(data, None, "scan", deduplicated=True)
    assert len(table) == len(scan) == len(theirs) + 1
    by_name: dict[str, list[int]] = {}
    seen: dict[str, int] = {}
    for entry in theirs:
        id = entry["id"]
        assert kinds.kind_name(scan.kind_of(id)).upper() == entry["kind"]
        name = "" if entry["name"] == "(anon)" else entry["name"]
        assert scan.name_of(id) == name
        if name:
            by_name.setdefault(name, []).append(id)
        seen[entry["kind"]] = seen.get(entry["kind"], 0) + 1
        if seen[entry["kind"]] <= 300 or id % 37 == 0:
            assert shown(table.type(id)) == without_extras(entry)
    names = sorted(by_name)
    for name in names[::7]:
        assert table.own_ids(name) == by_name[name]
    for name in names[::31]:
        assert scan.own_ids(name) == by_name[name]
        first = theirs[by_name[name][0] - 1]
        kind = kinds.KIND_NAMES.index(first["kind"].lower())
        assert scan.find(name, kind).id == first["id"]
    for name in ("no such type", "task_struc", "ask_struct", "task_struct\0"):
        assert table.own_ids(name) == scan.own_ids(name) == []


@pytest.mark.skipif(shutil.which("pahole") is None, reason="pahole is not installed")
def test_pahole_reads_what_is_built(tmp_path: Path) -> None:
    from btf_samples import fill_with_every_kind

    from pybpf.btf.writer import BTFBuilder, sanitise

    builder = BTFBuilder()
    fill_with_every_kind(builder)
    path = tmp_path / "built.btf"
    # pahole 1.24 knows no declaration tags and no type tags
    path.write_bytes(sanitise(builder.to_bytes(), frozenset({"decl_tag", "type_tag"})))
    result = subprocess.run(["pahole", "-C", "event,bits", str(path)], capture_output=True, text=True, check=True)
    text = " ".join(result.stdout.split())
    assert "struct event { int pid; /* 0 4 */ char comm[16]; /* 4 16 */" in text
    assert "int * next; /* 24 8 */ /* size: 32" in text
    assert "int low:3;" in text
