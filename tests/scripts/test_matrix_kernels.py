"""The kernel matrix: choosing packages and modules, the cache, the emulator's command line, the guest's log."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from kernel_matrix import guest, rootfs
from kernel_matrix.cache import cache_folder, cached
from kernel_matrix.errors import MatrixError
from kernel_matrix.guest import DIED, HUNG, Result, Settings, complaints
from kernel_matrix.kernels import (
    KERNELS,
    MODULES,
    module_closure,
    module_name,
    newest_first,
    parts_of_image,
)
from kernel_matrix.main import check_programs, chosen_kernels, describe_trouble, parse
from kernel_matrix.rootfs import _download_newest

PACKAGES = [
    "linux-image-5.10.0-9-cloud-amd64",
    "linux-image-5.10.0-32-cloud-amd64",
    "linux-image-5.10.0-32-cloud-amd64-dbg",
    "linux-image-5.10.0-33-cloud-amd64-unsigned",
    "linux-image-6.1.0-50-cloud-amd64",
    "linux-image-6.12.9+deb13-cloud-amd64",
    "linux-image-6.12.117+deb13-cloud-amd64",
    "linux-image-6.12.118+deb13-rt-amd64",
    "linux-image-6.18.15+deb13-cloud-amd64",
    "linux-image-7.3.4+deb13-cloud-amd64",
    "linux-image-7.10.1+deb13-cloud-amd64",
    "linux-image-cloud-amd64",
]

NEWEST = {
    "5.10": ["linux-image-5.10.0-32-cloud-amd64"],
    "6.1": ["linux-image-6.1.0-50-cloud-amd64"],
    "6.12": ["linux-image-6.12.117+deb13-cloud-amd64"],
    "6.18": ["linux-image-6.18.15+deb13-cloud-amd64"],
    "newest": ["linux-image-7.10.1+deb13-cloud-amd64"],
    "6.12-arm64": [],
    "6.12-built": [],
}


@pytest.mark.parametrize("kernel", NEWEST)
def test_newest_package_that_matches(kernel: str) -> None:
    assert newest_first(PACKAGES, KERNELS[kernel].package)[:1] == NEWEST[kernel]


class Mirror:
    """An archive that lists packages, some of which it does not have."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing

    def dependencies(self, package: str) -> list[str]:
        return []

    def download(self, packages: list[str], folder: Path) -> list[Path]:
        assert not list(folder.iterdir())
        (folder / "partial.deb").touch()
        if packages[0] in self.missing:
            raise MatrixError("404")
        return [folder / f"{package}.deb" for package in packages]


def test_the_package_before_one_that_the_mirror_lists_and_has_not(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    mirror = Mirror("linux-image-3")
    names = ["linux-image-3", "linux-image-2", "linux-image-1"]
    assert _download_newest(mirror, names, folder) == ("linux-image-2", [folder / "linux-image-2.deb"])  # type: ignore[arg-type]


def test_no_package_that_the_mirror_has(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match="404"):
        _download_newest(Mirror("a", "b"), ["a", "b"], tmp_path / "packages")  # type: ignore[arg-type]


def test_a_kernel_in_one_package() -> None:
    assert parts_of_image("linux-image-6.12.117+deb13-cloud-amd64", ["linux-base", "kmod"]) == [
        "linux-image-6.12.117+deb13-cloud-amd64"
    ]


def test_a_kernel_split_over_packages() -> None:
    release = "7.3.4+deb13-cloud-amd64"
    parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    image = f"linux-image-{release}"
    assert parts_of_image(image, ["linux-base", "initramfs-tools", *parts]) == [image, *parts]


DEPENDENCIES = """\
kernel/net/sched/act_bpf.ko.xz:
kernel/drivers/net/veth.ko.xz: kernel/net/core/page_pool.ko.xz
kernel/net/netfilter/nf_nat.ko: kernel/net/netfilter/nf_conntrack.ko kernel/lib/libcrc32c.ko
kernel/fs/ext4/ext4.ko: kernel/lib/libcrc32c.ko
kernel/arch/x86/crypto/crc32c-intel.ko.zst:
"""


def test_module_closure() -> None:
    assert module_closure(DEPENDENCIES, ["nf_nat", "act_bpf", "no_such_module", "crc32c_intel"]) == [
        "kernel/arch/x86/crypto/crc32c-intel.ko.zst",
        "kernel/lib/libcrc32c.ko",
        "kernel/net/netfilter/nf_conntrack.ko",
        "kernel/net/netfilter/nf_nat.ko",
        "kernel/net/sched/act_bpf.ko.xz",
    ]


def test_module_names() -> None:
    assert module_name("kernel/arch/x86/crypto/crc32c-intel.ko.zst") == "crc32c_intel"
    assert len(MODULES) == len({name.replace("-", "_") for name in MODULES})


def test_cache_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "pybpf/matrix"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/pybpf/matrix")


def test_a_thing_is_made_once_and_its_forerunner_removed(tmp_path: Path) -> None:
    made: list[str] = []

    def make(scratch: Path) -> Path:
        made.append(scratch.name)
        (scratch / "thing").write_text("whole")
        (scratch / "rest").mkdir()
        return scratch / "thing"

    (tmp_path / "things").mkdir()
    (tmp_path / "things/old").write_text("old")
    for _ in range(2):
        assert cached(tmp_path / "things/new", make).read_text() == "whole"
    assert len(made) == 1
    assert [p.name for p in (tmp_path / "things").iterdir() if p.name != ".lock"] == ["new"]
    cached(tmp_path / "things/new", make, renew=True)
    assert len(made) == 2


def test_what_was_cut_off_leaves_nothing_that_could_be_taken_for_the_thing(tmp_path: Path) -> None:
    def cut_off(scratch: Path) -> Path:
        (scratch / "thing").write_text("half")
        raise KeyboardInterrupt

    def make(scratch: Path) -> Path:
        assert list(scratch.iterdir()) == []
        (scratch / "thing").write_text("whole")
        return scratch / "thing"

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "things/thing", cut_off)
    assert not (tmp_path / "things/thing").exists()
    assert cached(tmp_path / "things/thing", make).read_text() == "whole"


