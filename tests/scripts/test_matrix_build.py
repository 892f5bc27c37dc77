"""The kernel matrix: the kernel that it builds. The build itself is shown by the tests that run on that kernel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from kernel_matrix import apt, build, rootfs
from kernel_matrix.errors import MatrixError
from kernel_matrix.kernels import KERNELS
from kernel_matrix.main import check_programs

BUILT = [kernel for kernel in KERNELS.values() if kernel.configuration]


def test_one_kernel_is_built() -> None:
    (kernel,) = BUILT
    assert kernel.configuration is not None
    assert "\nCONFIG_BPF_LIRC_MODE2=y\n" in kernel.configuration.read_text()
    assert kernel.package.startswith("linux-source-")


def test_options_that_were_refused() -> None:
    wanted = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=n\n# a word\nCONFIG_D="x y"\nCONFIG_E=m\nCONFIG_F=y\n'
    assert build.refused(wanted, wanted) == []
    made = 'CONFIG_A=y\nCONFIG_B=y\nCONFIG_D="x"\n# CONFIG_E is not set\n'
    assert build.refused(wanted, made) == ['CONFIG_D="x y"', "CONFIG_E=m", "CONFIG_F=y", "CONFIG_B=n"]


class Programs:
    """What the programs of a build do to the files, without building."""

    def __init__(self, configuration: str) -> None:
        self.configuration = configuration
        self.ran: list[str] = []

    def __call__(
        self, arguments: Iterable[str], *, environment: dict[str, str] | None = None, folder: Path | None = None
    ) -> str:
        words = list(arguments)
        if words[0] == "tar":
            (Path(words[-1]) / "linux-source-9.9").mkdir()
            return ""
        assert environment is not None and "MAKEFLAGS" not in environment
        source, what = Path(words[2]), words[4:]
        self.ran.append(" ".join(what[:2]))
        if what == ["allnoconfig"]:
            (source / ".config").write_text(self.configuration)
        elif what[0] == "bzImage":
            (source / "image").write_text("the kernel")
        elif what[0] == "modules_install":
            (Path(what[1].removeprefix("INSTALL_MOD_PATH=")) / "lib/modules/9.9-own").mkdir(parents=True)
        return {"-s kernelrelease": "9.9-own\n", "-s image_name": "image\n"}.get(self.ran[-1], "")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAKEFLAGS", "-j1")
    (tmp_path / "tree/usr/src").mkdir(parents=True)
    (tmp_path / "tree/usr/src/linux-source-9.9.tar.xz").touch()
    (tmp_path / "own.config").write_text("CONFIG_A=y\n")
    return tmp_path / "tree"


def test_the_result_looks_like_a_package(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs("CONFIG_A=y\n# CONFIG_B is not set\n")
    monkeypatch.setattr(apt, "run", programs)
    tree = build.built(sources, tmp_path / "own.config", tmp_path)
    assert programs.ran[:2] == ["allnoconfig", "bzImage modules"]
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    assert files == [
        *("boot", "boot/config-9.9-own", "boot/vmlinuz-9.9-own"),
        *("lib", "lib/modules", "lib/modules/9.9-own"),
    ]
    assert (tree / "boot/vmlinuz-9.9-own").read_text() == "the kernel"


def test_a_kernel_without_what_was_asked_for_is_not_built(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = Programs("CONFIG_B=y\n")
    monkeypatch.setattr(apt, "run", programs)
    with pytest.raises(MatrixError, match=r"own\.config: the kernel's configuration did not take CONFIG_A=y"):
        build.built(sources, tmp_path / "own.config", tmp_path)
    assert programs.ran == ["allnoconfig"]


def test_compilers_are_asked_for_where_a_kernel_is_to_be_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def program(name: str) -> str:
        if name in build.PROGRAMS:
            raise MatrixError(name)
        return name

    monkeypatch.setattr(rootfs, "program", program)
    monkeypatch.setattr(build, "HEADERS", {tmp_path / "libelf.h": "libelf-dev"})
    monkeypatch.setattr(rootfs, "cached_image", lambda kernel: None)
    with pytest.raises(MatrixError, match=r"missing here: libelf\.h, make, .*install.* libelf-dev make "):
        check_programs(BUILT, fetching_only=True, install=False)
    monkeypatch.setattr(rootfs, "cached_image", lambda kernel: object())
    check_programs(BUILT, fetching_only=True, install=False)
    with pytest.raises(MatrixError, match="missing here"):
        check_programs(BUILT, fetching_only=True, install=False, refresh=True)


def test_it_is_built_on_a_machine_of_its_kind_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(apt, "Archive", None)  # nothing is fetched before
    monkeypatch.setattr(apt, "machine_architecture", lambda: "riscv64")
    with pytest.raises(MatrixError, match="6.12-built is built on amd64 machines only"):
        rootfs.image(BUILT[0])
