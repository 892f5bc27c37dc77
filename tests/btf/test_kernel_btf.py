"""The running kernel's BTF, where it is found, its modules, and its stored index in the user's cache."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from btf_samples import every_kind

from pybpf.btf import cachefile, kernel, kinds
from pybpf.btf.index import build
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

ROOT = Path(__file__).resolve().parents[2]
HAS_BTF = Path(kernel.SYSFS, "vmlinux").exists()
needs_btf = pytest.mark.skipif(not HAS_BTF, reason="the kernel has no BTF")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of its own for each test, and nothing opened before or after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(kernel.NO_INDEX, raising=False)
    kernel.clear_cache()
    yield tmp_path
    kernel.clear_cache()


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is read in place of /sys/kernel/btf, and no other places."""
    directory = tmp_path / "btf"
    directory.mkdir()
    monkeypatch.setattr(kernel, "SYSFS", str(directory))
    monkeypatch.setattr(kernel, "PLACES", (str(tmp_path / "boot-{release}"), str(tmp_path / "second-{release}")))
    return directory


def split(name: str) -> bytes:
    builder = BTFBuilder(base=BTF.from_bytes(every_kind(sys.byteorder)))
    builder.add_struct(name, 4, [("pid", 1, 0)])
    return builder.to_bytes()


@needs_btf
def test_vmlinux() -> None:
    btf = kernel.vmlinux()
    assert btf is kernel.vmlinux()
    assert btf.name == "vmlinux"
    assert btf.byte_order == sys.byteorder
    assert btf.pointer_size == struct.calcsize("P")
    task = btf.find("task_struct", kinds.KIND_STRUCT)
    assert isinstance(task, kinds.Struct)
    assert {"pid", "tgid", "comm"} <= {member.name for member in task.members}
    assert btf.candidates("task_struct", frozenset({kinds.KIND_STRUCT})) == [task.id]
    assert btf.size_of(task.id) == task.size
    kernel.clear_cache()
    assert kernel.vmlinux() is not btf


