"""Chapter 8: XDP drops echo requests. `ping` the interface's address meanwhile."""

import sys
from contextlib import suppress
from time import sleep

from learn import kernel

import pybpf

interface = sys.argv[1] if len(sys.argv) > 1 else "lo"
with pybpf.load(kernel("ch08_ping")) as obj:
    obj.globals["drop"] = "pass" not in sys.argv  # a global that may be changed at any time
    with obj.programs["ping"].attach_xdp(interface, mode="generic"), suppress(KeyboardInterrupt):
        print(f"Attached to {interface}. Ctrl-C ends it.", flush=True)
        seen = 0
        while True:
            sleep(0.2)
            if obj.globals["pings"] != seen:
                seen = obj.globals["pings"]
                print(f"{seen} echo requests, {'dropped' if obj.globals['drop'] else 'passed'}", flush=True)
