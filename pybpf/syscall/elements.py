"""The element commands on one map, prepared: nothing is done per call that can be done once.

How it is made fast (two thirds of a lookup are the system call itself):

* A *slot* is one buffer: the attr, then the key, then the value, with the pointers in the attr set once. A call copies
  the key in, enters the kernel, and copies the value out.
* The system call function takes no argument types and keeps the GIL, which costs less than handing it over.
* Slots lie in a free list. `list.pop` and `list.append` are atomic, so threads never share a slot, and a signal
  handler that interrupts a call gets a slot of its own.
* After `close()` a slot has no descriptor. A call that another thread is in at that moment keeps a lease of the
  descriptor until it is over, so that its number does not come to mean another file. An interrupt (an exception that a
  signal handler raises) may keep a slot from coming back: such a call is over when the slot is collected. In a forked
  child the calls of other threads are over.
* `subscript` makes the two methods that people use most, ``m[k]`` and ``m[k] = v``, from a template with the encoding
  in it. They do not ask for the errno of a call that failed; whoever does then makes the call again.
* The functions are closures made for one map: local names instead of attributes.
* The size that is passed ends before the fields that are not used, which the kernel then takes for zero.

Calls that wait or take long must not go through here: nobody else runs meanwhile. Batches are in `maps.py`.
"""

from __future__ import annotations

import errno
from _weakref import ref

from pybpf.constants import (
    BPF_MAP_DELETE_ELEM,
    BPF_MAP_GET_NEXT_KEY,
    BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    BPF_MAP_LOOKUP_ELEM,
    BPF_MAP_UPDATE_ELEM,
)
from pybpf.errors import ClosedError, kernel_error
from pybpf.forks import tell_children
from pybpf.syscall.attrs import LAYOUTS, SIZES
from pybpf.syscall.door import command_name, observers
from pybpf.syscall.foreign import addressof, byref, c_char, get_errno, set_errno, syscall_holding, syscall_quick
from pybpf.syscall.sizes import check_sizes
from pybpf.syscall.sysno import BPF
from pybpf.syscall.watch import Call, observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf.errors import BPFError
    from pybpf.syscall.fd import FD, Lease

    # (reference to the attr, memory of the key, memory of the value, memory of the whole, which nothing else holds)
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


def _errno() -> int:
    """The errno of the call that has just failed; 0 if it is lost and the call has to be made again.

    ctypes keeps one errno per thread, and a signal handler may run between a call and this line. So whoever has read
    an errno here leaves 0: a handler whose calls failed too is noticed by that. A call that failed had no effect, so
    making it again is right.
    """
    number = get_errno()
    set_errno(0)
    return number


