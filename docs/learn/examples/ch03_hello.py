"""Chapter 3: Hello World in XDP: a line for each packet of an interface, and their number in a global variable."""

import sys
from contextlib import suppress

from learn import kernel

import pybpf
from pybpf.tracelog import TraceLog

interface = sys.argv[1] if len(sys.argv) > 1 else "lo"
with TraceLog() as log, pybpf.load(kernel("ch03_hello")) as obj:
    hello = obj.programs["hello"]
    info = hello.info()
    print(f"program {info.id}, tag {info.tag.hex()}, {info.xlated_prog_len} bytes, {info.jited_prog_len} jited")
    print("\n".join(hello.disassemble()))
    with hello.attach_xdp(interface, mode="generic"), suppress(KeyboardInterrupt):
        print(f"Attached to {interface}. Ctrl-C ends it.", flush=True)
        for line in log:
            print(line.text, flush=True)
    print(f"{obj.globals['counter']} packets")
