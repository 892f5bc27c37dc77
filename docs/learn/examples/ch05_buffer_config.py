"""Chapter 5: compile once, run everywhere: where the fields are in this kernel, and then the events."""

from contextlib import suppress

from learn import kernel

import pybpf

spec = pybpf.ObjectSpec.from_file(kernel("ch05_buffer_config"))
for row in spec.relocate().rows:  # what the object asks of the running kernel's types
    print(f"{row.function}, instruction {row.index}: {row.name}: {row.outcome} {row.value}")
with spec.load() as obj:
    obj.maps["my_config"][0] = {"text": "Hey root!"}
    with obj.attach(), suppress(KeyboardInterrupt):
        print("Watching. Ctrl-C ends it.", flush=True)
        for e in obj.maps["output"]:
            print(f"{e.pid} (from {e.parent}) {e.uid} {e.command} {e.path} {e.message.text}", flush=True)
