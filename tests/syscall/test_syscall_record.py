"""Structs in buffers."""

from __future__ import annotations

import array
import ctypes
import mmap
import struct
import sys

import pytest

from pybpf.syscall.door import pointer
from pybpf.syscall.record import Record, decode


def memory_at(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(array.array("I", data)),
        lambda data: memoryview(bytearray(b"".join(bytes([byte, 0]) for byte in data)))[::2],
    ],
    ids=["bytes", "bytearray", "read-only view", "view", "view of ints", "strided view"],
)
def test_pointers(make: object) -> None:
    buffer = make(b"abcdefgh")  # type: ignore[operator]
    address, alive = pointer(buffer)
    assert memory_at(address, 8) == b"abcdefgh"
    assert alive is not None


def test_pointer_to_mapped_memory() -> None:
    with mmap.mmap(-1, 4096) as memory:
        memory[:5] = b"hello"
        address, alive = pointer(memory)
        assert memory_at(address, 5) == b"hello"
        del alive


def test_pointer_to_writable_memory_is_no_copy() -> None:
    buffer = bytearray(8)
    address, alive = pointer(memoryview(buffer)[4:])
    ctypes.memset(address, 7, 4)
    assert buffer == b"\0\0\0\0\7\7\7\7"
    del alive


def test_fields() -> None:
    record = Record("BPF_MAP_CREATE")
    assert record.data == bytes(92)
    record.put(map_type=1, map_extra=2**64 - 1, value_type_btf_obj_fd=-1, max_entries=0)
    record.text("map_name", "fifteen_letters")
    assert struct.unpack_from("=I", record.data, 0) == (1,)
    assert struct.unpack_from("=Q", record.data, 64) == (2**64 - 1,)
    assert struct.unpack_from("=i", record.data, 72) == (-1,)
    assert record.data[28:44] == b"fifteen_letters\0"
    assert record["value_type_btf_obj_fd"] == -1
    fields = decode("BPF_MAP_CREATE", record.data)
    assert fields["map_name"] == "fifteen_letters" and fields["map_type"] == 1


def test_numbers_that_do_not_fit_are_refused() -> None:
    record = Record("BPF_MAP_CREATE")
    for name, value in (("key_size", -1), ("key_size", 2**32), ("map_extra", 2**64)):
        with pytest.raises(ValueError, match=f"BPF_MAP_CREATE: {name} = {value} does not fit"):
            record.put(**{name: value})
    for name in ("sixteen_letters_", "nul\0", "umlaut_ä"):
        with pytest.raises(ValueError, match="map_name"):
            record.text("map_name", name)
    assert record.data == bytes(92)


def test_minus_one_is_no_descriptor() -> None:
    record = Record("BPF_LINK_CREATE")
    record.put(target_fd=-1)
    record["uprobe_multi.pid"] = -1
    assert record.data[4:8] == record.data[56:60] == b"\xff" * 4


def test_single_bits() -> None:
    record = Record("perf_event_attr")
    record.put(disabled=1, precise_ip=3, sigtrap=1)
    unit = int.from_bytes(record.data[40:48], "little")
    if sys.byteorder == "little":
        assert unit == 1 | 3 << 15 | 1 << 37
    else:
        assert int.from_bytes(record.data[40:48], "big") == 1 << 63 | 3 << 47 | 1 << 26
    record.put(precise_ip=1)
    fields = decode("perf_event_attr", record.data)
    assert (fields["disabled"], fields["precise_ip"], fields["sigtrap"], fields["mmap"]) == (1, 1, 1, 0)
    with pytest.raises(ValueError, match="precise_ip = 4 does not fit into 2 bits"):
        record.put(precise_ip=4)


def test_buffers_stay_alive_and_are_let_go() -> None:
    record = Record("BPF_PROG_LOAD")
    log = bytearray(100)
    record.point("log_buf", log)
    record.point("license", None)
    record.point("func_info", b"")
    assert record["log_buf"] and not record["license"] and not record["func_info"]
    with pytest.raises(BufferError):
        log.extend(b"x")
    record.release()
    log.extend(b"x")


def test_decode_of_a_short_struct_leaves_fields_out() -> None:
    fields = decode("BPF_MAP_LOOKUP_ELEM", bytes(24))
    assert list(fields) == ["map_fd", "key", "value"]
