"""The helper functions that make sense without a kernel.

Rules of this module:

* A helper is a Python function of the processor and of as many arguments as it uses. It gives the number for r0;
  errors are negative errno values, as in the kernel.
* One that calls back into the program is a generator, see `pybpf.sim.cpu`.
* What depends on the machine (time, random numbers, the current task) comes from the `Kernel`, where a test sets it.

Source: the comments of linux/bpf.h; kernel/bpf/helpers.c, kernel/trace/bpf_trace.c, net/core/filter.c.
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf.errors import SimulationError
from pybpf.sim.context import ETHERNET, MAX_METADATA, Packet
from pybpf.sim.cpu import MASK32, MASK64, MAX_TAIL_CALLS, signed
from pybpf.sim.events import EventMap
from pybpf.sim.maps import BloomMap, QueueMap, SimMap, ThingMap
from pybpf.sim.text import format_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

    from pybpf.sim.kernel import Run
    from pybpf.sim.memory import ByteOrder

    Callback = Generator[tuple[int, tuple[int, ...]], int, int]

MAX_LOOPS = 8 << 20
"""BPF_MAX_LOOPS (include/linux/bpf.h)."""
TC_ACT_SHOT, TC_ACT_REDIRECT = 2, 7
"""include/uapi/linux/pkt_cls.h."""
XDP_FRAME_SIZE = 40
"""Bytes of the headroom that struct xdp_frame takes."""

HELPERS: dict[str, Callable[..., Any]] = {}
"""Name without ``bpf_`` -> the function."""


def helper(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            HELPERS[name] = function
        return function

    return register


def _map(run: Run, address: int, *kinds: type[SimMap]) -> Any:
    thing = run.memory.thing(address)
    if not isinstance(thing, kinds or (SimMap,)):
        raise SimulationError(f"this helper does not take {thing!r}")
    return thing


# Maps


@helper("map_lookup_elem")
def map_lookup_elem(run: Run, map: int, key: int) -> int:
    found = _map(run, map)
    if isinstance(found, BloomMap):
        raise SimulationError("bloom filters are asked with bpf_map_peek_elem")
    return int(found.lookup(run.memory.read(key, found.key_size)))


@helper("map_lookup_percpu_elem")
def map_lookup_percpu_elem(run: Run, map: int, key: int, cpu: int) -> int:
    found = _map(run, map)
    return int(found.lookup_on(run.memory.read(key, found.key_size), cpu & MASK32))


@helper("map_update_elem")
def map_update_elem(run: Run, map: int, key: int, value: int, flags: int) -> int:
    found = _map(run, map)
    memory = run.memory
    return int(found.update(memory.read(key, found.key_size), memory.read(value, found.value_size), flags))


@helper("map_delete_elem")
def map_delete_elem(run: Run, map: int, key: int) -> int:
    found = _map(run, map)
    return int(found.delete(run.memory.read(key, found.key_size)))


@helper("map_push_elem")
def map_push_elem(run: Run, map: int, value: int, flags: int) -> int:
    found = _map(run, map, QueueMap)
    return int(found.push_bytes(run.memory.read(value, found.value_size), flags))


@helper("map_pop_elem")
def map_pop_elem(run: Run, map: int, value: int) -> int:
    return _take(run, map, value, True)


@helper("map_peek_elem")
def map_peek_elem(run: Run, map: int, value: int) -> int:
    found = _map(run, map, QueueMap)
    if isinstance(found, BloomMap):
        return 0 if found.contains(run.memory.read(value, found.value_size)) else -errno.ENOENT
    return _take(run, map, value, False)


def _take(run: Run, map: int, value: int, remove: bool) -> int:
    found = _map(run, map, QueueMap)
    data = found.peek_bytes(remove)
    run.memory.write(value, bytes(found.value_size) if data is None else data)
    return 0 if data is not None else -errno.ENOENT


@helper("for_each_map_elem")
def for_each_map_elem(run: Run, map: int, callback: int, context: int, flags: int) -> Callback | int:
    found = _map(run, map)
    return -errno.EINVAL if flags else _each(run, found, map, callback, context)


def _each(run: Run, found: SimMap, map: int, callback: int, context: int) -> Callback:
    index = run.cpu.frame.code.index_at(callback)
    done = 0
    for key, value in found.elements():
        with run.borrowed(key) as place:
            done += 1
            if (yield index, (map, place, value, context)):
                break
    return done


@helper("loop")
def loop(run: Run, count: int, callback: int, context: int, flags: int) -> Callback | int:
    if flags:
        return -errno.EINVAL
    if count & MASK32 > MAX_LOOPS:
        return -errno.E2BIG
    return _times(run, count & MASK32, callback, context)


def _times(run: Run, count: int, callback: int, context: int) -> Callback:
    index = run.cpu.frame.code.index_at(callback)
    for number in range(count):
        if (yield index, (number, context)):
            return number + 1
    return count


@helper("tail_call")
def tail_call(run: Run, context: int, map: int, number: int) -> int | None:
    found = _map(run, map, ThingMap)
    if found.type_number != c.BPF_MAP_TYPE_PROG_ARRAY:
        raise SimulationError(f"bpf_tail_call() does not take {found!r}")
    program = found.thing((number & MASK32).to_bytes(4, run.memory.byte_order))
    if program is None or run.cpu.tail_calls >= MAX_TAIL_CALLS:
        return -errno.ENOENT
    run.cpu.tail_calls += 1
    run.cpu.tail_call(program.code, context)
    return None


# Events


@helper("ringbuf_output")
def ringbuf_output(run: Run, map: int, data: int, size: int, flags: int) -> int:
    record = run.memory.read(data, size)
    if flags & ~(c.BPF_RB_NO_WAKEUP | c.BPF_RB_FORCE_WAKEUP):
        return -errno.EINVAL
    return int(_map(run, map, EventMap).output(record))


@helper("ringbuf_reserve")
def ringbuf_reserve(run: Run, map: int, size: int, flags: int) -> int:
    found = _map(run, map, EventMap)
    return 0 if flags else int(found.reserve(size))


@helper("ringbuf_submit")
def ringbuf_submit(run: Run, record: int, flags: int) -> int:
    run.kernel.ring_of(record).finish(record, True)
    return 0


@helper("ringbuf_discard")
def ringbuf_discard(run: Run, record: int, flags: int) -> int:
    run.kernel.ring_of(record).finish(record, False)
    return 0


@helper("perf_event_output", "skb_output", "xdp_output")
def perf_event_output(run: Run, context: int, map: int, flags: int, data: int, size: int) -> int:
    record = run.memory.read(data, size)
    found = _map(run, map, EventMap)
    if flags & ~(c.BPF_F_CTXLEN_MASK | c.BPF_F_INDEX_MASK):
        return -errno.EINVAL
    index = flags & c.BPF_F_INDEX_MASK
    if index != c.BPF_F_CURRENT_CPU and index >= (found.max_entries or run.kernel.cpus):
        return -errno.E2BIG
    more = flags >> 32 & 0xFFFFF
    if more and run.context.packet is not None:  # the beginning of the packet goes with it
        content = run.context.packet.content
        if more > len(content):
            return -errno.EFAULT
        record += content[:more]
    return int(found.output(record))


@helper("trace_printk")
def trace_printk(run: Run, text: int, size: int, *values: int) -> int:
    return _print(run, text, size, values)


@helper("trace_vprintk")
def trace_vprintk(run: Run, text: int, size: int, data: int, length: int) -> int:
    words = _words(run, data, length)
    return -errno.EINVAL if words is None else _print(run, text, size, words)


def _print(run: Run, text: int, size: int, values: Sequence[int | None]) -> int:
    shown, end, _ = run.memory.read(text, size).partition(b"\0")
    return run.print(shown, values) if end else -errno.EINVAL


@helper("snprintf")
def snprintf(run: Run, out: int, size: int, text: int, data: int, length: int) -> int:
    words = _words(run, data, length)
    made = None if words is None else format_text(run.memory.read_text(text, 1 << 12), words, run.memory)
    if made is None:
        return -errno.EINVAL
    made += b"\0"
    if size:
        run.memory.write(out, made[: size - 1] + b"\0" if len(made) > size else made)
    return len(made)


def _words(run: Run, data: int, length: int) -> list[int] | None:
    """The values of a format; None when their number is refused (MAX_BPRINTF_VARARGS)."""
    if length % 8 or length > 12 * 8:
        return None
    raw = run.memory.read(data, length) if length else b""
    return [int.from_bytes(raw[at : at + 8], run.memory.byte_order) for at in range(0, len(raw), 8)]


# The machine


@helper("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns")
def ktime_get_ns(run: Run) -> int:
    return run.kernel.read_clock()


@helper("jiffies64")
def jiffies64(run: Run) -> int:
    return run.kernel.read_clock() * run.kernel.hz // 1_000_000_000


@helper("get_prandom_u32")
def get_prandom_u32(run: Run) -> int:
    return run.kernel.random.getrandbits(32)


@helper("get_smp_processor_id")
def get_smp_processor_id(run: Run) -> int:
    return run.kernel.cpu


@helper("get_numa_node_id")
def get_numa_node_id(run: Run) -> int:
    return 0


@helper("get_current_pid_tgid")
def get_current_pid_tgid(run: Run) -> int:
    return run.kernel.tgid << 32 | run.kernel.pid


@helper("get_current_uid_gid")
def get_current_uid_gid(run: Run) -> int:
    return run.kernel.gid << 32 | run.kernel.uid


@helper("get_current_comm")
def get_current_comm(run: Run, out: int, size: int) -> int:
    run.memory.clear(out, size)
    run.memory.write(out, run.kernel.comm.encode()[: max(size - 1, 0)])
    return 0


@helper("get_current_cgroup_id")
def get_current_cgroup_id(run: Run) -> int:
    return run.kernel.cgroup_id


@helper("get_current_task", "get_current_task_btf")
def get_current_task(run: Run) -> int:
    if not run.kernel.task:
        raise SimulationError("nothing is known of the current task: set `kernel.task` to its address")
    return run.kernel.task


@helper("get_attach_cookie")
def get_attach_cookie(run: Run, context: int) -> int:
    return run.kernel.cookie


@helper("spin_lock", "spin_unlock")
def spin_lock(run: Run, lock: int) -> int:
    return 0


# Memory


@helper("probe_read", "probe_read_kernel", "probe_read_user", "copy_from_user")
def probe_read(run: Run, out: int, size: int, address: int) -> int:
    """Reading what is not there is no fault of the program: the buffer is filled with zeros."""
    try:
        run.memory.write(out, run.memory.read(address, size))
    except SimulationError:
        run.memory.clear(out, size)
        return -errno.EFAULT
    return 0


@helper("probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
def probe_read_str(run: Run, out: int, size: int, address: int) -> int:
    try:
        text = run.memory.read_text(address, size)
    except SimulationError:
        run.memory.clear(out, size)
        return -errno.EFAULT
    text = text[: size - 1] + b"\0" if size else b""
    run.memory.write(out, text)
    return len(text)


@helper("strncmp")
def strncmp(run: Run, first: int, size: int, second: int) -> int:
    one = run.memory.read(first, size).partition(b"\0")[0]
    other = run.memory.read_text(second, size)
    return (one > other) - (one < other)


@helper("strtol")
def strtol(run: Run, text: int, size: int, flags: int, out: int) -> int:
    return _to_number(run, text, size, flags, out, True)


@helper("strtoul")
def strtoul(run: Run, text: int, size: int, flags: int, out: int) -> int:
    return _to_number(run, text, size, flags, out, False)


def _to_number(run: Run, text: int, size: int, flags: int, out: int, is_signed: bool) -> int:
    base = flags & 31
    if base not in (0, 8, 10, 16) or flags & ~31:
        return -errno.EINVAL
    raw = run.memory.read(text, size).partition(b"\0")[0].decode("latin-1")
    rest = raw.lstrip()
    at = len(raw) - len(rest)
    negative = is_signed and rest[:1] == "-"
    at += negative
    rest = raw[at:].lower()
    if base in (0, 16) and rest[:2] == "0x":
        base, at = 16, at + 2
    elif base == 0:
        base = 8 if rest[:1] == "0" else 10
    digits = "0123456789abcdef"[:base]
    end = at
    while end < len(raw) and raw[end].lower() in digits:
        end += 1
    if end == at:
        return -errno.EINVAL
    number = int(raw[at:end], base) * (-1 if negative else 1)
    if not (-(1 << 63) <= number < 1 << 63 if is_signed else number < 1 << 64):
        return -errno.ERANGE
    run.memory.store(out, 8, number & MASK64)
    return end


@helper("csum_diff")
def csum_diff(run: Run, old: int, old_size: int, new: int, new_size: int, seed: int) -> int:
    """The difference of two Internet checksums, folded to 16 bits as kernels from 6.13 on do it on every machine."""
    order = run.memory.byte_order
    total = seed & MASK32
    less = _sum16(run.memory.read(old, old_size), order)
    if new_size:
        total = _add32(total, _sum16(run.memory.read(new, new_size), order))
        total = _add32(total, less ^ MASK32) if old_size else total
    elif old_size:  # not the same for sums of 0, which ones' complement has twice
        total = _add32(total ^ MASK32, less) ^ MASK32
    return (total + (total >> 16 | total << 16 & MASK32) & MASK32) >> 16


def _sum16(data: bytes, byte_order: ByteOrder) -> int:
    padded = data + bytes(len(data) % 2)
    return sum(int.from_bytes(padded[at : at + 2], byte_order) for at in range(0, len(padded), 2))


def _add32(one: int, other: int) -> int:
    """Ones' complement: what is carried out comes back in."""
    total = one + other
    return (total & MASK32) + (total >> 32)


