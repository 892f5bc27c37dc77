"""The element commands on one map, prepared: nothing is done per call that can be done once.

How it is made fast (two thirds of a lookup are the system call itself):

* A *slot* is one buffer: the attr, then the key, then the value, with the pointers in the attr set once. A call copies
  the key in, enters the kernel, and copies the value out.
* The system call function takes no argument types and keeps the GIL, which costs less than handing it over.
* Slots lie in a free list. `list.pop` and `list.append` are atomic, so threads never share a slot, and a signal
  handler that interrupts a call gets a slot of its own.
* The functions are closures made for one map: local names instead of attributes.
* The size that is passed ends before the fields that are not used, which the kernel then takes for zero.

Calls that wait or take long must not go through here: nobody else runs meanwhile. Batches are in `maps.py`.
"""

from __future__ import annotations

import errno

from pybpf.constants import (
    BPF_MAP_DELETE_ELEM,
    BPF_MAP_GET_NEXT_KEY,
    BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    BPF_MAP_LOOKUP_ELEM,
    BPF_MAP_UPDATE_ELEM,
)
from pybpf.errors import ClosedError, kernel_error
from pybpf.syscall.attrs import LAYOUTS, SIZES
from pybpf.syscall.door import command_name, observers
from pybpf.syscall.foreign import addressof, byref, c_char, get_errno, syscall_holding
from pybpf.syscall.sizes import check_sizes
from pybpf.syscall.sysno import BPF
from pybpf.syscall.watch import Call, observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    # (reference to the attr, memory of the key, memory of the value, memory of the whole)
    Slot = tuple[object, memoryview[Any], memoryview[Any], memoryview]

_LAYOUT = LAYOUTS["BPF_MAP_LOOKUP_ELEM"]
FD_AT, KEY_AT, VALUE_AT, FLAGS_AT = (_LAYOUT[name][0] for name in ("map_fd", "key", "value", "flags"))
FULL = SIZES["BPF_MAP_LOOKUP_ELEM"]
"""Bytes of the attr with flags; without them it ends at FLAGS_AT, and without a value at VALUE_AT."""

ENOENT = errno.ENOENT
WHOLE = slice(None)
NO_DESCRIPTOR = 0xFFFFFFFF
DATA_AT = 64
"""Where the key lies in a slot."""

_failures = 0
"""How many calls have failed, in all threads; see `_errno`."""


def _errno(seen: int) -> int:
    """The errno of the call that has just failed; 0 if it is lost and the call has to be made again.

    ctypes keeps one errno per thread, and a signal handler may run between a call and this line. If that handler has
    calls that fail, the errno is theirs. A call that failed had no effect, so making it again is right.

    Args:
        seen: `_failures` as it was before the call.
    """
    global _failures
    number = get_errno()
    if _failures != seen:
        return 0
    _failures = seen + 1
    return number


