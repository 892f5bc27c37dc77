"""The codec's rules, on types built by hand."""

from __future__ import annotations

import copy
import enum
import json
import math
import mmap
import pickle
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf.codec import Codec, c_name, codec
from pybpf.btf.kinds import COMPOSITE_KINDS, INT_BOOL, INT_CHAR, INT_SIGNED, Member
from pybpf.btf.reader import BTF
from pybpf.btf.records import Overlay, Record, field_name, field_names, to_json
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

VMLINUX = Path("/sys/kernel/btf/vmlinux")


class Types:
    """A builder with the usual types in it."""

    def __init__(self, byte_order: str = "little") -> None:
        self.builder = b = BTFBuilder(byte_order)
        self.char = b.add_int("char", 1, 8, INT_SIGNED)
        self.schar = b.add_int("signed char", 1, 8, INT_SIGNED)
        self.u8 = b.add_int("unsigned char", 1, 8)
        self.i32 = b.add_int("int", 4, 32, INT_SIGNED)
        self.unsigned = b.add_int("unsigned int", 4, 32)
        self.u64 = b.add_int("unsigned long", 8, 64)
        self.bool = b.add_int("_Bool", 1, 8, INT_BOOL)
        self.u32 = b.add_typedef("u32", self.unsigned)
        self.double = b.add_float("double", 8)

    def array(self, type_id: int, count: int) -> int:
        return self.builder.add_array(type_id, self.unsigned, count)

    def codec(self, type_id: int) -> Codec:
        return codec(BTF.from_bytes(self.builder.to_bytes()), type_id)

    def struct(self, size: int, *members: tuple[str, int, int], name: str = "event") -> Codec:
        """Members as (name, type id, byte offset)."""
        return self.codec(self.add_struct(size, *members, name=name))

    def add_struct(self, size: int, *members: tuple[str, int, int], name: str = "event") -> int:
        return self.builder.add_struct(name, size, [(name, type_id, offset * 8) for name, type_id, offset in members])


@pytest.fixture
def types() -> Types:
    return Types()


def event_codec(types: Types) -> Codec:
    return types.struct(
        32,
        ("pid", types.u32, 0),
        ("uid", types.u32, 4),
        ("ts", types.u64, 8),
        ("comm", types.array(types.char, 16), 16),
    )


EVENT = struct.pack("<IIQ16s", 7, 1000, 1 << 40, b"bash")


class TestScalars:
    @pytest.mark.parametrize("byte_order", ["little", "big"])
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16])
    @pytest.mark.parametrize("signed", [False, True])
    def test_int_bounds(self, byte_order: Any, size: int, signed: bool) -> None:
        types = Types(byte_order)
        found = types.codec(types.builder.add_int("number", size, size * 8, INT_SIGNED if signed else 0))
        low, high = (-(1 << (size * 8 - 1)), (1 << (size * 8 - 1)) - 1) if signed else (0, (1 << size * 8) - 1)
        for value in (low, high, 1):
            data = value.to_bytes(size, byte_order, signed=signed)
            assert found.encode(value) == data
            assert found.decode(data) == value
            assert list(found.decode_run(data * 3, 0, size, 3)) == [value] * 3
        for value in (low - 1, high + 1):
            with pytest.raises(OverflowError, match=rf"{value} does not fit number \({low} to {high}\)"):
                found.encode(value)

    @pytest.mark.parametrize("value", ["1", 1.0, None, b"\0\0\0\0", [1]])
    def test_int_takes_integers_only(self, types: Types, value: object) -> None:
        with pytest.raises(TypeError, match="u32 takes an integer"):
            types.codec(types.u32).encode(value)

    def test_int_takes_what_has_an_index(self, types: Types) -> None:
        class Seven:
            def __index__(self) -> int:
                return 7

        assert types.codec(types.u32).encode(Seven()) == b"\7\0\0\0"
        assert types.codec(types.u32).encode(True) == b"\1\0\0\0"

    def test_bool(self, types: Types) -> None:
        found = types.codec(types.bool)
        assert [found.decode(bytes([byte])) for byte in (0, 1, 2)] == [False, True, True]
        assert found.decode(b"\1") is True
        assert found.encode(True) == found.encode(1) == b"\1"
        with pytest.raises(TypeError):
            found.encode("yes")
        with pytest.raises(OverflowError):
            found.encode(2)

    def test_wide_bool(self, types: Types) -> None:
        found = types.codec(types.builder.add_int("bool", 4, 32, INT_BOOL))
        assert found.encode(True) == b"\1\0\0\0"
        assert found.decode(b"\0\0\1\0") is True
        assert found.decode(bytes(4)) is False

    @pytest.mark.parametrize(("size", "code"), [(2, "e"), (4, "f"), (8, "d")])
    def test_float(self, types: Types, size: int, code: str) -> None:
        found = types.codec(types.builder.add_float("number", size))
        for value in (0.5, -1.0, math.inf):
            assert found.encode(value) == struct.pack(f"<{code}", value)
            assert found.decode(found.encode(value)) == value
        assert math.isnan(found.decode(found.encode(math.nan)))
        assert found.encode(3) == found.encode(3.0)
        with pytest.raises(OverflowError, match="does not fit number"):
            found.encode(10**400 if size == 8 else 1e300)
        with pytest.raises(TypeError):
            found.encode("1.5")

    def test_long_double_is_bytes(self, types: Types) -> None:
        found = types.codec(types.builder.add_float("long double", 16))
        assert found.decode(bytes(range(16))) == bytes(range(16))
        assert found.encode(bytes(range(16))) == bytes(range(16))
        with pytest.raises(ValueError, match="takes 16 bytes, not 1"):
            found.encode(b"x")

    def test_pointer_is_an_address(self, types: Types) -> None:
        found = types.codec(types.builder.add_ptr(0))
        assert found.encode(0xFFFF_8000_0000_0000) == struct.pack("<Q", 0xFFFF_8000_0000_0000)
        assert found.c_name == "void *"

    def test_modifiers_and_variables_are_looked_through(self, types: Types) -> None:
        variable = types.builder.add_var("x", types.builder.add_volatile(types.builder.add_const(types.u32)), 1)
        assert types.codec(variable).decode(b"\5\0\0\0") == 5
        assert types.codec(variable).c_name == "u32"

    def test_legacy_bitfield_type(self, types: Types) -> None:
        found = types.codec(types.builder.add_int("odd", 1, 3, INT_SIGNED, bit_offset=2))
        assert found.decode(b"\x1c") == -1
        assert found.encode(-4) == b"\x10"
        with pytest.raises(OverflowError, match="odd:3"):
            found.encode(4)