class ElementCalls:
    """The element commands on one map. Safe in threads and in signal handlers.

    Args:
        map_fd: the map's descriptor. It is borrowed: give it to `close()` before closing it, or a later file with the
            same number would be meant.
        key_size: bytes of a key; 0 for types without keys, whose calls take None as key.
        value_size: bytes of a value as the system call transfers it: of a per-CPU map the value size rounded up to
            8 times the number of possible CPUs. With BPF_F_CPU the kernel uses only the beginning of it.
        key_format: "" for keys as bytes; or one of the `struct` codes b B h H i I q Q f d ?, of that size: keys are
            numbers then, which saves packing them.
        value_format: the same for values.
        explain: gives the error to raise for what the kernel said, for example with the map's name in it.

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

    __slots__ = (
        "__weakref__",
        "_close",
        "_names",
        "contains",
        "delete",
        "forked",
        "lookup",
        "lookup_and_delete",
        "next_key",
        "update",
    )

    lookup: Callable[..., Any]
    update: Callable[..., None]
    delete: Callable[[Any], bool]
    next_key: Callable[[Any], Any]
    lookup_and_delete: Callable[..., Any]
    contains: Callable[..., bool]
    forked: Callable[[], None]
    """See `pybpf.forks`."""
    _close: Callable[[FD | None], None]
    _names: dict[str, Any]

    def __init__(
        self,
        map_fd: int,
        key_size: int,
        value_size: int,
        *,
        key_format: str = "",
        value_format: str = "",
        explain: Callable[[BPFError], BPFError] = lambda error: error,
    ) -> None:
        # Room for one from the beginning: a list that grew frees its memory when the last item is popped, and gets it
        # back for the next one; that is 3 % of a lookup.
        free: list[Any] = [None]
        free.pop()
        pop, push = free.pop, free.append
        made: dict[int, ref[memoryview]] = {}  # the memory of each slot that is not collected, by its id
        foreign: set[int] = set()  # those of them that other threads of the parent were using
        held: list[Lease] = []
        ended: list[bool] = []
        key_place = 0 if key_format else WHOLE
        value_place = 0 if value_format else WHOLE

        def new() -> Slot:
            if ended:
                raise ClosedError("this map is closed")
            if not made:
                check_sizes(map_fd, key_size, value_size)
            slot = _slot(map_fd, key_size, value_size, key_format, value_format)
            memory = slot[3]
            key = id(memory)

            def collected(_: object) -> None:
                made.pop(key, None)
                foreign.discard(key)
                settle()

            made[key] = ref(memory, collected)
            if ended:  # by another thread, which may have missed this slot
                del made[key]
                settle()  # it may have been waited for
                raise ClosedError("this map is closed")
            return slot

        def at_rest() -> set[int]:
            return {id(slot[3]) for slot in list(free)}

        def is_quiet() -> bool:
            """Whether nobody is in a call."""
            return set(made) - foreign <= at_rest()

        def close(fd: FD | None) -> None:
            ended.append(True)
            for known in list(made.values()):
                memory = known()
                if memory is not None:
                    memory[FD_AT : FD_AT + 4].cast("I")[0] = NO_DESCRIPTOR
            if fd is not None and not fd.closed and not is_quiet():
                held.append(fd.lend())
                settle()

        def settle() -> None:
            while held and is_quiet():
                try:
                    lease = held.pop()
                except IndexError:  # another thread was quicker
                    return
                lease.end()

        def forked() -> None:
            foreign.update(set(made) - at_rest())
            settle()

        def refused(number: int, command: int) -> Exception:
            if ended and number == errno.EBADF:
                return ClosedError("this map is closed")
            return explain(kernel_error(number, command_name(command)))

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
                    if not syscall_holding(BPF, BPF_MAP_LOOKUP_ELEM, reference, FLAGS_AT):
                        return value_memory[0] if value_format else value_memory.tobytes()
                    number = _errno() or _enter(BPF_MAP_LOOKUP_ELEM, slot, FLAGS_AT)
                if not number:
                    return value_memory[0] if value_format else value_memory.tobytes()
            finally:
                push(slot)
                if ended:
                    settle()
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
                    if not syscall_holding(BPF, BPF_MAP_UPDATE_ELEM, reference, FLAGS_AT):
                        return
                    number = _errno() or _enter(BPF_MAP_UPDATE_ELEM, slot, FLAGS_AT)
            finally:
                push(slot)
                if ended:
                    settle()
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
                if ended:
                    settle()
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

        self._names = {
            "pop": pop,
            "new": new,
            "push": push,
            "ended": ended,
            "settle": settle,
            "observers": observers,
            "call": syscall_quick,
            "failures": (TypeError, ValueError, OverflowError),
            "place": "0" if key_format else ":",
            "value_place": "0" if value_format else ":",
        }
        self.lookup, self.update, self.delete, self.next_key = lookup, update, delete, next_key
        self.lookup_and_delete, self.contains = lookup_and_delete, contains
        self.forked, self._close = forked, close
        tell_children(self)

    def subscript(
        self,
        get: Callable[[Any, Any], Any],
        set: Callable[[Any, Any, Any], None],
        encode_key: Callable[[Any], bytes] | None,
        encode_value: Callable[[Any], bytes] | None,
        decode: Callable[[Any], Any] | None,
    ) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any, Any], None]]:
        """The methods ``__getitem__`` and ``__setitem__`` of an object that is this map.

        Args:
            get, set: the methods that do the same in every case; they are called when something is not as it mostly is:
                no such element, a key that cannot be encoded, observers.
            encode_key, encode_value, decode: None where the prepared calls take or give the value as it is. `decode`
                gets memory that will change, and must not keep it.
        """
        value = "value_memory[0]" if self._names["value_place"] == "0" else "value_memory.tobytes()"
        source = _SUBSCRIPT.format(
            bpf=BPF,
            lookup=BPF_MAP_LOOKUP_ELEM,
            update=BPF_MAP_UPDATE_ELEM,
            size=FLAGS_AT,
            place=self._names["place"],
            value_place=self._names["value_place"],
            key="key" if encode_key is None else "encode_key(key)",
            value="value" if encode_value is None else "encode_value(value)",
            result=value if decode is None else "decode(value_memory)",
        )
        names = {
            **self._names,
            "encode_key": encode_key,
            "encode_value": encode_value,
            "decode": decode,
            "get": get,
            "set": set,
        }
        exec(source, names)
        return names["getitem"], names["setitem"]

    def close(self, fd: FD | None = None) -> None:
        """Let every further call raise `ClosedError`. The map's descriptor itself stays open.

        Args:
            fd: the descriptor's owner, which is about to close it: it will wait for calls that other threads are in.
        """
        self._close(fd)


_SUBSCRIPT = """
def getitem(self, key):
    try:
        slot = pop()
    except IndexError:
        slot = new()
    reference, key_memory, value_memory, _ = slot
    try:
        key_memory[{place}] = {key}
        if not observers and not call({bpf}, {lookup}, reference, {size}):
            return {result}
    except failures:
        pass
    finally:
        push(slot)
        if ended:
            settle()
    return get(self, key)

def setitem(self, key, value):
    try:
        slot = pop()
    except IndexError:
        slot = new()
    reference, key_memory, value_memory, _ = slot
    try:
        key_memory[{place}] = {key}
        value_memory[{value_place}] = {value}
        if not observers and not call({bpf}, {update}, reference, {size}):
            return
    except failures:
        pass
    finally:
        push(slot)
        if ended:
            settle()
    set(self, key, value)
"""


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
    """Put the flags into the attr; its size with them, or without if there are none. Raises TypeError, ValueError."""
    if not flags:
        return FLAGS_AT
    try:
        slot[3][FLAGS_AT:FULL].cast("Q")[0] = flags
    except TypeError:
        raise TypeError(f"flags: an integer, not {flags!r}") from None
    except ValueError:
        raise ValueError(f"flags = {flags} does not fit into 8 bytes") from None
    return FULL


def _enter(command: int, slot: Slot, size: int) -> int:
    """Make the call; 0, or the errno."""
    if observers:
        return _watched(command, slot, size)
    while True:
        if not syscall_holding(BPF, command, slot[0], size):
            return 0
        number = _errno()
        if number:
            return number


def _watched(command: int, slot: Slot, size: int) -> int:
    """The same with observers."""

    def enter() -> int:
        while syscall_holding(BPF, command, slot[0], size):
            number = _errno()
            if number:
                return -number
        return 0

    second = "next_key" if command == BPF_MAP_GET_NEXT_KEY else "value"
    buffers = {"key": slot[1].cast("B"), second: slot[2].cast("B")}
    return -observe(Call("bpf", command_name(command), command, slot[3][:size], None, buffers), enter)
