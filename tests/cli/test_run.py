"""`pybpf run` as a stranger uses it: a process, its output, its exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from object_builder import ObjectBuilder
from thrift import EMULATED

ROOT = Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "kernels"
ENDING = ".bpf.o" if sys.byteorder == "little" else ".eb.bpf.o"
OTHER_ENDING = ".eb.bpf.o" if sys.byteorder == "little" else ".bpf.o"

PAUSE = 5.0 if EMULATED else 0.5
"""Seconds for what cannot be seen from outside."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")


def pybpf(*arguments: str, timeout: float = 60, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pybpf", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        **options,  # type: ignore[call-overload]
    )


def loaded_programs(name: str) -> set[int]:
    """The ids of the programs of this name in the kernel."""
    from pybpf import syscall

    found, number = set(), 0
    while (following := syscall.prog_get_next_id(number)) is not None:
        number = following
        try:
            with syscall.prog_get_fd_by_id(number) as fd:
                if syscall.prog_info(fd).name == name:
                    found.add(number)
        except FileNotFoundError:  # unloaded meanwhile
            continue
    return found


def wait_until_loaded(name: str, before: set[int]) -> None:
    """Wait until a new program of this name is there, and a moment more for its attachment."""
    deadline = time.monotonic() + 60
    while loaded_programs(name) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(PAUSE)


def refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One sentence on the standard error, no traceback, the documented exit code."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("pybpf: ")
    for word in words:
        assert word in result.stderr, result.stderr


