"""Events: what programs tell user space.

`RingBuffer` and `PerfBuffer` read, `EventReader` reads several of them behind one wait, `OrderedReader` merges by time,
`FlightRecorder` keeps the newest samples, `UserRingBuffer` writes. `Capture` records events, `Replay` gives them again.
All of them wait only when asked to, have a `fileno()` for any event loop, and are closed by who opened them.

Each name is imported on first use.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.events.batch import Batch
    from pybpf.events.capture import Capture
    from pybpf.events.flight import FlightRecorder
    from pybpf.events.ordered import OrderedReader
    from pybpf.events.perfbuf import PerfBuffer
    from pybpf.events.reader import EventReader
    from pybpf.events.replay import Replay
    from pybpf.events.ringbuf import RingBuffer
    from pybpf.events.types import event_codec, event_type
    from pybpf.events.userring import Reservation, UserRingBuffer

_HOME = {
    "Batch": "batch",
    "Capture": "capture",
    "EventReader": "reader",
    "FlightRecorder": "flight",
    "OrderedReader": "ordered",
    "PerfBuffer": "perfbuf",
    "Replay": "replay",
    "Reservation": "userring",
    "RingBuffer": "ringbuf",
    "UserRingBuffer": "userring",
    "event_codec": "types",
    "event_type": "types",
}

__all__ = [
    "Batch",
    "Capture",
    "EventReader",
    "FlightRecorder",
    "OrderedReader",
    "PerfBuffer",
    "Replay",
    "Reservation",
    "RingBuffer",
    "UserRingBuffer",
    "event_codec",
    "event_type",
]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
