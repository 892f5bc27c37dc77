"""How `pybpf run` prints: a line for an event, lines for a map; as text or as JSON."""

from __future__ import annotations

import json
import sys
from io import TextIOWrapper

from pybpf import constants as c
from pybpf.btf.records import Overlay, Record, to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Entries(Protocol):
        """A map of `pybpf.maps` or `pybpf.sim`."""

        @property
        def name(self) -> str: ...
        @property
        def type_number(self) -> int: ...
        def items(self) -> Iterable[tuple[Any, Any]]: ...


LINE_BYTES = 64
"""How many bytes of untyped data a line of text shows."""

ARRAYS = (c.BPF_MAP_TYPE_ARRAY, c.BPF_MAP_TYPE_PERCPU_ARRAY)


def _word(value: Any) -> str:
    """One value in a line of text."""
    if isinstance(value, (Record, Overlay)):
        return "{" + _fields(value) + "}"
    if isinstance(value, str):
        return value if value and value.isprintable() and not set(value) & set(" ='\"{}[],") else repr(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _hex(bytes(value))
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_word, value)) + "]"
    name = getattr(value, "name", None)  # a member of an enum
    return name if isinstance(name, str) else str(value)


def _fields(value: Record | Overlay) -> str:
    """The members of a record as ``name=value``, a blank between them."""
    return " ".join(f"{name}={_word(part)}" for name, part in zip(value._fields, value, strict=True))


def _hex(data: bytes) -> str:
    """Bytes in a line of text; long ones are cut, which JSON never does."""
    if len(data) <= LINE_BYTES:
        return data.hex() or "''"
    return f"{data[:LINE_BYTES].hex()}...({len(data)} bytes)"


def _clock(time_ns: int) -> str:
    """Local time to the microsecond, ``2026-11-30 14:03:59.000123``."""
    from time import localtime, strftime

    seconds, rest = divmod(time_ns, 10**9)
    return f"{strftime('%Y-%m-%d %H:%M:%S', localtime(seconds))}.{rest // 1000:06}"


class Printer:
    """Writes to the standard output, a line at a time."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        if as_json and isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # whatever the locale says (RFC 8259)

    def _line(self, text: str) -> None:
        sys.stdout.write(text + "\n")

    def event(self, source: str, value: Any, time_ns: int | None = None) -> None:
        """One event of the ring or perf buffer `source`, and when it was read if that is known."""
        if self.as_json:
            when = {} if time_ns is None else {"time_ns": time_ns}
            self._line(json.dumps({"map": source, **when, "event": to_json(value)}, ensure_ascii=False))
            return
        clock = "" if time_ns is None else f"{_clock(time_ns)} "
        self._line(f"{clock}{source} {_fields(value) if isinstance(value, (Record, Overlay)) else _word(value)}")

    def map(self, made: Entries) -> None:
        """Every entry of a map. Entries that are zero in every byte are left out of the text of array maps."""
        entries = [(key, value) for key, value in made.items() if not (made.type_number in ARRAYS and is_zero(value))]
        if self.as_json:
            rows = [{"key": to_json(key), "value": to_json(value)} for key, value in entries]
            self._line(json.dumps({"map": made.name, "entries": rows}, ensure_ascii=False))
            return
        self._line(f"{made.name}: {len(entries)} entries")
        for key, value in entries:
            self._line(f"  {_word(key)}: {_word(value)}")


def is_zero(value: Any) -> bool:
    """True for 0, empty text, and whatever holds nothing else."""
    if isinstance(value, (Record, Overlay, list, tuple)):
        return all(map(is_zero, value))
    if isinstance(value, (bytes, bytearray)):
        return not any(value)
    return not value
