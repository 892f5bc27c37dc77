"""Chapter 2: an event for each program that is started, through a perf buffer."""

from contextlib import suppress

from learn import kernel

import pybpf

with pybpf.load(kernel("ch02_hello_buffer")) as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Watching. Ctrl-C ends it.", flush=True)
    for event in obj.maps["output"]:
        print(event.pid, event.uid, event.command, event.message, flush=True)
