"""Mapped memory of maps and perf events, and the barrier that reading it needs."""

from __future__ import annotations

import mmap
import os
from _thread import allocate_lock

from pybpf.errors import kernel_error
from pybpf.syscall.door import other
from pybpf.syscall.fd import fileno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

PAGE_SIZE = mmap.PAGESIZE
"""Bytes of one page of memory."""

_TOTAL_STORE_ORDER = ("x86_64", "s390x", "s390")
"""Machines that do not reorder loads with loads, or stores with stores."""


def map_memory(fd: FdLike, length: int, *, offset: int = 0, writable: bool = False) -> mmap.mmap:
    """Map the memory of a BPF map or a perf event, shared with the kernel (mmap(2), MAP_SHARED).

    The mapping keeps the object alive; close it when done. `bytes` copies of it are the only ones that outlive it.

    Args:
        fd: an array made with BPF_F_MMAPABLE (Linux 5.5), a ring buffer (5.8), an arena (6.9), a perf event.
        length: bytes.
        offset: where in the object, a multiple of `PAGE_SIZE`.
        writable: map it for writing too.

    Raises:
        BPFPermissionError: EPERM: frozen or read-only for user space, or not this part of it.
        BPFError: EINVAL: not so many bytes; ENODEV: this object cannot be mapped.
    """
    number = fileno(fd)
    prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    made: list[mmap.mmap] = []

    def enter() -> int:
        made.append(mmap.mmap(number, length, flags=mmap.MAP_SHARED, prot=prot, offset=offset))
        return 0

    arguments = {"fd": number, "length": length, "prot": prot, "offset": offset}
    result = other("mmap", "", 0, arguments, enter)
    if result < 0 or not made:
        raise kernel_error(-result, "mmap")
    return made[0]


def _full_barrier() -> None:
    """Order all loads and stores before against all after.

    Machines with weak memory order (arm, POWER, RISC-V, LoongArch) may show the data of a record before the header
    that announces it. Python has no fence. But the release of a lock keeps what is before it before, its acquisition
    keeps what is after it after, and the two are kept in order with each other: release followed by acquisition is a
    full barrier. (Acquisition followed by release is none: both sides may move in between.) The lock is one of this
    call alone, so neither threads nor signal handlers ever wait.
    """
    lock = allocate_lock()
    lock.acquire()
    lock.release()
    lock.acquire()


def _no_barrier() -> None:
    """Nothing: this machine keeps loads and stores in order by itself (total store order)."""


barrier = _no_barrier if os.uname().machine in _TOTAL_STORE_ORDER else _full_barrier
"""Keep what is read or written after this call from happening before what stands before it.

x86 and s390 order loads with loads and stores with stores, and a load never moves behind a later store; what is left,
a load moving before an earlier store, does no harm to ring buffers that are polled with level-triggered epoll.
"""
