"""Reading a whole map: by the batch commands, or key by key where the kernel has none for the map's type.

Rules of this module:

* Everything comes in chunks: the keys side by side in one buffer, the values in another, and how many there are. The
  next chunk reuses the buffers.
* By batch (Linux 5.6): a hash map is read bucket by bucket, each under its lock. An element that is there all the time
  comes exactly once; one that is added or deleted meanwhile comes once or not at all.
* Key by key (`walk`), and by batch where these go on from a key too (`once`: prefix tries): the kernel begins again at
  the first key when the one that it is to go on from was deleted. So keys that came before are skipped, and the number
  of steps is bounded: no key comes twice and the reading ends, but under constant deletion it may end early.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.errors import ENOTSUPP, BPFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from pybpf.syscall import FdLike

    Chunk = tuple[memoryview, memoryview, int]

UNSUPPORTED = (errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP)
"""How kernels refuse a batch command that they do not have: EINVAL before Linux 5.6, ENOTSUPP for this type of map."""
CHUNK_BYTES = 1 << 20
CHUNK_ENTRIES = 8192
WALK_ENTRIES = 256
MAX_CHUNK_ENTRIES = 1 << 26
"""More than any bucket of a hash map holds."""


def chunk_entries(entry_size: int, max_entries: int) -> int:
    """How many elements to ask for at once: the whole map and one more when that is little, else about a megabyte."""
    return max(16, min(max_entries + 1, CHUNK_ENTRIES, CHUNK_BYTES // max(entry_size, 1)))


def read_chunks(
    fd: FdLike, key_size: int, value_size: int, max_entries: int, *, delete: bool = False, flags: int = 0
) -> Iterator[Chunk]:
    """All elements by BPF_MAP_LOOKUP_BATCH, or with `delete` by BPF_MAP_LOOKUP_AND_DELETE_BATCH.

    Args:
        flags: of each element.

    Raises:
        BPFError: the kernel refused; with one of `UNSUPPORTED` before the first chunk it has no batches for this map.
    """
    command = syscall.map_lookup_and_delete_batch if delete else syscall.map_lookup_batch
    count = chunk_entries(key_size + value_size, max_entries)
    keys, values = bytearray(key_size * count), bytearray(value_size * count)
    # Where the last call ended and where this one does: a bucket's number, or a key.
    before, after = bytearray(max(4, key_size)), bytearray(max(4, key_size))
    is_first = True
    while True:
        done, error = command(fd, None if is_first else before, after, keys, values, count, flags)
        if error == errno.ENOSPC:
            count *= 2
            if count > MAX_CHUNK_ENTRIES:
                raise BPFError(error, "BPF_MAP_LOOKUP_BATCH", f"a bucket with more than {count // 2} elements")
            keys, values = bytearray(key_size * count), bytearray(value_size * count)
            continue
        if done:
            yield memoryview(keys), memoryview(values), done
        if error:
            return
        before, after = after, before
        is_first = False


def walk(next_key: Callable[[bytes | None], bytes | None], max_entries: int) -> Iterator[bytes]:
    """All keys by BPF_MAP_GET_NEXT_KEY. The key after the one that is given out is fetched before it is given out."""
    steps = _bound(max_entries)
    seen: set[bytes] = set()
    following = next_key(None)
    while following is not None and steps:
        key = following
        steps -= 1
        following = next_key(key)
        if key not in seen:
            seen.add(key)
            yield key


def listed(items: Iterable[Any]) -> Sequence[Any]:
    """What can be counted and sliced."""
    return items if isinstance(items, list | tuple | range) else list(items)


def once(chunks: Iterator[Chunk], key_size: int, value_size: int, max_entries: int) -> Iterator[Chunk]:
    """The same chunks without the keys that came before, and no more than the walk through a map would have."""
    steps = _bound(max_entries)
    seen: set[bytes] = set()
    for keys, values, count in chunks:
        data, kept = keys[: count * key_size].tobytes(), count
        some = [data[start : start + key_size] for start in range(0, len(data), key_size)]
        fresh = set(some) - seen
        seen |= fresh
        if len(fresh) < count:
            kept = 0
            for position, key in enumerate(some):
                if key in fresh:
                    fresh.remove(key)
                    value = bytes(values[position * value_size : (position + 1) * value_size])
                    keys[kept * key_size : (kept + 1) * key_size] = key
                    values[kept * value_size : (kept + 1) * value_size] = value
                    kept += 1
        if kept:
            yield keys, values, kept
        steps -= count
        if steps <= 0:
            return


def _bound(max_entries: int) -> int:
    """How many steps to go where the kernel may always begin again."""
    return 8 * max_entries + 1024


def walk_chunks(
    keys: Iterator[bytes], lookup: Callable[[bytes], bytes | None] | None, key_size: int, value_size: int
) -> Iterator[Chunk]:
    """The keys of a walk in chunks, with their values. Keys without a value are left out; without `lookup` none is."""
    held = bytearray(key_size * WALK_ENTRIES)
    values = bytearray(value_size * WALK_ENTRIES)
    count = 0
    for key in keys:
        if lookup is not None:
            value = lookup(key)
            if value is None:
                continue
            values[value_size * count : value_size * (count + 1)] = value
        held[key_size * count : key_size * (count + 1)] = key
        count += 1
        if count == WALK_ENTRIES:
            yield memoryview(held), memoryview(values), count
            count = 0
    if count:
        yield memoryview(held), memoryview(values), count
