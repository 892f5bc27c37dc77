"""Codecs of arrays, structs and unions.

Rules of this file:

* ``char[N]`` is str: up to the first NUL; bytes that are not UTF-8 come as surrogate escapes (PEP 383) and encode
  back to themselves. ``unsigned char[N]`` is bytes. Every other array is a list, an array of arrays a list of lists.
* A struct is a `Record`, a union an `Overlay`. A struct with an anonymous union inside is an `Overlay` as well, because
  some of its attributes share bytes.
* The members of anonymous structs and unions are attributes of the outermost type that has a name.
* To encode: a struct takes its own record, a dict (missing members are zero), a tuple or list of all members in order,
  or its raw bytes. A union takes its own value, a dict or its raw bytes; a dict that names several members which share
  bytes is accepted when they agree.
"""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 - a class

from pybpf.btf.records import field_names, make_overlay_class, make_record_class
from pybpf.btf.scalars import (
    EACH,
    BitfieldCodec,
    Codec,
    IntCodec,
    Source,
    container_code,
    container_expression,
    exact_bytes,
    is_bytes,
    parse_hex,
    place,
)
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from pybpf.btf.records import Overlay, Record

MAX_INLINE_NODES = 64
"""A nested struct with more parts than this is decoded by a function of its own."""
MAX_INLINE_ITEMS = 16
"""An array of more numbers than this is decoded from its bytes."""
SHORT_TEXT = 64
"""Up to this many bytes it is quicker to decode first and cut at the NUL afterwards."""


class TextCodec(Codec):
    """``char[N]``: str."""

    __slots__ = ()

    def __init__(self, size: int, c_name: str, byte_order: str) -> None:
        super().__init__(size, c_name, byte_order, f"{size}s")

    def expression(self, variable: str, source: Source) -> str:
        if self.size <= SHORT_TEXT:
            return f'{variable}.decode("utf-8", "surrogateescape").partition("\\0")[0]'
        return f"{source.constant(text_of)}({variable})"

    def argument(self, value: Any, where: str) -> bytes:
        data = to_text_bytes(value, where, self.c_name)
        if len(data) > self.size:
            raise ValueError(f"{place(where)}{value!r} is {len(data)} bytes, too long for {self.c_name}")
        return data

    def parse(self, text: str) -> str:
        return str(self._checked(text))


def text_of(data: bytes) -> str:
    """The text before the first NUL."""
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def to_text_bytes(value: Any, where: str, c_name: str) -> bytes:
    """The bytes of a str (no NUL inside) or of a bytes-like value. Raises TypeError, ValueError."""
    if is_bytes(value):
        return bytes(value)
    if not isinstance(value, str):
        raise TypeError(f"{place(where)}{c_name} takes str or bytes, not {value!r}")
    if "\0" in value.rstrip("\0"):
        raise ValueError(f"{place(where)}{value!r} has a NUL inside, which ends the string ({c_name})")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{place(where)}{value!r} is not UTF-8: {error.reason} ({c_name})") from None


class BytesCodec(Codec):
    """``unsigned char[N]``: bytes. Takes bytes, or a list of N integers."""

    __slots__ = ()

    def __init__(self, size: int, c_name: str, byte_order: str) -> None:
        super().__init__(size, c_name, byte_order, f"{size}s")

    def argument(self, value: Any, where: str) -> bytes:
        if type(value) in (list, tuple):
            try:
                value = bytes(value)
            except (ValueError, TypeError):
                raise OverflowError(f"{place(where)}{value!r} does not fit {self.c_name} (0 to 255 each)") from None
        return exact_bytes(value, self.size, where, self.c_name)

    def parse(self, text: str) -> bytes:
        return bytes(self._checked(parse_hex(text, self.c_name)))


