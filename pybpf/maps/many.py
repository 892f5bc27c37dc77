"""`ManyReader`: the values of many keys with one system call for thousands of them.

The kernel has batch commands for whole maps and for writing, but none that looks up the keys it is given. So a small
program does it: BPF_PROG_TEST_RUN runs it here and now, in our context, attached to nothing. Keys go in and values come
out through the memory of an array (BPF_F_MMAPABLE), which is laid out as an `Area` says.

    count | keys side by side | values, each rounded up to 8 bytes | one byte for each key: was it there

Rules of this module:

* What kernel runs it, by trying: BPF_PROG_TYPE_SYSCALL (Linux 5.14) with bpf_loop() (5.17); a socket filter with
  bpf_loop() for maps that sleepable programs may not use; a socket filter with a loop that the verifier walks through.
  Where none is accepted `get_many` looks up one by one, and tries no more.
* A program's lookup of a per-CPU map is that of one CPU, so there is one for each possible CPU (Linux 5.19).
* The value is copied as bytes. Maps whose values have fields that only the kernel reads as a whole (locks, timers,
  pointers) are left to the system call, and so are LRU maps: a program's lookup counts as use, user space's does not.
* A reader belongs to one thread at a time and to the process that made it: `Readers` keeps those that are not in use.
"""

from __future__ import annotations

import errno
import os

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError
from pybpf.maps.base import PREPARING
from pybpf.maps.batch import listed
from pybpf.syscall import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pybpf.asm import Assembler
    from pybpf.maps.mapping import MappingMap
    from pybpf.object import Object

MAX_KEYS = 8192
MAX_WALKED = 512
"""Keys of a loop that the verifier walks through turn by turn."""
MAX_BYTES = 1 << 20
"""Of one area."""
MAX_COPIED = 4096
"""Bytes of a value; each eight take two instructions."""
FEWEST = 16
"""For fewer keys it does not pay."""

