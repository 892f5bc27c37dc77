"""USDT probes: attaching to them, and what the programs see of their arguments."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from link_helpers import Refuse, eventually, needs_attach_type
from object_builder import OBJECTS, ObjectBuilder
from usdt_file import DATA_BIAS, DATA_OFFSET, MACHINES, MappedFile

import pybpf
from pybpf import compat, links
from pybpf import constants as c
from pybpf.errors import BPFError, BPFExistsError, BPFNotFoundError, NotSupportedError, ObjectError
from pybpf.links.usdt import SPECS
from pybpf.object import Object
from pybpf.program import Program
from pybpf.symbols import usdt_probes

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(
    MACHINE not in MACHINES, reason="the code of the probes is not written for this machine"
)

REGISTERS = {
    "x86_64": ("-4@%edi 8@%rsi 2@%dx -1@%cl", "8@$-7", "-4@8(%r8) 1@(%r8) -4@4(%r8,%r9,2)"),
    "aarch64": ("-4@x0 8@x1 2@x2 -1@x3", "8@-7", "-4@[x4, 8] 1@[x4]"),
    "s390x": ("-4@%r2 8@%r3 2@%r4 -1@%r5", "8@-7", "-4@8(%r6) 1@0(%r6)"),
}
"""Arguments in the registers of the first four of a call, a constant, and memory at the fifth."""


@pytest.fixture(scope="module")
def usdt_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ObjectBuilder(tmp_path_factory.mktemp("usdt"))("load_usdt.bpf.c", byte_order=sys.byteorder)


@pytest.fixture(params=["multi", "single", "no cookies"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One link, as since Linux 6.6; a uprobe for each place; and that on a kernel before 5.15."""
    if request.param == "multi":
        needs_attach_type("BPF_TRACE_UPROBE_MULTI")
        if not compat.has_uprobe_multi():
            pytest.skip("multi-uprobes of this kernel mean threads, not processes")
    else:
        monkeypatch.setattr(compat, "has_uprobe_multi", lambda token_fd=None: False)
    if request.param == "no cookies":
        monkeypatch.setattr(compat, "has_bpf_cookie", lambda token_fd=None: False)
    elif not compat.has_bpf_cookie():
        pytest.skip("the kernel has no cookies (Linux 5.15)")
    return str(request.param)


@pytest.fixture
def loaded(way: str, usdt_object: Path) -> Iterator[Object]:
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    spec.programs["on_probe_sleepable"].autoload = False
    with spec.load() as obj:
        assert (obj.programs["on_probe"].attach_type_number == c.BPF_TRACE_UPROBE_MULTI) == (way == "multi")
        yield obj


def seen(obj: Object) -> list[int]:
    record = obj.globals["seen"]
    assert not any(record.errors[: record.count])
    return list(record.values[: record.count])


def test_arguments(loaded: Object, tmp_path: Path) -> None:
    memory = (ctypes.c_int32 * 8)(-2, 5, 1 << 30, -90, 7)
    in_registers, constant, in_memory = REGISTERS[MACHINE]
    file = MappedFile(tmp_path / "program")
    place = file.place(file.nothing + file.back)
    file.note("app", "call", f"{in_registers} {constant} {in_memory}", place)
    address = ctypes.addressof(memory)
    with file:
        with loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "call", pid=0, cookie=1 << 40) as link:
            assert (link.kind, link.target) == ("usdt", f"{file.path}:app:call")
            assert len(link.probes) == 1
            file.call(place, 1 << 32 | 0xFFFFFFFF, 1 << 63, 0x18000, 0xFF, address, 4)
            assert loaded.globals["runs"] == 1
            assert loaded.globals["seen"].cookie == 1 << 40
            expected = [-1, -1 << 63, 0x8000, -1, -7, 1 << 30, 0xFE if sys.byteorder == "little" else 0xFF, -90]
            assert seen(loaded) == expected[: len(seen(loaded))]
            assert len(seen(loaded)) == (8 if MACHINE == "x86_64" else 7)
            assert loaded.globals["seen"].sizes[:7] == [4, 8, 2, 1, 8, 4, 1]
            assert loaded.globals["seen"].sizes[8] < 0
            assert loaded.globals["seen"].errors[8] < 0
        assert eventually(lambda: _is_quiet(loaded, lambda: file.call(place, 0)))


def _is_quiet(obj: Object, fire: Callable[[], object]) -> bool:
    before = obj.globals["runs"]
    fire()
    return bool(obj.globals["runs"] == before)


