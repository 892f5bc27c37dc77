"""Codecs of single values: the base class, integers, booleans, floats, enums, bitfields, pointers.

Rules of this file:

* A `Codec` is pure and holds no kernel state. Its `decode` and `encode` are functions compiled when they are first
  asked for, so fetch them once and call them often.
* A codec has one struct code (``I``, ``16s``) of exactly its size. Composite codecs join the codes of their members
  into one `struct.Struct`, so a flat record costs one unpack.
* Generated source holds generated names and numbers only, never a name from type information.
* Range errors are OverflowError, wrong kinds of value TypeError, wrong shapes and short buffers ValueError. Each names
  the field (as a path from the outermost value), the value and the type.
"""

from __future__ import annotations

import sys
from _operator import index  # the built-in part of `operator`, which takes 0.2 ms to import
from itertools import chain, repeat
from struct import Struct
from struct import error as StructError  # noqa: N812 - a class

from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from typing_extensions import Buffer

MAX_SIZE = 1 << 30
"""Bytes of one value. The kernel's own bound on map values is lower."""
MAX_VALUES = 1 << 24
"""Python objects that one decode may make."""

INTEGER_CODES = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"} | {
    (1, True): "b",
    (2, True): "h",
    (4, True): "i",
    (8, True): "q",
}
FLOAT_CODES = {2: "e", 4: "f", 8: "d"}


