"""The command `pybpf`: one module per noun, and here the choice among them and the exit codes.

Exit codes:

| code | meaning |
|---|---|
| 0 | it did what was asked; ending it with Ctrl-C or SIGTERM is such an end |
| 1 | the kernel refused for a reason that has no code of its own |
| 2 | wrong usage |
| 3 | the file is missing, or is no BPF object that can be loaded here |
| 4 | missing privileges |
| 5 | the verifier rejected a program |
| 6 | this kernel lacks what the object needs (BTF, a type, a field, a feature) |
| 7 | it loaded, but nothing could be attached |
| 8 | a program costs the verifier more than its budget |
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

EXIT_OK = 0
EXIT_KERNEL = 1
EXIT_USAGE = 2
EXIT_FILE = 3
EXIT_PRIVILEGES = 4
EXIT_VERIFIER = 5
EXIT_KERNEL_LACKS = 6
EXIT_NOT_ATTACHED = 7
EXIT_BUDGET = 8


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    from pybpf import __version__
    from pybpf.cli import check, classic, doctor, explain, features, kernels, prog, replay, run, seccomp, sim, verify

    codes = (__doc__ or "").partition("Exit codes:")[2].replace("|---|---|\n", "").replace("| code | meaning |\n", "")
    epilog = "exit codes:\n" + "\n".join(line.strip("| ").replace(" | ", "  ") for line in codes.strip().splitlines())
    parser = ArgumentParser(
        prog="pybpf",
        description="Load, attach and read eBPF programs.",
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pybpf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (run, replay, check, doctor, explain, features, kernels, prog, verify, sim, classic, seccomp):
        module.add_command(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give its exit code. Errors of pybpf become one sentence on the standard error."""
    _open_streams()
    try:
        options = _parser().parse_args(arguments)
        code = int(options.command(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has gone
        _drop_output()
        return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_OK
    except Exception as error:
        found = exit_code(error)
        if found is None:
            raise
        print(f"pybpf: {_sentence(error)}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        return found


def _open_streams() -> None:
    """Give the process the standard streams that it was started without: Python has None for them.

    What an encoding cannot say is written as an escape: names that come from the kernel may hold any byte, and must
    not end the program that prints them.
    """
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode, closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if mode == "w" and isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is left to nowhere, so that the interpreter does not complain when it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    """The error without Python's ``[Errno 2]``."""
    from pybpf.errors import BPFError

    if isinstance(error, OSError) and error.strerror and not isinstance(error, BPFError):
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return str(error)


def exit_code(error: Exception) -> int | None:
    """The exit code for an error of pybpf; None for one that is a fault of pybpf itself."""
    from errno import EMFILE, ENFILE

    from pybpf.btf.kernel import KernelBTFMissing
    from pybpf.errors import (
        BPFError,
        BTFError,
        NotSupportedError,
        ObjectError,
        RecordingError,
        RelocationError,
        SimulationError,
        VerifierError,
    )

    table: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
        (VerifierError, EXIT_VERIFIER),
        ((NotSupportedError, RelocationError, KernelBTFMissing), EXIT_KERNEL_LACKS),
        ((ObjectError, BTFError, RecordingError), EXIT_FILE),
        (PermissionError, EXIT_PRIVILEGES),
        ((BPFError, SimulationError), EXIT_KERNEL),
        ((ValueError, OverflowError, TypeError), EXIT_USAGE),
    )
    for kinds, code in table:
        if isinstance(error, kinds):
            return code
    if isinstance(error, OSError):
        return EXIT_KERNEL if error.filename is None or error.errno in (EMFILE, ENFILE) else EXIT_FILE
    return None
