"""Random C types with random constants, as hypothesis draws them.

A `Shape` is a C type; its `constants` are a strategy of pairs: the constant in C, and the value in Python X
has to make of it. `layouts()` are those that a file can define: everything that changes a layout is among them.
`features` name what compilers are known to disagree about, see `test_codec_compilers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import strategies as st

PRELUDE = """
typedef unsigned int u32; typedef const volatile u32 cvu32; typedef unsigned char byte_t; typedef _Bool bool_t;
typedef unsigned __int128 u128;
enum small { SMALL_A, SMALL_B = 7, SMALL_C = 100 };
enum negative { NEG_A = -5, NEG_B, NEG_C = 1000 };
enum wide { WIDE_A = 1, WIDE_B = 1LL << 40, WIDE_C = -1LL };
enum vast { VAST_A = 1, VAST_B = 0xffffffffffffffffULL };
enum __attribute__((packed)) tiny { TINY_A, TINY_B = 5, TINY_C = 200 };
enum __attribute__((packed)) tiny_negative { TINY_NEG_A = -3, TINY_NEG_B = 100 };
typedef struct point { int x; short y; } point_t;
"""
BYTES = [("char", 8, True), ("unsigned char", 8, False), ("byte_t", 8, False)]
INTEGERS = [
    ("signed char", 8, True),
    ("short", 16, True),
    ("unsigned short", 16, False),
    ("int", 32, True),
    ("u32", 32, False),
    ("cvu32", 32, False),
    ("long", 64, True),
    ("unsigned long long", 64, False),
]
HUGE = [("__int128", 128, True), ("u128", 128, False)]
ENUMS = [
    ("enum small", 32, False, (0, 7, 100, 55)),
    ("enum negative", 32, True, (-5, -4, 1000, 3)),
    ("enum wide", 64, True, (1, 1 << 40, -1, 12)),
    ("enum vast", 64, False, (1, (1 << 64) - 1, 3)),
    ("enum tiny", 8, False, (0, 5, 200, 9)),
    ("enum tiny_negative", 8, True, (-3, 100, 7)),
]

Constant = tuple[str, Any]
Constants = st.SearchStrategy[Constant]


class Shape:
    """A C type.

    Attributes:
        prefix, suffix: what stands before and behind the name that is declared.
        constants: pairs of a constant in C and its value in Python.
        features: what a compiler may be known to get wrong.
    """

    def __init__(
        self, prefix: str, suffix: str, constants: Constants, features: Iterable[str] = (), *, flexible: bool = False
    ) -> None:
        self.prefix, self.suffix, self.constants = prefix, suffix, constants
        self.features = frozenset(features)
        self.flexible = flexible

    def declare(self, name: str) -> str:
        return f"{self.prefix} {name}{self.suffix}"


def literal(value: int) -> str:
    if -(1 << 63) < value < 1 << 64:
        return f"{value}{'ULL' if value >= 1 << 63 else 'LL' if abs(value) >= 1 << 31 else ''}"
    return f"(__int128)((u128){(value >> 64) & (1 << 64) - 1}ULL << 64 | {value & (1 << 64) - 1}ULL)"


def braces(literals: Iterable[str]) -> str:
    return "{" + ", ".join(literals) + "}"


def numbers(bits: int, signed: bool) -> Constants:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return (st.integers(low, high) | st.sampled_from([low, high])).map(lambda value: (literal(value), value))


def of_enum(values: Sequence[int]) -> Constants:
    return st.sampled_from(values).map(lambda value: (literal(value), value))


def enum_features(bits: int, signed: bool) -> set[str]:
    return {"enum64"} if bits == 64 else {"negative enum"} if signed else set()


TRUTHS: Constants = st.booleans().map(lambda truth: (str(int(truth)), truth))
FLOATS: Constants = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda v: (f"{v.hex()}f", v))
DOUBLES: Constants = st.floats(allow_nan=False, allow_infinity=False).map(lambda v: (v.hex(), v))
ADDRESSES: Constants = st.integers(0, (1 << 64) - 1).map(lambda v: (f"(void *){v}ULL", v))
POINTS: Constants = st.tuples(numbers(32, True), numbers(16, True)).map(
    lambda pair: (braces(text for text, _ in pair), dict(zip("xy", (value for _, value in pair), strict=True)))
)
INTEGER_SHAPES = [Shape(name, "", numbers(bits, signed)) for name, bits, signed in INTEGERS]
BYTE_SHAPES = [Shape(name, "", numbers(bits, signed)) for name, bits, signed in BYTES]
ELEMENTS = [
    *INTEGER_SHAPES,
    *(Shape(name, "", numbers(bits, signed)) for name, bits, signed in HUGE),
    *(Shape(name, "", of_enum(values), enum_features(bits, signed)) for name, bits, signed, values in ENUMS),
    Shape("_Bool", "", TRUTHS),
    Shape("float", "", FLOATS),
    Shape("double", "", DOUBLES),
    Shape("void *", "", ADDRESSES),
    Shape("const char *", "", ADDRESSES),
    Shape("struct point", "", POINTS),
    Shape("point_t", "", POINTS),
    Shape("struct {}", "", st.just(("{}", {})), {"empty"}),
]
"""What arrays are lists of. An array of the last, which has no size, has no length that could be told."""


def scalars() -> st.SearchStrategy[Shape]:
    return st.sampled_from([*INTEGER_SHAPES, *BYTE_SHAPES, *ELEMENTS])


@st.composite
def bitfields(draw: st.DrawFn) -> Shape:
    name, size, signed, values = draw(
        st.sampled_from([*((*row, None) for row in INTEGERS + BYTES), ("bool_t", 1, False, None), *ENUMS])
    )
    if values is None:
        bits = draw(st.integers(1, size))
        constants = TRUTHS if size == 1 else numbers(bits, signed)
    else:
        least = max((value if value >= 0 else ~value).bit_length() + signed for value in values)
        bits, constants = draw(st.integers(least, size)), of_enum(values)
    return Shape(name, f":{bits}", constants, enum_features(size, signed) if values else ())


@st.composite
def gaps(draw: st.DrawFn) -> str:
    """A bitfield without a name; one of no width ends the unit."""
    name, size, _ = draw(st.sampled_from(INTEGERS[1:]))
    return f"{name} :{draw(st.sampled_from([0, 1, 5, size]))};"


def char_literal(data: bytes) -> str:
    return braces([str(byte - 256 if byte > 127 else byte) for byte in data] or ["0"])


def text(limit: int) -> Constants:
    data = st.binary(max_size=limit).map(lambda data: data.replace(b"\0", b"x"))
    return data.map(lambda data: (char_literal(data), data.decode("utf-8", "surrogateescape")))


def raw(size: int) -> Constants:
    return st.binary(min_size=size, max_size=size).map(lambda data: (braces(map(str, data)), data))


def texts() -> st.SearchStrategy[Shape]:
    return st.integers(1, 20).map(lambda size: Shape("char", f"[{size}]", text(size)))


def byte_arrays() -> st.SearchStrategy[Shape]:
    return st.builds(
        lambda name, size: Shape(name, f"[{size}]", raw(size)),
        st.sampled_from(["unsigned char", "byte_t"]),
        st.integers(1, 20),
    )


def listed(element: Constants, least: int, most: int) -> Constants:
    """Constants of an array."""
    return st.lists(element, min_size=least, max_size=most).map(
        lambda items: (braces(text for text, _ in items), [value for _, value in items])
    )


@st.composite
def arrays(draw: st.DrawFn, depth: int) -> Shape:
    inner = st.sampled_from(ELEMENTS) | texts() | byte_arrays()
    shape = draw(inner | composites(depth - 1, "g") if depth else inner)
    for _ in range(draw(st.integers(1, 2))):
        count = draw(st.sampled_from([1, 2, 3, 17] if shape in INTEGER_SHAPES else [1, 2, 3]))
        shape = Shape(
            shape.prefix,
            f"[{count}]{shape.suffix}",
            listed(shape.constants, count, count),
            shape.features | ({"table"} if shape.suffix else set()),
        )
    return shape


@st.composite
def open_arrays(draw: st.DrawFn, depth: int) -> Shape:
    """Without a length, as a struct may end in."""
    kind = draw(st.sampled_from(["char", "byte_t", "list"]))
    if kind != "list":
        return Shape(kind, "[]", text(9) if kind == "char" else st.integers(0, 9).flatmap(raw))
    shape = draw(st.sampled_from(ELEMENTS[:-1]) | texts() | composites(depth - 1, "g"))
    features = shape.features | ({"table"} if shape.suffix else set())
    return Shape(shape.prefix, f"[]{shape.suffix}", listed(shape.constants, 0, 3), features)


RARELY = st.integers(0, 9).map(lambda number: number == 9)


@st.composite
def attributes(draw: st.DrawFn) -> str:
    """What a member, or a whole struct, says of its alignment; mostly nothing."""
    words = ["packed"] if draw(RARELY) else []
    if draw(RARELY):
        words.append(f"aligned({draw(st.sampled_from([1, 2, 4, 8, 16, 32]))})")
    return "".join(f" __attribute__(({word}))" for word in words)


def joined(parts: Sequence[Constant]) -> Constant:
    """The constant of a struct, from ``.name = literal`` and dicts of its members."""
    value: dict[str, Any] = {}
    for _, some in parts:
        value |= some
    return braces(text for text, _ in parts if text), value


def named(name: str, constants: Constants) -> Constants:
    return constants.map(lambda constant: (f".{name} = {constant[0]}", {name: constant[1]}))


def bare(constants: Constants) -> Constants:
    """Of a struct or union without a name, whose members are those of what it is in."""
    return constants.map(lambda constant: (constant[0][1:-1], constant[1]))


@st.composite
def composites(draw: st.DrawFn, depth: int, prefix: str = "f", *, may_be_open: bool = False) -> Shape:
    """A struct or union; with `may_be_open` a struct may end in an array without a length."""
    is_union = draw(st.integers(0, 3)) == 3
    choices = [scalars(), texts(), byte_arrays(), arrays(depth)]
    if not is_union:
        choices += [bitfields(), bitfields(), bitfields()]
    if depth:
        choices.append(composites(depth - 1, "g"))
    body: list[str] = []
    parts: list[Constants] = []
    features: set[str] = set()
    is_overlay = is_union  # or may be: members share bytes, and such a value has no array without a length
    for number in range(draw(st.integers(1, 3 if is_union else 7))):
        name = f"{prefix}{number}"
        if not is_union and draw(RARELY):
            body.append(draw(gaps()))
            features.add("gap")
        if depth and draw(RARELY):
            shape = draw(composites(depth - 1, f"{name}a"))
            body.append(f"{shape.prefix};")
            parts.append(bare(shape.constants))
            features |= shape.features
            is_overlay = True
            continue
        shape = draw(st.one_of(choices))
        words = draw(attributes())
        body.append(f"{shape.declare(name)}{words};")
        parts.append(named(name, shape.constants))
        features |= shape.features
        if shape.suffix.startswith(":") and "aligned" in words:
            features.add("aligned bitfield")
    is_open = may_be_open and not is_overlay and draw(RARELY)
    if is_open:
        shape = draw(open_arrays(depth))
        body.append(f"{shape.declare(f'{prefix}_open')};")
        parts.append(named(f"{prefix}_open", shape.constants))
        features |= shape.features
    constants = st.one_of(parts).map(lambda part: joined([part])) if is_union else st.tuples(*parts).map(joined)
    head = f"{'union' if is_union else 'struct'} {{ {' '.join(body)} }}{draw(attributes())}"
    return Shape(head, "", constants, features, flexible=is_open)


class Layout:
    """A type that a file defines, with a constant.

    Attributes:
        pack: of ``#pragma pack``, 0 for none.
        literal, value: the constant in C and in Python.
        features: of the shape, and "pragma pack".
    """

    def __init__(self, shape: Shape, pack: int, constant: Constant) -> None:
        self.shape, self.pack = shape, pack
        self.literal, self.value = constant
        self.flexible = shape.flexible
        self.features = shape.features | ({"pragma pack"} if pack else set())

    def define(self, number: int) -> str:
        before, after = (f"#pragma pack(push, {self.pack})\n", "\n#pragma pack(pop)") if self.pack else ("", "")
        return (
            f"{before}typedef {self.shape.declare(f't{number}')};{after}\n"
            f't{number} v{number} __attribute__((section(".data.v{number}"))) = {self.literal};'
        )

    def __repr__(self) -> str:
        pack = f"#pragma pack({self.pack}) " if self.pack else ""
        return f"{pack}{self.shape.declare('v')} = {self.literal}"


@st.composite
def layouts(draw: st.DrawFn, *, is_plain: bool = False) -> Layout:
    """Any type; a plain one has a size, and needs no pragma."""
    shape = draw(composites(2, may_be_open=not is_plain))
    pack = 0 if is_plain else draw(st.sampled_from([0, 0, 0, 0, 0, 1, 2, 4]))
    return Layout(shape, pack, draw(shape.constants))
