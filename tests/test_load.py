"""Loading for real: an object that has something of everything, run in the kernel, and objects that must be refused."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path

import pytest
from lacking import RELEASE
from object_builder import ObjectBuilder

import pybpf
from pybpf import syscall
from pybpf.asm import assemble
from pybpf.errors import BPFError, ObjectError
from pybpf.verifier import Log

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

ORDER = sys.byteorder
PACKET = bytes(64)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ObjectBuilder:
    return ObjectBuilder(tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="module")
def everything(build: ObjectBuilder) -> Path:
    return build("load_everything.bpf.c", byte_order=ORDER)


@pytest.fixture(scope="module")
def rejected(build: ObjectBuilder) -> Path:
    return build("load_rejected.bpf.c", byte_order=ORDER)


def run(obj: pybpf.Object, name: str) -> int:
    return obj.programs[name].test_run(PACKET).retval


def test_globals_maps_calls_and_externs_come_together(everything: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.globals["setting"] = 11
    spec.globals["origin"] = {"x": 5, "y": -6}
    with spec.load() as obj:
        assert obj.globals["counter"] == 100
        assert run(obj, "main_program") == 5
        assert obj.globals["counter"] == 111
        assert obj.globals["setting"] == 11
        moved = obj.globals["moved"]
        assert (moved.x, moved.y) == (15, -3)
        assert obj.globals["own_section"] == 6
        assert obj.globals["results"][1] == 20 + 20 + 111
        assert dict(obj.maps["table"].items()) == {2: 1}
        assert obj.maps["second_inner"][0] == 42
        assert obj.maps["first_inner"][0] == 0
        assert obj.globals["syscall_seen"] is True
        assert obj.globals["missing_seen"] == 0
        assert obj.globals["missing_symbol_seen"] == 0
        major, minor = RELEASE
        assert obj.globals["version_seen"] >> 8 == major << 8 | minor
        assert obj.globals["hz_seen"] in (100, 250, 300, 1000)


def test_untyped_ksym_is_the_address_in_kallsyms(everything: Path) -> None:
    with open("/proc/kallsyms") as file:
        address = next(int(line.split()[0], 16) for line in file if line.split()[2] == "bpf_prog_put")
    with pybpf.load(everything) as obj:
        run(obj, "main_program")
        assert obj.globals["symbol_seen"] == address


def test_program_array_is_filled(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        assert run(obj, "tail_caller") == 77
        assert obj.globals["results"][0] == 4711


def test_a_program_of_a_program_array_that_is_not_loaded(everything: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.programs["called"].autoload = False
    with pytest.raises(
        ObjectError, match=r"map 'calls': program 'called', .* slot 1, is not loaded.*'calls'\]\.values\[1\]"
    ):
        spec.load()
    del spec.maps["calls"].values[1]
    with spec.load() as obj:
        assert run(obj, "tail_caller") == 2**32 - 1
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.only("tail_caller")
    with spec.load() as obj:
        assert list(obj.programs) == ["tail_caller"]
        assert run(obj, "tail_caller") == 2**32 - 1


def test_a_slot_that_the_program_array_does_not_have(everything: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.maps["calls"].values[7] = "called"
    with pytest.raises(BPFError, match="map 'calls': slot 7, program 'called': BPF_MAP_UPDATE_ELEM"):
        spec.load()


def test_globals_are_memory_that_the_program_sees(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        obj.globals["counter"] = 2**40
        run(obj, "main_program")
        assert obj.globals["counter"] == 2**40 + 7
        with pytest.raises(TypeError, match="frozen"):
            obj.globals["setting"] = 8
        with pytest.raises(OverflowError):
            obj.globals["counter"] = 2**64
        with pytest.raises(KeyError):
            obj.globals["nosuch"]
        assert "counter" in obj.globals
        assert "nosuch" not in obj.globals
        assert len(obj.globals) == len(obj.globals.keys())


def test_rodata_is_frozen_in_the_kernel(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        size = obj.maps[".rodata"].value_size
        with pytest.raises(PermissionError):
            syscall.map_update_elem(obj.maps[".rodata"].fileno(), bytes(4), bytes(size))


def test_a_question_mark_means_not_by_default(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        assert "not_by_default" not in obj.programs
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.programs["not_by_default"].autoload = True
    with spec.load() as obj:
        assert run(obj, "not_by_default") == 9


def test_func_and_line_info_reach_the_kernel(everything: Path) -> None:
    with pybpf.load(everything) as obj:
        info = obj.programs["main_program"].info(func_info=True, line_info=True)
        assert info.btf_id
        assert info.nr_func_info == 3
        assert info.nr_line_info > 10


def test_the_kernel_knows_types_of_maps(everything: Path) -> None:
    with pybpf.load(everything) as obj, pybpf.Map.from_id(obj.maps["table"].id) as again:
        obj.maps["table"][5] = 6
        assert again[5] == 6
        assert again.info().btf_value_type_id


def test_the_same_spec_loads_twice(everything: Path) -> None:
    spec = pybpf.ObjectSpec.from_file(everything)
    before = spec.fingerprint()
    with spec.load() as one, spec.load() as two:
        one.globals["counter"] = 1
        assert two.globals["counter"] == 100
    assert pybpf.ObjectSpec.from_file(everything).fingerprint() == before


def test_log_of_a_program_that_loads(everything: Path) -> None:
    with pybpf.load(everything, log_level=2) as obj:
        assert "processed" in obj.programs["main_program"].log
    with pybpf.load(everything) as obj:
        assert obj.programs["main_program"].log == ""


def test_kconfig_text_goes_first(everything: Path) -> None:
    with pybpf.load(everything, kconfig="CONFIG_HZ=12345\nCONFIG_NO_SUCH_THING=-7") as obj:
        run(obj, "main_program")
        assert obj.globals["hz_seen"] == 12345
        assert obj.globals["missing_seen"] == 2**64 - 7


def test_kconfig_value_that_does_not_fit(everything: Path) -> None:
    with pytest.raises(pybpf.ObjectError, match=r"CONFIG_HZ: .* outside"):
        pybpf.load(everything, kconfig="CONFIG_HZ=5000000000")
    with pytest.raises(pybpf.ObjectError, match="CONFIG_BPF_SYSCALL"):
        pybpf.load(everything, kconfig='CONFIG_BPF_SYSCALL="text"')


def test_reused_map(everything: Path) -> None:
    with pybpf.load(everything) as one:
        one.maps["table"][9] = 90
        with pybpf.load(everything, reuse={"table": one.maps["table"]}) as two:
            assert two.maps["table"][9] == 90
            run(two, "main_program")
            assert one.maps["table"][2] == 1
    with pytest.raises(pybpf.ObjectError, match="no map 'nosuch'"):
        pybpf.load(everything, reuse={"nosuch": 5})


@pytest.fixture
def pin_folder() -> str:
    if not os.path.ismount("/sys/fs/bpf"):
        pytest.skip("no bpf file system at /sys/fs/bpf")
    return f"/sys/fs/bpf/pybpf-test-{os.getpid()}"


def test_pinned_by_name_is_shared_and_checked(everything: Path, pin_folder: str) -> None:
    spec = pybpf.ObjectSpec.from_file(everything)
    spec.maps["table"].pinning = 1
    try:
        with spec.load(pin_root=pin_folder) as one, spec.load(pin_root=pin_folder) as two:
            one.maps["table"][1] = 11
            assert two.maps["table"][1] == 11
        spec.maps["table"].max_entries = 17
        with pytest.raises(pybpf.ObjectError, match=r"max_entries 16 \(the object wants 17\)"):
            spec.load(pin_root=pin_folder)
    finally:
        os.unlink(f"{pin_folder}/table")
        os.rmdir(pin_folder)


def test_a_failed_load_leaves_no_pin(rejected: Path, pin_folder: str) -> None:
    spec = pybpf.ObjectSpec.from_file(rejected)
    spec.maps["table"].pinning = 1
    spec.programs["null_pointer"].autoload = True
    with pytest.raises(pybpf.VerifierError):
        spec.load(pin_root=pin_folder)
    assert os.listdir(pin_folder) == []
    os.rmdir(pin_folder)


def reject(path: Path, program: str, **changes: bool) -> pybpf.VerifierError:
    spec = pybpf.ObjectSpec.from_file(path)
    spec.programs[program].autoload = True
    for name, created in changes.items():
        spec.maps[name].autocreate = created
    with pytest.raises(pybpf.VerifierError) as caught:
        spec.load()
    return caught.value


def test_the_verifier_points_at_the_c_line(rejected: Path) -> None:
    error = reject(rejected, "null_pointer")
    assert error.program == "null_pointer"
    assert "map_value_or_null" in error.reason
    assert error.source.lstrip().startswith("return *value;")
    assert "load_rejected.bpf.c:" in error.location
    assert error.reason in error.log
    text = str(error)
    assert "program 'null_pointer'" in text
    assert error.reason in text
    assert error.source.strip() in text.splitlines()[-2]
    assert text.endswith("^")
    if error.registers:  # Linux 5.10 does not print them behind a branch
        table = "map 'table'" if "map=table" in error.log else "a map"  # Linux 6.1 does not name it
        assert error.registers == {"R0": f"a value of {table} (8 bytes), or NULL"}
    assert "Compare the pointer with NULL" in text


def test_a_map_that_was_not_created_is_named(rejected: Path) -> None:
    error = reject(rejected, "missing_map", table=False)
    assert error.reason == "BPF map 'table' is referenced but wasn't created"
    assert "<invalid BPF map reference>" in error.log


def test_a_field_that_the_kernel_lacks_is_named(rejected: Path) -> None:
    error = reject(rejected, "missing_field")
    assert error.reason.startswith("failed to resolve CO-RE relocation <byte_off>")
    assert "struct no_such_struct.no_such_field" in error.reason
    assert "<invalid CO-RE relocation>" in error.log


def test_a_kfunc_that_the_kernel_lacks_is_named(rejected: Path) -> None:
    error = reject(rejected, "missing_kfunc")
    assert error.reason == "kfunc 'no_such_kfunc' is referenced but wasn't resolved"
    assert "<invalid kfunc call>" in error.log


def test_use_after_close(everything: Path) -> None:
    obj = pybpf.load(everything)
    program, table = obj.programs["main_program"], obj.maps["table"]
    obj.close()
    obj.close()
    with pytest.raises(pybpf.ClosedError):
        program.test_run(PACKET)
    with pytest.raises(pybpf.ClosedError):
        table[1]
    with pytest.raises(pybpf.ClosedError):
        obj.globals["counter"]
    with pytest.raises(pybpf.ClosedError):
        obj.attach()
    assert "closed" in repr(obj)


def test_load_from_bytes(everything: Path) -> None:
    with pybpf.load(everything.read_bytes(), name="mine") as obj:
        assert obj.name == "mine"
        assert run(obj, "main_program") == 5


def test_names_that_the_kernel_does_not_take(build: ObjectBuilder) -> None:
    text = """
    #include "bpf_min.h"
    struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, int); __type(value, int); }
        größe SEC(".maps");
    int zähler = 3;
    SEC("socket") int prögramm_mit_einem_langen_namen(void *ctx)
    {
        int key = 0;
        zähler++;
        return bpf_map_lookup_elem(&größe, &key) != 0;
    }
    char LICENSE[] SEC("license") = "GPL";
    """
    with pybpf.load(build.compile_text("names.c", text)) as obj:
        assert obj.programs["prögramm_mit_einem_langen_namen"].test_run(PACKET).retval == 1
        assert obj.programs["prögramm_mit_einem_langen_namen"].info().name == "pr_gramm_mit_ei"
        assert obj.maps["größe"].info().name == "gr__e"
        assert obj.globals["zähler"] == 4


def test_program_by_id_and_path(everything: Path, pin_folder: str) -> None:
    os.mkdir(pin_folder)
    try:
        with pybpf.load(everything) as obj:
            program = obj.programs["main_program"]
            with pybpf.Program.from_id(program.id) as same:
                assert same.name == "main_program"
                assert same.type.name == "SOCKET_FILTER"
            program.pin(f"{pin_folder}/p")
        with pybpf.Program.open_pinned(f"{pin_folder}/p") as kept:
            assert kept.test_run(PACKET).retval == 5
    finally:
        os.unlink(f"{pin_folder}/p")
        os.rmdir(pin_folder)


REPORT = """0: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'

