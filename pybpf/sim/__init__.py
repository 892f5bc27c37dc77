"""A simulated kernel: run, test and debug BPF programs without privileges and without Linux.

    kernel      load(): the object's programs and maps; helpers and the machine they tell about
    cpu         the instructions                 memory    regions, every access checked
    code        a linked program                 context   what r1 points to, packets
    maps        maps                             helpers   what programs call
    events      ring buffers, perf event arrays
    debug       steps, breakpoints, registers    coverage  which lines of C ran

Pure: it imports nothing that reaches the real kernel.
"""

from __future__ import annotations

from pybpf.errors import SimulationError
from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.sim.coverage import Coverage
    from pybpf.sim.debug import Debugger
    from pybpf.sim.kernel import Kernel, RunResult, load

_HOMES = {
    "Coverage": "coverage",
    "Debugger": "debug",
    "Kernel": "kernel",
    "RunResult": "kernel",
    "load": "kernel",
}

__all__ = ["Coverage", "Debugger", "Kernel", "RunResult", "SimulationError", "load"]

if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