class ArrayCodec(Codec):
    """Every other array: list."""

    __slots__ = ("count", "element")
    is_hashable = False

    def __init__(self, element: Codec, count: int, c_name: str) -> None:
        size = element.size * count
        super().__init__(
            size,
            c_name,
            element.byte_order,
            f"{size}s",
            values=element.values * count + 1,
            nodes=element.nodes * count + 1,
        )
        self.element = element
        self.count = count

    def piece(self, source: Source) -> tuple[str, str]:
        element = self.element
        if not (element._is_plain and 0 < self.count <= MAX_INLINE_ITEMS):
            return super().piece(source)
        variables = [source.variable() for _ in range(self.count)]
        return f"{self.count}{element.code}", f"[{', '.join(variables)}]"

    def expression(self, variable: str, source: Source) -> str:
        return f"{source.constant(self._items)}({variable})"

    def _items(self, data: bytes) -> list[Any]:
        return list(self.element.decode_run(data, 0, self.element.size, self.count))

    def argument(self, value: Any, where: str) -> bytes:
        if is_bytes(value):
            return exact_bytes(value, self.size, where, self.c_name)
        items = to_items(value, where, self.c_name)
        if len(items) != self.count:
            raise ValueError(f"{place(where)}{self.c_name} takes {self.count} items, not {len(items)}")
        return encode_items(self.element, items, where)


def to_items(value: Any, where: str, c_name: str) -> Sequence[Any]:
    """A list, a tuple, or another iterable that has an order as a list. Raises TypeError."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str | dict | set | frozenset) or not hasattr(value, "__iter__"):
        raise TypeError(f"{place(where)}{c_name} takes a list, not {value!r}")
    return list(value)


def encode_items(element: Codec, items: Sequence[Any], where: str) -> bytes:
    """The items side by side."""
    encode = element.fixed if element.is_flexible else element.encode
    return b"".join([encode(item, f"{where}[{number}]") for number, item in enumerate(items)])


class Field:
    """One attribute of a struct or union.

    Attributes:
        name: as in C. codec: of its type; a `BitfieldCodec` for a bitfield. first: the bit offset from the start of the
            struct. bits: the width.
    """

    __slots__ = ("bits", "codec", "first", "name")

    def __init__(self, name: str, codec: Codec, first: int, bits: int) -> None:
        self.name = name
        self.codec = codec
        self.first = first
        self.bits = bits

    @property
    def offset(self) -> int:
        return self.first // 8

    @property
    def end(self) -> int:
        """The first byte behind the field."""
        return (self.first + self.bits + 7) // 8

    @property
    def is_bitfield(self) -> bool:
        return isinstance(self.codec, BitfieldCodec)


def fields_overlap(fields: Sequence[Field]) -> bool:
    """Whether some fields share bits, or do not come in ascending order."""
    end = 0
    for field in fields:
        if field.first < end:
            return True
        end = field.first + field.bits
    return False


class CompositeCodec(Codec):
    """What structs and unions share."""

    __slots__ = ("_record", "_slots", "c_names", "fields", "label", "names", "tail")

    def __init__(self, size: int, label: str, c_name: str, byte_order: str, fields: Sequence[Field]) -> None:
        super().__init__(
            size,
            c_name,
            byte_order,
            f"{size}s",
            values=1 + sum(field.codec.values for field in fields),
            nodes=1 + sum(field.codec.nodes for field in fields),
        )
        for field in fields:
            if field.end > size:
                raise BTFError(f"{c_name}: member {field.name} ends at byte {field.end}, behind the size {size}")
        self.label = label
        self.fields = tuple(fields)
        self.names = field_names(field.name for field in fields)
        self.c_names = {field.name: number for number, field in enumerate(fields)}
        self.c_names.update({name: number for number, name in enumerate(self.names)})

    def _path(self, where: str) -> str:
        return where or self.label

    def _by_number(self, value: Any, where: str) -> dict[int, Any]:
        """A mapping's values by the number of their field. Raises ValueError for an unknown name."""
        found: dict[int, Any] = {}
        for name in value.keys():  # noqa: SIM118 - any mapping, not only those that iterate over keys
            number = self.c_names.get(name)
            if number is None:
                known = ", ".join(self.names)
                raise ValueError(f"{self._path(where)}: {self.c_name} has no field {name!r} (it has {known})")
            found[number] = value[name]
        return found


