"""Iterators: programs that are run once for each object of a kind, and write what they want into a file.

The link says which iterator it is and on which object; each opening of it (BPF_ITER_CREATE) is one run. A pinned
iterator link is a file that `cat` can read.

Source: Documentation/bpf/bpf_iterators.rst; kernel/bpf/bpf_iter.c. Since Linux 5.8.
"""

from __future__ import annotations

import errno
import os
import struct

from pybpf import syscall
from pybpf.constants import BPF_TRACE_ITER
from pybpf.errors import BPFError, ObjectError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.links.targets import open_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF
    from pybpf.links.base import Attachable
    from pybpf.syscall import FD, FdLike

ORDERS = {"self": 1, "descendants_pre": 2, "descendants_post": 3, "ancestors": 4, "children": 5}
"""BPF_CGROUP_ITER_...: which cgroups are visited, and when (include/uapi/linux/bpf.h)."""

READ_SIZE = 1 << 16


class IterLink(Link):
    """A link of an iterator. Each of its reading methods runs the iterator from the start."""

    __slots__ = ("_btf",)

    def __init__(self, fd: FD | None, kind: str, target: str, btf: BTF | None = None) -> None:
        """`btf` is the type information of the program's object, for the names of records."""
        super().__init__(fd, kind, target)
        self._btf = btf

    def open(self) -> FD:
        """Starts a run and gives the file to read it from.

        Raises:
            BPFError: the kernel refuses it.
        """
        return syscall.iter_create(self.fd)

    def chunks(self) -> Iterator[bytes]:
        """What one run writes, in the pieces that the kernel gives."""
        with self.open() as fd:
            number = fd.fileno()
            while True:
                try:
                    piece = os.read(number, READ_SIZE)
                except BlockingIOError:  # a million objects went by without output: the kernel asks to go on
                    continue
                if not piece:
                    return
                yield piece

    def read(self) -> bytes:
        """Everything that one run writes."""
        return b"".join(self.chunks())

    def lines(self) -> Iterator[str]:
        """The lines of text that one run writes, without their ends."""
        rest = b""
        for piece in self.chunks():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")

    def records(self, codec: Codec | str) -> Iterator[Any]:
        """The records of one type that one run writes (with bpf_seq_write), decoded.

        Args:
            codec: of the type; or the name of a struct of the program's object.

        Raises:
            ObjectError: the run ends in the middle of a record; the object has no such struct.
        """
        if isinstance(codec, str):
            codec = self._codec(codec)
        size = codec.size
        rest = b""
        for piece in self.chunks():
            data = rest + piece
            count = len(data) // size
            yield from codec.decode_run(data, 0, size, count)
            rest = data[count * size :]
        if rest:
            raise ObjectError(
                f"{self._words()}: the last {len(rest)} bytes are not a whole {codec.c_name} ({size} bytes)"
            )

    def _codec(self, name: str) -> Codec:
        from pybpf.btf.codec import codec
        from pybpf.btf.kinds import KIND_STRUCT

        found = self._btf.get(name, KIND_STRUCT) if self._btf is not None else None
        if self._btf is None or found is None:
            raise ObjectError(f"{self._words()}: its program's object has no struct {name!r}")
        return codec(self._btf, found.id)


def attach_iter(
    program: Attachable,
    *,
    map: FdLike | None = None,
    cgroup: str | os.PathLike[str] | FdLike | None = None,
    order: str = "self",
    pid: int = 0,
    tid: int = 0,
    pidfd: FdLike | None = None,
) -> IterLink:
    """Makes a link of an iterator program. Since Linux 5.8.

    Args:
        program: of type tracing, loaded for ``iter/<kind>``.
        map: the map to go over, for ``bpf_map_elem``, ``bpf_sk_storage_map`` and ``sockmap``.
        cgroup: where to start, for ``cgroup`` (Linux 6.1), as a path or a descriptor.
        order: which cgroups: "self", "descendants_pre", "descendants_post", "ancestors", "children".
        pid: only this process, for ``task``, ``task_file`` and ``task_vma`` (Linux 6.1).
        tid: only this thread, likewise.
        pidfd: only the process of this pidfd_open(2) descriptor, likewise.

    Raises:
        BPFError: the kind of iterator wants an object, or another one (EINVAL).
        ValueError: more than one object is given, or a number that no process has.
    """
    target = program.spec.attach_target if program.spec is not None else ""
    info, held = _iter_info(map, cgroup, order, pid, tid, pidfd)
    try:
        fd = syscall.link_create(program, 0, BPF_TRACE_ITER, iter_info=info)
    except BPFError as error:
        hints = {
            errno.EINVAL: "This kind of iterator takes another object: bpf_map_elem, bpf_sk_storage_map and sockmap "
            "want map=, cgroup wants cgroup=, task kinds take pid= and tid= (Linux 6.1), the others nothing",
            errno.E2BIG: "Linux 6.1 brought iterators of one task and of cgroups",
            errno.EBADF: "This kind of iterator wants a map: say map=",
            **permission_hints(CAP_PERFMON),
        }
        raise refused(error, attaching(program, f"iter {target}".rstrip()), hints) from None
    finally:
        if held is not None:
            held.close()
    return IterLink(fd, "iter", target, program.btf)


def _iter_info(
    map: FdLike | None,
    cgroup: str | os.PathLike[str] | FdLike | None,
    order: str,
    pid: int,
    tid: int,
    pidfd: FdLike | None,
) -> tuple[bytes, FD | None]:
    """The bytes of union bpf_iter_link_info, empty for none, and a descriptor to close after the call."""
    if (map is not None) + (cgroup is not None) + bool(pid) + bool(tid) + (pidfd is not None) > 1:
        raise ValueError("give one of map, cgroup, pid, tid and pidfd")
    if order not in ORDERS:
        raise ValueError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
    for name, number in (("pid", pid), ("tid", tid)):
        if not 0 <= number < 1 << 32:
            raise ValueError(f"{name} is the number of a process or thread, not {number}")
    if map is not None:
        return struct.pack("=IIII", syscall.fileno(map), 0, 0, 0), None
    if cgroup is not None:
        directory = open_cgroup(cgroup)
        return struct.pack("=IIQ", ORDERS[order], directory.fileno(), 0), directory
    if pid or tid or pidfd is not None:
        return struct.pack("=IIII", tid, pid, 0 if pidfd is None else syscall.fileno(pidfd), 0), None
    return b"", None