def three_places(folder: Path) -> tuple[MappedFile, list[int]]:
    """A probe at three places, two of which have their argument at the same place."""
    in_registers, constant, _ = REGISTERS[MACHINE]
    file = MappedFile(folder / "program")
    places = [file.place(file.nothing + file.back) for _ in range(3)]
    for place, arguments in zip(places, (in_registers, constant, in_registers), strict=True):
        file.note("app", "many", arguments, place)
    return file, places


def test_places_share_specs(loaded: Object, tmp_path: Path, way: str) -> None:
    file, places = three_places(tmp_path)
    program = loaded.programs["on_probe"]
    with file:
        for _ in range(2):  # what the first attachment has taken is used by the second
            with program.attach_usdt(str(file.path), "app", "many", pid=0) as link:
                assert len(link.probes) == 3
                for place, expected in zip(places, ([4, 5, 6, 7], [-7], [4, 5, 6, 7]), strict=True):
                    file.call(place, 4, 5, 6, 7)
                    assert seen(loaded) == expected
                assert [spec.arg_cnt for spec in loaded.maps[SPECS].values() if spec.arg_cnt] in ([1, 4], [4, 1])
                assert len(loaded.maps["__bpf_usdt_ip_to_spec_id"]) == (3 if way == "no cookies" else 0)
                if way == "multi":
                    assert link.id
                    assert link.info().type == c.BPF_LINK_TYPE_UPROBE_MULTI
            assert eventually(lambda: _is_quiet(loaded, lambda: file.call(places[1], 0)))
    assert len(loaded.maps["__bpf_usdt_ip_to_spec_id"]) == 0
    assert loaded.globals["runs"] == 6


def test_two_programs_at_one_probe(loaded: Object, tmp_path: Path, way: str) -> None:
    file, places = three_places(tmp_path)
    first, second = loaded.programs["on_probe"], loaded.programs["with_parameters"]
    with file, first.attach_usdt(str(file.path), "app", "many", pid=0):
        if way == "no cookies":
            with pytest.raises(BPFExistsError, match="program of this object is at the address"):
                second.attach_usdt(str(file.path), "app", "many", pid=0)
            file.call(places[0], 1, 2, 3)
            assert seen(loaded)[:3] == [1, 2, 3]
            return
        with second.attach_usdt(str(file.path), "app", "many", pid=0):
            file.call(places[0], 1, 2, 3)
            assert loaded.globals["runs"] == 2
            assert loaded.globals["sum"] == 6


def test_semaphore(loaded: Object, tmp_path: Path) -> None:
    file = MappedFile(tmp_path / "program")
    place = file.place(file.nothing + file.back)
    file.note("app", "counted", "", place, semaphore=DATA_BIAS + DATA_OFFSET + 8)
    with file:
        assert file.data[8:10] == bytes(2)
        with loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "counted", pid=0):
            assert int.from_bytes(file.data[8:10], sys.byteorder) == 1
            file.call(place)
            assert loaded.globals["runs"] == 1
            assert loaded.globals["seen"].count == 0
        assert eventually(lambda: file.data[8:10] == bytes(2))


def test_file_that_was_moved_by_prelink(loaded: Object, tmp_path: Path) -> None:
    """The notes still have the addresses from before; the section of the base tells by how much it was moved."""
    file = MappedFile(tmp_path / "program")
    place = file.place(file.nothing + file.back)
    file.note(
        "app", "moved", "", place - 0x500, base=file.base_address - 0x500, semaphore=DATA_BIAS + DATA_OFFSET - 0x4F8
    )
    assert file.base_address
    with file, loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "moved", pid=0) as link:
        assert (link.probes[0].address, link.probes[0].semaphore) == (place, DATA_OFFSET + 8)
        file.call(place)
        assert loaded.globals["runs"] == 1


def test_a_place_that_the_kernel_makes_quick(loaded: Object, tmp_path: Path) -> None:
    if MACHINE != "x86_64":
        pytest.skip("only x86-64 has such places")
    for size, long_one in ((5, bytes.fromhex("0f1f440000")), (10, bytes.fromhex("662e0f1f840000000000"))):
        file = MappedFile(tmp_path / f"program{size}")
        place = file.place(file.nothing + long_one + file.back)
        file.note("app", "quick", "8@%rdi", place)
        with file, loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "quick", pid=0) as link:
            for turn in range(20):  # the kernel rewrites the code when it has been there once
                file.call(place, turn)
                assert seen(loaded) == [turn]
            if link.id and link.type == c.BPF_LINK_TYPE_UPROBE_MULTI:
                offset = link.probes[0].offset + (compat.quick_uprobe_size() == size)
                assert list(link.info(arrays=True).offsets) == [offset]


