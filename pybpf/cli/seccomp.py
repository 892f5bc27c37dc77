"""`pybpf seccomp`: run a program under rules for its system calls, and show the filter that they make."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.asm.classic import Filter
    from pybpf.seccomp import Notification, Policy

FORMS = ("text", "d", "ddd", "dd", "line", "source", "raw")


def add_command(commands: Any) -> None:
    from argparse import REMAINDER

    parser = commands.add_parser(
        "seccomp",
        help="run a program under rules for its system calls",
        description="Run a program under rules for its system calls, or show the filter that they make. "
        'A rule is a line such as "errno EPERM socket if a0 != 1"; "default errno EPERM" is for calls that none fits. '
        "Calls with the action notify are shown as they happen, and made.",
    )
    parser.add_argument("--rule", action="append", default=[], metavar="RULE", help="a rule; may be given many times")
    parser.add_argument("--rules", metavar="FILE", help="a file of rules; - is the standard input")
    parser.add_argument("--arch", action="append", metavar="NAME", help="an architecture; this one when left out")
    parser.add_argument(
        "--show",
        nargs="?",
        const="text",
        choices=FORMS,
        help="print the filter, run nothing: text, with what its numbers mean (the default); as tcpdump -d, -ddd, -dd "
        "or bpf_asm (line) print it; with labels (source); raw, for bwrap --seccomp",
    )
    parser.add_argument("--log", action="store_true", help="let the kernel log what the filter does")
    parser.add_argument("arguments", nargs=REMAINDER, metavar="-- PROGRAM ...", help="the program and its arguments")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    from pybpf.seccomp import spawn

    policy = _policy(options)
    program = policy.compile()
    if options.show:
        _show(program, options.show, policy.architectures[0].byte_order)
        return 0
    arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    if not arguments:
        raise ValueError("name a program to run, or --show the filter")
    with spawn(program, arguments, log=options.log) as child:
        if child.listener is not None:
            for call in child.listener:
                _report(call)
        status = child.wait()
    # A program that a signal ended has no exit code; shells make 128 and the signal of it.
    return status if status >= 0 else 128 - status


def _policy(options: Namespace) -> Policy:
    """A rule on the command line that is none is wrong usage; one in a file is a wrong file."""
    from pybpf.cli.arguments import read_text
    from pybpf.errors import ObjectError
    from pybpf.seccomp import parse

    try:
        policy = parse("\n".join(options.rule), architectures=options.arch)
    except ObjectError as error:
        where, _, what = str(error).partition(": ")
        raise ValueError(f"--rule {what}" if where.startswith("line ") else what) from None
    if options.rules is None:
        return policy
    return parse("\n".join([*options.rule, read_text(options.rules)]), architectures=options.arch)


def _show(program: Filter, form: str, byte_order: str) -> None:
    if form == "raw":
        sys.stdout.flush()
        with open(os.dup(sys.stdout.fileno()), "wb") as file:
            file.write(program.to_bytes(byte_order))
    elif form == "text":
        from pybpf.seccomp.listing import listing

        print("\n".join(listing(program, byte_order)))
    elif form == "d":
        print(program)
    else:
        convert = {"ddd": program.to_ddd, "dd": program.to_dd, "line": program.to_line, "source": program.source}
        print(convert[form]().rstrip("\n"))


def _report(call: Notification) -> None:
    """Say what is called, and let it happen."""
    from pybpf.errors import BPFNotFoundError

    words = ", ".join(f"{value:#x}" for value in call.arguments)
    print(f"{call.pid} {call.name}({words})", file=sys.stderr)
    try:
        call.proceed()
    except BPFNotFoundError:  # whoever called has ended
        pass
