"""pybpf: the eBPF library for Python.

The public names and nothing else. Each is imported on first use, so that `import pybpf` costs next to nothing.
"""

from __future__ import annotations

import os

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.errors import (
        BPFError,
        BTFError,
        ClosedError,
        NotSupportedError,
        ObjectError,
        RelocationError,
        VerifierError,
    )
    from pybpf.events import EventReader, PerfBuffer, RingBuffer
    from pybpf.explaining.session import Explanation, explain
    from pybpf.links import Link, Links
    from pybpf.maps import (
        ArrayMap,
        ArrayOfMaps,
        BloomFilter,
        HashMap,
        HashOfMaps,
        LpmTrie,
        LruHashMap,
        LruPerCpuHashMap,
        Map,
        PerCpuArrayMap,
        PerCpuHashMap,
        Queue,
        RingBufferMap,
        Stack,
    )
    from pybpf.object import Object, load
    from pybpf.program import Program
    from pybpf.spec import MapSpec, ObjectSpec, ProgramSpec

__version__ = "0.1.0"

_HOME = {
    "BPFError": "errors",
    "BTFError": "errors",
    "ClosedError": "errors",
    "NotSupportedError": "errors",
    "ObjectError": "errors",
    "RelocationError": "errors",
    "VerifierError": "errors",
    "EventReader": "events",
    "PerfBuffer": "events",
    "RingBuffer": "events",
    "Explanation": "explaining.session",
    "explain": "explaining.session",
    "Link": "links",
    "Links": "links",
    "ArrayMap": "maps",
    "ArrayOfMaps": "maps",
    "BloomFilter": "maps",
    "HashMap": "maps",
    "HashOfMaps": "maps",
    "LpmTrie": "maps",
    "LruHashMap": "maps",
    "LruPerCpuHashMap": "maps",
    "Map": "maps",
    "PerCpuArrayMap": "maps",
    "PerCpuHashMap": "maps",
    "Queue": "maps",
    "RingBufferMap": "maps",
    "Stack": "maps",
    "Object": "object",
    "load": "object",
    "Program": "program",
    "MapSpec": "spec",
    "ObjectSpec": "spec",
    "ProgramSpec": "spec",
}

__all__ = [  # noqa: RUF022  (the order a reader wants)
    "load",
    "Object",
    "ObjectSpec",
    "ProgramSpec",
    "MapSpec",
    "Program",
    "Map",
    "HashMap",
    "LruHashMap",
    "PerCpuHashMap",
    "LruPerCpuHashMap",
    "ArrayMap",
    "PerCpuArrayMap",
    "LpmTrie",
    "Queue",
    "Stack",
    "BloomFilter",
    "HashOfMaps",
    "ArrayOfMaps",
    "RingBufferMap",
    "Link",
    "Links",
    "RingBuffer",
    "PerfBuffer",
    "EventReader",
    "explain",
    "Explanation",
    "BPFError",
    "VerifierError",
    "NotSupportedError",
    "ObjectError",
    "RelocationError",
    "BTFError",
    "ClosedError",
]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)


def _explain_if_asked() -> None:
    asked = os.environ.get("PYBPF_EXPLAIN")
    if asked:
        from pybpf.explaining.session import start_from_environment

        start_from_environment(asked)


_explain_if_asked()