class ElementCalls:
    """The element commands on one map. Safe in threads and in signal handlers.

    Args:
        map_fd: the map's descriptor. It is borrowed: call `close()` before closing it, or a later file with the same
            number would be meant.
        key_size: bytes of a key; 0 for types without keys, whose calls take None as key.
        value_size: bytes of a value as the system call transfers it: of a per-CPU map the value size rounded up to
            8 times the number of possible CPUs. With BPF_F_CPU the kernel uses only the beginning of it.
        key_format: "" for keys as bytes; or one of the `struct` codes b B h H i I q Q f d ?, of that size: keys are
            numbers then, which saves packing them.
        value_format: the same for values.

    Attributes:
        lookup: ``(key, flags=0) -> value | None``: the value, None if there is no such element.
        update: ``(key, value, flags=0) -> None``.
        delete: ``(key) -> bool``: whether there was such an element.
        next_key: ``(key | None) -> key | None``: the key after this one; None gives the first and means the end.
        lookup_and_delete: ``(key, flags=0) -> value | None``.
        contains: ``(value, flags=0) -> bool``: whether a bloom filter may have the value.

    Each of them raises:
        BPFError: the kernel refused, as the functions of `maps.py` say.
        ValueError, TypeError: key or value do not have the size or type given here, or these sizes are smaller than
            the map's (the kernel is asked at the first call).
        ClosedError: after `close()`.
    """

    __slots__ = ("_close", "contains", "delete", "lookup", "lookup_and_delete", "next_key", "update")

    lookup: Callable[..., Any]
    update: Callable[..., None]
    delete: Callable[[Any], bool]
    next_key: Callable[[Any], Any]
    lookup_and_delete: Callable[..., Any]
    contains: Callable[..., bool]
    _close: Callable[[], None]

    def __init__(
        self, map_fd: int, key_size: int, value_size: int, *, key_format: str = "", value_format: str = ""
    ) -> None:
        free: list[Slot] = []
        pop, push = free.pop, free.append
        made: list[memoryview] = []
        closed = False
        key_place = 0 if key_format else WHOLE
        value_place = 0 if value_format else WHOLE

        def new() -> Slot:
            if closed:
                raise ClosedError("this map is closed")
            if not made:
                check_sizes(map_fd, key_size, value_size)
            slot = _slot(map_fd, key_size, value_size, key_format, value_format)
            made.append(slot[3][FD_AT : FD_AT + 4].cast("I"))
            return slot

        def close() -> None:
            nonlocal closed
            closed = True
            for descriptor in made:
                descriptor[0] = NO_DESCRIPTOR

        def refused(number: int, command: int) -> Exception:
            if closed and number == errno.EBADF:
                return ClosedError("this map is closed")
            return kernel_error(number, command_name(command))

        def lookup(key: Any, flags: int = 0) -> Any:
            try:
                slot = pop()
            except IndexError:
                slot = new()
            reference, key_memory, value_memory, _ = slot
            try:
                if key is not None:
                    key_memory[key_place] = key
                if flags or observers:
                    number = _enter(BPF_MAP_LOOKUP_ELEM, slot, _flagged(slot, flags))
                else:
                    seen = _failures
                    if not syscall_holding(BPF, BPF_MAP_LOOKUP_ELEM, reference, FLAGS_AT):
                        return value_memory[0] if value_format else value_memory.tobytes()
                    number = _errno(seen) or _enter(BPF_MAP_LOOKUP_ELEM, slot, FLAGS_AT)
                if not number:
                    return value_memory[0] if value_format else value_memory.tobytes()
            finally:
                push(slot)
            if number == ENOENT:
                return None
            raise refused(number, BPF_MAP_LOOKUP_ELEM)

        def update(key: Any, value: Any, flags: int = 0) -> None:
            try:
                slot = pop()
            except IndexError:
                slot = new()
            reference, key_memory, value_memory, _ = slot
            try:
                if key is not None:
                    key_memory[key_place] = key
                value_memory[value_place] = value
                if flags or observers:
                    number = _enter(BPF_MAP_UPDATE_ELEM, slot, _flagged(slot, flags))
                else:
                    seen = _failures
                    if not syscall_holding(BPF, BPF_MAP_UPDATE_ELEM, reference, FLAGS_AT):
                        return
                    number = _errno(seen) or _enter(BPF_MAP_UPDATE_ELEM, slot, FLAGS_AT)
            finally:
                push(slot)
            if number:
                raise refused(number, BPF_MAP_UPDATE_ELEM)

        def other(
            command: int, key: Any, size: int, flags: int, answer: Callable[[Slot], Any], value: Any = None
        ) -> Any:
            """Any command: what `answer` makes of the slot, or None if there is no such element."""
            try:
                slot = pop()
            except IndexError:
                slot = new()
            _, key_memory, value_memory, memory = slot
            pointer = memory[KEY_AT:VALUE_AT].cast("Q")
            address = pointer[0]
            try:
                if key is not None:
                    key_memory[key_place] = key
                else:
                    pointer[0] = 0
                if value is not None:
                    value_memory[value_place] = value
                number = _enter(command, slot, _flagged(slot, flags) if flags else size)
                if not number:
                    return answer(slot)
            finally:
                pointer[0] = address
                push(slot)
            if number == ENOENT:
                return None
            raise refused(number, command)

        def found(slot: Slot) -> bool:
            return True

        def read_value(slot: Slot) -> Any:
            return slot[2][0] if value_format else slot[2].tobytes()

        def read_key(slot: Slot) -> Any:
            memory = slot[3][DATA_AT + room : DATA_AT + room + key_size]
            return _cast(memory, key_format)[0] if key_format else memory.tobytes()

        room = _room(key_size)

        def delete(key: Any) -> bool:
            return bool(other(BPF_MAP_DELETE_ELEM, key, VALUE_AT, 0, found))

        def next_key(key: Any) -> Any:
            return other(BPF_MAP_GET_NEXT_KEY, key, FLAGS_AT, 0, read_key)

        def lookup_and_delete(key: Any, flags: int = 0) -> Any:
            return other(BPF_MAP_LOOKUP_AND_DELETE_ELEM, key, FLAGS_AT, flags, read_value)

        def contains(value: Any, flags: int = 0) -> bool:
            return bool(other(BPF_MAP_LOOKUP_ELEM, None, FLAGS_AT, flags, found, value))

        self.lookup, self.update, self.delete, self.next_key = lookup, update, delete, next_key
        self.lookup_and_delete, self.contains, self._close = lookup_and_delete, contains, close

    def close(self) -> None:
        """Let every further call raise `ClosedError`. The map's descriptor itself stays open."""
        self._close()


