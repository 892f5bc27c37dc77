"""Chapter 2: tail calls: one program sees every system call, and jumps to the program of its number."""

import os
from contextlib import suppress

from learn import kernel

import pybpf

# execve, timer_create, timer_delete, and the timer calls between: their numbers are the machine's.
NUMBERS = {
    "x86_64": (59, 222, 226, (223, 224, 225)),
    "aarch64": (221, 107, 111, (108, 109, 110)),
    "riscv64": (221, 107, 111, (108, 109, 110)),
    "s390x": (11, 254, 258, (255, 256, 257)),
}
execve, create, delete, others = NUMBERS[os.uname().machine]

spec = pybpf.ObjectSpec.from_file(kernel("ch02_hello_tail"))
spec.globals["timer_create"], spec.globals["timer_delete"] = create, delete
with spec.load() as obj:
    jumps, programs = obj.maps["syscalls"], obj.programs
    for number in range(jumps.max_entries):  # the table is full before the program that jumps is attached
        jumps[number] = programs["ignore"]
    jumps[execve] = programs["hello_exec"]
    for number in (create, delete, *others):
        jumps[number] = programs["hello_timer"]
    with programs["hello"].attach(), suppress(KeyboardInterrupt):
        print("Watching. Ctrl-C ends it.", flush=True)
        for event in obj.maps["output"]:
            print(f"{event.command} ({event.pid}): {event.what.name}, system call {event.number}", flush=True)
