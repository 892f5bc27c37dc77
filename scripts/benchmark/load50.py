"""What pybpf does in scripts/bench-load: load, attach, first event, exit."""

import sys

import pybpf

with pybpf.load(sys.argv[1]) as obj, obj.attach():
    for _event in obj.maps["events"]:
        break