def _room(size: int) -> int:
    """Bytes that a key or value takes in a slot: a multiple of 8, and never nothing."""
    return max(size + 7 & ~7, 8)


def _slot(map_fd: int, key_size: int, value_size: int, key_format: str, value_format: str) -> Slot:
    """A slot whose attr points to its own key and value. The value's memory also takes the key of next_key."""
    room = _room(key_size)
    buffer = bytearray(DATA_AT + room + _room(max(key_size, value_size)))
    memory = memoryview(buffer)
    first = c_char.from_buffer(buffer)  # holds the buffer, and is held by the reference below
    memory[FD_AT : FD_AT + 4].cast("I")[0] = map_fd
    pointers = memory[KEY_AT:FLAGS_AT].cast("Q")
    pointers[0] = addressof(first) + DATA_AT if key_size else 0
    pointers[1] = addressof(first) + DATA_AT + room
    key = memory[DATA_AT : DATA_AT + key_size]
    value = memory[DATA_AT + room : DATA_AT + room + value_size]
    return byref(first), _cast(key, key_format or "B"), _cast(value, value_format or "B"), memory


def _cast(memory: memoryview, code: str) -> memoryview[Any]:
    """The memory as an array of numbers."""
    view: Any = memory  # the types of memoryview.cast know literal codes only
    cast: memoryview[Any] = view.cast(code)
    return cast


def _flagged(slot: Slot, flags: int) -> int:
    """Put the flags into the attr; its size with them, or without if there are none."""
    if not flags:
        return FLAGS_AT
    slot[3][FLAGS_AT:FULL].cast("Q")[0] = flags
    return FULL


def _enter(command: int, slot: Slot, size: int) -> int:
    """Make the call; 0, or the errno."""
    if observers:
        return _watched(command, slot, size)
    while True:
        seen = _failures
        if not syscall_holding(BPF, command, slot[0], size):
            return 0
        number = _errno(seen)
        if number:
            return number


def _watched(command: int, slot: Slot, size: int) -> int:
    """The same with observers."""

    def enter() -> int:
        while syscall_holding(BPF, command, slot[0], size):
            number = _errno(_failures)
            if number:
                return -number
        return 0

    second = "next_key" if command == BPF_MAP_GET_NEXT_KEY else "value"
    buffers = {"key": slot[1].cast("B"), second: slot[2].cast("B")}
    return -observe(Call("bpf", command_name(command), command, slot[3][:size], None, buffers), enter)
