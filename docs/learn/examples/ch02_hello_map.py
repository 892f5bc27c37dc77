"""Chapter 2: how often each user has started a program: a map that the program fills and Python reads."""

from contextlib import suppress
from time import sleep

from learn import kernel

import pybpf

with pybpf.load(kernel("ch02_hello_map")) as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Counting. Ctrl-C ends it.", flush=True)
    while True:
        sleep(1)
        print("\t".join(f"ID {uid}: {count}" for uid, count in obj.maps["counter_table"].items()), flush=True)