# Packets


def _packet(run: Run) -> Packet:
    if run.context.packet is None:
        raise SimulationError("this kind of program has no packet")
    return run.context.packet


@helper("skb_load_bytes", "xdp_load_bytes")
def skb_load_bytes(run: Run, context: int, offset: int, out: int, size: int) -> int:
    content = _packet(run).content
    offset &= MASK32
    if offset + size > len(content):
        if not run.is_skb:
            return _beyond_xdp(offset, size)
        run.memory.clear(out, size)
        return -errno.EFAULT
    run.memory.write(out, content[offset : offset + size])
    return 0


@helper("skb_store_bytes")
def skb_store_bytes(run: Run, context: int, offset: int, data: int, size: int, flags: int) -> int:
    if flags & ~(c.BPF_F_RECOMPUTE_CSUM | c.BPF_F_INVALIDATE_HASH):
        return -errno.EINVAL
    return _store_bytes(run, offset, data, size, -errno.EFAULT)


@helper("xdp_store_bytes")
def xdp_store_bytes(run: Run, context: int, offset: int, data: int, size: int) -> int:
    return _store_bytes(run, offset, data, size, _beyond_xdp(offset & MASK32, size))


def _beyond_xdp(offset: int, size: int) -> int:
    """The refusal of bytes that are not there: no XDP packet has places above 65535."""
    return -errno.EFAULT if max(offset, size) > 0xFFFF else -errno.EINVAL


