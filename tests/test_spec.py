"""ObjectSpec: what a person reads from it and changes in it, without a kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from object_builder import SOURCES, ObjectBuilder

from pybpf import constants
from pybpf.abi import AttachType, MapType, ProgramType
from pybpf.errors import ObjectError
from pybpf.spec import ObjectSpec
from pybpf.variables import Globals

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted((ROOT / "kernels").glob("*.bpf.o"))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def data(build: ObjectBuilder) -> ObjectSpec:
    return ObjectSpec.from_file(build("elf_data.bpf.c"))


@pytest.fixture
def calls(build: ObjectBuilder) -> ObjectSpec:
    return ObjectSpec.from_file(build("elf_calls.bpf.c"))


def test_only_some_programs(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("load_everything.bpf.c"))
    with pytest.raises(ObjectError, match="load_everything has no program 'nosuch'; it has .*tail_caller"):
        spec.only("called", "nosuch")
    assert spec.programs["main_program"].autoload, "nothing was changed"
    spec.only("called", "not_by_default")
    assert [one.name for one in spec.programs.values() if one.autoload] == ["called", "not_by_default"]
    assert spec.maps["calls"].values == {1: "called"}
    spec.only("main_program")
    assert spec.maps["calls"].values == {}


def in_another_process(path: Path, *before: str) -> str:
    """The fingerprint of an object's spec, found by another interpreter with another hash seed."""
    code = "import sys; from pybpf.spec import ObjectSpec; print(ObjectSpec.from_file(sys.argv[1]).fingerprint())"
    environment = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4711", "PATH": os.environ["PATH"]}
    command = [*before, sys.executable, "-c", code, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("source", SOURCES)
def test_a_spec_is_the_same_on_every_run(source: str, build: ObjectBuilder) -> None:
    path = build(source)
    fingerprint = ObjectSpec.from_file(path).fingerprint()
    assert ObjectSpec.from_file(path).fingerprint() == fingerprint
    assert ObjectSpec.from_bytes(path.read_bytes(), name=path.name).fingerprint() == fingerprint
    assert in_another_process(path) == fingerprint


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: every test shows it")
@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
def test_a_spec_needs_no_privileges(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read as nobody, in a process that makes no bpf(2) call."""
    spec = ObjectSpec.from_file(path)
    assert spec.programs
    code = (
        "import os, sys; from pybpf.spec import ObjectSpec; data = open(sys.argv[1], 'rb').read(); "
        "from pybpf.btf import ext, relocation, writer; from pybpf.elf import collect, linking, datasec; "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "print(ObjectSpec.from_bytes(data, name=sys.argv[2]).fingerprint(), 'ctypes' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path), path.name]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert run.stdout.split() == [spec.fingerprint(), "False"], run.stderr


def test_the_fingerprint_sees_every_change(build: ObjectBuilder) -> None:
    path = build("elf_data.bpf.c")

    def changed(change: object) -> str:
        spec = ObjectSpec.from_file(path)
        assert callable(change)
        change(spec)
        return spec.fingerprint()

    def set_global(spec: ObjectSpec) -> None:
        spec.globals["min_us"] = 8

    fingerprints = [
        changed(lambda spec: None),
        changed(set_global),
        changed(lambda spec: setattr(spec.programs["use"], "autoload", False)),
        changed(lambda spec: setattr(spec.programs["use"], "flags", 16)),
        changed(lambda spec: setattr(spec.maps[".bss"], "flags", 0)),
        changed(lambda spec: setattr(spec, "license", "GPL")),
        changed(lambda spec: spec.functions.pop()),
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_both_byte_orders_tell_the_same(build: ObjectBuilder) -> None:
    for source in SOURCES:
        little, big = (ObjectSpec.from_file(build(source, byte_order=order)) for order in ("little", "big"))
        assert little.describe().splitlines()[1:] == big.describe().splitlines()[1:]
        assert "big-endian" in repr(big)


def test_license_and_version_are_read(data: ObjectSpec, calls: ObjectSpec) -> None:
    assert (data.license, data.kernel_version) == ("Dual BSD/GPL", 0x050A03)
    assert (calls.license, calls.kernel_version) == ("GPL", None)


def test_the_name_is_that_of_the_file_up_to_the_first_dot(build: ObjectBuilder, tmp_path: Path) -> None:
    data = build("elf_calls.bpf.c").read_bytes()
    path = tmp_path / "a_long_name_of_an_object.v2.bpf.o"
    path.write_bytes(data)
    assert ObjectSpec.from_file(path).name == "a_long_name_of_"
    assert ObjectSpec.from_file(str(path)).maps[".bss"].kernel_name == "a_long_n.bss"
    assert ObjectSpec.from_bytes(data).name == "object"
    assert ObjectSpec.from_bytes(bytearray(data), name="x.o").name == "x"
    assert ObjectSpec.from_bytes(memoryview(data), name="x.o").programs


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "not.bpf.o"
    path.write_text("hello")
    with pytest.raises(ObjectError, match=f"{path}: this is not an ELF file"):
        ObjectSpec.from_file(path)
    with pytest.raises(FileNotFoundError):
        ObjectSpec.from_file(tmp_path / "missing.bpf.o")
    with pytest.raises(IsADirectoryError):
        ObjectSpec.from_file(tmp_path)


def test_a_file_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pybpf.spec.FILE_LIMIT", 1 << 20)
    with pytest.raises(ObjectError, match="more than 1048576 bytes"):
        ObjectSpec.from_file("/dev/zero")
    large = tmp_path / "large.o"
    with large.open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(ObjectError, match="are more than an object file may have"):
        ObjectSpec.from_file(large)


def test_a_pipe_can_be_read(build: ObjectBuilder) -> None:
    data = build("elf_calls.bpf.c").read_bytes()
    reader, writer = os.pipe()
    try:
        assert os.write(writer, data) == len(data)
        os.close(writer)
        assert list(ObjectSpec.from_file(f"/dev/fd/{reader}").maps) == ["counts", ".bss"]
    finally:
        os.close(reader)


def test_reprs_are_one_line_and_describe_is_the_whole_story(data: ObjectSpec, calls: ObjectSpec) -> None:
    assert repr(calls) == "<ObjectSpec 'elf_calls' little-endian, 4 programs, 2 maps, 1 variables, license 'GPL'>"
    assert repr(calls.programs["optional"]) == (
        "<ProgramSpec 'optional' raw_tracepoint SEC('raw_tp/sys_enter') 4 instructions autoload=False>"
    )
    assert repr(calls.maps["counts"]) == "<MapSpec 'counts' array key=4 value=8 max_entries=4>"
    assert repr(data.variables["counter"]) == "<Variable static 'counter' in '.bss' at 16, 8 bytes>"
    text = data.describe()
    for name in (*data.programs, *data.maps, *data.variables):
        assert f"\n  {name}: " in text
    assert "numbers" in repr(data.globals)


def test_program_types_come_from_the_section(calls: ObjectSpec) -> None:
    program = calls.programs["first"]
    assert program.type is ProgramType.RAW_TRACEPOINT
    assert program.type_number == constants.BPF_PROG_TYPE_RAW_TRACEPOINT
    assert (program.attach_target, program.attach_type_number, program.flags) == ("sys_enter", 0, 0)
    assert program.section_definition is not None
    assert program.section_definition.attach == "raw_tracepoint"
    assert calls.programs["alone"].attach_target == ""


def test_another_type_drops_the_meaning_of_the_section(calls: ObjectSpec) -> None:
    program = calls.programs["first"]
    program.type = ProgramType.RAW_TRACEPOINT
    assert program.section_definition is not None
    program.type = ProgramType.XDP
    assert program.section_definition is None
    assert (program.type_number, program.type_name) == (constants.BPF_PROG_TYPE_XDP, "xdp")
    program.attach_type = AttachType.XDP
    assert program.attach_type_number == constants.BPF_XDP
    program.type_number = 9999
    assert program.type_name == "9999"
    for attribute in ("type_number", "attach_type_number", "flags", "log_level"):
        with pytest.raises(ValueError, match=r"is not in 0\.\."):
            setattr(program, attribute, -1)


def test_an_unknown_section_gives_no_type(build: ObjectBuilder) -> None:
    path = build.compile_text("unknown.bpf.c", '__attribute__((section("my/own"), used)) int p(void *c) { return 0; }')
    program = ObjectSpec.from_file(path).programs["p"]
    assert (program.type, program.section_definition, program.section) == (ProgramType.UNSPEC, None, "my/own")


def test_maps_show_their_type_as_an_enum(calls: ObjectSpec) -> None:
    counts = calls.maps["counts"]
    assert counts.type is MapType.ARRAY
    counts.type = MapType.HASH
    assert (counts.type_number, counts.type_name) == (1, "hash")


def test_the_license_of_a_program_is_the_objects(calls: ObjectSpec) -> None:
    program = calls.programs["first"]
    assert program.license == "GPL"
    calls.license = "MIT"
    assert program.license == "MIT"
    program.license = "BSD"
    assert (program.license, calls.programs["second"].license) == ("BSD", "MIT")


def test_globals_are_typed_and_checked(data: ObjectSpec) -> None:
    values = data.globals
    values["min_us"] = (1 << 32) - 1
    assert values["min_us"] == (1 << 32) - 1
    for value in (-1, 1 << 32):
        with pytest.raises((ValueError, OverflowError)):
            values["min_us"] = value
    with pytest.raises((TypeError, ValueError)):
        values["min_us"] = "many"
    values["text"] = "other"
    assert values["text"] == "other"
    with pytest.raises(ValueError, match="text|char"):
        values["text"] = "much longer than it can be"
    assert (values["min_us"], values["text"]) == ((1 << 32) - 1, "other")
    assert values.get("level") == -5
    assert values.get("missing", 3) == 3


def test_globals_are_written_to_the_initial_content(data: ObjectSpec) -> None:
    variable = data.variables["level"]
    content = data.maps[variable.map].data
    assert content is not None
    data.globals["level"] = -2
    assert bytes(content[variable.offset : variable.offset + 4]) == b"\xfe\xff\xff\xff"
    content[variable.offset] = 0xFD
    assert data.globals["level"] == -3


def test_unknown_globals_list_what_is_near(data: ObjectSpec) -> None:
    with pytest.raises(KeyError, match="no global variable 'min_ms'; did you mean min_us"):
        data.globals["min_ms"]
    with pytest.raises(KeyError, match="no global variable 'totals'; did you mean total"):
        data.globals["totals"] = 1
    with pytest.raises(KeyError, match="no global variable 'zzz'; there are: counter"):
        data.globals["zzz"] = 1


def test_globals_can_be_neither_added_nor_removed(data: ObjectSpec) -> None:
    with pytest.raises(TypeError, match="cannot be removed"):
        del data.globals["min_us"]
    assert "min_us" in data.globals
    assert len(data.globals) == len(list(data.globals)) == 17


def test_globals_behave_like_a_mapping(data: ObjectSpec) -> None:
    values = data.globals
    assert dict(values) == dict(values.items())
    assert list(values.keys()) == list(values)
    assert values.values()[0] == values[next(iter(values))]
    assert values == dict(values)
    assert isinstance(values, Globals)
    values.update({"level": 1}, min_us=2)
    assert (values["level"], values["min_us"]) == (1, 2)
    with pytest.raises(KeyError):
        values.update(level=5, missing=6)
    assert values["level"] == 1


def test_big_endian_globals_are_big_endian(build: ObjectBuilder) -> None:
    spec = ObjectSpec.from_file(build("elf_data.bpf.c", byte_order="big"))
    spec.globals["level"] = 0x01020304
    variable = spec.variables["level"]
    content = spec.maps[variable.map].data
    assert content is not None
    assert bytes(content[variable.offset : variable.offset + 4]) == b"\1\2\3\4"


def test_content_of_data_maps_can_be_replaced_but_not_resized(data: ObjectSpec) -> None:
    one = data.maps[".bss.tuning"]
    one.data = bytes(range(16))
    assert data.globals["numbers"][0] == 0x0706050403020100
    with pytest.raises(ValueError, match="takes 16 bytes, not 3"):
        one.data = b"abc"
    with pytest.raises(ValueError, match="a data map has one element"):
        one.max_entries = 2
    with pytest.raises(ValueError, match="the key size of a data map cannot be changed"):
        one.key_size = 8


def test_bad_type_information_is_a_warning_unless_it_is_needed(build: ObjectBuilder) -> None:
    from pybpf.elf.container import Container
    from pybpf.errors import BTFError

    def damaged(source: str, section: str) -> bytes:
        data = bytearray(build(source).read_bytes())
        data[next(one.offset for one in Container(data, "").sections if one.name == section)] ^= 0xFF
        return bytes(data)

    spec = ObjectSpec.from_bytes(damaged("elf_calls_plain.bpf.c", ".BTF"))
    assert spec.btf is None
    assert spec.warnings[0].startswith("section .BTF is ignored: ")
    spec = ObjectSpec.from_bytes(damaged("elf_calls_plain.bpf.c", ".BTF.ext"))
    assert spec.btf is not None and spec.ext is None
    assert spec.warnings[0] in spec.describe()
    with pytest.raises(BTFError):
        ObjectSpec.from_bytes(damaged("elf_maps.bpf.c", ".BTF"))