def test_sleepable(usdt_object: Path, tmp_path: Path) -> None:
    needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    file, places = three_places(tmp_path)
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    for name in spec.programs:
        spec.programs[name].autoload = name == "on_probe_sleepable"
    assert spec.programs["on_probe_sleepable"].flags & c.BPF_F_SLEEPABLE
    with (
        spec.load() as obj,
        file,
        obj.programs["on_probe_sleepable"].attach_usdt(str(file.path), "app", "many", pid=0),
    ):
        file.call(places[1])
        assert obj.globals["runs"] == 1
        assert seen(obj) == [-7]


def test_program_of_a_uprobe_section(loaded: Object, tmp_path: Path) -> None:
    """It was not loaded for many places at once, so it gets a uprobe for each."""
    file, places = three_places(tmp_path)
    with file, loaded.programs["on_probe_of_uprobe"].attach_usdt(str(file.path), "app", "many", pid=0):
        file.call(places[1])
        assert seen(loaded) == [-7]


@pytest.mark.parametrize("prefix", ["usdt", "usdt.s"])
def test_by_section(usdt_object: Path, tmp_path: Path, prefix: str) -> None:
    if prefix == "usdt.s":
        needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    if not compat.has_bpf_cookie():
        pytest.skip("without cookies a process has to be given (Linux 5.15)")
    file, places = three_places(tmp_path)
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    for name in spec.programs:
        spec.programs[name].autoload = name == ("on_probe" if prefix == "usdt" else "on_probe_sleepable")
    spec.programs["on_probe" if prefix == "usdt" else "on_probe_sleepable"].attach_target = f"{file.path}:app:many"
    with file, spec.load() as obj, obj.attach() as attached:
        assert [link.kind for link in attached] == ["usdt"]
        file.call(places[1])
        assert seen(obj) == [-7]


def test_specs_run_out(usdt_object: Path, tmp_path: Path) -> None:
    """The user sets how many there are; a failed attachment gives back what it has taken."""
    file, places = three_places(tmp_path)
    file.note("app", "one", "", places[0])
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    spec.programs["on_probe_sleepable"].autoload = False
    spec.maps[SPECS].max_entries = 1
    with spec.load() as obj, file:
        program = obj.programs["on_probe"]
        for _ in range(2):
            with pytest.raises(BPFError, match=r"all 1 specs of __bpf_usdt_specs are in use.*BPF_USDT_MAX_SPEC_CNT"):
                program.attach_usdt(str(file.path), "app", "many", pid=0)
            with program.attach_usdt(str(file.path), "app", "one", pid=0):
                file.call(places[0])
        assert obj.globals["runs"] == 2


def test_refusals_leave_nothing(loaded: Object, tmp_path: Path, way: str) -> None:
    file, _ = three_places(tmp_path)
    program = loaded.programs["on_probe"]
    refused = ("BPF_LINK_CREATE", "bpf") if way == "multi" else ("", "perf_event_open")
    with file:
        for _ in range(300):  # more than there are specs
            with Refuse(refused[0], 12, name=refused[1]), pytest.raises(BPFError, match="attaching 'on_probe' to usdt"):
                program.attach_usdt(str(file.path), "app", "many", pid=0)
    assert len(loaded.maps["__bpf_usdt_ip_to_spec_id"]) == 0


def test_what_does_not_exist(loaded: Object, tmp_path: Path) -> None:
    file, _ = three_places(tmp_path)
    program = loaded.programs["on_probe"]
    with file:
        for path, provider, name in (
            (file.path, "app", "no"),
            (file.path, "no", "many"),
            (shutil.which("true"), "a", "b"),
        ):
            with pytest.raises(
                BPFNotFoundError, match=rf"'on_probe' to usdt .*:{provider}:{name}: there is no such probe"
            ):
                program.attach_usdt(str(path), provider, name, pid=0)
    with pytest.raises(BPFNotFoundError, match="library 'libno.so' is not found"):
        program.attach_usdt("libno.so", "app", "many")
    with pytest.raises(ValueError, match="give a path, or the process"):
        program.attach_usdt("", "app", "many")
    with pytest.raises(BPFNotFoundError, match="no process 4194304"):
        program.attach_usdt("", "app", "many", pid=4194304)


