"""Chapter 8: what programs say through OpenSSL, in plain text: uprobes on libssl.so.3."""

from contextlib import suppress

from learn import kernel

import pybpf

with pybpf.load(kernel("ch08_ssl")) as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Watching. Ctrl-C ends it.", flush=True)
    for event in obj.maps["output"]:
        text = bytes(event.data)[: event.size]
        print(f"{event.command} ({event.pid}) {event.direction} {event.size} bytes: {text!r}", flush=True)