def test_a_failed_renewal_keeps_the_thing(tmp_path: Path) -> None:
    (tmp_path / "thing").write_text("old")

    def fail(scratch: Path) -> Path:
        raise MatrixError("no network")

    with pytest.raises(MatrixError):
        cached(tmp_path / "thing", fail, renew=True)
    assert (tmp_path / "thing").read_text() == "old"


@pytest.mark.parametrize("name", KERNELS)
def test_command_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootfs, "program", lambda program: f"/bin/{program}")
    settings = Settings(processors=3, memory="512M", kernel_arguments="lockdown=integrity quiet")
    architecture = KERNELS[name].architecture
    line = guest.command_line(KERNELS[name], settings, Path("/k"), Path("/i"), Path("/c"), Path("/r"), 9)
    assert line[0] == f"/bin/{architecture.qemu}"
    options = dict(pairwise(line))
    assert options["-smp"] == "3"
    assert options["-accel"] == f"tcg,thread={'single' if architecture.name == 'amd64' else 'multi'}"
    assert options["-m"] == "512M"
    assert options["-add-fd"] == "fd=9,set=1"
    kernel_arguments = options["-append"].split()
    assert {"rdinit=/init", "lockdown=integrity", "quiet", f"console={architecture.console}"} <= set(kernel_arguments)
    devices = {match[1] for argument in line if (match := re.match(r"file,id=(\w+),", argument))}
    assert devices == {"console", "output", "results"}


OOPS = """\
[    0.9] mtrr: your CPUs had inconsistent MTRRdefType settings
[    5.1] ------------[ cut here ]------------\r
[    5.1] WARNING: CPU: 1 PID: 77 at kernel/bpf/verifier.c:1 check+0x1/0x2\r
[    5.1] Call Trace:
[    5.1] ---[ end trace 0000000000000000 ]---
[    6.0] an innocent line
[    7.0] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    7.1] Oops: 0000 [#1] SMP
"""


def test_complaints_of_the_kernel() -> None:
    first, second = complaints(OOPS)
    assert first.splitlines()[0].endswith("check+0x1/0x2")
    assert first.endswith("---[ end trace 0000000000000000 ]---")
    assert second.splitlines() == OOPS.splitlines()[-2:]
    assert complaints("[    1.0] BPF: an innocent log\n[    2.0] debugging is on\n") == []


def test_a_long_complaint_is_cut() -> None:
    (only,) = complaints("Kernel panic - not syncing\n" + "a line\n" * 1000)
    assert len(only.splitlines()) == guest.COMPLAINT_LINES


def result(*, status: int | None, hung: bool = False, console: str = "") -> Result:
    return Result(release="6.12", status=status, hung=hung, seconds=1.0, console=console, dmesg="", junit=None)


@pytest.mark.parametrize(
    ("ended", "status", "trouble"),
    [
        (result(status=0), 0, ""),
        (result(status=5), 5, ""),
        (result(status=0, console=OOPS), 1, "complained"),
        (result(status=5, console=OOPS), 5, "complained"),
        (result(status=None, console="the last line"), DIED, "died"),
        (result(status=None, hung=True), HUNG, "hung and was ended after 1800 s"),
    ],
)
def test_how_a_run_ended(ended: Result, status: int, trouble: str) -> None:
    assert ended.exit_status == status
    said = describe_trouble(ended, Settings())
    assert trouble in said
    assert bool(said) == bool(trouble)


def test_parse() -> None:
    options, command = parse(["6.12", "--timeout", "9", "--", "pytest", "--", "-x"])
    assert (options.action, options.kernels, options.timeout) == ("run", ["6.12"], 9)
    assert command == ("pytest", "--", "-x")
    options, command = parse(["--keep-log", "all"])
    assert (options.action, options.kernels, options.keep_log, command) == ("run", ["all"], True, ())
    options, command = parse(["fetch", "5.10", "6.1"])
    assert (options.action, options.kernels, options.refresh) == ("fetch", ["5.10", "6.1"], False)
    with pytest.raises(SystemExit):
        parse(["list", "--", "true"])


def test_chosen_kernels() -> None:
    assert chosen_kernels(["all"]) == list(KERNELS.values())
    assert [kernel.name for kernel in chosen_kernels(["6.1", "5.10", "6.1"])] == ["6.1", "5.10"]
    with pytest.raises(MatrixError, match=r"no kernel 4\.4: there are 5\.10"):
        chosen_kernels(["4.4"])


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(name: str) -> str:
        if name.startswith("qemu"):
            raise MatrixError(name)
        return name

    monkeypatch.setattr(rootfs, "program", program)
    kernels = [KERNELS["6.12"], KERNELS["6.12-s390x"]]
    with pytest.raises(MatrixError, match=r"qemu-system-s390x.*install.*qemu-system-misc qemu-system-x86`.*--install"):
        check_programs(kernels, fetching_only=False, install=False)
    check_programs(kernels, fetching_only=True, install=False)