class TestEnums:
    def enum(self, types: Types, size: int = 4, signed: bool = False) -> Codec:
        return types.codec(types.builder.add_enum("state", size, signed, [("IDLE", 0), ("BUSY", 5), ("SAME", 5)]))

    def test_members(self, types: Types) -> None:
        found = self.enum(types)
        value = found.decode(b"\5\0\0\0")
        assert isinstance(value, enum.IntEnum)
        assert (value, value.name, str(value)) == (5, "BUSY", "5")
        assert found.decode(b"\5\0\0\0") is value
        assert found.decode(b"\6\0\0\0") == 6
        assert type(found.decode(b"\6\0\0\0")) is int
        assert found.c_name == "enum state"

    def test_names_and_numbers_encode(self, types: Types) -> None:
        found = self.enum(types)
        assert found.encode("SAME") == found.encode(5) == found.encode(found.decode(b"\5\0\0\0")) == b"\5\0\0\0"
        with pytest.raises(ValueError, match=r"no member 'NOPE' \(it has IDLE, BUSY, SAME\)"):
            found.encode("NOPE")
        with pytest.raises(OverflowError):
            found.encode(-1)

    def test_signed_small_enum(self, types: Types) -> None:
        found = types.codec(types.builder.add_enum("e", 1, True, [("LOW", -2)]))
        assert found.decode(b"\xfe").name == "LOW"

    def test_enum64_and_anonymous(self, types: Types) -> None:
        found = types.codec(types.builder.add_enum64("", 8, False, [("HUGE", 1 << 63)]))
        assert found.decode(struct.pack("<Q", 1 << 63)).name == "HUGE"
        assert found.encode("HUGE") == struct.pack("<Q", 1 << 63)

    def test_typedef_names_an_anonymous_enum(self, types: Types) -> None:
        anonymous = types.builder.add_enum("", 4, False, [("A", 1)])
        found = types.codec(types.builder.add_typedef("state_t", anonymous))
        assert type(found.decode(b"\1\0\0\0")).__name__ == "state_t"

    def test_names_that_an_enum_cannot_have(self, types: Types) -> None:
        names = ["mro", "_ignore_", "__doc__", "class", "name", "value", "x"]
        type_id = types.builder.add_enum("odd", 4, False, [(name, number) for number, name in enumerate(names)])
        found = types.codec(type_id)
        members = [found.decode(struct.pack("<I", number)) for number in range(len(names))]
        assert [int(member) for member in members] == list(range(len(names)))
        assert [found.encode(name) for name in names] == [struct.pack("<I", number) for number in range(len(names))]

    def test_pickles_as_its_number(self, types: Types) -> None:
        value = self.enum(types).decode(b"\5\0\0\0")
        assert pickle.loads(pickle.dumps(value)) == 5
        assert copy.deepcopy(value) == 5


class TestArrays:
    def test_text(self, types: Types) -> None:
        found = types.codec(types.array(types.char, 4))
        assert found.c_name == "char[4]"
        assert found.decode(b"ab\0c") == "ab"
        assert found.decode(b"abcd") == "abcd"
        assert found.encode("ab") == found.encode(b"ab") == found.encode("ab\0") == b"ab\0\0"
        assert found.encode("abcd") == b"abcd"
        with pytest.raises(ValueError, match="is 5 bytes, too long"):
            found.encode("abcde")
        with pytest.raises(ValueError, match="NUL inside"):
            found.encode("a\0b")
        with pytest.raises(TypeError, match="takes str or bytes"):
            found.encode(5)
        with pytest.raises(ValueError, match="not UTF-8"):
            found.encode("\ud800")

    @given(st.binary(max_size=100), st.integers(100, 120))
    def test_any_text_comes_back(self, data: bytes, size: int) -> None:
        data = data.replace(b"\0", b"")
        types = Types()
        for length in (size, max(1, len(data))):
            found = types.codec(types.array(types.char, length))
            assert found.encode(found.decode(data.ljust(length, b"\0"))) == data.ljust(length, b"\0")

    @pytest.mark.parametrize("encoding", [0, INT_SIGNED, INT_CHAR, INT_CHAR | INT_SIGNED])
    def test_char_is_text_however_it_is_encoded(self, types: Types, encoding: int) -> None:
        """Compilers encode it differently, and each by whether it is signed on the machine it is for."""
        char = types.builder.add_int("char", 1, 8, encoding)
        assert types.codec(types.array(types.builder.add_const(char), 2)).decode(b"a\0") == "a"

    def test_other_characters_are_no_text(self, types: Types) -> None:
        """gcc sets INT_CHAR for all three kinds of char; a MAC address must not end at its first zero."""
        address = types.builder.add_int("unsigned char", 1, 8, INT_CHAR)
        assert types.codec(types.array(address, 3)).decode(b"\1\0\2") == b"\1\0\2"
        small = types.builder.add_int("signed char", 1, 8, INT_CHAR | INT_SIGNED)
        assert types.codec(types.array(small, 3)).decode(b"\1\0\xff") == [1, 0, -1]

    def test_unsigned_char_is_bytes(self, types: Types) -> None:
        found = types.codec(types.array(types.builder.add_typedef("__u8", types.u8), 3))
        assert found.decode(b"\0\1\2") == b"\0\1\2"
        assert found.encode([1, 2, 3]) == found.encode(bytearray(b"\1\2\3")) == b"\1\2\3"
        with pytest.raises(ValueError, match="takes 3 bytes, not 2"):
            found.encode(b"ab")
        with pytest.raises(OverflowError):
            found.encode([1, 2, 256])
        with pytest.raises(TypeError):
            found.encode("abc")

    def test_signed_char_is_a_list(self, types: Types) -> None:
        assert types.codec(types.array(types.schar, 2)).decode(b"\xff\1") == [-1, 1]

    @pytest.mark.parametrize("count", [0, 1, 16, 17, 300])
    def test_numbers(self, types: Types, count: int) -> None:
        found = types.codec(types.array(types.u64, count))
        values = list(range(count))
        assert found.decode(struct.pack(f"<{count}Q", *values)) == values
        assert found.encode(values) == found.encode(tuple(values)) == struct.pack(f"<{count}Q", *values)
        with pytest.raises(ValueError, match=f"takes {count} items, not {count + 1}"):
            found.encode([*values, 1])

    def test_nested(self, types: Types) -> None:
        found = types.codec(types.array(types.array(types.array(types.i32, 2), 3), 1))
        assert found.c_name == "int[1][3][2]"
        assert found.decode(struct.pack("<6i", *range(6))) == [[[0, 1], [2, 3], [4, 5]]]
        assert found.encode([[[0, 1], [2, 3], [4, 5]]]) == struct.pack("<6i", *range(6))
        with pytest.raises(OverflowError, match=r"^\[0\]\[2\]\[1\]: 4294967296 does not fit int"):
            found.encode([[[0, 1], [2, 3], [4, 1 << 32]]])
        with pytest.raises(TypeError, match="takes a list"):
            found.encode([[[0, 1], 5, [4, 5]]])
        with pytest.raises(TypeError, match="takes a list, not {0, 1}"):  # a set has no order
            found.encode([[[0, 1], {0, 1}, [4, 5]]])

    def test_of_text_and_of_enums(self, types: Types) -> None:
        names = types.array(types.array(types.char, 4), 2)
        assert types.codec(names).decode(b"ab\0\0cd\0\0") == ["ab", "cd"]
        state = types.builder.add_enum("state", 4, False, [("IDLE", 0), ("BUSY", 5)])
        decoded = types.codec(types.array(state, 2)).decode(b"\5\0\0\0\1\0\0\0")
        assert [getattr(value, "name", None) for value in decoded] == ["BUSY", None]


