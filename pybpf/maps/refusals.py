"""What the kernel's refusal of an element command means: which map it was, and what would help."""

from __future__ import annotations

import errno

from pybpf.errors import NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.errors import BPFError

_READING = ("BPF_MAP_LOOKUP_ELEM", "BPF_MAP_LOOKUP_BATCH", "BPF_MAP_GET_NEXT_KEY")
_WRITING = ("BPF_MAP_UPDATE_ELEM", "BPF_MAP_UPDATE_BATCH")


def explainer(name: str, max_entries: int) -> Callable[[BPFError], BPFError]:
    """A function that gives the error to raise for the kernel's: with the map's name and a hint, if it has none."""

    def explain(error: BPFError) -> BPFError:
        if error.errno == errno.ENOSPC and error.command == "BPF_MAP_LOOKUP_ELEM":
            hint = "A socket is read as its cookie, which needs values of 8 bytes"
            error = NotSupportedError(error.errno, error.command, "", hint)
        if name and not error.what:
            error.what = f"map {name!r}"
        error.hint = error.hint or _hint(error, max_entries)
        return error

    return explain


def _hint(error: BPFError, max_entries: int) -> str:
    if error.errno == errno.EPERM:
        if error.command in _READING:
            return "The map was opened or made for writing only (BPF_F_WRONLY)"
        return "The map is frozen, or was opened or made for reading only (BPF_F_RDONLY)"
    if error.errno in (errno.E2BIG, errno.ENOSPC) and error.command in _WRITING:
        return f"The map is full: max_entries is {max_entries}"
    return ""
