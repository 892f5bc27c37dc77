"""Events: what programs tell user space.

`RingBuffer` and `PerfBuffer` read, `EventReader` reads several of them behind one wait, `UserRingBuffer` writes.
All of them wait only when asked to, have a `fileno()` for any event loop, and are closed by who opened them.

Each name is imported on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.events.batch import Batch
    from pybpf.events.perfbuf import PerfBuffer
    from pybpf.events.reader import EventReader
    from pybpf.events.ringbuf import RingBuffer
    from pybpf.events.types import event_codec, event_type
    from pybpf.events.userring import Reservation, UserRingBuffer

_HOME = {
    "Batch": "batch",
    "EventReader": "reader",
    "PerfBuffer": "perfbuf",
    "Reservation": "userring",
    "RingBuffer": "ringbuf",
    "UserRingBuffer": "userring",
    "event_codec": "types",
    "event_type": "types",
}

__all__ = [
    "Batch",
    "EventReader",
    "PerfBuffer",
    "Reservation",
    "RingBuffer",
    "UserRingBuffer",
    "event_codec",
    "event_type",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'pybpf.events' has no attribute {name!r}")
    # importlib.import_module() would do, but importing importlib costs 0.3 ms.
    value = getattr(__import__(f"pybpf.events.{home}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
