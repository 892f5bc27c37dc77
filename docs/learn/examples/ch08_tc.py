"""Chapter 8: traffic control on what comes in: drop all, drop echo requests, or answer them without the stack.

ch08_tc.py INTERFACE [tc_drop | tc_drop_ping | tc_pingpong]
"""

import sys
from contextlib import suppress
from time import sleep

from learn import kernel

import pybpf

if len(sys.argv) < 2:
    sys.exit(__doc__)
interface, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "tc_pingpong"
with pybpf.load(kernel("ch08_tc")) as obj:
    with obj.programs[name].attach_tcx(interface, direction="ingress"), suppress(KeyboardInterrupt):
        print(f"{name} is attached to {interface}. Ctrl-C ends it.", flush=True)
        while True:
            sleep(1)
    print(f"{obj.globals['seen']} packets, {obj.globals['answered']} answered")
