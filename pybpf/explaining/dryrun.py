"""An observer that answers instead of the kernel: what a load and an attachment would send, without privileges.

Rules of this module:

* Descriptors are real and harmless (memory files, memfd_create(2)), so that closing and mapping them works as always.
  What they stand for is invented.
* Every command succeeds, as on a kernel that has everything; nothing is found where something is searched for.
* What the kernel would tell of an object (its type, sizes, name) is what was sent when it was made.
"""

from __future__ import annotations

import errno
import os
import sys

from pybpf.syscall.attrs import LAYOUTS, SIZES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall import Call

MEMORY = 1 << 40
"""Size of the memory files: larger than any map, and none of it is really there."""

_NOTHING_THERE = frozenset(
    (
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_DELETE_ELEM",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
        "BPF_MAP_LOOKUP_BATCH",
        "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_BTF_GET_NEXT_ID",
        "BPF_LINK_GET_NEXT_ID",
        "BPF_OBJ_GET",
        "BPF_TASK_FD_QUERY",
    )
)
_INFO = {
    "BPF_MAP_CREATE": ("bpf_map_info", {"type": "map_type", "key_size": "key_size", "value_size": "value_size",
                                        "max_entries": "max_entries", "map_flags": "map_flags", "name": "map_name"}),
    "BPF_PROG_LOAD": ("bpf_prog_info", {"type": "prog_type", "name": "prog_name"}),
    "BPF_LINK_CREATE": ("bpf_link_info", {}),
    "BPF_BTF_LOAD": ("bpf_btf_info", {}),
}  # fmt: skip
"""Command -> the struct that describes what it makes, and which of its fields were sent in which."""


class DryRun:
    """Answers every call that would change or ask the kernel; mmap goes through, to the memory files."""

    def __init__(self) -> None:
        self._made: dict[int, Call] = {}
        self._count = 0

    def before(self, call: Call) -> int | None:
        if call.name == "mmap":
            return None
        if call.name in ("socket", "netlink"):
            return errno.EOPNOTSUPP  # the answers of a conversation cannot be invented
        if call.command in _NOTHING_THERE:
            return errno.ENOENT
        if call.makes_descriptor:
            call.result = _descriptor()
            self._count += 1
            self._made[call.result] = call
        else:
            if call.command == "BPF_OBJ_GET_INFO_BY_FD":
                self._inform(call)
            call.result = 0
        return None

    def after(self, call: Call) -> None:
        """Nothing is left to do."""

    def _inform(self, call: Call) -> None:
        """Fill in what the kernel would know."""
        fields = call.fields()
        fd, info = fields["bpf_fd"], call.buffers.get("info")
        made = self._made.get(fd) if isinstance(fd, int) else None
        if info is None or made is None or made.command not in _INFO:
            return
        title, sent = _INFO[made.command]
        source = made.attr
        view = memoryview(info)  # of a bytearray: pybpf hands over nothing else here
        for name, origin in sent.items():
            to, size = LAYOUTS[title][name]
            place, length = LAYOUTS[made.command][origin]
            if to + size <= len(view) and not view.readonly:
                view[to : to + size] = source[place : place + min(size, length)].ljust(size, b"\0")
        if SIZES[title] and len(view) >= 8 and not view.readonly:
            to, size = LAYOUTS[title]["id"]
            view[to : to + size] = (fd if isinstance(fd, int) else 0).to_bytes(size, sys.byteorder)


def _descriptor() -> int:
    """A memory file above the standard streams."""
    fd = os.memfd_create("pybpf", os.MFD_CLOEXEC)
    os.ftruncate(fd, MEMORY)
    return fd