class StructCodec(CompositeCodec):
    """A struct whose members do not share bytes: `Record`."""

    __slots__ = ()

    def __init__(
        self,
        size: int,
        label: str,
        c_name: str,
        byte_order: str,
        fields: Sequence[Field],
        tail: FlexibleCodec | None = None,
    ) -> None:
        """`fields` in ascending order; `tail` is the codec of the last field when that is a flexible array."""
        super().__init__(size, label, c_name, byte_order, fields)
        self.tail = tail
        self._slots = tuple(_slots(self.fields))
        self._record: type[Record] | None = None

    @property
    def is_flexible(self) -> bool:  # type: ignore[override]
        return self.tail is not None

    @property
    def is_hashable(self) -> bool:  # type: ignore[override]
        return all(field.codec.is_hashable for field in self.fields)

    @property
    def record(self) -> type[Record]:
        """The class of its values."""
        if self._record is None:
            self._record = make_record_class(self.label, self.names, self.is_hashable)
        return self._record

    def piece(self, source: Source) -> tuple[str, str]:
        codes, values = self._parts(source)
        return codes, f"new({source.constant(self.record)}, {values})"

    def _make_plainly(self) -> Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]:
        source = Source()
        each, expression = self._compile(EACH, "each", source, *self._parts(source))
        return iter if expression == "row" else each

    def _parts(self, source: Source) -> tuple[str, str]:
        """The struct codes of the members, and the expression of the tuple of their values."""
        codes: list[str] = []
        values: list[str] = []
        end = 0
        for slot in self._slots:
            if slot.offset > end:
                codes.append(f"{slot.offset - end}x")
            end = slot.offset + slot.size
            code, expressions = slot.piece(source)
            codes.append(code)
            values += expressions
        if self.size > end:
            codes.append(f"{self.size - end}x")
        return "".join(codes), f"({''.join(f'{value}, ' for value in values)})"

    def _make_decoder(self) -> Callable[..., Any]:
        fixed = super()._make_decoder()
        return fixed if self.tail is None else self._with_tail(fixed, self.tail, self.fields[-1].offset)

    def _with_tail(self, fixed: Callable[..., Any], tail: FlexibleCodec, start: int) -> Callable[..., Any]:
        record = self.record

        def decode(buffer: Any, offset: int = 0, length: int | None = None) -> Any:
            value = fixed(buffer, offset, length)
            if length is None or length <= start:
                return value
            return tuple.__new__(record, (*value[:-1], tail.decode_length(buffer, offset + start, length - start)))

        return decode

    def argument(self, value: Any, where: str) -> bytes:
        data = self._exact(value, where)
        if len(data) != self.size:
            raise ValueError(f"{self._path(where)}: the array at the end of {self.c_name} has no room here")
        return data

    def _values(self, value: Any, where: str) -> Sequence[Any]:
        """The fields' values in order; `Missing` for those that a dict leaves out."""
        if hasattr(value, "keys") and not isinstance(value, self.record):
            given = self._by_number(value, where)
            return [given.get(number, Missing) for number in range(len(self.fields))]
        if isinstance(value, str | set | frozenset) or not hasattr(value, "__iter__"):
            raise TypeError(f"{self._path(where)}: {self.c_name} takes a record, a dict or a tuple, not {value!r}")
        values = tuple(value)
        if len(values) != len(self.fields):
            raise ValueError(f"{self._path(where)}: {self.c_name} has {len(self.fields)} fields, not {len(values)}")
        return values

    def _exact(self, value: Any, where: str = "") -> bytes:
        if is_bytes(value):
            return exact_bytes(value, self.size, where, self.c_name)
        values = self._values(value, where)
        path = self._path(where)
        data = bytearray(self.size)
        for number, slot in enumerate(self._slots):
            last_is_tail = self.tail is not None and number == len(self._slots) - 1
            if not last_is_tail:
                data[slot.offset : slot.offset + slot.size] = slot.exact(values, path)
        if self.tail is not None and values[-1] is not Missing:
            extra = self.tail.encode_items(values[-1], f"{path}.{self.fields[-1].name}")
            data[self.fields[-1].offset : self.fields[-1].offset + len(extra)] = extra
        return bytes(data)

    def _make_encoder(self) -> Callable[..., bytes]:
        """One pack for a record, tuple or list of good values; everything else goes the exact way."""
        if self.tail is not None or any(slot.is_bits for slot in self._slots):
            return self._exact
        source = Source()
        codes: list[str] = []
        arguments: list[str] = []
        end = 0
        for slot in self._slots:
            field = self.fields[slot.numbers[0]]
            variable = source.variable()
            codes.append(f"{slot.offset - end}x{field.codec.code}")
            end = slot.offset + slot.size
            codec = field.codec
            convert = codec.encode if isinstance(codec, StructCodec) and not codec.is_flexible else codec.argument
            arguments.append(variable if codec.is_direct else f"{source.constant(convert)}({variable}, '')")
        codes.append(f"{self.size - end}x")
        names: dict[str, Any] = {
            **source.constants,
            "pack": self._struct("".join(codes)).pack,
            "exact": self._exact,
            "shapes": (self.record, tuple, list),
            "failures": (StructError, TypeError, ValueError, OverflowError),
        }
        target = "".join(f"{variable}, " for variable in source.variables) or "()"
        exec(_ENCODER.format(target=target.rstrip(), arguments=", ".join(arguments)), names)
        encode: Callable[..., bytes] = names["encode"]
        return encode