class Source:
    """What generated code refers to: constants by name, and the variables that one unpack fills, in order."""

    __slots__ = ("constants", "variables")

    def __init__(self) -> None:
        self.constants: dict[str, object] = {}
        self.variables: list[str] = []

    def constant(self, value: object) -> str:
        """The name under which generated code sees an object."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def variable(self) -> str:
        """A new variable, the next value of the unpack."""
        name = f"v{len(self.variables)}"
        self.variables.append(name)
        return name


class Codec:
    """The Python face of one BTF type.

    Attributes:
        size: bytes of one value.
        c_name: the type as C names it: ``"struct event"``, ``"u32"``, ``"char[16]"``.
        byte_order: ``"little"`` or ``"big"``.
        decode: ``decode(buffer, offset=0, length=None)`` gives the value that starts at `offset`. `length` is the bytes
            that belong to it; the flexible array at the end of a struct holds what `length` leaves for it, and is
            empty without. Raises ValueError when the buffer is too short.
        dtype: what `pybpf.btf.columns.numpy_dtype()` gives, once it was asked for; otherwise None.
        encode: ``encode(value, where="")`` gives the bytes. `where` names the value in errors.
    """

    __slots__ = (
        "_each",
        "_plainly",
        "_runs",
        "_unpack",
        "byte_order",
        "c_name",
        "code",
        "decode",
        "dtype",
        "encode",
        "nodes",
        "size",
        "values",
    )

    decode: Callable[..., Any]
    encode: Callable[..., bytes]
    byte_order: Any
    _each: Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]
    _plainly: Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]
    _unpack: Callable[[Any, int], tuple[Any, ...]]
    _runs: dict[int, Callable[[Buffer], Iterable[tuple[Any, ...]]]]
    is_direct = False
    """`struct.Struct.pack` itself checks kind and range of a value."""
    is_flexible = False
    """The value may be longer than `size`: it ends in a flexible array."""
    is_hashable = True

    def __init__(self, size: int, c_name: str, byte_order: str, code: str, *, values: int = 1, nodes: int = 1) -> None:
        if size > MAX_SIZE or values > MAX_VALUES:
            raise BTFError(f"{c_name}: too large to decode ({size} bytes, {values} values)")
        self.size = size
        self.c_name = c_name
        self.byte_order = byte_order
        self.code = code
        self.values = values
        self.nodes = nodes
        self._runs = {}
        self.dtype: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.c_name}, {self.size} bytes>"

    def __getattr__(self, name: str) -> Any:
        if name == "decode":
            self.decode = self._make_decoder()
        elif name == "_each":
            self._each = self._make_each()
        elif name == "_plainly":
            self._plainly = self._make_plainly()
        elif name == "_unpack":
            self._unpack = self._struct(self.piece(Source())[0]).unpack_from
        elif name == "encode":
            self.encode = self._make_encoder()
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return object.__getattribute__(self, name)

    # What a codec says about itself.

    def piece(self, source: Source) -> tuple[str, str]:
        """The struct codes of this value and the expression that makes it of the variables they fill."""
        return self.code, self.expression(source.variable(), source)

    def expression(self, variable: str, source: Source) -> str:
        """The expression that turns what `code` unpacks into the value."""
        return variable

    def argument(self, value: Any, where: str) -> Any:
        """What `code` packs for a value, checked."""
        raise TypeError(f"{place(where)}{self.c_name} cannot be written")

    def parse(self, text: str) -> Any:
        """The value that a person wrote as text (the form of ``--set name=value``). Raises ValueError.

        Integers: decimal, ``0x``, ``0o``, ``0b``. Booleans: true/false, yes/no, on/off, 1/0. Enums: a member's name or
        an integer. ``char[N]``: the text itself. ``unsigned char[N]``: hexadecimal digits. Other arrays, structs and
        unions: JSON.
        """
        import json

        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.c_name} is written as JSON: {error}") from None
        return self._checked(value)

    def _checked(self, value: Any) -> Any:
        try:
            return self.decode(self.encode(value))
        except (TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None

    # Reading.

    def default(self) -> Any:
        """The value of all-zero bytes."""
        return self.decode(bytes(self.size))

    def decode_run(self, buffer: Buffer, offset: int, stride: int, count: int) -> Iterable[Any]:
        """`count` values, the first at `offset`, each `stride` bytes after the one before.

        Reads the buffer as it is iterated: consume the result before the memory changes. Raises ValueError when the
        buffer is too short or `stride` is less than the size.
        """
        return self._run(buffer, offset, stride, count, as_tuples=False)

    def tuple_run(self, buffer: Buffer, offset: int, stride: int, count: int) -> Iterable[Any]:
        """`decode_run()` with plain tuples for structs, which are quicker to make than records.

        Structs inside structs are records as ever; other types than structs give what `decode_run()` gives.
        """
        return self._run(buffer, offset, stride, count, as_tuples=True)

    def decode_at(self, buffer: Buffer, starts: Iterable[int], *, as_tuples: bool = False) -> Iterable[Any]:
        """The values at these offsets, one after the other; `as_tuples` as `tuple_run()` gives them.

        Whoever calls has seen that each of them lies in the buffer, whole.
        """
        if not self.size:
            return map(self.decode, repeat(buffer), starts)
        each = self._plainly if as_tuples else self._each
        return each(map(self._unpack, repeat(buffer), starts))

    def _run(self, buffer: Buffer, offset: int, stride: int, count: int, *, as_tuples: bool) -> Iterable[Any]:
        view = memoryview(buffer)
        if view.itemsize != 1 or not view.contiguous or view.ndim != 1:
            view = view.cast("B")
        need = (count - 1) * stride + self.size if count > 0 else 0
        if offset < 0 or stride < self.size or offset + need > len(view):
            raise ValueError(
                f"{self.c_name}: {count} values every {stride} bytes need {need} bytes at offset {offset}, "
                f"have {max(0, len(view) - max(0, offset))}"
            )
        if count <= 0:
            return ()
        numbers = self.strided(view, offset, stride, count)
        if numbers is not None:
            return list(numbers.tolist())
        if not self.size:
            return (self.decode(view, offset + number * stride) for number in range(count))
        unpack = self._runs.get(stride)
        if unpack is None:
            unpack = self._runs[stride] = self._struct(self.piece(Source())[0], stride - self.size).iter_unpack
        whole = count if offset + count * stride <= len(view) else count - 1
        each = self._plainly if as_tuples else self._each
        rows = each(unpack(view[offset : offset + whole * stride]))
        if whole == count:
            return rows
        # The last value is not followed by all of its padding.
        return chain(rows, self.decode_at(view, (offset + whole * stride,), as_tuples=as_tuples))

    def strided(self, view: memoryview, offset: int, stride: int, count: int) -> memoryview | None:
        """`count` numbers where they are, without a copy; None when Python has no view of such.

        It has of integers, floats and truth values of 1 to 8 bytes in this machine's byte order, when `stride` is a
        multiple of their size. The arguments are those of `decode_run()`, which checks them.
        """
        if not self._is_plain or stride % self.size or self.byte_order != sys.byteorder:
            return None
        numbers: Any = view[offset : offset + (count - 1) * stride + self.size]
        cast: memoryview = numbers.cast(self.code)[:: stride // self.size]
        return cast

    @property
    def _is_plain(self) -> bool:
        return False

    def _struct(self, codes: str, padding: int = 0) -> Struct:
        return Struct(f"{'<' if self.byte_order == 'little' else '>'}{codes}{f'{padding}x' if padding else ''}")

    def _make_decoder(self) -> Callable[..., Any]:
        source = Source()
        return self._compile(_DECODER, "decode", source, *self.piece(source))[0]

    def _make_each(self) -> Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]:
        source = Source()
        each, expression = self._compile(EACH, "each", source, *self.piece(source))
        name = expression.removeprefix("new(").removesuffix(", row)")
        if name in source.constants:  # records that take the unpacked tuples as they are
            record = source.constants[name]
            return lambda rows: map(tuple.__new__, repeat(record), rows)  # type: ignore[arg-type]
        return chain.from_iterable if expression == "v0" else each

    def _make_plainly(self) -> Callable[[Iterable[tuple[Any, ...]]], Iterable[Any]]:
        return self._each

    def _compile(
        self, template: str, function: str, source: Source, codes: str, expression: str
    ) -> tuple[Callable[..., Any], str]:
        """The function that the template makes for this type, and its expression for one value."""
        names: dict[str, Any] = {
            **source.constants,
            "unpack": self._struct(codes).unpack_from,
            "error": StructError,
            "short": self._short,
            "new": tuple.__new__,
        }
        row = "".join(f"{variable}, " for variable in source.variables) or "_"
        # A record whose fields need no conversion takes the unpacked tuple as it is.
        whole = expression.replace(f"({row})", "row") if source.variables else expression
        if whole != expression:
            row, expression = "row", whole
        exec(template.format(size=self.size, row=row, value=expression), names)
        return names[function], expression

    def _short(self, buffer: Buffer, offset: int, length: int | None) -> ValueError:
        if offset < 0:
            return ValueError(f"{self.c_name}: offset {offset} is negative")
        have = max(0, memoryview(buffer).nbytes - offset)
        have = have if length is None else min(have, length)
        return ValueError(f"{self.c_name}: needs {self.size} bytes at offset {offset}, have {have}")

    # Writing.

    def encode_into(self, buffer: Any, offset: int, value: Any, where: str = "") -> None:
        """Write a value into a writable buffer. Raises ValueError when it does not fit there."""
        data = self.encode(value, where)
        if offset < 0 or offset + len(data) > len(buffer):
            have = max(0, len(buffer) - max(0, offset))
            raise ValueError(f"{place(where)}{self.c_name}: needs {len(data)} bytes at offset {offset}, have {have}")
        buffer[offset : offset + len(data)] = data

    def overlay(self, buffer: bytearray, offset: int, value: Any, where: str) -> None:
        """Write a value over the bytes of others that share them."""
        buffer[offset : offset + self.size] = self.fixed(value, where)

    def fixed(self, value: Any, where: str = "") -> bytes:
        """The `size` bytes of a value, checked part by part."""
        return self._struct(self.code).pack(self.argument(value, where))

    def _make_encoder(self) -> Callable[..., bytes]:
        pack, exact = self._struct(self.code).pack, self.fixed
        if not self.is_direct:
            return exact

        def encode(value: Any, where: str = "") -> bytes:
            try:
                return pack(value)
            except (StructError, OverflowError, TypeError):
                return exact(value, where)

        return encode


_DECODER = """
def decode(buffer, offset=0, length=None):
    if offset < 0 or length is not None and length < {size}:
        raise short(buffer, offset, length)
    try:
        {row} = unpack(buffer, offset)
    except error:
        raise short(buffer, offset, length) from None
    return {value}
