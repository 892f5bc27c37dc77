"""Chapter 8: who opens TCP connections over IPv4. Needs kprobes."""

from contextlib import suppress

from learn import kernel

import pybpf

with pybpf.load(kernel("ch08_tcpconnect")) as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Watching. Ctrl-C ends it.", flush=True)
    for event in obj.maps["output"]:
        print(f"{event.command} ({event.pid}) of user {event.uid} connects", flush=True)