def _store_bytes(run: Run, offset: int, data: int, size: int, refusal: int) -> int:
    packet = _packet(run)
    start = packet.start + (offset & MASK32)
    if start + size > packet.end:
        return refusal
    packet.data[start : start + size] = run.memory.read(data, size)
    return 0


@helper("skb_pull_data")
def skb_pull_data(run: Run, context: int, size: int) -> int:
    return 0 if size & MASK32 <= len(_packet(run).content) else -errno.ENOMEM


@helper("xdp_get_buff_len")
def xdp_get_buff_len(run: Run, context: int) -> int:
    return len(_packet(run).content)


@helper("xdp_adjust_head")
def xdp_adjust_head(run: Run, context: int, delta: int) -> int:
    packet = _packet(run)
    size = packet.start - packet.meta  # metadata moves along
    start = packet.start + signed(delta, 32)
    if start < XDP_FRAME_SIZE + size or start > packet.end - ETHERNET:
        return -errno.EINVAL
    packet.data[start - size : start] = packet.data[packet.meta : packet.start]
    packet.start, packet.meta = start, start - size
    return 0


@helper("xdp_adjust_tail")
def xdp_adjust_tail(run: Run, context: int, delta: int) -> int:
    packet = _packet(run)
    end = packet.end + signed(delta, 32)
    if end > len(packet.data) or end < packet.start + ETHERNET:
        return -errno.EINVAL
    if end > packet.end:
        packet.data[packet.end : end] = bytes(end - packet.end)
    packet.end = end
    return 0


