"""Chapter 2: the files that are opened, through a ring buffer; and how many events found no room in it."""

from contextlib import suppress

from learn import kernel

import pybpf

with pybpf.load(kernel("ch02_hello_ring")) as obj, obj.attach():
    print("Watching. Ctrl-C ends it.", flush=True)
    with suppress(KeyboardInterrupt):
        for event in obj.maps["output"]:
            print(f"{event.command} ({event.pid}) - {event.path}", flush=True)
    print(f"{obj.globals['dropped_output']} events were dropped")