Verification failed: Register Type Safety: Invalid dereference

Reason:
  R0 may be NULL here (a nullable map value pointer).

At:
  null_pointer @ load_rejected.bpf.c:24:9
  Instruction context:
  >>> 7 | (79) r0 = *(u64 *)(r0 +0)

Suggestion:
  Add a NULL check before the access and
  dereference the pointer only on the non-NULL path.

processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_report_of_newer_kernels_is_a_hint() -> None:
    log = Log(REPORT)
    assert log.complaints == ["R0 invalid mem access 'map_value_or_null'"]
    assert log.suggestion == "Add a NULL check before the access and dereference the pointer only on the non-NULL path."
    steps = Log(REPORT.partition("\nVerification")[0])
    assert steps.complaints == log.complaints
    assert steps.suggestion == ""


@pytest.mark.parametrize("text", ["r0 = 0; exit", "r0 = *(u64 *)(r1 +9999); exit"], ids=["no log", "a log"])
def test_an_error_that_nobody_keeps_keeps_nothing(text: str) -> None:
    """An error's traceback has the frames of the load, and through them whatever called it."""

    class Something:
        pass

    def refused() -> weakref.ref[Something]:
        here = Something()
        spec = assemble(text, "socket")
        if text.startswith("r0 = 0"):
            spec.programs["program"].type_number = 9999
        try:
            spec.load()
        except pybpf.BPFError:
            return weakref.ref(here)
        raise AssertionError("it was loaded")

    gc.collect()
    gc.disable()
    try:
        assert refused()() is None
    finally:
        gc.enable()
