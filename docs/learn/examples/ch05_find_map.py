"""Chapter 5: find the maps of a name in the whole system, and read them with the types that the kernel keeps for them.

Start `ch05_buffer_config.py` in another terminal first.
"""

import sys

import pybpf
from pybpf import system

name = sys.argv[1] if len(sys.argv) > 1 else "my_config"
for info in system.maps():
    if info.name == name:
        print(f"map {info.id}: {info.name}, keys of {info.key_size} and values of {info.value_size} bytes")
        with pybpf.Map.from_id(info.id) as found:
            for key, value in found.items():
                print(f"  {key}: {value}")