"""
EACH = """
def each(rows):
    for {row} in rows:
        yield {value}
"""


def place(where: str) -> str:
    """The start of an error message about a field."""
    return f"{where}: " if where else ""


def to_integer(value: Any, where: str, c_name: str) -> int:
    """An int of anything that is one. Raises TypeError."""
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{place(where)}{c_name} takes an integer, not {value!r}") from None


def check_range(value: int, low: int, high: int, where: str, c_name: str) -> int:
    """The value, when it is between `low` and `high`. Raises OverflowError."""
    if not low <= value <= high:
        raise OverflowError(f"{place(where)}{value} does not fit {c_name} ({low} to {high})")
    return value


def parse_integer(text: str, c_name: str) -> int:
    """``12``, ``-1``, ``0x1f``, ``0b11``. Raises ValueError."""
    try:
        return int(text.strip(), 0)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer ({c_name})") from None


class IntCodec(Codec):
    """Integers of 1 to 16 bytes, and pointers: int."""

    __slots__ = ("high", "is_signed", "low")

    def __init__(self, size: int, is_signed: bool, c_name: str, byte_order: str) -> None:
        code = INTEGER_CODES.get((size, is_signed))
        super().__init__(size, c_name, byte_order, code or f"{size}s")
        self.is_signed = is_signed
        self.low = -(1 << (size * 8 - 1)) if is_signed else 0
        self.high = (1 << (size * 8 - is_signed)) - 1

    @property
    def is_direct(self) -> bool:  # type: ignore[override]
        return len(self.code) == 1

    @property
    def _is_plain(self) -> bool:
        return len(self.code) == 1

    def expression(self, variable: str, source: Source) -> str:
        if len(self.code) == 1:
            return variable
        return f"{source.constant(int.from_bytes)}({variable}, {self.byte_order!r}, signed={self.is_signed})"

    def argument(self, value: Any, where: str) -> int | bytes:
        number = check_range(to_integer(value, where, self.c_name), self.low, self.high, where, self.c_name)
        if len(self.code) == 1:
            return number
        return number.to_bytes(self.size, self.byte_order, signed=self.is_signed)

    def parse(self, text: str) -> int:
        return int(self._checked(parse_integer(text, self.c_name)))


def to_bool(value: Any, where: str, c_name: str) -> bool:
    """True or False of a bool, 0 or 1. Raises TypeError for another kind, OverflowError for another number."""
    if value is True or value is False:
        return bool(value)
    return bool(check_range(to_integer(value, where, c_name), 0, 1, where, c_name))


_BOOL_WORDS = dict.fromkeys(("true", "yes", "on", "y", "1"), True) | dict.fromkeys(
    ("false", "no", "off", "n", "0"), False
)


def parse_bool(text: str, c_name: str) -> bool:
    """true/false, yes/no, on/off, y/n, 1/0. Raises ValueError."""
    value = _BOOL_WORDS.get(text.strip().lower())
    if value is None:
        raise ValueError(f"{text!r} is neither true nor false ({c_name})")
    return value


class BoolCodec(Codec):
    """_Bool: bool. Any non-zero byte reads as True."""

    __slots__ = ()

    def __init__(self, size: int, c_name: str, byte_order: str) -> None:
        super().__init__(size, c_name, byte_order, "?" if size == 1 else f"{size}s")

    @property
    def _is_plain(self) -> bool:
        return self.size == 1

    def expression(self, variable: str, source: Source) -> str:
        return variable if self._is_plain else f"any({variable})"

    def argument(self, value: Any, where: str) -> bool | bytes:
        truth = to_bool(value, where, self.c_name)
        if self._is_plain:
            return truth
        return truth.to_bytes(self.size, self.byte_order)

    def parse(self, text: str) -> bool:
        return parse_bool(text, self.c_name)


class FloatCodec(Codec):
    """float and double (2, 4, 8 bytes): float."""

    __slots__ = ()
    is_direct = True

    def __init__(self, size: int, c_name: str, byte_order: str) -> None:
        super().__init__(size, c_name, byte_order, FLOAT_CODES[size])

    @property
    def _is_plain(self) -> bool:
        return self.size != 2

    def argument(self, value: Any, where: str) -> float:
        if not isinstance(value, float):
            try:
                value = float(to_integer(value, where, self.c_name))
            except OverflowError:
                raise OverflowError(f"{place(where)}{value} does not fit {self.c_name}") from None
        try:
            self._struct(self.code).pack(value)
        except OverflowError:
            raise OverflowError(f"{place(where)}{value!r} does not fit {self.c_name}") from None
        return float(value)

    def parse(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number ({self.c_name})") from None
        return float(self._checked(value))


class EnumMembers(dict[int, int]):
    """Value to enum member; an unknown value is its own plain int. The enum is made when it is first needed."""

    __slots__ = ("_enum", "declared", "name")

    def __init__(self, name: str, declared: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.name = name
        self.declared = declared
        self._enum: Any = None

    def __missing__(self, value: int) -> int:
        if self._enum is not None or not self.enum:
            return value
        return self.get(value, value)

    @property
    def enum(self) -> Any:
        """The IntEnum. Names it cannot have (``mro``, ``_x_``) get a trailing underscore."""
        if self._enum is None:
            from pybpf.btf.enums import make_enum

            self._enum = make_enum(self.name, self.declared)
            self.update((int(member), member) for member in self._enum)
        return self._enum

    def value_of(self, name: str, where: str, c_name: str) -> int:
        """The number of a member's name. Raises ValueError."""
        for declared, value in self.declared:
            if declared == name:
                return value
        known = ", ".join(declared for declared, _ in self.declared[:8])
        more = ", ..." if len(self.declared) > 8 else ""
        raise ValueError(f"{place(where)}{c_name} has no member {name!r} (it has {known}{more})")


