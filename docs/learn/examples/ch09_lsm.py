"""Chapter 9: LSM: the files that one user opens; the one that is forbidden he does not get.

ch09_lsm.py UID [PATH]
"""

import sys
from contextlib import suppress

from learn import kernel

import pybpf

if len(sys.argv) < 2:
    sys.exit(__doc__)
spec = pybpf.ObjectSpec.from_file(kernel("ch09_lsm"))
spec.globals["only_uid"] = int(sys.argv[1])
spec.globals["forbidden"] = sys.argv[2] if len(sys.argv) > 2 else ""
with spec.load() as obj, obj.attach(), suppress(KeyboardInterrupt):
    print("Watching. Ctrl-C ends it.", flush=True)
    for event in obj.maps["output"]:
        print(f"{event.command} ({event.pid}): {event.path}{' denied' if event.denied else ''}", flush=True)