_ENCODER = """
def encode(value, where=""):
    if type(value) in shapes:
        try:
            {target} = value
            return pack({arguments})
        except failures:
            pass
    return exact(value, where)
"""


class Missing:
    """Stands for a field that a dict does not name."""


class Slot:
    """What one code of a struct covers: a field, or the bitfields that share bytes.

    `numbers` are the fields' places in the struct.
    """

    __slots__ = ("codec", "fields", "numbers", "offset", "size")

    def __init__(self, number: int, field: Field) -> None:
        self.offset = field.offset
        self.size = field.end - field.offset
        self.numbers = [number]
        self.fields = [field]
        self.codec: Codec = field.codec

    @property
    def is_bits(self) -> bool:
        return self.fields[0].is_bitfield

    def add(self, number: int, field: Field) -> None:
        """Widen by one more bitfield."""
        self.numbers.append(number)
        self.fields.append(field)
        self.size = field.end - self.offset

    def _parts(self) -> Iterator[tuple[int, Field, BitfieldCodec, int]]:
        """Each bitfield with its number and how far up it lies in the integer of all the slot's bytes."""
        for number, field in zip(self.numbers, self.fields, strict=True):
            first = field.first - self.offset * 8
            shift = first if self.codec.byte_order == "little" else self.size * 8 - first - field.bits
            if isinstance(field.codec, BitfieldCodec):
                yield number, field, field.codec, shift

    def piece(self, source: Source) -> tuple[str, list[str]]:
        if not self.is_bits:
            codec = self.codec
            if isinstance(codec, StructCodec) and codec.nodes > MAX_INLINE_NODES:
                return codec.code, [f"{source.constant(codec.decode)}({source.variable()})"]
            code, expression = codec.piece(source)
            return code, [expression]
        whole = container_expression(self.size, self.codec.byte_order, source.variable())
        return container_code(self.size), [codec.extract(whole, shift, source) for _, _, codec, shift in self._parts()]

    def exact(self, values: Sequence[Any], path: str) -> bytes:
        """The slot's bytes, every value checked."""
        if not self.is_bits:
            value = values[self.numbers[0]]
            if value is Missing:
                return bytes(self.size)
            return self.codec.fixed(value, f"{path}.{self.fields[0].name}")
        whole = 0
        for number, field, codec, shift in self._parts():
            if values[number] is not Missing:
                whole |= codec.field(values[number], f"{path}.{field.name}") << shift
        return whole.to_bytes(self.size, self.codec.byte_order)


def _slots(fields: Sequence[Field]) -> list[Slot]:
    slots: list[Slot] = []
    for number, field in enumerate(fields):
        if field.is_bitfield and slots and slots[-1].is_bits and field.offset < slots[-1].offset + slots[-1].size:
            slots[-1].add(number, field)
        else:
            slots.append(Slot(number, field))
    return slots