class EnumCodec(IntCodec):
    """enum and enum64: a member of an `enum.IntEnum`, a plain int when the value has no name. Takes names too."""

    __slots__ = ("members",)

    def __init__(self, size: int, is_signed: bool, members: EnumMembers, c_name: str, byte_order: str) -> None:
        super().__init__(size, is_signed, c_name, byte_order)
        self.members = members

    @property
    def _is_plain(self) -> bool:
        return False

    def expression(self, variable: str, source: Source) -> str:
        return f"{source.constant(self.members)}[{super().expression(variable, source)}]"

    def argument(self, value: Any, where: str) -> int | bytes:
        if isinstance(value, str):
            value = self.members.value_of(value, where, self.c_name)
        return super().argument(value, where)

    def parse(self, text: str) -> int:
        name = text.strip()
        return int(self._checked(name if name.isidentifier() else parse_integer(text, self.c_name)))


class BitfieldCodec(Codec):
    """A bitfield, as part of the bytes that hold it: int, bool or enum member.

    `first` is the bit offset from the start of those bytes, in the numbering of the byte order: bit 0 is the lowest bit
    of the first byte on little-endian, the highest on big-endian.
    """

    __slots__ = ("bits", "inner", "is_signed", "shift")

    def __init__(self, inner: Codec, first: int, bits: int, size: int) -> None:
        super().__init__(size, inner.c_name, inner.byte_order, container_code(size))
        self.inner = inner
        self.bits = bits
        self.is_signed = isinstance(inner, IntCodec) and inner.is_signed
        self.shift = first if self.byte_order == "little" else size * 8 - first - bits

    def expression(self, variable: str, source: Source) -> str:
        return self.extract(container_expression(self.size, self.byte_order, variable), self.shift, source)

    def extract(self, container: str, shift: int, source: Source) -> str:
        """The expression of the value, from that of the integer which holds it `shift` bits up."""
        value = f"({container} >> {shift} & {(1 << self.bits) - 1})"
        if isinstance(self.inner, BoolCodec):
            return f"({value} != 0)"
        if self.is_signed:
            sign = 1 << (self.bits - 1)
            value = f"(({value} ^ {sign}) - {sign})"
        if isinstance(self.inner, EnumCodec):
            return f"{source.constant(self.inner.members)}[{value}]"
        return value

    def field(self, value: Any, where: str) -> int:
        """The bits of a value, from bit 0 up. Raises OverflowError, TypeError."""
        if isinstance(self.inner, BoolCodec):
            return int(to_bool(value, where, self.c_name))
        if isinstance(value, str) and isinstance(self.inner, EnumCodec):
            value = self.inner.members.value_of(value, where, self.c_name)
        number = to_integer(value, where, self.c_name)
        low = -(1 << (self.bits - 1)) if self.is_signed else 0
        high = (1 << (self.bits - self.is_signed)) - 1
        check_range(number, low, high, where, f"{self.c_name}:{self.bits}")
        return number & ((1 << self.bits) - 1)

    def argument(self, value: Any, where: str) -> int | bytes:
        number = self.field(value, where) << self.shift
        return number if len(self.code) == 1 else number.to_bytes(self.size, self.byte_order)

    def overlay(self, buffer: bytearray, offset: int, value: Any, where: str) -> None:
        held = int.from_bytes(buffer[offset : offset + self.size], self.byte_order)
        held &= ~(((1 << self.bits) - 1) << self.shift)
        held |= self.field(value, where) << self.shift
        buffer[offset : offset + self.size] = held.to_bytes(self.size, self.byte_order)

    def parse(self, text: str) -> Any:
        return self._checked(self.inner.parse(text))


