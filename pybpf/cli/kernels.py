"""`pybpf kernels`: the programs that come with pybpf, and finding one by its name."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

KERNELS = {
    "hello": "one greeting for each program that is started",
    "execsnoop": "every program that is executed, with its arguments",
    "opensnoop": "every file that is opened, with the result",
    "runqlat": "how long tasks wait for a CPU, as a histogram (--dump-maps)",
    "tcpstates": "every change of a TCP socket's state",
    "syscount": "system calls by number, with errors and time (--dump-maps)",
    "xdp_count": "packets by Ethernet protocol (--interface NAME --dump-maps)",
    "profile": "which tasks are on a CPU, by sampling (--frequency HZ --dump-maps)",
}


def folder() -> str:
    """Where the built kernels are: inside the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "kernels")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "kernels")


def find(name: str) -> str:
    """The path of an object: `name` itself when it is a path, or the kernel of that name for this byte order."""
    if os.sep in name or os.path.exists(name) or name not in KERNELS:
        return name
    ending = ".bpf.o" if sys.byteorder == "little" else ".eb.bpf.o"
    return os.path.join(folder(), name + ending)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("kernels", help="list the programs that come with pybpf")
    parser.set_defaults(command=list_kernels)


def list_kernels(_: Namespace) -> int:
    width = max(map(len, KERNELS))
    for name, text in KERNELS.items():
        print(f"{name:{width}}  {text}")
    return 0
