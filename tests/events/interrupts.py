"""An interrupt at every place in turn, as Ctrl-C would come there."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count, pairwise
from types import CodeType, FrameType, ModuleType
from typing import Any


class Interrupt(BaseException):
    """What a signal handler raises."""


@cache
def _places(code: CodeType) -> frozenset[int]:
    """The instructions before which a signal handler can run: behind calls, at a function's start, at loops' ends.

    Not those behind a call that is the last thing in a `try` or `with`: there the handler runs inside of it.
    """
    entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def target(offset: int) -> int | None:
        return next((entry.target for entry in entries if entry.start <= offset < entry.end), None)

    instructions = list(dis.get_instructions(code))
    found = {one.offset for one in instructions if one.opname == "JUMP_BACKWARD"}
    for before, here in pairwise(instructions):
        looks = before.opname == "RESUME" or (before.opname.startswith("CALL") and "INTRINSIC" not in before.opname)
        if looks and target(before.offset) == target(here.offset):
            found.add(here.offset)
    return frozenset(found)


def in_finalizer(frame: FrameType | None) -> bool:
    """What is raised in there is printed and forgotten, it interrupts nothing."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def interrupted(act: Callable[[], object], number: int, *modules: ModuleType) -> bool:
    """Run `act` as a whole, and once more until the place of that number in those modules. False: it has not so many.

    The first time prepares: since Python 3.12 the instructions of a function are traced from its second run on.
    """
    _traced(act, sys.maxsize, *modules)
    return _traced(act, number, *modules)


def _traced(act: Callable[[], object], number: int, *modules: ModuleType) -> bool:
    files = {module.__file__ for module in modules}
    left = number

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "call":
            frame.f_trace_opcodes = True
            return trace if frame.f_code.co_filename in files and not in_finalizer(frame) else None
        if event == "opcode" and frame.f_lasti in _places(frame.f_code):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def interrupt_everywhere(act: Callable[[], object], *modules: ModuleType) -> Iterator[int]:
    """Run `act` twice again and again, the second time interrupted at the next place; at last, not at all."""
    for number in count():
        again = interrupted(act, number, *modules)
        yield number
        if not again:
            return