def container_code(size: int) -> str:
    """The struct code of the bytes that hold bitfields."""
    return INTEGER_CODES.get((size, False), f"{size}s")


def container_expression(size: int, byte_order: str, variable: str) -> str:
    """The expression of the unsigned integer in what `container_code()` unpacks."""
    return variable if (size, False) in INTEGER_CODES else f"int.from_bytes({variable}, {byte_order!r})"


class OpaqueCodec(Codec):
    """What Python has no value for (long double): the bytes as they are."""

    __slots__ = ()

    def __init__(self, size: int, c_name: str, byte_order: str) -> None:
        super().__init__(size, c_name, byte_order, f"{size}s")

    def argument(self, value: Any, where: str) -> bytes:
        return exact_bytes(value, self.size, where, self.c_name)

    def parse(self, text: str) -> bytes:
        return bytes(self._checked(parse_hex(text, self.c_name)))


def is_bytes(value: object) -> bool:
    """Whether a value is bytes-like in the way that codecs take it."""
    return isinstance(value, bytes | bytearray | memoryview)


def exact_bytes(value: Any, size: int, where: str, c_name: str) -> bytes:
    """The bytes of a bytes-like value of exactly `size` bytes. Raises TypeError, ValueError."""
    if not is_bytes(value):
        raise TypeError(f"{place(where)}{c_name} takes bytes, not {value!r}")
    data = bytes(value)
    if len(data) != size:
        raise ValueError(f"{place(where)}{c_name} takes {size} bytes, not {len(data)}")
    return data


def parse_hex(text: str, c_name: str) -> bytes:
    """Hexadecimal digits, spaces, colons and a leading 0x allowed. Raises ValueError."""
    digits = text.strip().removeprefix("0x").replace(":", "")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{text!r} is not hexadecimal ({c_name})") from None