_FOR_NOW = (errno.EAGAIN, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Refusals that say nothing of the next time."""

KINDS = (("syscall", True), ("socket", True), ("socket", False))
"""(section, whether it uses bpf_loop()), in the order in which they are tried."""


class Area:
    """Where everything lies in the memory that the program and we share.

    Attributes:
        keys: how many there is room for.
        key_size: bytes. stride: from one value to the next. copied: bytes of one value, of a per-CPU map for each CPU.
        keys_at, values_at, found_at: where they begin. size: of the whole.
    """

    def __init__(self, keys: int, key_size: int, value_size: int, copied: int) -> None:
        """`value_size` is that of what is transferred, all CPUs' values together."""
        self.stride = value_size + 7 & ~7
        self.keys = max(1, min(keys, MAX_BYTES // (key_size + self.stride + 1)))
        self.key_size = key_size
        self.copied = copied
        self.keys_at = 8
        self.values_at = self.keys_at + self.keys * key_size + 7 & ~7
        self.found_at = self.values_at + self.keys * self.stride
        self.size = self.found_at + self.keys


def lookup_program(area: Area, map_fd: int, area_fd: int, cpus: int, section: str, loops: bool) -> list[Assembler]:
    """The functions of the program.

    Args:
        cpus: of a per-CPU map how many values an element has, of others 0.
        section: what kind of program.
        loops: by bpf_loop(); else by jumping back.
    """
    from pybpf.asm import Assembler, r0, r1, r2, r3, r4, r6, r9, u64

    main = Assembler("get_many", section=section)
    if loops:
        each = Assembler("each")
        each.mov(r6, r1)
        each.jge(r6, area.keys, "out")
        _look_up(each, area, map_fd, area_fd, cpus)
        each.label("out")
        each.mov(r0, 0)
        each.exit()
        main.load_map_value(r1, area_fd)
        main.load(r1, u64[r1])
        main.load_function(r2, "each")
        main.mov(r3, 0)
        main.mov(r4, 0)
        main.call("loop")
        main.mov(r0, 0)
        main.exit()
        return [main, each]
    main.load_map_value(r1, area_fd)
    main.load(r9, u64[r1])
    main.mov(r6, 0)
    main.label("next")
    main.jge(r6, r9, "end")
    main.jge(r6, area.keys, "end")
    _look_up(main, area, map_fd, area_fd, cpus)
    main.label("out")
    main.add(r6, 1)
    main.goto("next")
    main.label("end")
    main.mov(r0, 0)
    main.exit()
    return [main]


def _look_up(code: Assembler, area: Area, map_fd: int, area_fd: int, cpus: int) -> None:
    """Look up key number r6 and copy its value. Jumps to "out" if there is none. Keeps r6 and r9."""
    from pybpf.asm import r0, r1, r2, r3, r6, r7, r8, u8

    def place(register: Any, start: int, stride: int) -> None:
        """The address of item r6 of those from `start` on."""
        code.mov(register, r6)
        code.mul(register, stride)
        code.load_map_value(r1, area_fd, start)
        code.add(register, r1)

    place(r7, area.keys_at, area.key_size)
    place(r8, area.values_at, area.stride)
    for cpu in range(cpus or 1):
        code.load_map(r1, map_fd)
        code.mov(r2, r7)
        if cpus:
            code.mov(r3, cpu)
            code.call("map_lookup_percpu_elem")
        else:
            code.call("map_lookup_elem")
        code.jeq(r0, 0, "out")
        _copy(code, area.copied, cpu * (area.copied + 7 & ~7))
    place(r2, area.found_at, 1)
    code.store(u8[r2], 1)


def _copy(code: Assembler, size: int, to: int) -> None:
    """Copy bytes from r0 to r8 + `to`."""
    from pybpf.asm import r0, r3, r8, u8, u16, u32, u64

    at = 0
    for width, step in ((u64, 8), (u32, 4), (u16, 2), (u8, 1)):
        while size - at >= step:
            code.load(r3, width[r0 + at])
            code.store(width[r8 + (to + at)], r3)
            at += step


class ManyReader:
    """A program for one map with the memory that it uses.

    Attributes:
        limit: how many keys one run takes.
        stride: bytes from one value to the next.
        keys, values, found: the parts of the memory.
    """

    def __init__(self, owner: MappingMap, kind: tuple[str, bool]) -> None:
        """Raises BPFError when the kernel refuses this kind of program for this map."""
        section, loops = kind
        limit = MAX_KEYS if loops else MAX_WALKED
        area = Area(limit, owner.keys_face.size, owner.values_face.size, owner.value_size)
        with syscall.map_create(
            c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=area.size, max_entries=1, map_flags=c.BPF_F_MMAPABLE
        ) as area_fd:
            self._memory = syscall.map_memory(area_fd, -(-area.size // PAGE_SIZE) * PAGE_SIZE, writable=True)
            try:
                with owner.fd.lend() as map_fd:
                    cpus = syscall.possible_cpus() if owner.is_per_cpu else 0
                    self._object = _load(lookup_program(area, map_fd, area_fd.fileno(), cpus, section, loops))
            except BaseException:
                self._memory.close()
                raise
        self._fd = self._object.programs["get_many"].fd
        self._input = bytes(64) if section == "socket" else None  # a packet
        self.limit, self.stride = area.keys, area.stride
        whole: Any = memoryview(self._memory)
        self._count = whole[:8].cast("Q")
        self.keys = whole[area.keys_at : area.keys_at + area.keys * area.key_size]
        self.values = whole[area.values_at : area.found_at]
        self.found = whole[area.found_at : area.size]
        self.none_found = bytes(area.keys)

    def run(self, count: int) -> None:
        """Look up the first `count` keys."""
        self._count[0] = count
        self.found[:] = self.none_found
        syscall.prog_test_run(self._fd, data_in=self._input)

    def close(self) -> None:
        """Close the program and let go of the memory, which has a descriptor too."""
        self._object.close()
        for view in (self._count, self.keys, self.values, self.found):
            view.release()
        self._memory.close()

    def __del__(self) -> None:
        if hasattr(self, "_object"):  # an interrupt may keep it from being given back, and from being made
            self._object.close()


def _load(functions: list[Assembler]) -> Object:
    from pybpf.asm import assemble

    return assemble(functions, name="get_many").load()


class Readers:
    """The readers of one map that nobody uses at the moment: at most as many as threads have read at once.

    Attributes:
        kind: of `KINDS` the one that works, None as long as that is not known.
        is_refused: the kernel takes none of them.
    """

    def __init__(self, owner: MappingMap) -> None:
        self.kind: tuple[str, bool] | None = None
        self.is_refused = not can_copy(owner)
        self._free: list[ManyReader] = []
        self._process = os.getpid()
        self._closed = False

    def take(self, owner: MappingMap) -> ManyReader | None:
        """One for the caller alone, None when there can be none. `owner` is always the same map."""
        if self.is_refused:
            return None
        if self._process != os.getpid():  # a forked child shares the memory of those that it has inherited
            self._process = os.getpid()
            self._close_all()
        try:
            return self._free.pop()
        except IndexError:
            return self._make(owner)

    def give(self, reader: ManyReader) -> None:
        """Give it back."""
        self._free.append(reader)
        if self._closed:
            self._close_all()

    def close(self) -> None:
        """Close those that nobody uses; the others are closed when they are given back."""
        self._closed = True
        self._close_all()

    def _close_all(self) -> None:
        while self._free:
            try:
                self._free.pop().close()
            except IndexError:  # another thread took the last one
                return

    def _make(self, owner: MappingMap) -> ManyReader | None:
        for kind in (self.kind,) if self.kind is not None else KINDS:
            try:
                made = ManyReader(owner, kind)
            except BPFError as error:
                if error.errno in _FOR_NOW:
                    return None
                continue
            self.kind = kind
            return made
        self.is_refused = True
        return None


def get_many(owner: MappingMap, keys: Iterable[Any], default: Any, flags: int) -> list[Any]:
    """See `MappingMap.get_many`."""
    wanted = listed(keys)
    owner.fileno()
    if len(wanted) < FEWEST or flags:
        return [owner.get(key, default, flags=flags) for key in wanted]
    readers = _readers(owner, wanted[0])
    reader = readers.take(owner)
    if reader is None:
        return [owner.get(key, default) for key in wanted]
    try:
        found: list[Any] = []
        for start in range(0, len(wanted), reader.limit):
            found += _read(owner, reader, wanted[start : start + reader.limit], default)
        return found
    finally:
        readers.give(reader)


def _readers(owner: MappingMap, key: Any) -> Readers:
    if owner.readers is None:
        owner.get(key)  # programs also read what was opened for writing only: the kernel refuses it here
    with PREPARING:
        if owner.readers is None:
            owner.fileno()
            owner.readers = Readers(owner)
        return owner.readers


def _read(owner: MappingMap, reader: ManyReader, keys: Sequence[Any], default: Any) -> list[Any]:
    """One run."""
    count, face = len(keys), owner.values_face
    data = owner.keys_face.encode_run(keys)
    reader.keys[: len(data)] = data
    reader.run(count)
    if reader.stride == face.size:
        # Numbers are read at once. Other values may be made later, when the memory holds the next ones.
        there = reader.values if face.format else memoryview(reader.values[: count * face.size].tobytes())
        values = list(face.run(there, count))
    else:
        values = face.apart(reader.values, reader.stride, count)
    found = reader.found[:count].tobytes()
    if found.count(1) == count:
        return values
    return [value if was_there else default for value, was_there in zip(values, found, strict=True)]


def can_copy(owner: MappingMap) -> bool:
    """Whether a program may copy the values of this map and get what a system call would give."""
    size = owner.values_face.size
    return owner.helper_reads and 0 < size <= MAX_COPIED and not _has_special_fields(owner.value_codec)


def _has_special_fields(codec: Any) -> bool:
    """Whether a type has pointers or fields that belong to the kernel (struct bpf_spin_lock ...)."""
    if codec is None:
        return False
    name = codec.c_name
    if name.endswith("*") or name.startswith("struct bpf_"):
        return True
    element = getattr(codec, "element", None)
    fields: Sequence[Any] = getattr(codec, "fields", ())
    return (element is not None and _has_special_fields(element)) or any(
        _has_special_fields(field.codec) for field in fields
    )
