"""How many bytes the kernel reads and writes for the keys and values of a map.

The kernel does not know how much room the caller has. A buffer that is too small would be read past its end, or
written past it, which is how interpreters get corrupted. So whoever hands memory to an element command asks first.
Source: bpf_map_value_size() in kernel/bpf/syscall.c.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.syscall.cpus import possible_cpus
from pybpf.syscall.invoke import attempt
from pybpf.syscall.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.door import Buffer

_PER_CPU = (
    c.BPF_MAP_TYPE_PERCPU_HASH,
    c.BPF_MAP_TYPE_LRU_PERCPU_HASH,
    c.BPF_MAP_TYPE_PERCPU_ARRAY,
    c.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
)


def transfer_sizes(map_fd: int, flags: int = 0) -> tuple[int, int] | None:
    """The bytes of a key and of a value that an element command transfers.

    Args:
        map_fd: the map.
        flags: with BPF_F_CPU or BPF_F_ALL_CPUS the value of a per-CPU map is that of one CPU.

    Returns:
        None if the descriptor is not one of a map; the command itself says so best.
    """
    info = Record("bpf_map_info")
    attr = Record("BPF_OBJ_GET_INFO_BY_FD")
    attr.put(bpf_fd=map_fd, info_len=len(info.data))
    attr.point("info", info.data)
    if attempt(attr) < 0:
        return None
    value_size = info["value_size"]
    if info["type"] in _PER_CPU and not flags & (c.BPF_F_CPU | c.BPF_F_ALL_CPUS):
        value_size = (value_size + 7 & ~7) * possible_cpus()
    return info["key_size"], value_size


def check_sizes(
    map_fd: int, key: Buffer | int | None, value: Buffer | int | None, count: int = 1, flags: int = 0
) -> int:
    """Make sure that keys and values are large enough for the map; the size of a key.

    Args:
        map_fd: the map.
        key, value: memory, or a number of bytes; None where the command has none.
        count: how many keys and values there are.
        flags: the command's flags for elements.

    Raises:
        ValueError: one of them is too small.
    """
    sizes = transfer_sizes(map_fd, flags)
    if sizes is None:
        return 0
    for what, memory, size in (("key", key, sizes[0]), ("value", value, sizes[1])):
        if memory is None:
            continue
        room = memory if isinstance(memory, int) else len(memory)
        if room < size * count:
            times = f"{count} times " if count != 1 else ""
            raise ValueError(f"a {what} of this map takes {times}{size} bytes, not {room}")
    return sizes[0]
