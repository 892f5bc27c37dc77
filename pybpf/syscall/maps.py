"""The bpf(2) commands that work on maps.

One function per command, each field of union bpf_attr by its name. `elements.ElementCalls` does the element
commands on one map faster. Source: bpf(2), include/uapi/linux/bpf.h, kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno

from pybpf.errors import kernel_error
from pybpf.syscall.fd import lend
from pybpf.syscall.invoke import attempt, invoke
from pybpf.syscall.record import Record
from pybpf.syscall.sizes import check_sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike


def map_lookup_elem(
    map_fd: FdLike, key: Buffer | None, value_size: int, flags: int = 0, *, value: Buffer = b""
) -> bytes:
    """BPF_MAP_LOOKUP_ELEM (Linux 3.18): read an element; of a queue or stack the next one, which stays.

    Args:
        key: key_size bytes; None for types without keys.
        value_size: bytes that the kernel writes: of a per-CPU map the value size rounded up to 8 times the number of
            possible CPUs, unless flags choose one CPU.
        flags: BPF_F_LOCK (Linux 5.1); BPF_F_CPU with the CPU in the upper 32 bits (Linux 7.0).
        value: what the value's memory holds before the call: bloom filters look for it.

    Raises:
        BPFNotFoundError: ENOENT: there is no such element.
        NotSupportedError: the map's type cannot be read this way.
        ValueError: key or value are smaller than the map's. All element functions ask the kernel for the sizes first
            (BPF_OBJ_GET_INFO_BY_FD), because it would read and write past the end of what is too small.
    """
    out = bytearray(value_size)
    out[: len(value)] = value
    _element("BPF_MAP_LOOKUP_ELEM", map_fd, key, out, flags)
    return bytes(out)


def map_update_elem(map_fd: FdLike, key: Buffer | None, value: Buffer, flags: int = 0) -> None:
    """BPF_MAP_UPDATE_ELEM (Linux 3.18): write an element; push onto a queue or stack.

    Args:
        key: key_size bytes; None for types without keys.
        value: as many bytes as the kernel reads, see `map_lookup_elem`. Maps that hold descriptors take 4 bytes.
        flags: BPF_ANY, BPF_NOEXIST or BPF_EXIST; BPF_F_LOCK (Linux 5.1), BPF_F_CPU and BPF_F_ALL_CPUS (Linux 7.0).

    Raises:
        BPFExistsError: EEXIST with BPF_NOEXIST.
        BPFNotFoundError: ENOENT with BPF_EXIST.
        BPFPermissionError: the map is frozen or read-only.
        BPFError: E2BIG: the map is full, or an array has no such index.
    """
    _element("BPF_MAP_UPDATE_ELEM", map_fd, key, value, flags)


def map_delete_elem(map_fd: FdLike, key: Buffer) -> None:
    """BPF_MAP_DELETE_ELEM (Linux 3.18): delete an element.

    Raises:
        BPFNotFoundError: ENOENT: there is no such element.
        BPFError: EINVAL: an array, which cannot lose elements.
    """
    with lend(map_fd) as number:
        check_sizes(number, key, None)
        attr = Record("BPF_MAP_DELETE_ELEM")
        attr.put(map_fd=number)
        attr.point("key", key)
        invoke(attr)


def map_get_next_key(map_fd: FdLike, key: Buffer | None, key_size: int) -> bytes:
    """BPF_MAP_GET_NEXT_KEY (Linux 3.18): the key after this one, in the kernel's own order.

    Args:
        key: None gives the first key (Linux 4.12), and so does a key that a hash map does not have.
        key_size: bytes of a key.

    Raises:
        BPFNotFoundError: ENOENT: this was the last key.
    """
    out = bytearray(key_size)
    with lend(map_fd) as number:
        check_sizes(number, key_size if key is None else min(key_size, len(key)), None)
        attr = Record("BPF_MAP_GET_NEXT_KEY")
        attr.put(map_fd=number)
        attr.point("key", key)
        attr.point("next_key", out)
        invoke(attr)
    return bytes(out)


def map_lookup_and_delete_elem(map_fd: FdLike, key: Buffer | None, value_size: int, flags: int = 0) -> bytes:
    """BPF_MAP_LOOKUP_AND_DELETE_ELEM (Linux 4.20, hash maps 5.14): read an element and delete it; pop.

    Raises:
        BPFNotFoundError: ENOENT: there is no such element.
        NotSupportedError: the map's type does not have it.
    """
    out = bytearray(value_size)
    _element("BPF_MAP_LOOKUP_AND_DELETE_ELEM", map_fd, key, out, flags)
    return bytes(out)


def _element(command: str, map_fd: FdLike, key: Buffer | None, value: Buffer, flags: int) -> None:
    with lend(map_fd) as number:
        check_sizes(number, key, value, 1, flags)
        attr = Record(command)
        attr.put(map_fd=number, flags=flags)
        attr.point("key", key)
        attr.point("value", value)
        invoke(attr)


def map_lookup_batch(
    map_fd: FdLike,
    in_batch: Buffer | None,
    out_batch: bytearray,
    keys: bytearray,
    values: bytearray,
    count: int,
    elem_flags: int = 0,
    flags: int = 0,
) -> tuple[int, int]:
    """BPF_MAP_LOOKUP_BATCH (Linux 5.6): read many elements with one call.

    Args:
        in_batch: where to go on: None for the start, else the last call's out_batch.
        out_batch: receives the place to go on at: at least 4 bytes and at least key_size.
        keys, values: room for `count` elements.
        elem_flags: BPF_F_LOCK; BPF_F_CPU (Linux 7.0).

    Returns:
        How many elements were read, and an errno: 0; ENOENT when this was the end (the elements are valid);
        ENOSPC when a bucket of a hash map has more than `count` elements (give more room).

    Raises:
        NotSupportedError: the map's type has no batch commands.
    """
    buffers = (in_batch, out_batch, keys, values)
    return _read_batch("BPF_MAP_LOOKUP_BATCH", map_fd, buffers, count, elem_flags, flags)


def map_lookup_and_delete_batch(
    map_fd: FdLike,
    in_batch: Buffer | None,
    out_batch: bytearray,
    keys: bytearray,
    values: bytearray,
    count: int,
    elem_flags: int = 0,
    flags: int = 0,
) -> tuple[int, int]:
    """BPF_MAP_LOOKUP_AND_DELETE_BATCH (Linux 5.6): read many elements and delete them.

    As `map_lookup_batch`.
    """
    buffers = (in_batch, out_batch, keys, values)
    return _read_batch("BPF_MAP_LOOKUP_AND_DELETE_BATCH", map_fd, buffers, count, elem_flags, flags)


def map_update_batch(
    map_fd: FdLike, keys: Buffer, values: Buffer, count: int, elem_flags: int = 0, flags: int = 0
) -> int:
    """BPF_MAP_UPDATE_BATCH (Linux 5.6): write many elements with one call; how many were written.

    Args:
        keys, values: `count` of each, one after the other.
        elem_flags: as the flags of `map_update_elem`.

    Raises:
        BPFError: as `map_update_elem`. Its attribute `count` says how many were written before.
    """
    return _write_batch("BPF_MAP_UPDATE_BATCH", map_fd, keys, values, count, elem_flags, flags)


def map_delete_batch(map_fd: FdLike, keys: Buffer, count: int, elem_flags: int = 0, flags: int = 0) -> int:
    """BPF_MAP_DELETE_BATCH (Linux 5.6): delete many elements with one call; how many were deleted.

    Raises:
        BPFNotFoundError: ENOENT: the map does not have one of the keys. Its attribute `count` says how many were
            deleted before.
    """
    return _write_batch("BPF_MAP_DELETE_BATCH", map_fd, keys, None, count, elem_flags, flags)


def _read_batch(
    command: str,
    map_fd: FdLike,
    buffers: tuple[Buffer | None, Buffer, Buffer, Buffer],
    count: int,
    elem_flags: int,
    flags: int,
) -> tuple[int, int]:
    in_batch, out_batch, keys, values = buffers
    with lend(map_fd) as number:
        key_size = check_sizes(number, keys, values, count, elem_flags)
        if min(len(out_batch), len(out_batch if in_batch is None else in_batch)) < max(key_size, 4):
            raise ValueError(f"in_batch and out_batch take {max(key_size, 4)} bytes")
        attr = _batch(command, number, count, elem_flags, flags)
        for name, buffer in zip(("in_batch", "out_batch", "keys", "values"), buffers, strict=True):
            attr.point(name, buffer)
        result = attempt(attr)
    if result < 0 and -result not in (errno.ENOENT, errno.ENOSPC):
        raise kernel_error(-result, command)
    return attr["count"], max(-result, 0)


def _write_batch(
    command: str, map_fd: FdLike, keys: Buffer, values: Buffer | None, count: int, elem_flags: int, flags: int
) -> int:
    with lend(map_fd) as number:
        check_sizes(number, keys, values, count, elem_flags)
        attr = _batch(command, number, count, elem_flags, flags)
        attr.point("keys", keys)
        attr.point("values", values)
        result = attempt(attr)
    done = attr["count"]
    if result < 0:
        error = kernel_error(-result, command)
        # An error strikes before the last element; so a count that is still the whole is one that was not written.
        vars(error)["count"] = 0 if done == count else done
        raise error
    return done


def _batch(command: str, map_fd: int, count: int, elem_flags: int, flags: int) -> Record:
    attr = Record(command)
    attr.put(map_fd=map_fd, count=count, elem_flags=elem_flags, flags=flags)
    return attr