class Running:
    """`pybpf run` in the background, stopped by a signal."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "pybpf", "run", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def finish(self, number: int = signal.SIGINT) -> tuple[str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, err
        return out, err


@needs_root
def test_execsnoop_prints_a_typed_line_for_each_exec_and_leaves_nothing() -> None:
    before = loaded_programs("execsnoop")
    running = Running("execsnoop", "--json")
    try:
        wait_until_loaded("execsnoop", before)
        for _ in range(5):
            subprocess.run(["/bin/true", "an argument", "second"], check=True)
            time.sleep(0.1)
    finally:
        out, err = running.finish()
    assert err == ""
    events = [json.loads(line) for line in out.splitlines()]
    mine = [e["event"] for e in events if e["event"]["filename"].endswith("/true")]
    assert len(mine) >= 4
    for event in mine:
        assert event["arguments"] == "/bin/true an argument second"
        assert event["comm"] == "true"
        assert event["ppid"] == os.getpid()
        assert event["uid"] == 0
        assert event["pid"] > 1
    deadline = time.monotonic() + 10
    while not loaded_programs("execsnoop") <= before:  # the kernel frees a program after a grace period
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_clean_end(number: int) -> None:
    before = loaded_programs("hello")
    running = Running("hello")
    wait_until_loaded("hello", before)
    subprocess.run(["/bin/true"], check=True)
    time.sleep(PAUSE)
    out, err = running.finish(number)
    assert err == ""
    assert any("message='Hello World'" in line for line in out.splitlines())


@needs_root
def test_count_and_set() -> None:
    running = Running("execsnoop", "--count", "2", "--set", "only_uid=0", "--json")
    deadline = time.monotonic() + 30
    while running.process.poll() is None and time.monotonic() < deadline:
        subprocess.run(["/bin/true"], check=True)
        time.sleep(0.1)
    out, err = running.process.communicate(timeout=10)
    assert running.process.returncode == 0, err
    assert len(out.splitlines()) == 2


@needs_root
def test_duration_and_dump_maps() -> None:
    result = pybpf("run", "syscount", "--duration", "1", "--dump-maps", "--json")
    assert result.returncode == 0, result.stderr
    dumps = {row["map"]: row["entries"] for row in map(json.loads, result.stdout.splitlines())}
    assert dumps["syscalls"]
    for entry in dumps["syscalls"]:
        assert set(entry["value"]) == {"calls", "errors", "time_ns"}
        assert entry["value"]["calls"] >= entry["value"]["errors"]


@needs_root
@pytest.mark.parametrize("name", ["hello", "execsnoop", "opensnoop", "runqlat", "tcpstates", "syscount", "profile"])
def test_every_kernel_runs(name: str) -> None:
    extra = ["--frequency", "50"] if name == "profile" else []
    result = pybpf("run", name, "--duration", "1.5", "--dump-maps", *extra)
    assert result.returncode == 0, result.stderr
    assert "not attached" not in result.stderr


@needs_root
def test_xdp_count_on_a_veth_pair() -> None:
    if not shutil.which("ip"):
        pytest.skip("no ip command")
    space, inside = "pybpf-run-xdp", "ip netns exec pybpf-run-xdp "
    subprocess.run(f"ip netns del {space}", shell=True, stderr=subprocess.DEVNULL, check=False)
    setup = subprocess.run(
        f"ip netns add {space} && {inside} ip link set lo up && {inside} ip link add v0 type veth peer name v1 && "
        f"{inside} ip addr add 10.99.0.1/24 dev v0 && {inside} ip link set v0 up && {inside} ip link set v1 up",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        if setup.returncode:
            pytest.skip(f"no veth pair: {setup.stderr.strip()}")
        before = loaded_programs("xdp_count")
        options = f"--interface v1 --duration {6 * PAUSE} --dump-maps --json"
        command = f"{inside} {sys.executable} -m pybpf run xdp_count {options}"
        running = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        wait_until_loaded("xdp_count", before)
        send = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); "
            "[s.sendto(b'x' * 100, ('10.99.0.255', 9)) for _ in range(7)]"
        )
        subprocess.run(f'{inside} {sys.executable} -c "{send}"', shell=True, check=True)
        out, _ = running.communicate(timeout=60)
        assert running.returncode == 0
        [dump] = [json.loads(line) for line in out.splitlines()]
        packets = {entry["key"]: sum(cpu["packets"] for cpu in entry["value"]) for entry in dump["entries"]}
        assert packets[0x0800] == 7
    finally:
        subprocess.run(f"ip netns del {space}", shell=True, check=False)


# Refusals


def test_missing_file() -> None:
    refused(pybpf("run", "/nonexistent/x.bpf.o"), 3, "/nonexistent/x.bpf.o")


def test_unknown_kernel() -> None:
    refused(pybpf("run", "nosuchkernel"), 3, "nosuchkernel")


@pytest.mark.parametrize("size", [0, 10, 63, 64, 200, 2000])
def test_truncated_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "cut.bpf.o"
    path.write_bytes((KERNELS / f"hello{ENDING}").read_bytes()[:size])
    refused(pybpf("run", str(path)), 3, "cut.bpf.o")


def test_an_executable_is_no_bpf_object() -> None:
    refused(pybpf("run", os.path.realpath("/bin/sh")), 3)


def test_no_elf_at_all(tmp_path: Path) -> None:
    path = tmp_path / "text.bpf.o"
    path.write_text("this is no object file\n" * 10)
    refused(pybpf("run", str(path)), 3, "text.bpf.o")


def test_the_other_byte_order() -> None:
    refused(pybpf("run", str(KERNELS / f"hello{OTHER_ENDING}")), 3, "-endian")


@needs_root
def test_not_root() -> None:
    result = pybpf("run", "hello", user=65534, group=65534, extra_groups=[])
    refused(result, 4, "Operation not permitted", "CAP_BPF")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
@pytest.mark.parametrize("as_json", [True, False])
def test_names_that_the_encoding_cannot_say(encoding: str, as_json: bool) -> None:
    script = (
        "from pybpf import cli\n"
        "from pybpf.cli.output import Printer\n"
        "cli._open_streams()\n"
        f"Printer({as_json}).event('events', '\\udcff\\xf6')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT, env=environment)
    if as_json:
        assert json.loads(result.stdout) == {"map": "events", "event": "\udcff\xf6"}
    else:
        assert result.stdout.decode() == "events '\\udcffö'\n" if "utf" in encoding else b"\\xf6" in result.stdout


@needs_root
@pytest.mark.parametrize("missing", ["bpf", "perfmon", "net_admin"])
def test_root_without_a_capability(missing: str) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv command")
    kernel = "xdp_count" if missing == "net_admin" else "execsnoop"
    result = shell(f"setpriv --bounding-set=-{missing},-sys_admin --inh-caps=-all PYBPF run {kernel}")
    refused(result, 4, f"root without CAP_{missing.upper()}")


@needs_root
def test_root_of_a_user_namespace() -> None:
    if subprocess.run("unshare --user --map-root-user true", shell=True, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    refused(shell("unshare --user --map-root-user PYBPF run execsnoop"), 4, "user namespace", "BPF token")


def test_unknown_setting() -> None:
    refused(pybpf("run", "execsnoop", "--set", "only_uit=3"), 2, "only_uit", "only_uid")


def test_setting_out_of_range() -> None:
    refused(pybpf("run", "opensnoop", "--set", "only_pid=-1"), 2, "only_pid")


def test_unknown_option() -> None:
    result = pybpf("run", "hello", "--nosuch")
    assert result.returncode == 2
    assert "usage:" in result.stderr


@needs_root
def test_xdp_without_an_interface_says_what_is_missing() -> None:
    result = pybpf("run", "xdp_count")
    assert result.returncode == 7
    assert "--interface" in result.stderr
    assert "Traceback" not in result.stderr


def test_list_of_kernels_is_the_folder() -> None:
    result = pybpf("kernels")
    assert result.returncode == 0
    listed = [line.split()[0] for line in result.stdout.splitlines()]
    assert sorted(listed) == sorted(path.name.removesuffix(".bpf.c") for path in KERNELS.glob("*.bpf.c"))
    for name in listed:
        assert (KERNELS / f"{name}.bpf.o").exists()
        assert (KERNELS / f"{name}.eb.bpf.o").exists()


def test_disasm() -> None:
    result = pybpf("prog", "disasm", "hello")
    assert result.returncode == 0
    assert "hello: SEC('raw_tp/sched_process_exec')" in result.stdout
    assert result.stdout.rstrip().endswith("(95) exit")


def test_a_closed_pipe_is_a_clean_end() -> None:
    result = subprocess.run(
        f"{sys.executable} -W error -m pybpf prog disasm execsnoop | head -1",
        shell=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert result.stderr == ""


@pytest.mark.parametrize("options", [[], ["-OO"]])
def test_help_tells_the_exit_codes_as_far_as_there_are_docstrings(options: list[str]) -> None:
    command = [sys.executable, *options, "-m", "pybpf", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert ("7  it loaded" in result.stdout) == (not options)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in which PYBPF stands for the command."""
    command = command.replace("PYBPF", f"{sys.executable} -W error -m pybpf")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, env=environment)


