"""An interrupt at every place of a piece of code: a signal whose handler raises arrives before each of its opcodes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pybpf


class Interrupt(BaseException):
    """What the handler raises."""


class _Signal(int):
    """Python looks for signals after calls, and to read an attribute is none: the traced code is the first to look."""

    arrive = property(interrupt_main)


_ALARM = _Signal(signal.SIGALRM)


@contextmanager
def _raising() -> Iterator[None]:
    def strike(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


_OURS = (os.path.dirname(pybpf.__file__), "<string>")


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(_OURS)


if sys.version_info >= (3, 12):
    _TOOL = 4

    def _watch(step: Callable[[], None]) -> None:
        """Call it before each opcode of pybpf."""

        def before(code: CodeType, _: int) -> Any:
            return step() if _is_ours(code) else sys.monitoring.DISABLE

        sys.monitoring.use_tool_id(_TOOL, "interrupts")
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, before)
        sys.monitoring.set_events(_TOOL, sys.monitoring.events.INSTRUCTION)

    def _unwatch() -> None:
        if sys.monitoring.get_tool(_TOOL):
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(_TOOL)

else:

    def _watch(step: Callable[[], None]) -> None:
        """Call it before each opcode of pybpf."""

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if event == "call":
                frame.f_trace_opcodes = _is_ours(frame.f_code)
                return trace if frame.f_trace_opcodes else None
            if event == "opcode":
                step()
            return trace

        sys.settrace(trace)

    def _unwatch() -> None:
        sys.settrace(None)


def _interrupted(place: int, function: Callable[[], object]) -> bool:
    """Call it, with a signal before opcode number `place` of pybpf; False if there are not so many."""

    def step() -> None:
        nonlocal place
        place -= 1
        if place == -1:
            _unwatch()  # or the next step, a call of Python, would be where it is noticed
            _ALARM.arrive  # noqa: B018

    gc.disable()  # others have it call functions of Python: hypothesis does
    try:
        _watch(step)
        function()
        _unwatch()  # what came before the last opcodes is noticed here
    except Interrupt:
        pass
    finally:
        _unwatch()
        gc.enable()
    return place < 0


def everywhere(prepare: Callable[[], Callable[[], object]]) -> Iterator[int]:
    """Interrupt what `prepare` gives at one place after the other, and give control after each; the place's number."""
    with _raising():
        place = 0
        while _interrupted(place, prepare()):
            yield place
            place += 1
    assert place
