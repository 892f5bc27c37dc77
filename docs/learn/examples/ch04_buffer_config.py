"""Chapter 4: a message for each user: Python writes a map that the program reads. By perf buffer or ring buffer."""

import sys
from contextlib import suppress

from learn import kernel

import pybpf

buffer = sys.argv[1] if len(sys.argv) > 1 else "perf"  # or "ring"
spec = pybpf.ObjectSpec.from_file(kernel("ch04_buffer_config"))
spec.programs[f"hello_{buffer}"].autoload = True
with spec.load() as obj:
    obj.maps["config"][0] = {"text": "Hey root!"}
    obj.maps["config"][65534] = {"text": "Hi nobody!"}
    with obj.attach(), suppress(KeyboardInterrupt):
        print("Watching. Ctrl-C ends it.", flush=True)
        for event in obj.maps[buffer]:
            print(event.pid, event.uid, event.command, event.message.text, flush=True)