class TestStructs:
    def test_record(self, types: Types) -> None:
        event = event_codec(types).decode(EVENT)
        assert (event.pid, event.uid, event.ts, event.comm) == (7, 1000, 1 << 40, "bash")
        assert repr(event) == "event(pid=7, uid=1000, ts=1099511627776, comm='bash')"
        assert isinstance(event, Record)
        assert event._fields == ("pid", "uid", "ts", "comm")
        assert list(event) == [7, 1000, 1 << 40, "bash"]
        assert event == (7, 1000, 1 << 40, "bash") == event_codec(types).decode(EVENT)
        assert hash(event) == hash((7, 1000, 1 << 40, "bash"))
        assert event.to_dict() == event._asdict() == {"pid": 7, "uid": 1000, "ts": 1 << 40, "comm": "bash"}
        assert event._replace(pid=8).pid == 8
        with pytest.raises(ValueError, match="no field 'nope'"):
            event._replace(nope=1)
        with pytest.raises(AttributeError):
            event.pid = 1

    def test_pickle_and_copy(self, types: Types) -> None:
        event = event_codec(types).decode(EVENT)
        again = pickle.loads(pickle.dumps(event))
        assert again == event
        assert repr(again) == repr(event)
        assert copy.copy(event) == copy.deepcopy(event) == event

    def test_offset_and_memory(self, types: Types) -> None:
        found = event_codec(types)
        value = found.decode(EVENT)
        assert found.decode(b"xyz" + EVENT, 3) == value
        assert found.decode(memoryview(bytearray(EVENT))) == value
        with mmap.mmap(-1, 4096) as memory:
            memory[100:132] = EVENT
            assert found.decode(memory, 100) == value
            assert list(found.decode_run(memory, 100, 32, 1)) == [value]

    @pytest.mark.parametrize(("have", "offset"), [(0, 0), (31, 0), (32, 1), (32, 40)])
    def test_short_buffer(self, types: Types, have: int, offset: int) -> None:
        left = max(0, have - offset)
        with pytest.raises(ValueError, match=f"struct event: needs 32 bytes at offset {offset}, have {left}"):
            event_codec(types).decode(bytes(have), offset)

    def test_short_length_and_negative_offset(self, types: Types) -> None:
        with pytest.raises(ValueError, match="needs 32 bytes at offset 0, have 30"):
            event_codec(types).decode(bytes(100), 0, 30)
        with pytest.raises(ValueError, match="offset -8 is negative"):
            event_codec(types).decode(bytes(100), -8)

    def test_encode_shapes(self, types: Types) -> None:
        found = event_codec(types)
        record = found.decode(EVENT)
        for value in (record, tuple(record), list(record), record.to_dict(), EVENT, iter(record)):
            assert found.encode(value) == EVENT
        assert found.encode({}) == bytes(32)
        assert found.encode({"pid": 7}) == b"\7" + bytes(31)

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            ({"pid": -1}, OverflowError, r"event\.pid: -1 does not fit u32 \(0 to 4294967295\)"),
            ((1, 2, 1 << 64, ""), OverflowError, r"event\.ts: 18446744073709551616 does not fit unsigned long"),
            ({"comm": "x" * 17}, ValueError, r"event\.comm: .* is 17 bytes, too long for char\[16\]"),
            ({"nope": 1}, ValueError, r"struct event has no field 'nope' \(it has pid, uid, ts, comm\)"),
            ({"pid": "1"}, TypeError, r"event\.pid: u32 takes an integer, not '1'"),
            ((1, 2), ValueError, "has 4 fields, not 2"),
            (b"short", ValueError, "takes 32 bytes, not 5"),
            (5, TypeError, "takes a record, a dict or a tuple, not 5"),
            ("abcd", TypeError, "takes a record"),
            ({1, 2, 3, 4}, TypeError, "takes a record"),
        ],
    )
    def test_encode_errors(self, types: Types, value: object, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            event_codec(types).encode(value)

    def test_where_replaces_the_name(self, types: Types) -> None:
        with pytest.raises(OverflowError, match=r"^key of map x\.pid: -1"):
            event_codec(types).encode({"pid": -1}, "key of map x")

    def test_nested_and_padding(self, types: Types) -> None:
        inner = types.add_struct(8, ("flag", types.u8, 0), ("count", types.u32, 4), name="inner")
        found = types.struct(24, ("first", inner, 0), ("all", types.array(inner, 2), 8))
        data = b"\1\xff\xff\xff\2\0\0\0" * 3
        value = found.decode(data)
        assert repr(value.first) == "inner(flag=1, count=2)"
        assert value.all == [(1, 2), (1, 2)]
        assert found.encode(value) == b"\1\0\0\0\2\0\0\0" * 3
        assert hash(value) == hash(copy.deepcopy(value))
        assert value.to_dict() == {"first": {"flag": 1, "count": 2}, "all": [{"flag": 1, "count": 2}] * 2}
        with pytest.raises(OverflowError, match=r"event\.all\[1\]\.flag: 256"):
            found.encode({"all": [{}, {"flag": 256}]})
        with pytest.raises(OverflowError, match=r"event\.first\.flag: 256"):
            found.encode(((256, 0), [(0, 0), (0, 0)]))

    def test_large_nested_struct(self, types: Types) -> None:
        inner = types.add_struct(400, *((f"m{number}", types.u32, number * 4) for number in range(100)), name="inner")
        found = types.struct(404, ("a", types.u32, 0), ("b", inner, 4))
        data = struct.pack("<101I", *range(101))
        assert tuple(found.decode(data).b) == tuple(range(1, 101))
        assert found.encode(found.decode(data)) == data

    def test_empty_struct(self, types: Types) -> None:
        found = types.struct(0)
        assert repr(found.default()) == "event()"
        assert found.encode(()) == b""
        assert len(list(found.decode_run(b"", 0, 0, 3))) == 3

    def test_names_python_cannot_have(self, types: Types) -> None:
        found = types.struct(
            20, *((name, types.u32, n * 4) for n, name in enumerate(["from", "0", "to_dict", "_fields", "__len__"]))
        )
        value = found.decode(struct.pack("<5I", *range(5)))
        assert value._fields == ("from_", "_0", "to_dict", "_fields_", "__len___")
        assert [getattr(value, name) for name in value._fields] == [0, 1, 2, 3, 4]
        assert repr(value) == "event(from_=0, _0=1, to_dict=2, _fields_=3, __len___=4)"
        assert found.encode({"from": 1, "_0": 2}) == found.encode({"from_": 1, "0": 2})

    def test_colliding_names_stay_apart(self) -> None:
        assert field_names(["from", "from_", "a", "a"]) == ("from_", "from__", "a", "a_")
        many = field_names(["a"] * 1000)
        assert many[7:9] == ("a_______", "a_8")
        assert len(set(many)) == 1000
        assert field_names(["a_8", *["a"] * 9])[-1] == "a_9"
        assert field_name("{impl#0}") == "_impl_0_"

    def test_section_of_variables(self, types: Types) -> None:
        first = types.builder.add_var("hits", types.u64, 1)
        second = types.builder.add_var("name", types.array(types.char, 8), 1)
        found = types.codec(types.builder.add_datasec(".bss", 16, [(first, 0, 8), (second, 8, 8)]))
        assert found.decode(struct.pack("<Q8s", 5, b"x")).to_dict() == {"hits": 5, "name": "x"}

    def test_encode_into(self, types: Types) -> None:
        found = event_codec(types)
        buffer = bytearray(40)
        found.encode_into(buffer, 4, {"pid": 7})
        assert buffer == bytes(4) + b"\7" + bytes(35)
        for offset in (-1, 9):
            with pytest.raises(ValueError, match="needs 32 bytes"):
                found.encode_into(buffer, offset, {})


class TestFlexible:
    def test_text(self, types: Types) -> None:
        found = types.struct(8, ("n", types.u32, 0), ("data", types.array(types.char, 0), 4))
        data = b"\1\0\0\0hello\0"
        assert found.decode(data + bytes(4)) == (1, "")
        assert found.decode(data, 0, len(data)) == (1, "hello")
        assert found.encode((1, "hello")) == b"\1\0\0\0hello"
        assert found.encode((1, "")) == b"\1\0\0\0\0\0\0\0"

    def test_bytes_and_numbers(self, types: Types) -> None:
        octets = types.struct(4, ("n", types.u32, 0), ("data", types.array(types.u8, 0), 4), name="a")
        assert octets.decode(b"\1\0\0\0\5\6", 0, 6) == (1, b"\5\6")
        assert octets.encode((1, b"\5\6")) == octets.encode({"n": 1, "data": [5, 6]}) == b"\1\0\0\0\5\6"
        numbers = types.struct(4, ("n", types.u32, 0), ("data", types.array(types.u32, 0), 4), name="b")
        data = struct.pack("<3I", 1, 2, 3)
        assert numbers.decode(data + b"xx", 0, 14) == (1, [2, 3])
        assert numbers.encode((1, [2, 3])) == data
        with pytest.raises(OverflowError, match=r"b\.data\[1\]"):
            numbers.encode((1, [2, -1]))

    def test_length_beyond_the_buffer(self, types: Types) -> None:
        for element in (types.u8, types.u32):
            found = types.struct(4, ("n", types.u32, 0), ("data", types.array(element, 0), 4), name=f"t{element}")
            with pytest.raises(ValueError, match="bytes at offset 4, have 2"):
                found.decode(b"\1\0\0\0\5\6", 0, 12)

    def test_no_room_inside_another(self, types: Types) -> None:
        inner = types.add_struct(4, ("n", types.u32, 0), ("data", types.array(types.u8, 0), 4), name="inner")
        found = types.struct(8, ("a", inner, 0), ("b", types.u32, 4))
        assert found.encode(({"n": 1}, 2)) == struct.pack("<2I", 1, 2)
        assert found.decode(struct.pack("<2I", 1, 2)) == ((1, b""), 2)
        with pytest.raises(ValueError, match="no room here"):
            found.encode(((1, b"xx"), 2))


class TestUnions:
    def union(self, types: Types) -> Codec:
        return types.codec(
            types.builder.add_union(
                "address", 16, [("v4", types.u32, 0), ("v6", types.array(types.u8, 16), 0), ("t", types.double, 0)]
            )
        )

    def test_members_share_bytes(self, types: Types) -> None:
        found = self.union(types)
        value = found.decode(bytes(range(16)))
        assert isinstance(value, Overlay)
        assert value.v4 == 0x03020100
        assert value.v6 == bytes(value) == bytes(range(16))
        assert value._fields == ("v4", "v6", "t")
        assert len(value) == 3
        assert repr(value).startswith("address(v4=50462976, v6=b'")
        assert value == found.decode(bytes(range(16)))
        assert value != found.decode(bytes(16))
        assert value != 5
        assert hash(value) == hash(found.decode(bytes(range(16))))
        again = self.union(Types()).decode(bytes(range(16)))
        assert type(again) is not type(value)
        assert (again == value, hash(again)) == (True, hash(value))
        other = types.codec(types.builder.add_union("address", 16, [("v4", types.array(types.u8, 4), 0)]))
        assert value != other.decode(bytes(range(16)))
        with pytest.raises(AttributeError):
            value.v4 = 1

    def test_encode(self, types: Types) -> None:
        found = self.union(types)
        assert found.encode({"v4": 1}) == b"\1" + bytes(15)
        assert found.encode({"v6": bytes(range(16))}) == bytes(range(16))
        assert found.encode(found.decode(bytes(range(16)))) == bytes(range(16))
        assert found.encode(bytes(range(16))) == bytes(range(16))
        assert found.encode({}) == bytes(16)
        with pytest.raises(ValueError, match=r"address: v[46] shares bytes with v[46], and they do not agree"):
            found.encode({"v4": 1, "v6": bytes(range(16))})
        with pytest.raises(TypeError, match="takes its own value or a dict"):
            found.encode((1,))
        with pytest.raises(OverflowError, match=r"address\.v4: -1"):
            found.encode({"v4": -1})

    @given(st.binary(min_size=16, max_size=16))
    def test_all_members_together_encode_back(self, data: bytes) -> None:
        types = Types()
        members = [("text", types.array(types.char, 16)), ("flag", types.bool), ("v6", types.array(types.u8, 16))]
        found = types.codec(
            types.builder.add_union("u", 16, [(name, id, 0) for name, id in [*members, ("t", types.double)]])
        )
        value = found.decode(data)
        assert found.encode(value) == data
        wanted = found.encode(value.to_dict())
        assert repr(found.decode(wanted)) == repr(value)
        assert repr(pickle.loads(pickle.dumps(value))) == repr(value)

    def test_anonymous_members_are_the_parents(self, types: Types) -> None:
        inner = types.add_struct(8, ("x", types.u32, 0), ("y", types.u32, 4), name="")
        union = types.builder.add_union("", 8, [("whole", types.u64, 0), ("", inner, 0)])
        found = types.struct(20, ("k", types.u32, 0), ("", union, 4), ("z", types.u32, 12), ("f", types.bool, 16))
        value = found.decode(struct.pack("<4I", 1, 2, 3, 4) + b"\1\0\0\0")
        assert value._fields == ("k", "whole", "x", "y", "z", "f")
        assert (value.k, value.whole, value.x, value.y, value.z, value.f) == (1, 3 << 32 | 2, 2, 3, 4, True)
        assert found.encode(value) == bytes(value)
        assert found.encode({"k": 1, "y": 3, "x": 2}) == struct.pack("<5I", 1, 2, 3, 0, 0)
        assert found.encode(value.to_dict()) == bytes(value)
        again = pickle.loads(pickle.dumps(value))
        assert (found.encode(again), again, hash(again)) == (bytes(value), value, hash(value))
        assert value == again

    def test_anonymous_struct_alone_keeps_the_record(self, types: Types) -> None:
        inner = types.add_struct(8, ("x", types.u32, 0), ("y", types.u32, 4), name="")
        found = types.struct(12, ("k", types.u32, 0), ("", inner, 4))
        assert found.decode(struct.pack("<3I", 1, 2, 3)) == (1, 2, 3)

    def test_union_in_struct_and_typedef(self, types: Types) -> None:
        union = types.builder.add_union("", 8, [("a", types.u64, 0), ("b", types.double, 0)])
        found = types.struct(16, ("k", types.u64, 0), ("u", types.builder.add_typedef("either_t", union), 8))
        value = found.decode(struct.pack("<Qd", 1, 2.5))
        assert value.u.b == 2.5
        assert type(value.u).__name__ == "either_t"
        assert found.encode({"k": 1, "u": {"b": 2.5}}) == found.encode(value) == struct.pack("<Qd", 1, 2.5)
        assert found.encode((1, value.u)) == struct.pack("<Qd", 1, 2.5)

    def test_bitfields_in_a_union(self, types: Types) -> None:
        bits = types.builder.add_struct(
            "", 4, [Member("lo", types.unsigned, 0, 4), Member("hi", types.unsigned, 4, 28)]
        )
        found = types.codec(types.builder.add_union("u", 4, [("all", types.unsigned, 0), ("", bits, 0)]))
        value = found.decode(b"\x21\x43\x65\x87")
        assert (value.all, value.lo, value.hi) == (0x87654321, 1, 0x8765432)
        assert found.encode({"lo": 1, "hi": 0x8765432}) == b"\x21\x43\x65\x87"
        assert found.encode({"lo": 1, "all": 0x87654321}) == b"\x21\x43\x65\x87"
        with pytest.raises(ValueError, match="do not agree"):
            found.encode({"lo": 2, "all": 0x87654321})


class TestBitfields:
    @pytest.mark.parametrize("byte_order", ["little", "big"])
    @pytest.mark.parametrize("legacy", [False, True])
    def test_both_encodings(self, byte_order: Any, legacy: bool) -> None:
        # struct { int a:3; unsigned b:5; unsigned c:12; _Bool d:1; }
        types = Types(byte_order)
        b = types.builder
        layout = [("a", types.i32, 3, INT_SIGNED), ("b", types.unsigned, 5, 0), ("c", types.unsigned, 12, 0)]
        members, first = [], 0
        for name, type_id, bits, encoding in layout:
            if legacy:
                # The member's offset is that of a byte, the rest is in the type, as old compilers put it.
                type_id = b.add_int("legacy", 4, bits, encoding, bit_offset=first % 8)
                members.append(Member(name, type_id, first - first % 8))
            else:
                members.append(Member(name, type_id, first, bits))
            first += bits
        members.append(
            Member("d", b.add_int("_Bool", 1, 1, INT_BOOL, bit_offset=4), 16)
            if legacy
            else Member("d", types.bool, 20, 1)
        )
        found = types.codec(b.add_struct("flags", 4, members))
        value = found.decode(found.encode((-2, 17, 0xABC, True)))
        assert value == (-2, 17, 0xABC, True)
        assert value.d is True
        if byte_order == "little":
            number = (-2 & 7) | 17 << 3 | 0xABC << 8 | 1 << 20
        else:
            number = (-2 & 7) << 29 | 17 << 24 | 0xABC << 12 | 1 << 11
        assert found.encode(value) == number.to_bytes(4, byte_order)
        with pytest.raises(OverflowError, match=r"flags\.a: 4 does not fit .*:3 \(-4 to 3\)"):
            found.encode({"a": 4})
        assert found.encode({"c": 1}) == (1 << 8 if byte_order == "little" else 1 << 12).to_bytes(4, byte_order)

    def test_enum_bitfield(self, types: Types) -> None:
        state = types.builder.add_enum("state", 4, False, [("IDLE", 0), ("BUSY", 5)])
        found = types.codec(types.builder.add_struct("s", 4, [Member("a", state, 0, 3), Member("b", state, 3, 3)]))
        value = found.decode(b"\x2d\0\0\0")
        assert (value.a.name, value.b.name) == ("BUSY", "BUSY")
        assert found.encode(("BUSY", 5)) == b"\x2d\0\0\0"
        assert repr(value) == "s(a=BUSY, b=BUSY)"

    def test_bitfields_across_bytes(self, types: Types) -> None:
        wide = types.builder.add_int("unsigned __int128", 16, 128)
        found = types.codec(
            types.builder.add_struct("s", 16, [Member("a", types.u64, 3, 61), Member("b", wide, 64, 50)])
        )
        assert found.encode((1, 1)) == (8).to_bytes(8, "little") + (1).to_bytes(8, "little")
        assert found.decode(b"\xff" * 16) == ((1 << 61) - 1, (1 << 50) - 1)


class TestRuns:
    @pytest.mark.parametrize("stride", [32, 40, 33])
    @pytest.mark.parametrize("count", [0, 1, 5])
    @pytest.mark.parametrize("slack", [0, 50])
    def test_records(self, types: Types, stride: int, count: int, slack: int) -> None:
        found = event_codec(types)
        rows = [struct.pack("<IIQ16s", number, 1, 2, b"x") for number in range(count)]
        data = b"abc" + (bytes(stride - 32).join(rows)) + bytes(slack)
        assert list(found.decode_run(data, 3, stride, count)) == [(number, 1, 2, "x") for number in range(count)]

    def test_plain_numbers_with_a_stride(self, types: Types) -> None:
        for byte_order in ("little", "big"):
            other = Types(byte_order)
            data = b"".join(
                struct.pack(">I" if byte_order == "big" else "<I", number) + bytes(4) for number in range(4)
            )
            assert list(other.codec(other.u32).decode_run(data, 0, 8, 4)) == [0, 1, 2, 3]
            assert list(other.codec(other.u32).decode_run(data[:-4], 0, 8, 4)) == [0, 1, 2, 3]

    @pytest.mark.parametrize(("offset", "stride", "count"), [(0, 32, 4), (5, 32, 3), (-1, 32, 1), (0, 31, 1)])
    def test_refused(self, types: Types, offset: int, stride: int, count: int) -> None:
        with pytest.raises(ValueError, match="struct event"):
            event_codec(types).decode_run(bytes(96), offset, stride, count)

    def test_no_conversion_no_difference(self, types: Types) -> None:
        found = types.struct(16, ("a", types.u64, 0), ("b", types.u64, 8))
        data = struct.pack("<4Q", 1, 2, 3, 4)
        values = list(found.decode_run(data, 0, 16, 2))
        assert values == [(1, 2), (3, 4)]
        assert values[1].b == 4
        assert found.decode(data, 16) == values[1]


class TestText:
    @pytest.mark.parametrize(
        ("kind", "text", "value"),
        [
            ("u32", "12", 12),
            ("u32", " 0x1f ", 31),
            ("i32", "-0b11", -3),
            ("bool", "true", True),
            ("bool", "Off", False),
            ("bool", "1", True),
            ("double", "2.5", 2.5),
            ("double", "1e3", 1000.0),
            ("state", "BUSY", 5),
            ("state", "7", 7),
            ("name", "0x41", "0x41"),
            ("octets", "de:ad", b"\xde\xad"),
            ("octets", "0xdead", b"\xde\xad"),
            ("numbers", "[1, 2]", [1, 2]),
            ("pair", '{"a": 1, "b": "BUSY"}', (1, 5)),
            ("pair", "[1, 5]", (1, 5)),
        ],
    )
    def test_parse(self, types: Types, kind: str, text: str, value: object) -> None:
        assert self.codec(types, kind).parse(text) == value

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("u32", "abc"),
            ("u32", "-1"),
            ("u32", "1.5"),
            ("bool", "maybe"),
            ("double", "x"),
            ("state", "NOPE"),
            ("state", ""),
            ("name", "much too long"),
            ("octets", "xy"),
            ("octets", "aabbcc"),
            ("numbers", "1"),
            ("numbers", "[1"),
            ("numbers", "[" * 100_000),
            ("pair", '{"c": 1}'),
        ],
    )
    def test_parse_refuses(self, types: Types, kind: str, text: str) -> None:
        with pytest.raises(ValueError, match=r"is not|is neither|is written|does not fit|has no|too long|takes"):
            self.codec(types, kind).parse(text)

    def codec(self, types: Types, kind: str) -> Codec:
        state = types.builder.add_enum("state", 4, False, [("IDLE", 0), ("BUSY", 5)])
        ids = {
            "u32": types.u32,
            "i32": types.i32,
            "bool": types.bool,
            "double": types.double,
            "state": state,
            "name": types.array(types.char, 8),
            "octets": types.array(types.u8, 2),
            "numbers": types.array(types.u32, 2),
            "pair": types.add_struct(8, ("a", types.u32, 0), ("b", state, 4), name="pair"),
        }
        return types.codec(ids[kind])

    def test_to_json(self, types: Types) -> None:
        state = types.builder.add_enum("state", 4, False, [("IDLE", 0), ("BUSY", 5)])
        union = types.builder.add_union("u", 8, [("a", types.u32, 0), ("b", types.array(types.u8, 2), 0)])
        found = types.struct(
            40,
            ("state", state, 0),
            ("states", types.array(state, 2), 4),
            ("flag", types.bool, 12),
            ("name", types.array(types.char, 3), 13),
            ("u", union, 16),
            ("ratio", types.double, 24),
            ("raw", types.array(types.u8, 2), 32),
        )
        value = found.decode(struct.pack("<III?3sQd2s6x", 5, 0, 9, True, b"a", 258, 0.5, b"\xab\xcd"))
        assert to_json(value) == {
            "state": "BUSY",
            "states": ["IDLE", 9],
            "flag": True,
            "name": "a",
            "u": {"a": 258, "b": "0201"},
            "ratio": 0.5,
            "raw": "abcd",
        }
        json.dumps(to_json(value))
        assert found.encode(
            found.parse(json.dumps({**value.to_dict(), "u": {"a": 258}, "raw": [171, 205]}))
        ) == found.encode(value)

    def test_to_json_of_what_json_lacks(self) -> None:
        assert to_json([math.inf, math.nan, -1.5, None]) == ["inf", "nan", -1.5, None]
        assert to_json({1: b"a", (1, 2): "x"}) == {"1": "61", "[1,2]": "x"}