@helper("xdp_adjust_meta")
def xdp_adjust_meta(run: Run, context: int, delta: int) -> int:
    packet = _packet(run)
    meta = packet.meta + signed(delta, 32)
    if not XDP_FRAME_SIZE <= meta <= packet.start:
        return -errno.EINVAL
    if (packet.start - meta) % 4 or packet.start - meta > MAX_METADATA:
        return -errno.EACCES
    packet.meta = meta
    return 0


@helper("redirect")
def redirect(run: Run, interface: int, flags: int) -> int:
    is_xdp = run.program.spec.type_number == c.BPF_PROG_TYPE_XDP
    if flags & ~(0 if is_xdp else c.BPF_F_INGRESS):
        return c.XDP_ABORTED if is_xdp else TC_ACT_SHOT
    run.redirect = interface & MASK32
    return c.XDP_REDIRECT if is_xdp else TC_ACT_REDIRECT


@helper("redirect_map")
def redirect_map(run: Run, map: int, key: int, flags: int) -> int:
    found = _map(run, map, ThingMap)
    is_of_devices = found.type_number in (c.BPF_MAP_TYPE_DEVMAP, c.BPF_MAP_TYPE_DEVMAP_HASH)
    if flags & ~(3 | (c.BPF_F_BROADCAST | c.BPF_F_EXCLUDE_INGRESS if is_of_devices else 0)):
        return c.XDP_ABORTED
    if flags & c.BPF_F_BROADCAST:
        run.redirect = list(found.things.values())
        return c.XDP_REDIRECT
    thing = found.thing((key & MASK32).to_bytes(4, run.memory.byte_order))
    if thing is None:
        return flags & 3
    run.redirect = thing
    return c.XDP_REDIRECT