def test_arguments_that_cannot_be_read(loaded: Object, tmp_path: Path) -> None:
    file = MappedFile(tmp_path / "program")
    place = file.place(file.nothing + file.back)
    file.note("app", "float", "8f@%xmm0", place)
    with (
        file,
        pytest.raises(ObjectError, match=r"attaching 'on_probe' to usdt .*argument 1 of '8f@%xmm0' is not of a form"),
    ):
        loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "float", pid=0)


def test_file_of_another_machine(loaded: Object, tmp_path: Path) -> None:
    file, _ = three_places(tmp_path)
    file.machine = 8
    with file, pytest.raises(ObjectError, match="is for another machine: MIPS"):
        loaded.programs["on_probe"].attach_usdt(str(file.path), "app", "many", pid=0)


def test_object_without_the_maps(counting: Callable[..., Program], tmp_path: Path) -> None:
    file, _ = three_places(tmp_path)
    with file, pytest.raises(ObjectError, match="without the maps of its object"):
        links.attach_usdt(counting(c.BPF_PROG_TYPE_KPROBE), str(file.path), "app", "many", pid=0)
    with pybpf.load(
        OBJECTS.parent.parent / "kernels" / ("hello.bpf.o" if sys.byteorder == "little" else "hello.eb.bpf.o")
    ) as obj:
        program = next(iter(obj.programs.values()))
        with file, pytest.raises(ObjectError, match=r"no maps __bpf_usdt_specs .*include usdt\.bpf\.h"):
            program.attach_usdt(str(file.path), "app", "many", pid=0)


