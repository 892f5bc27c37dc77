"""Running a job in a guest: QEMU with the kernel and one initramfs, until it powers off.

The console goes to a file and not to QEMU's own streams: an end of input there makes the guest's writes block for
ever. It shows what the kernel says from warnings up, so it is complete even when the guest dies.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix import rootfs
from kernel_matrix.job import Job, write_archive
from kernel_matrix.kernels import Kernel

INIT = Path(__file__).with_name("guest-init")

HUNG = 124  # as timeout(1)
DIED = 125

#: What the kernel writes when something is wrong with it.
COMPLAINT = re.compile(
    r"WARNING: |BUG: |Oops|kernel BUG at|Kernel panic|general protection fault|Unable to handle kernel|UBSAN: |KASAN: "
    r"|refcount_t: |INFO: task .* blocked|detected stall"
)
#: How many lines of the log are shown from a complaint on.
COMPLAINT_LINES = 40


@dataclass(frozen=True)
class Settings:
    """How to run guests; the command line's options."""

    timeout: float = 1800  # seconds
    processors: int = 2
    memory: str = "2G"
    kernel_arguments: str = ""
    mirror: str | None = None


@dataclass(frozen=True)
class Result:
    """How a job ended."""

    release: str
    status: int | None  # the command's exit status; None when the guest did not tell
    hung: bool
    seconds: float
    console: str
    dmesg: str
    junit: bytes | None

    @property
    def complaints(self) -> list[str]:
        """The kernel's warnings and oopses, each with the lines that follow it."""
        return complaints(self.console)

    @property
    def exit_status(self) -> int:
        """The status for the caller: the command's own, but never 0 when the kernel complained."""
        if self.status is None:
            return HUNG if self.hung else DIED
        return self.status or (1 if self.complaints else 0)


def complaints(log: str) -> list[str]:
    """The passages of a kernel log that begin with a warning, an oops or the like."""
    found: list[str] = []
    lines = log.replace("\r", "").splitlines()
    index = 0
    while index < len(lines):
        if COMPLAINT.search(lines[index]):
            end = next(
                (i + 1 for i in range(index, len(lines)) if "---[ end" in lines[i]),
                index + COMPLAINT_LINES,
            )
            end = min(end, index + COMPLAINT_LINES)
            found.append("\n".join(lines[index:end]))
            index = end
        else:
            index += 1
    return found


def command_line(
    kernel: Kernel,
    settings: Settings,
    vmlinuz: Path,
    initrd: Path,
    console: Path,
    results: Path,
    output: int,
) -> list[str]:
    """QEMU's command line. `output` is the descriptor that takes what the job writes."""
    architecture = kernel.architecture
    arguments = " ".join(
        [
            f"console={architecture.console} rdinit=/init panic=-1 oops=panic loglevel=5 log_buf_len=4M",
            "random.trust_cpu=on lsm=landlock,lockdown,yama,bpf",
            architecture.kernel_arguments,
            settings.kernel_arguments,
        ]
    )
    return [
        rootfs.program(architecture.qemu),
        *architecture.qemu_arguments,
        *("-smp", str(settings.processors), "-m", settings.memory),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(vmlinuz), "-initrd", str(initrd), "-append", " ".join(arguments.split())),
        *("-chardev", f"file,id=console,path={console}", *architecture.console_arguments),
        *("-device", f"{architecture.serial_bus},id=ports"),
        *("-add-fd", f"fd={output},set=1", "-chardev", "file,id=output,path=/dev/fdset/1,append=on"),
        *("-device", "virtserialport,bus=ports.0,chardev=output,name=output"),
        *("-chardev", f"file,id=results,path={results}"),
        *("-device", "virtserialport,bus=ports.0,chardev=results,name=results"),
    ]


def _write_to_stdout(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run(
    kernel: Kernel, job: Job, checkout: Path, settings: Settings, write: Callable[[bytes], None] = _write_to_stdout
) -> Result:
    """Run a job to its end and pass on what it writes, as it writes it."""
    image = rootfs.image(kernel, mirror=settings.mirror)
    root = rootfs.root(kernel.architecture, mirror=settings.mirror)
    code = rootfs.bytecode(kernel.architecture.root_suite, mirror=settings.mirror)
    release = image.release  # before the guest runs: a newer kernel may take this one's place in the cache meanwhile
    with tempfile.TemporaryDirectory(prefix="pybpf-matrix-") as name:
        folder = Path(name)
        initrd, console, results = folder / "initrd", folder / "console", folder / "results"
        with initrd.open("wb") as file:
            for part in (root, code, image.modules):
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            write_archive(file, job, checkout, INIT)
        started = time.monotonic()
        reader, writer = os.pipe()
        try:
            emulator = subprocess.Popen(
                command_line(kernel, settings, image.vmlinuz, initrd, console, results, writer),
                stdin=subprocess.DEVNULL,
                pass_fds=[writer],
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        with emulator:
            try:
                hung = not _pass_on(reader, write, started + settings.timeout)
            finally:
                emulator.kill()
                os.close(reader)
        seconds = time.monotonic() - started
        sent = _read_results(results)
        return Result(
            release=release,
            status=int(sent["status"]) if "status" in sent else None,
            hung=hung,
            seconds=seconds,
            console=console.read_text(errors="replace") if console.exists() else "",
            dmesg=sent.get("dmesg", b"").decode(errors="replace"),
            junit=sent.get("junit.xml"),
        )


def _pass_on(reader: int, write: Callable[[bytes], None], deadline: float) -> bool:
    """Pass the guest's output on until the emulator ends (True) or the deadline is reached (False)."""
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        data = os.read(reader, 1 << 16)
        if not data:
            return True
        write(data)


def _read_results(path: Path) -> dict[str, bytes]:
    """The files the guest sent at its end; none of them when it did not come so far."""
    sent: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if file := archive.extractfile(member):
                    sent[member.name.removeprefix("./")] = file.read()
    except (OSError, tarfile.TarError):
        sent.pop("status", None)
    return sent
