"""Run the test suite, or any command, inside stock Debian kernels under QEMU.

  scripts/matrix list                     the kernels, and which are in the cache
  scripts/matrix fetch KERNEL...|all      download and prepare kernels
  scripts/matrix KERNEL...|all            the test suite on these kernels
  scripts/matrix KERNEL...|all -- COMMAND any command, in the copy of this checkout inside the guest
  scripts/matrix report [FILE...]         join the results into one table: every test by kernel

The guest is emulated, so it needs neither root nor KVM. Its Python, pytest, hypothesis and pyelftools come from Debian;
it has no compiler, no network and no disk. `pybpf` is a command in it. Files that the command names and that lie
outside the checkout are copied in: `scripts/matrix 5.10 -- pybpf run x.bpf.o` shows whether an object loads there.

When the command is pytest, the results land as JUnit XML in the results folder, one file per kernel.

Exit status: the command's own (of several kernels: 1 when any was not 0); 1 when the guest's kernel logged a warning or
an oops; 124 when the guest hung and was ended; 125 when it died; 2 when the matrix itself cannot work. `report` exits
with 1 when a test failed, or was skipped wherever it was met.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path

from kernel_matrix import build, guest, report, results, rootfs, side_by_side
from kernel_matrix.errors import MatrixError
from kernel_matrix.job import SUITE, plan
from kernel_matrix.kernels import KERNELS, Kernel

CHECKOUT = Path(__file__).resolve().parents[2]
ACTIONS = ("list", "fetch", "run", "report")


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that guests are ended
    options, command = parse(arguments)
    try:
        if options.action == "list":
            return show_kernels()
        if options.action == "report":
            return show_report(options)
        kernels = chosen_kernels(options.kernels)
        check_programs(
            kernels,
            fetching_only=options.action == "fetch",
            install=options.install,
            refresh=getattr(options, "refresh", False),
        )
        if options.action == "fetch":
            return fetch(kernels, options)
        return run(kernels, command, options)
    except MatrixError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: list[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The options, and the command after --. The action is `run` where none is named."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    words, command = arguments[:cut], tuple(arguments[cut + 1 :])
    if words and words[0] not in (*ACTIONS, "-h", "--help"):
        words.insert(0, "run")
    parser = argparse.ArgumentParser(
        prog="scripts/matrix",
        usage="scripts/matrix [list | fetch | report | KERNEL... | all] [options] [-- COMMAND...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="")
    actions.add_parser("list", help="show the kernels")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("kernels", nargs="+", metavar="KERNEL", help="kernels as `list` names them, or all")
    common.add_argument("--mirror", metavar="URI", help="Debian mirror; default: that of this machine's own apt")
    common.add_argument("--install", action="store_true", help="install what is missing on this machine (needs root)")

    fetch_parser = actions.add_parser("fetch", parents=[common], help="download and prepare kernels")
    fetch_parser.add_argument("--refresh", action="store_true", help="fetch again what is cached: newer packages")

    run_parser = actions.add_parser("run", parents=[common], help="run the suite or a command (`run` may be left out)")
    run_parser.add_argument(
        "--timeout", type=float, default=1800, metavar="S", help="seconds for a guest; default 1800"
    )
    run_parser.add_argument("--smp", type=int, default=2, metavar="N", help="processors of a guest; default 2")
    run_parser.add_argument("--memory", default="2G", metavar="SIZE", help="memory of a guest; default 2G")
    run_parser.add_argument("--append", default="", metavar="ARGS", help="more arguments for the guest's kernel")
    run_parser.add_argument("-j", "--jobs", type=int, default=1, metavar="N", help="guests at a time; default 1")
    run_parser.add_argument("--amend", action="store_true", help="keep earlier results of tests that do not run now")
    run_parser.add_argument("--keep-log", action="store_true", help="keep the guest's log beside its results")

    report_parser = actions.add_parser("report", help="join the results into one table")
    report_parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="JUnit XML; default: all results")
    report_parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as a page to this file")
    report_parser.add_argument("--brief", action="store_true", help="only the kernels' totals and what is bad")
    for subparser in (run_parser, report_parser):
        subparser.add_argument(
            "--results",
            type=Path,
            default=CHECKOUT / ".matrix",
            metavar="DIR",
            help="folder of results; default .matrix",
        )
    options = parser.parse_args(words)
    if command and options.action != "run":
        parser.error(f"{options.action} takes no command")
    return options, command


def chosen_kernels(names: list[str]) -> list[Kernel]:
    """The kernels with these names, each once, in the order of the table when `all` is among them."""
    for name in names:
        if name != "all" and name not in KERNELS:
            raise MatrixError(f"no kernel {name}: there are {', '.join(KERNELS)}")
    return list(KERNELS.values()) if "all" in names else [KERNELS[name] for name in dict.fromkeys(names)]


def check_programs(kernels: list[Kernel], *, fetching_only: bool, install: bool, refresh: bool = False) -> None:
    """See that the host has the programs that are needed; name or install the packages of those missing."""
    needed = {"apt-get": "apt", "dpkg-deb": "dpkg", "depmod": "kmod"}
    if not fetching_only:
        needed |= {kernel.architecture.qemu: kernel.architecture.qemu_package for kernel in kernels}
    missing = {}
    if any(kernel.configuration and (refresh or not rootfs.cached_image(kernel)) for kernel in kernels):
        needed |= build.PROGRAMS
        missing = {path.name: package for path, package in build.HEADERS.items() if not path.exists()}
    for name, package in needed.items():
        try:
            rootfs.program(name)
        except MatrixError:
            missing[name] = package
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(set(missing.values()))]
    if not install:
        raise MatrixError(f"missing here: {', '.join(missing)}. Run `{' '.join(command)}`, or add --install")
    for words in (["apt-get", "update"], command):
        if subprocess.run(words if os.geteuid() == 0 else ["sudo", *words], check=False).returncode:
            raise MatrixError(f"`{' '.join(words)}` failed")


def show_kernels() -> int:
    """Print the table of kernels."""
    for kernel in KERNELS.values():
        image = rootfs.cached_image(kernel)
        state = image.release if image else "not fetched"
        print(f"{kernel.name:12} {kernel.architecture.name:6} {kernel.suite:17} {state}")
    return 0


def fetch(kernels: list[Kernel], options: argparse.Namespace) -> int:
    """Fetch kernels and what their guests need; one that cannot be had does not keep the others from being fetched."""
    status = 0
    for kernel in kernels:
        try:
            image = rootfs.image(kernel, mirror=options.mirror, renew=options.refresh)
            rootfs.root(kernel.architecture, mirror=options.mirror)
            rootfs.bytecode(kernel.architecture.root_suite, mirror=options.mirror)
        except MatrixError as error:
            print(f"{kernel.name}: {error}", file=sys.stderr)
            status = 2
        else:
            print(f"{kernel.name}: {image.release}", flush=True)
    return status


def run(kernels: list[Kernel], command: tuple[str, ...], options: argparse.Namespace) -> int:
    """Run the command, or the suite, on each kernel; after a suite on several, print the table."""
    if options.jobs > 1 and len(kernels) > 1:
        lines = {kernel.name: command_line(kernel, command, options) for kernel in kernels}
        statuses = side_by_side.run(lines, options.jobs)
    else:
        statuses = [run_one(kernel, command, options) for kernel in kernels]
    if len(kernels) == 1:
        return statuses[0]
    if not command:
        statuses.append(show_report(argparse.Namespace(files=[], results=options.results, markdown=None, brief=True)))
    return 1 if any(statuses) else 0


def command_line(kernel: Kernel, command: tuple[str, ...], options: argparse.Namespace) -> list[str]:
    """The command line of the matrix that runs this one kernel as the options say."""
    words = [sys.executable, sys.argv[0], "run", kernel.name]
    for name in ("timeout", "smp", "memory", "append", "results", "mirror"):
        if (value := getattr(options, name)) is not None:
            words.append(f"--{name}={value}")
    words += [f"--{name}" for name in ("amend", "keep-log") if getattr(options, name.replace("-", "_"))]
    return [*words, "--", *command] if command else words


def run_one(kernel: Kernel, command: tuple[str, ...], options: argparse.Namespace) -> int:
    """Run the command, or the suite, on one kernel, keep its results, and say how it ended."""
    settings = guest.Settings(
        timeout=options.timeout,
        processors=options.smp,
        memory=options.memory,
        kernel_arguments=options.append,
        mirror=options.mirror,
    )
    suite = (*SUITE, "-m", kernel.tests) if kernel.tests else SUITE
    job = plan(command or suite, CHECKOUT, Path.cwd() if command else CHECKOUT)
    path = options.results / f"{kernel.name}.xml"
    earlier = path.read_bytes() if options.amend and path.exists() else None
    if job.writes_junit and not earlier:  # results of an older run must not be taken for those of one that is cut off
        path.unlink(missing_ok=True)
    properties = {"kernel": kernel.name, "machine": kernel.architecture.machine, "commit": commit()}
    try:
        result = guest.run(kernel, job, CHECKOUT, settings)
    except MatrixError as error:
        print(f"matrix: {kernel.name}: {error}", file=sys.stderr)
        if job.writes_junit:
            results.write(path, results.complete(None, properties, str(error)))
        return 2
    trouble = describe_trouble(result, settings)
    if job.writes_junit:
        properties |= {"release": result.release, "seconds": f"{result.seconds:.1f}"}
        made = results.complete(result.junit, properties, trouble)
        results.write(path, results.amended(earlier, made) if earlier else made)
    if options.keep_log:
        results.write(path.with_suffix(".console.log"), result.console.encode())
        results.write(path.with_suffix(".dmesg.log"), result.dmesg.encode())
    if trouble:
        print(trouble, file=sys.stderr)
    print(
        f"matrix: {kernel.name} ({result.release}): exit status {result.exit_status}, {result.seconds:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return result.exit_status


def describe_trouble(result: guest.Result, settings: guest.Settings) -> str:
    """What went wrong with the guest itself, in words; empty when nothing did."""
    passages = []
    if result.hung:
        passages.append(f"matrix: the guest hung and was ended after {settings.timeout:g} s")
    elif result.status is None:
        passages.append("matrix: the guest died before the command ended")
    if result.complaints:
        passages.append("matrix: the guest's kernel complained:\n" + "\n...\n".join(result.complaints))
    elif result.status is None:
        passages.append("matrix: the end of its console:\n" + "\n".join(result.console.splitlines()[-40:]))
    return "\n".join(passages)


def commit() -> str:
    """The commit of the checkout, with + when files differ from it."""
    git = ["git", "-C", str(CHECKOUT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return head.stdout.strip() + ("+" if changes else "")


def show_report(options: argparse.Namespace) -> int:
    """Print the joined table, and write it as Markdown where asked."""
    files = options.files or sorted(options.results.glob("*.xml"))
    if not files:
        raise MatrixError(f"no results in {options.results}: run the suite first")
    table = report.join(results.read(file) for file in files)
    print(report.text(table, brief=options.brief))
    if options.markdown:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        results.write(options.markdown, report.markdown(table, today).encode())
    return 0 if table.is_good else 1