@needs_root
def test_closed_standard_streams_do_no_harm() -> None:
    result = shell("PYBPF run hello --duration 0 --dump-maps >&-")
    assert (result.returncode, result.stderr) == (0, "")
    result = shell("PYBPF run nosuch 2>&-")
    assert (result.returncode, result.stdout) == (3, "")
    refused(shell("PYBPF classic asm - <&-"), 3, "it has 0 instructions")


@pytest.mark.parametrize(
    "words",
    [["prog", "asm"], ["sim", "--asm"], ["classic", "asm"], ["classic", "capture"], ["seccomp", "--show", "--rules"]],
    ids=" ".join,
)
def test_a_file_that_is_no_text_is_named(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"r0 = 1\n\xff")
    refused(pybpf(*words, str(path)), 3, f"{path}: no text: byte 0xff at offset 7")


def test_output_that_cannot_be_written() -> None:
    result = shell("PYBPF prog disasm hello >/dev/full")
    assert (result.returncode, result.stderr) == (1, "pybpf: No space left on device\n")


@pytest.mark.parametrize(
    "option", ["--count 0", "--count x", "--duration nan", "--duration -1", "--duration x", "--frequency 0"]
)
def test_a_number_that_makes_no_sense_is_wrong_usage(option: str) -> None:
    result = shell(f"PYBPF run hello {option}")
    assert result.returncode == 2
    assert option.split()[0] in result.stderr


@needs_root
def test_a_duration_may_be_for_ever() -> None:
    result = shell(f"timeout -s INT {2 * PAUSE} PYBPF run hello --duration inf")
    assert result.stderr == ""


@needs_root
@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_an_interrupt_during_the_load_is_a_clean_end_too(after: float) -> None:
    """The interpreter's own start is the only time at which Ctrl-C is told by a traceback."""
    before = loaded_programs("execsnoop")
    running = Running("execsnoop", "--duration", "60")
    time.sleep(after * 2 * PAUSE)
    running.process.send_signal(signal.SIGINT)
    _, err = running.process.communicate(timeout=30)
    warned = [line for line in err.splitlines() if "ResourceWarning" in line]
    # What the interpreter was importing is its own affair.
    assert not [line for line in warned if not re.search(r"\.pyc?'", line)]
    assert "cli/run.py" not in err
    deadline = time.monotonic() + 10
    while not loaded_programs("execsnoop") <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_types_that_are_no_types_are_named() -> None:
    refused(pybpf("run", "execsnoop", "--btf", "/etc/passwd"), 3, "/etc/passwd: BTF header: bad magic")


def test_a_type_for_a_map_that_is_not_there_is_wrong_usage() -> None:
    refused(pybpf("run", "execsnoop", "--type", "nosuch=event"), 2, "no map 'nosuch'")


def test_a_process_without_descriptors_left_is_no_missing_file() -> None:
    from pybpf.cli import EXIT_FILE, EXIT_KERNEL, exit_code

    assert exit_code(OSError(errno.EMFILE, "Too many open files", "a file")) == EXIT_KERNEL
    assert exit_code(OSError(errno.ENAMETOOLONG, "File name too long", "a file")) == EXIT_FILE


@needs_root
def test_a_program_that_the_verifier_rejects(tmp_path: Path) -> None:
    text = """
    #include "bpf_min.h"
    struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, int); __type(value, int); }
        table SEC(".maps");
    SEC("socket") int bad(void *ctx)
    {
        int key = 0, *value = bpf_map_lookup_elem(&table, &key);
        return *value;
    }
    char LICENSE[] SEC("license") = "GPL";
    """
    path = ObjectBuilder(tmp_path).compile_text("bad.c", text)
    result = pybpf("run", str(path))
    refused(result, 5, "program 'bad'", "return *value;", "bad.c:", "map_value_or_null")


def test_an_object_without_programs(tmp_path: Path) -> None:
    path = ObjectBuilder(tmp_path).compile_text("empty.c", "int x = 1;\n")
    refused(pybpf("run", str(path)), 3, "no programs")


@needs_root
def test_a_kernel_without_btf() -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare command")
    command = (
        "mount -t tmpfs none /sys/kernel/btf && mount -t tmpfs none /boot && "
        f"PYBPF_NO_INDEX=1 exec {sys.executable} -W error -m pybpf run execsnoop"
    )
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if "mount" in result.stderr:
        pytest.skip(result.stderr.strip())
    refused(result, 6, "BTF")
