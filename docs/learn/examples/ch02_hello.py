"""Chapter 2: Hello World: a line for each program that is started, from the trace log."""

from contextlib import suppress

from learn import kernel

import pybpf
from pybpf import probe
from pybpf.tracelog import TraceLog

# A kprobe, as in the book; where the kernel was built without kprobes, the tracepoint of the system call.
way = "hello_kprobe" if probe.has_feature("kprobes") else "hello_tracepoint"
spec = pybpf.ObjectSpec.from_file(kernel("ch02_hello"))
spec.programs[way].autoload = True
with TraceLog() as log, spec.load() as obj, obj.attach(), suppress(KeyboardInterrupt):
    print(f"{way} is attached. Ctrl-C ends it.", flush=True)
    for line in log:
        print(f"{line.task} ({line.pid}): {line.text}", flush=True)