@needs_btf
def test_the_index_is_stored_once_and_used_then(fresh: Path) -> None:
    assert kernel.store_index() is None
    btf = kernel.vmlinux()
    assert kernel.store_index() is None, "nothing was searched yet, so an index was not missed"
    found = repr(btf.find("file", kinds.KIND_STRUCT))
    path = kernel.store_index()
    assert path == str(fresh / "cache" / "pybpf" / "vmlinux.index")
    assert os.listdir(fresh / "cache" / "pybpf") == ["vmlinux.index"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not btf.is_indexed

    kernel.clear_cache()
    btf = kernel.vmlinux()
    assert btf.is_indexed
    assert repr(btf.find("file", kinds.KIND_STRUCT)) == found
    assert not btf.is_walked
    assert kernel.store_index() is None
    assert sum(1 for _ in range(1, len(btf), 997) if btf.type(_).name is not None) == len(range(1, len(btf), 997))
    assert btf.is_indexed


@needs_btf
def test_the_index_is_built_once_in_a_process(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[BTF] = []

    def count(btf: BTF, fingerprint: bytes) -> bytes:
        built.append(btf)
        return build(btf, fingerprint)

    monkeypatch.setattr(kernel, "build", count)
    kernel.vmlinux().get("file")
    path = kernel.store_index()
    assert path is not None
    os.unlink(path)
    assert [kernel.store_index() for _ in range(3)] == [None] * 3, "every later load of the process asks again"
    assert built == [kernel.vmlinux()]
    assert os.listdir(fresh / "cache" / "pybpf") == []


@needs_btf
def test_a_full_disk_is_met_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[BTF] = []

    def fill(name: str, image: bytes) -> str:
        built.append(kernel.vmlinux())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cachefile, "store_file", fill)
    kernel.vmlinux().get("file")
    assert [kernel.store_index() for _ in range(3)] == [None] * 3
    assert len(built) == 1


@needs_btf
def test_indexed_and_plain_agree() -> None:
    plain = kernel.vmlinux()
    kernel.warm()
    kernel.clear_cache()
    indexed = kernel.vmlinux()
    assert indexed.is_indexed
    names = [plain.name_of(id) for id in range(1, len(plain), 211)]
    for name in filter(None, names):
        assert indexed.own_ids(name) == plain.own_ids(name)
        for kind in (kinds.KIND_STRUCT, kinds.KIND_FUNC):
            assert indexed.own_ids(name, kind) == plain.own_ids(name, kind)
            assert indexed.candidates(name, {kind}) == plain.candidates(name, {kind})
    for id in range(1, len(plain), 499):
        assert repr(indexed.type(id)) == repr(plain.type(id))
    assert not indexed.is_walked
    assert indexed.is_indexed


@needs_btf
def test_the_environment_switches_the_index_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.warm()
    kernel.clear_cache()
    monkeypatch.setenv(kernel.NO_INDEX, "1")
    assert not kernel.vmlinux().is_indexed
    kernel.vmlinux().get("file")
    os.unlink(fresh / "cache" / "pybpf" / "vmlinux.index")
    assert kernel.store_index() is None
    assert os.listdir(fresh / "cache" / "pybpf") == []
    monkeypatch.setenv(kernel.NO_INDEX, "0")
    assert kernel.store_index() is not None


def spoil_bytes(path: Path) -> None:
    path.write_bytes(bytes(len(path.read_bytes())))


def spoil_length(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_mode(path: Path) -> None:
    path.chmod(0o644)


def spoil_symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def spoil_kind(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def spoil_owner(path: Path) -> None:
    os.chown(path, 12345, 12345)


def spoil_directory(path: Path) -> None:
    path.parent.chmod(0o777)


def spoil_directory_above(path: Path) -> None:
    path.parent.parent.chmod(0o775)


def spoil_directory_owner(path: Path) -> None:
    os.chown(path.parent, 12345, 12345)


@needs_btf
@pytest.mark.parametrize(
    "spoil",
    [
        spoil_bytes,
        spoil_length,
        spoil_empty,
        spoil_mode,
        spoil_symlink,
        spoil_kind,
        spoil_fifo,
        pytest.param(spoil_owner, marks=pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")),
        spoil_directory,
        spoil_directory_above,
        pytest.param(spoil_directory_owner, marks=pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")),
    ],
)
def test_an_index_that_cannot_be_trusted_is_ignored(spoil: object) -> None:
    path = Path(kernel.warm())
    kernel.clear_cache()
    assert kernel.vmlinux().is_indexed
    spoil(path)  # type: ignore[operator]
    kernel.clear_cache()
    btf = kernel.vmlinux()
    assert not btf.is_indexed
    assert btf.find("task_struct").kind == kinds.KIND_STRUCT


@needs_btf
@pytest.mark.parametrize("spoil", [spoil_bytes, spoil_length, spoil_mode, spoil_symlink, spoil_fifo])
def test_a_spoilt_index_is_replaced(spoil: object) -> None:
    path = Path(kernel.warm())
    spoil(path)  # type: ignore[operator]
    kernel.clear_cache()
    kernel.vmlinux().get("file")
    assert kernel.store_index() == str(path)
    kernel.clear_cache()
    assert kernel.vmlinux().is_indexed


@needs_btf
@pytest.mark.parametrize("spoil", [spoil_directory, spoil_directory_above, spoil_kind])
def test_a_cache_that_cannot_be_used_is_no_error_after_a_load(spoil: object) -> None:
    path = Path(kernel.warm())
    spoil(path)  # type: ignore[operator]
    before = sorted(os.listdir(path.parent))
    kernel.clear_cache()
    kernel.vmlinux().get("file")
    assert kernel.store_index() is None
    assert sorted(os.listdir(path.parent)) == before
    with pytest.raises(OSError):
        kernel.warm()
    assert sorted(os.listdir(path.parent)) == before


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cachefile.directory() == "/some/where/pybpf"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        monkeypatch.setenv("HOME", "/home/somebody")
        assert cachefile.directory() == "/home/somebody/.cache/pybpf"


def test_an_index_of_another_kernel_is_ignored(sysfs: Path) -> None:
    (sysfs / "vmlinux").write_bytes(every_kind(sys.byteorder))
    kernel.warm()
    kernel.clear_cache()
    assert kernel.vmlinux().is_indexed
    (sysfs / "vmlinux").write_bytes(every_kind(sys.byteorder).replace(b"event", b"other"))
    kernel.clear_cache()
    assert not kernel.vmlinux().is_indexed
    assert kernel.vmlinux().get("event") is None
    assert kernel.vmlinux().find("other").kind == kinds.KIND_STRUCT


def test_the_kernel_may_have_no_build_id(sysfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sysfs / "vmlinux").write_bytes(every_kind(sys.byteorder))
    monkeypatch.setattr(kernel, "NOTES", str(tmp_path / "no notes"))
    boot_id = tmp_path / "boot_id"
    monkeypatch.setattr(kernel, "BOOT_ID", str(boot_id))
    boot_id.write_text("first boot\n")
    kernel.warm()
    kernel.clear_cache()
    assert kernel.vmlinux().is_indexed
    boot_id.write_text("second boot\n")
    kernel.clear_cache()
    assert not kernel.vmlinux().is_indexed


def note(name: bytes, kind: int, data: bytes) -> bytes:
    head = struct.pack("=III", len(name), len(data), kind) + name
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def test_build_ids() -> None:
    other, wanted = note(b"Xen\0", 3, b"xen!"), note(b"GNU\0", 3, b"0123456789abcdef0123")
    assert kernel.build_id(wanted) == b"0123456789abcdef0123"
    assert kernel.build_id(other + note(b"Linux\0", 257, b"x") + wanted) == b"0123456789abcdef0123"
    assert kernel.build_id(other) == b""
    for cut in range(len(wanted)):
        assert kernel.build_id(wanted[:cut]) in (b"", b"0123456789abcdef0123"[: max(cut - 16, 0)])
    assert kernel.build_id(b"\xff" * 64) == b""


def test_where_the_kernel_is_looked_for(sysfs: Path, tmp_path: Path) -> None:
    with pytest.raises(kernel.KernelBTFMissing):
        kernel.vmlinux()
    with pytest.raises(FileNotFoundError):
        kernel.vmlinux()
    release = os.uname().release
    (tmp_path / f"boot-{release}").write_bytes(b"\x7fELF and nothing else")
    (tmp_path / f"second-{release}").write_bytes(every_kind(sys.byteorder))
    assert kernel.vmlinux().find("event").kind == kinds.KIND_STRUCT
    kernel.clear_cache()
    (sysfs / "vmlinux").write_bytes(b"not BTF, but there")
    with pytest.raises(BTFError, match="header"):
        kernel.vmlinux()


def test_modules(sysfs: Path) -> None:
    (sysfs / "vmlinux").write_bytes(every_kind(sys.byteorder))
    (sysfs / "good").write_bytes(split("good_struct"))
    (sysfs / "bad_header").write_bytes(b"nonsense")
    broken = bytearray(split("broken"))
    struct.pack_into("=I", broken, 24 + 4, 31 << 24)
    (sysfs / "bad_types").write_bytes(broken)
    struct.pack_into("=II", broken, 24, 1 << 20, 4 << 24 | 1)
    (sysfs / "bad_names").write_bytes(broken)
    assert kernel.module_names() == ["bad_header", "bad_names", "bad_types", "good"]
    good = kernel.module("good")
    assert (good.name, good.base) == ("good", kernel.vmlinux())
    assert good.find("good_struct").id == len(kernel.vmlinux())
    assert kernel.module("good") is good
    for name in ("bad_header", "bad_names", "bad_types"):
        with pytest.raises(BTFError, match=name):
            kernel.module(name)
    assert kernel.module("good") is good
    for name in ("absent", "vmlinux", "../btf/good", "", "good/", "a\0b"):
        with pytest.raises(BTFError):
            kernel.module(name)
    (sysfs / "good").unlink()
    (sysfs / "another").write_bytes(b"")
    (sysfs / "good").write_bytes(split("newer_struct"))
    assert kernel.module("good").get("good_struct") is None
    assert kernel.module("good").find("newer_struct").kind == kinds.KIND_STRUCT


def test_no_modules(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.module_names() == []
    monkeypatch.setattr(kernel, "SYSFS", str(sysfs / "absent"))
    assert kernel.module_names() == []
    with pytest.raises(kernel.KernelBTFMissing):
        kernel.module("x")


@needs_btf
@pytest.mark.parametrize("indexed", [False, True])
def test_opening_the_kernel_takes_little_memory(indexed: bool, fresh: Path) -> None:
    """Nothing of the 5 MB of BTF is copied as a whole, with the index or without: it is mapped, or before Linux 6.16
    read once.
    """
    if indexed:
        kernel.warm()
    script = (
        "from pybpf.btf import kernel\n"
        "def peak():\n"
        "    with open('/proc/self/status') as file:\n"
        "        return next(int(line.split()[1]) for line in file if line.startswith('VmHWM'))\n"
        "before = peak()\n"
        "btf = kernel.vmlinux()\n"
        "read = len(btf.data) if isinstance(btf.data, bytes) else 0\n"
        "for name in ('task_struct', 'file', 'sk_buff'):\n"
        "    assert btf.candidates(name, frozenset({4}))\n"
        f"assert btf.is_indexed is {indexed}\n"
        "print(peak() - before - read // 1024)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < (2048 if indexed else 6144)