class TestHostile:
    def test_types_without_values(self, types: Types) -> None:
        proto = types.builder.add_func_proto(0, [])
        for type_id in (0, types.builder.add_fwd("x", False), proto, types.builder.add_func("f", proto, 1)):
            with pytest.raises(BTFError, match="has no values"):
                types.codec(type_id)
        with pytest.raises(BTFError):
            types.codec(9999)

    def test_contains_itself(self, types: Types) -> None:
        itself = len(types.builder)
        for add in (types.builder.add_struct, types.builder.add_union):
            itself = len(types.builder)
            add("loop", 8, [("again", itself, 0)])
            with pytest.raises(BTFError, match="contains itself"):
                types.codec(itself)
        itself = len(types.builder)
        types.builder.add_struct("", 8, [("", itself, 0)])
        with pytest.raises(BTFError, match="contains itself"):
            types.codec(itself)
        itself = len(types.builder)
        types.array(itself, 1)
        with pytest.raises(BTFError, match="contains itself"):
            types.codec(itself)

    def test_member_outside(self, types: Types) -> None:
        with pytest.raises(BTFError, match="member a ends at byte 8, behind the size 4"):
            types.struct(4, ("a", types.u64, 0))
        with pytest.raises(BTFError, match="behind the size"):
            types.codec(types.builder.add_struct("s", 4, [Member("a", types.u64, 0, 33)]))

    def test_too_large(self, types: Types) -> None:
        with pytest.raises(BTFError, match="too large"):
            types.codec(types.array(types.u64, 1 << 28))
        empty = types.add_struct(0, name="empty")
        with pytest.raises(BTFError, match="too large"):
            types.codec(types.array(empty, 1 << 31))
        with pytest.raises(BTFError, match="too large"):
            types.codec(types.array(types.char, 0xFFFFFFFF))

    def test_doubling(self, types: Types) -> None:
        """Each level twice the one before: 2**40 values of no size at all."""
        level = types.add_struct(0, name="empty")
        for number in range(40):
            level = types.add_struct(0, ("a", level, 0), ("b", level, 0), name=f"level{number}")
        with pytest.raises(BTFError, match="too large"):
            types.codec(level)

    def test_doubling_of_anonymous_members(self, types: Types) -> None:
        level = types.add_struct(4, ("x", types.u32, 0), name="")
        for _ in range(40):
            level = types.add_struct(4, ("", level, 0), ("", level, 0), name="")
        with pytest.raises(BTFError, match="more than 65536 members"):
            types.codec(level)

    def test_anonymous_members_without_anything_inside(self, types: Types) -> None:
        level = types.add_struct(4, name="")
        for _ in range(40):
            level = types.add_struct(4, ("", level, 0), ("", level, 0), name="")
        with pytest.raises(BTFError, match="more than 65536 members"):
            types.codec(level)

    def test_many_structs_with_the_same_anonymous_members(self, types: Types) -> None:
        """Each is within the limit; a few thousand bytes would still stand for millions of members."""
        level = types.add_struct(4, ("x", types.u32, 0), name="")
        for _ in range(13):
            level = types.add_struct(4, ("", level, 0), ("", level, 0), name="")
        tops = [types.add_struct(4, ("", level, 0), name=f"top{number}") for number in range(100)]
        members = [(f"m{number}", top, 4 * number) for number, top in enumerate(tops)]
        with pytest.raises(BTFError, match="struct top3: the structs have more than"):
            types.struct(400, *members)

    @pytest.mark.parametrize("size", [0, 17, 4000])
    def test_sizes_of_scalars(self, types: Types, size: int) -> None:
        with pytest.raises(BTFError):
            types.codec(types.builder.add_int("x", size, 8))
        with pytest.raises(BTFError):
            types.codec(types.builder.add_enum("x", size, False, []))
        with pytest.raises(BTFError):
            types.codec(types.builder.add_float("x", size))

    def test_bitfields_of_what_has_no_bits(self, types: Types) -> None:
        for type_id, bits in ((types.double, 3), (types.array(types.u8, 2), 3), (types.u8, 9)):
            with pytest.raises(BTFError, match="cannot be a bitfield"):
                types.codec(types.builder.add_struct("s", 16, [Member("a", type_id, 0, bits)]))
        with pytest.raises(BTFError, match="has bits 6 to 12 of 1 bytes"):
            types.codec(types.builder.add_int("x", 1, 6, bit_offset=6))

    def test_overlapping_members_are_read_one_by_one(self, types: Types) -> None:
        found = types.struct(8, ("a", types.u64, 0), ("b", types.u32, 4))
        value = found.decode(struct.pack("<2I", 1, 2))
        assert (value.a, value.b) == (2 << 32 | 1, 2)

    def test_names_do_not_reach_the_generated_code(self, types: Types) -> None:
        found = types.struct(8, ("a;import os", types.u32, 0), ("'\"\\\n{}", types.u32, 4), name="x\n'\"{}")
        value = found.decode(struct.pack("<2I", 1, 2))
        assert tuple(value) == (1, 2)
        assert value._fields == ("a_import_os", "_______")

    @settings(deadline=None)
    @given(st.data())
    def test_any_types_any_bytes(self, data: st.DataObject) -> None:
        """Random type graphs: a codec or BTFError; what a codec decodes it encodes."""
        types = Types(data.draw(st.sampled_from(["little", "big"])))
        b = types.builder
        ids = st.integers(0, len(b) + 8)
        words = st.integers(0, 200)
        for number in range(data.draw(st.integers(1, 8))):
            kind = data.draw(st.sampled_from(["struct", "union", "array", "typedef", "int", "enum", "var"]))
            if kind in ("struct", "union"):
                members = data.draw(
                    st.lists(
                        st.builds(
                            Member, st.sampled_from(["", "a", "b", "if"]), ids, words, st.sampled_from([0, 0, 0, 3, 9])
                        ),
                        max_size=4,
                    )
                )
                (b.add_struct if kind == "struct" else b.add_union)(
                    f"s{number}", data.draw(st.integers(0, 40)), members
                )
            elif kind == "array":
                types.array(data.draw(ids), data.draw(st.sampled_from([0, 1, 2, 5, 1 << 20])))
            elif kind == "typedef":
                b.add_typedef("t", data.draw(ids))
            elif kind == "int":
                b.add_int("i", data.draw(st.integers(0, 17)), data.draw(words), data.draw(st.integers(0, 7)))
            elif kind == "enum":
                b.add_enum(
                    "e", data.draw(st.integers(0, 17)), data.draw(st.booleans()), [("A", 1), ("A", 2), ("_x_", 1)]
                )
            else:
                b.add_var("v", data.draw(ids), 1)
        btf = BTF.from_bytes(b.to_bytes())
        for type_id in range(len(btf)):
            try:
                found = codec(btf, type_id)
            except BTFError:
                continue
            if found.size > 4096 or found.values > 4096:
                continue
            raw = data.draw(st.binary(min_size=found.size, max_size=found.size))
            value = found.decode(raw)
            again = found.decode(found.encode(value))
            assert repr(again) == repr(value)
            json.dumps(to_json(value))
            with pytest.raises(ValueError, match="needs"):
                found.decode(raw[:-1] if raw else b"", 0 if raw else 1)