class FlexibleCodec(Codec):
    """The array without a length at the end of a struct: empty, unless the struct tells it how many bytes it has."""

    __slots__ = ("element", "shape")
    is_hashable = False

    def __init__(self, element: Codec, shape: type[Codec], c_name: str) -> None:
        """`shape` is the codec class that the array would have with a length."""
        super().__init__(0, c_name, element.byte_order, "0s")
        self.element = element
        self.shape = shape

    def expression(self, variable: str, source: Source) -> str:
        if issubclass(self.shape, TextCodec):
            return "''"
        return "b''" if issubclass(self.shape, BytesCodec) else "[]"

    def argument(self, value: Any, where: str) -> bytes:
        items = self.encode_items(value, where)
        if items:
            raise ValueError(f"{place(where)}{self.c_name} has no room here, {len(items)} bytes given")
        return items

    def decode_length(self, buffer: Any, offset: int, length: int) -> Any:
        """The array that `length` bytes hold; bytes that do not make a whole element are left out."""
        size = self.element.size
        if issubclass(self.shape, ArrayCodec):
            return list(self.element.decode_run(buffer, offset, size, length // size)) if size else []
        data = bytes(memoryview(buffer)[offset : offset + length])
        if len(data) < length:
            raise ValueError(f"{self.c_name}: needs {length} bytes at offset {offset}, have {len(data)}")
        return data if issubclass(self.shape, BytesCodec) else text_of(data)

    def encode_items(self, value: Any, where: str) -> bytes:
        """The bytes of as many elements as are given."""
        if is_bytes(value) or issubclass(self.shape, TextCodec):
            return to_text_bytes(value, where, self.c_name)
        return encode_items(self.element, to_items(value, where, self.c_name), where)


class OverlayCodec(CompositeCodec):
    """A union, or a struct with members that share bytes: `Overlay`."""

    __slots__ = ()

    def __init__(self, size: int, label: str, c_name: str, byte_order: str, fields: Sequence[Field]) -> None:
        super().__init__(size, label, c_name, byte_order, fields)
        self.values = 1
        self.nodes = 1
        self._record: type[Overlay] | None = None

    @property
    def record(self) -> type[Overlay]:
        """The class of its values."""
        if self._record is None:
            getters = {name: _getter(field) for name, field in zip(self.names, self.fields, strict=True)}
            self._record = make_overlay_class(self.label, getters)
        return self._record

    def expression(self, variable: str, source: Source) -> str:
        return f"{source.constant(self.record)}({variable})"

    def argument(self, value: Any, where: str) -> bytes:
        if is_bytes(value):
            return exact_bytes(value, self.size, where, self.c_name)
        if isinstance(value, self.record):
            return bytes(value)
        if not hasattr(value, "keys") and hasattr(value, "to_dict"):
            value = dict(zip(value._fields, value, strict=True))
        if not hasattr(value, "keys"):
            raise TypeError(f"{self._path(where)}: {self.c_name} takes its own value or a dict, not {value!r}")
        given = self._by_number(value, where)
        data = bytearray(self.size)
        # Numbers and bytes last: text, truth values and padded structs do not say all of their bytes.
        for number in sorted(given, key=lambda number: isinstance(self.fields[number].codec, IntCodec | BytesCodec)):
            self._write(data, number, given[number], where)
        self._refuse_clash(bytes(data), given, where)
        return bytes(data)

    def _write(self, data: bytearray, number: int, item: Any, where: str) -> None:
        field = self.fields[number]
        field.codec.overlay(data, field.offset, item, f"{self._path(where)}.{field.name}")

    def _refuse_clash(self, data: bytes, given: dict[int, Any], where: str) -> None:
        """Raises ValueError when a given member, read back, is not what was given: another one wrote over it."""
        if len(given) < 2:
            return
        written = self.record(data)
        for number, item in given.items():
            alone = bytearray(self.size)
            self._write(alone, number, item, where)
            name = self.names[number]
            wanted = getattr(self.record(bytes(alone)), name)
            if wanted == wanted and getattr(written, name) != wanted:  # not-a-number differs from itself
                others = ", ".join(self.names[other] for other in given if other != number)
                raise ValueError(f"{self._path(where)}: {name} shares bytes with {others}, and they do not agree")


def _getter(field: Field) -> Callable[[Any], object]:
    codec, offset = field.codec, field.offset

    def get(overlay: Overlay) -> object:
        return codec.decode(overlay._data, offset)

    return get