def test_without_cookies_a_process_is_needed(
    monkeypatch: pytest.MonkeyPatch, usdt_object: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(compat, "has_uprobe_multi", lambda token_fd=None: False)
    monkeypatch.setattr(compat, "has_bpf_cookie", lambda token_fd=None: False)
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    spec.programs["on_probe_sleepable"].autoload = False
    file, _ = three_places(tmp_path)
    with (
        file,
        spec.load() as obj,
        pytest.raises(NotSupportedError, match=r"is at another address each time.*Give pid="),
    ):
        obj.programs["on_probe"].attach_usdt(str(file.path), "app", "many")
    with pytest.raises(BPFNotFoundError, match=f"process {os.getpid()} has not mapped"), spec.load() as obj:
        other = tmp_path / "copy"
        shutil.copy(file.path, other)
        obj.programs["on_probe"].attach_usdt(str(other), "app", "many", pid=os.getpid())


def test_closed_twice_pinned_and_after_its_object(usdt_object: Path, tmp_path: Path) -> None:
    needs_attach_type("BPF_TRACE_UPROBE_MULTI")
    file, places = three_places(tmp_path)
    spec = pybpf.ObjectSpec.from_file(usdt_object)
    obj = spec.load()
    link = obj.programs["on_probe"].attach_usdt(str(file.path) if file.__enter__() else "", "app", "many", pid=0)
    runs = obj.globals
    path = f"/sys/fs/bpf/pybpf_test_usdt_{os.getpid()}"
    link.pin(path)
    link.close()
    link.close()
    file.call(places[1])
    assert runs["runs"] == 1
    with obj.programs["on_probe"].attach_usdt(str(file.path), "app", "many", pid=0, cookie=5):
        file.call(places[1])  # both see their own spec: the pinned one's was not given away
        assert sorted(s.usdt_cookie for s in obj.maps[SPECS].values() if s.arg_cnt) == [0, 0, 5, 5]
    links.Link.open_pinned(path).detach()
    again = obj.programs["on_probe"].attach_usdt(str(file.path), "app", "many", pid=0)
    obj.close()
    again.close()


def test_probes_of_this_interpreter(loaded: Object) -> None:
    """Debian's Python has probes. Of their file only its name is given, and the process."""
    path = os.path.realpath("/proc/self/exe")
    if not usdt_probes(path, "python", "gc__start"):
        pytest.skip("this Python was built without probes")
    program = loaded.programs["on_probe"]
    for name in (path, "", os.path.basename(path)):
        before = loaded.globals["runs"]
        with program.attach_usdt(name, "python", "gc__start", pid=os.getpid()):
            gc.collect(1)
            assert loaded.globals["runs"] > before
            assert loaded.globals["seen"].count == 1


# A program that a compiler has made


class Target:
    """The program of usdt_target.c, running. A context manager."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.say("-")

    def say(self, letter: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{letter}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or MACHINE != "x86_64":
        pytest.skip("no compiler for x86-64 programs")
    output = tmp_path_factory.mktemp("target") / "usdt_target"
    source = Path(__file__).with_name("usdt_target.c")
    subprocess.run([compiler, "-O2", "-static", "-o", str(output), str(source)], check=True, timeout=60)
    return output


def test_compiled_program(loaded: Object, target: Path) -> None:
    program = loaded.programs["on_probe"]
    with Target(str(target)) as running, Target(str(target)) as other:
        with program.attach_usdt(str(target), "pybpf_test", "event", pid=running.pid, cookie=77) as link:
            assert len(link.probes) == 3
            other.say("e")
            assert loaded.globals["runs"] == 0
            running.say("e")
            assert loaded.globals["runs"] == 3
            assert seen(loaded) == [2 << 32, -3]
            assert loaded.globals["seen"].cookie == 77
        with program.attach_usdt(str(target), "pybpf_test", "memory", pid=running.pid):
            running.say("m")
            assert seen(loaded) == [-2, 255, 30, -40, -7, 2]
        with program.attach_usdt(str(target), "pybpf_test", "quick", pid=running.pid):
            before = loaded.globals["runs"]
            for _ in range(5):
                running.say("q")
            assert loaded.globals["runs"] == before + 5
        with program.attach_usdt(str(target), "pybpf_test", "global", pid=running.pid) as link:
            assert link.probes[0].arguments == "-4@4+global(%rip)"
            for turn in range(2):
                running.say("g")
                assert seen(loaded) == [-12 - turn]
        assert running.say("c") == "-"
        with program.attach_usdt(str(target), "pybpf_test", "counted", pid=running.pid):
            assert running.say("c") == "S"
            assert seen(loaded) == [1]
        assert eventually(lambda: running.say("c") == "-")


def test_program_in_a_container(loaded: Object, target: Path, tmp_path: Path) -> None:
    """Its file is in a file system that only the process has; its name alone, or no name, finds it."""
    root = tmp_path / "root"
    root.mkdir()
    script = f"mount -t tmpfs none {root} && cp {target} {root}/contained && exec chroot {root} /contained"
    with Target("unshare", "--mount", "sh", "-c", script) as running:
        assert not (root / "contained").exists()
        for path in ("contained", "", f"/proc/{running.pid}/root/contained"):
            with loaded.programs["on_probe"].attach_usdt(path, "pybpf_test", "event", pid=running.pid):
                before = loaded.globals["runs"]
                running.say("e")
                assert loaded.globals["runs"] == before + 3


PROGRAM_OF_32_BITS = """
static long call(long number, long first, long second, long third)
{
	asm volatile("int $0x80" : "+a"(number) : "b"(first), "c"(second), "d"(third) : "memory");
	return number;
}

void _start(void)
{
	char letter;

	while (call(3, 0, (long) &letter, 1) == 1) {
		if (letter != '\\n') {
			volatile int local = letter;

			asm volatile("990: nop\\n"
				".pushsection .note.stapsdt,\\"?\\",\\"note\\"\\n.balign 4\\n"
				".4byte 992f-991f, 994f-993f, 3\\n991: .asciz \\"stapsdt\\"\\n992: .balign 4\\n"
				"993: .4byte 990b, 0, 0\\n.asciz \\"small\\"\\n.asciz \\"event\\"\\n"
				".asciz \\"-4@%0 -4@%1 -4@$-9\\"\\n994: .balign 4\\n.popsection\\n" :: "r"(-5), "m"(local));
			call(4, 1, (long) "x\\n", 2);
		}
	}
	call(1, 0, 0, 0);
}
"""


def test_program_of_32_bits(loaded: Object, target: Path, tmp_path: Path) -> None:
    """Its registers are the lower halves of those of the kernel."""
    source, output = tmp_path / "small.c", tmp_path / "small"
    source.write_text(PROGRAM_OF_32_BITS)
    flags = ["-m32", "-O1", "-fno-pic", "-no-pie", "-nostdlib", "-static", "-ffreestanding"]
    if subprocess.run(["gcc", *flags, "-o", output, source], capture_output=True).returncode:
        pytest.skip("the compiler makes no programs of 32 bits")
    try:
        running = Target(str(output))
    except OSError:
        pytest.skip("the kernel runs no programs of 32 bits")
    with running, loaded.programs["on_probe"].attach_usdt(str(output), "small", "event", pid=running.pid):
        running.say("A")
        assert seen(loaded) == [-5, ord("A"), -9]