def test_c_names(types: Types) -> None:
    b = types.builder
    node = b.add_struct("node", 8, [])
    state = b.add_enum("state", 4, False, [])
    pointer = b.add_ptr(b.add_const(node))
    ids = [node, state, pointer, b.add_ptr(pointer), types.array(pointer, 3), b.add_struct("", 0, []), types.u32]
    btf = BTF.from_bytes(b.to_bytes())
    assert [c_name(btf, type_id) for type_id in ids] == [
        "struct node",
        "enum state",
        "struct node *",
        "struct node **",
        "struct node *[3]",
        "struct",
        "u32",
    ]


@pytest.mark.kernel
@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel shows no BTF")
def test_kernel_types() -> None:
    """Every sixth struct and union of the running kernel: the size is right, and what is decoded encodes back."""
    btf = BTF.from_bytes(VMLINUX.read_bytes())
    composites = [found for found in btf.types() if found.kind in COMPOSITE_KINDS][::6]
    composites = composites[: few(len(composites))]
    assert len(composites) > few(100)
    for found in composites:
        made = codec(btf, found.id)
        assert made.size == btf.size_of(found.id)
        raw = random.Random(found.id).randbytes(made.size)
        value = made.decode(raw)
        assert repr(made.decode(made.encode(value))) == repr(value), found


def test_codecs_are_cached(types: Types) -> None:
    btf = BTF.from_bytes(types.builder.to_bytes())
    assert codec(btf, types.u32) is codec(btf, types.u32)


def test_decoding_does_not_import_enum_or_typing() -> None:
    import subprocess

    program = """
import sys
from pybpf.btf.reader import BTF
from pybpf.btf.codec import codec
btf = BTF.from_bytes(bytes.fromhex(sys.argv[1]))
codec(btf, int(sys.argv[2])).default()
print(sorted({"typing", "enum", "dataclasses", "re", "inspect", "logging", "ctypes"} & set(sys.modules)))
"""
    types = Types()
    type_id = types.add_struct(24, ("pid", types.u32, 0), ("comm", types.array(types.char, 16), 4))
    result = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path[:0] = {sys.path!r}\n{program}",
            types.builder.to_bytes().hex(),
            str(type_id),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[]\n"
