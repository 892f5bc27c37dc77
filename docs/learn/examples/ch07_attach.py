"""Chapter 7: six ways to see that a program is started. What this kernel lacks is left out, with the reason."""

from contextlib import suppress

from learn import kernel

import pybpf
from pybpf import probe

NEEDS = {
    "at_ksyscall": lambda: probe.has_feature("kprobes"),
    "at_kprobe": lambda: probe.has_feature("kprobes"),
    "at_fentry": lambda: probe.has_link_type("tracing"),
    "at_tracepoint": lambda: probe.has_program_type("tracepoint"),
    "at_raw_tracepoint": lambda: probe.has_program_type("raw_tracepoint"),
    "at_typed_tracepoint": lambda: probe.has_attach_type("trace_raw_tp"),
}
spec = pybpf.ObjectSpec.from_file(kernel("ch07_attach"))
for name, needs in NEEDS.items():
    spec.programs[name].autoload = bool(needs())
    if not spec.programs[name].autoload:
        print(f"{name} is left out: {needs().evidence}")
with spec.load() as obj, obj.attach() as links, suppress(KeyboardInterrupt):
    print(f"{len(links)} ways are attached. Ctrl-C ends it.", flush=True)
    for event in obj.maps["output"]:
        print(f"{event.how}: {event.path} by {event.command} ({event.pid})", flush=True)
