"""What a load can be asked for beyond the object: exclusive maps, devices, signatures, tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_builder import ObjectBuilder

import pybpf
from pybpf import constants as c
from pybpf.asm.digest import program_digest
from pybpf.asm.instruction import Instruction, encode

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

PACKET = bytes(64)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("options"))


@pytest.fixture(scope="module")
def exclusive(build: ObjectBuilder) -> Path:
    return build("load_exclusive.bpf.c", byte_order=sys.byteorder)


# Exclusive maps


def load_exclusive(spec: pybpf.ObjectSpec) -> pybpf.Object:
    spec.maps["secret"].exclusive_program = "owner"
    try:
        return spec.load()
    except pybpf.BPFError as error:
        if error.command != "BPF_MAP_CREATE":
            raise
        pytest.skip(f"no exclusive maps before Linux 6.18: {error}")


def test_an_exclusive_map_serves_one_program(exclusive: Path) -> None:
    with load_exclusive(pybpf.ObjectSpec.from_file(exclusive)) as obj:
        assert obj.programs["owner"].test_run(PACKET).retval == 1
        assert obj.maps["secret"][0] == 2
        assert obj.globals["counter"] == 1


def test_another_program_is_refused(exclusive: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(exclusive)
    spec.programs["stranger"].autoload = True
    with pytest.raises(pybpf.VerifierError, match="(?s)program 'stranger'.*hash doesn't match"):
        load_exclusive(spec).close()


def test_the_program_of_an_exclusive_map_must_exist(exclusive: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(exclusive)
    spec.maps["secret"].exclusive_program = "nobody"
    with pytest.raises(pybpf.ObjectError, match="map 'secret': there is no program 'nobody'"):
        spec.load()


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_descriptors_of_maps_do_not_count(byte_order: str) -> None:
    def digest(src: int, fd: int, offset: int, end: int = 0) -> bytes:
        code = [Instruction(0x18, dst=1, src=src, imm=fd, high=offset), Instruction(0xB7, imm=end), Instruction(0x95)]
        return program_digest(encode(code, byte_order), byte_order)

    for src in (c.BPF_PSEUDO_MAP_FD, c.BPF_PSEUDO_MAP_VALUE):
        assert digest(src, 5, 8) == digest(src, 77, 1000)
        assert digest(src, 5, 8, 1) != digest(src, 5, 8, 2)
    for src in (0, c.BPF_PSEUDO_BTF_ID, c.BPF_PSEUDO_FUNC):
        assert digest(src, 5, 8) != digest(src, 77, 8)


# Constants


def test_programs_keep_constants_that_they_do_not_use(build: ObjectBuilder) -> None:
    with pybpf.load(build("load_everything.bpf.c", byte_order=sys.byteorder)) as obj:
        for name in ("called", "main_program"):
            assert obj.maps[".rodata"].id in obj.programs[name].info(map_ids=True).map_ids
        assert obj.maps["table"].id not in obj.programs["called"].info(map_ids=True).map_ids


# Devices and signatures


def test_a_program_that_is_bound_to_a_device(build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build("load_target.bpf.c", byte_order=sys.byteorder))
    program = spec.programs["entry"]
    program.type_number = c.BPF_PROG_TYPE_XDP
    program.flags |= c.BPF_F_XDP_DEV_BOUND_ONLY
    program.ifindex = 0x7FFFFFF0
    with pytest.raises(pybpf.BPFError, match="program 'entry'") as caught:
        spec.load()
    assert caught.value.errno_name in ("EINVAL", "ENODEV", "ENOENT")


def test_a_signature_reaches_the_kernel(build: ObjectBuilder) -> None:
    spec = pybpf.ObjectSpec.from_file(build("load_target.bpf.c", byte_order=sys.byteorder))
    spec.programs["entry"].signature = b"\x30\x03not a signature"
    with pytest.raises(pybpf.BPFError, match="program 'entry'") as caught:
        spec.load()
    assert caught.value.errno_name in ("EBADMSG", "EINVAL", "ENOKEY", "E2BIG", "ENOPKG", "EOPNOTSUPP")


# Tokens


def test_a_token_of_what_gives_none(exclusive: Path, tmp_path: Path) -> None:
    with pytest.raises(pybpf.BPFError, match=f"token of {tmp_path}: BPF_TOKEN_CREATE.*BPF file system"):
        pybpf.load(exclusive, token=tmp_path)
    with pytest.raises(FileNotFoundError):
        pybpf.load(exclusive, token=str(tmp_path / "nosuch"))


def test_the_environment_names_a_token(exclusive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBBPF_BPF_TOKEN_PATH", str(tmp_path))
    with pytest.raises(pybpf.BPFError, match="BPF_TOKEN_CREATE"):
        pybpf.load(exclusive)
    pybpf.load(exclusive, token="").close()
    monkeypatch.setenv("LIBBPF_BPF_TOKEN_PATH", "")
    pybpf.load(exclusive).close()


def test_an_object_is_loaded_with_a_token(exclusive: Path) -> None:
    code = f"import token_child; token_child.main({str(exclusive)!r})"
    folder = Path(__file__).parent
    environment = dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{folder.parent}")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    if "cannot" in run.stdout + run.stderr:
        pytest.skip(f"tokens came with Linux 6.9: {(run.stdout + run.stderr).strip()}")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == ["refused", "by token: owner 77 True", "by path: owner 77 True"]
