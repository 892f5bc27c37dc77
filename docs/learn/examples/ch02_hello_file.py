"""Chapter 2: the files that are opened, from the trace log."""

from contextlib import suppress

from learn import kernel

import pybpf
from pybpf.tracelog import TraceLog

with TraceLog() as log, pybpf.load(kernel("ch02_hello_file")) as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Watching. Ctrl-C ends it.", flush=True)
    for line in log:
        print(line.text, flush=True)
