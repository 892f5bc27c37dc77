"""Chapter 3: a call from one BPF function to another, in the instructions and at work."""

from time import sleep

from learn import kernel

import pybpf

with pybpf.load(kernel("ch03_hello_func")) as obj:
    lines = obj.programs["hello"].disassemble()
    print("\n".join(lines))
    with obj.attach():
        sleep(1)
    counts = {number: count for number, count in obj.maps["calls"].items() if count}
    print("The most frequent system calls within a second:")
    for number in sorted(counts, key=counts.__getitem__, reverse=True)[:5]:
        print(f"  number {number}: {counts[number]} times", flush=True)
