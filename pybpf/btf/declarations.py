"""C declarations to BTF: the types of maps that no object file describes.

    types = Declarations()
    key = types.type("u32")
    value = types.type("struct stats { u64 packets; u64 bytes; char name[16]; }")
    types.codec(value).decode(bytes(32))

Rules of this file:

* Pure. What is read: struct, union and enum, nested and anonymous; typedef; pointers and arrays; bitfields; the integer
  types of C, of <stdint.h> and of the kernel; ``packed`` and ``aligned``; numbers as expressions of numbers, of enum
  constants, ``sizeof`` and ``#define NAME expression``. Several declarations are separated by semicolons: the last one
  is the type that is meant, the others can be used in it, and in later texts of the same `Declarations`. What the
  kernel takes charge of (`pybpf.btf.fields`: ``struct bpf_spin_lock``, ``struct bpf_timer``) is there without.
* Sizes and offsets are those of clang for BPF, and so of every 64-bit Linux: `layout.py` of this package knows BTF's
  own layout, `Frame` here that of C.
* What is wrong is a BTFError with line and column.
"""

from __future__ import annotations

import re
import sys

from pybpf.btf import kinds
from pybpf.btf.fields import KERNEL_FIELDS
from pybpf.btf.kinds import Member
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pybpf.btf.codec import Codec
    from pybpf.btf.reader import BTF

MAX_SIZE = 1 << 30
"""Bytes of one type."""
MAX_NESTING = 32
"""Structs in structs, and brackets in brackets."""

_INTEGERS = {
    "char": (1, kinds.INT_SIGNED),
    "signed char": (1, kinds.INT_SIGNED),
    "unsigned char": (1, 0),
    "short": (2, kinds.INT_SIGNED),
    "unsigned short": (2, 0),
    "int": (4, kinds.INT_SIGNED),
    "unsigned int": (4, 0),
    "long": (8, kinds.INT_SIGNED),
    "unsigned long": (8, 0),
    "long long": (8, kinds.INT_SIGNED),
    "unsigned long long": (8, 0),
    "__int128": (16, kinds.INT_SIGNED),
    "unsigned __int128": (16, 0),
    "_Bool": (1, kinds.INT_BOOL),
}
"""Name -> (bytes, encoding)."""
_FLOATS = {"float": 4, "double": 8, "long double": 16}
_TYPEDEFS = {
    "unsigned char": "u8 __u8 uint8_t",
    "unsigned short": "u16 __u16 uint16_t __be16 __le16 __sum16",
    "unsigned int": "u32 __u32 uint32_t __be32 __le32 __wsum uid_t gid_t dev_t",
    "unsigned long long": "u64 __u64 uint64_t __be64 __le64",
    "signed char": "s8 __s8 int8_t",
    "short": "s16 __s16 int16_t",
    "int": "s32 __s32 int32_t pid_t",
    "long long": "s64 __s64 int64_t loff_t",
    "unsigned long": "size_t uintptr_t ino_t",
    "long": "ssize_t intptr_t off_t",
    "_Bool": "bool",
}
"""Type -> its other names."""
_ALIASES = {name: target for target, names in _TYPEDEFS.items() for name in names.split()}
_WORDS = frozenset(
    ("void", "char", "short", "int", "long", "float", "double", "signed", "unsigned", "_Bool", "__int128")
)
_QUALIFIERS = frozenset(("const", "volatile", "restrict", "__restrict", "static", "extern"))

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<define>^[ \t]*\#[ \t]*define[ \t]+(?P<macro>\w+)[ \t]+(?P<body>[^\n]+))"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uUlL]*|0[bB][01]+[uUlL]*|\d+[uUlL]*\b)"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign><<|>>|[{}\[\]();,:=*+\-/%&|^~])",
    re.DOTALL | re.MULTILINE,
)
_PRECEDENCE = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6}


class CType:
    """A type as C sees it.

    Attributes:
        id: in the BTF; 0 is void.
        size, align: bytes. Void, and types that are only declared, have size 0 and cannot be members.
        is_integer: it may be a bitfield.
    """

    __slots__ = ("align", "id", "is_integer", "size")

    def __init__(self, id: int, size: int, align: int, is_integer: bool = False) -> None:
        self.id = id
        self.size = size
        self.align = align
        self.is_integer = is_integer


class Frame:
    """The layout of one struct or union, member by member.

    A bitfield goes right behind the one before, unless it would then lie in two units of its type: then it begins a
    new one. Packed, everything goes right behind the one before. Source: System V ABI, AMD64 supplement, 3.1.2;
    clang's RecordLayoutBuilder.
    """

    def __init__(self, is_union: bool = False, is_packed: bool = False) -> None:
        self.is_union = is_union
        self.is_packed = is_packed
        self.members: list[Member] = []
        self.align = 1
        self._end = 0  # in bits
        self._size = 0  # in bits

    def add(self, name: str, type: CType, bits: int | None = None, align: int = 0, is_packed: bool = False) -> None:
        """A member. `bits` is the width of a bitfield, `align` what its attribute ``aligned`` says."""
        is_packed = is_packed or self.is_packed
        natural = max(1 if is_packed else type.align, align)
        start = 0 if self.is_union else self._end
        if bits is None:
            start = _round_up(start, natural * 8)
            width = type.size * 8
        elif not bits:
            self._end = _round_up(start, type.align * 8)
            return
        else:
            unit = type.size * 8
            if not is_packed and start % (natural * 8) + bits > unit:
                start = _round_up(start, natural * 8)
            elif align:
                start = _round_up(start, align * 8)
            width = bits
        if name or bits is None:  # a bitfield without a name is padding
            self.members.append(Member(name, type.id, start, bits or 0))
            self.align = max(self.align, natural)
        self._end = start + width
        self._size = max(self._size, self._end)

    def size(self) -> int:
        """Bytes of the whole."""
        return _round_up(max(self._size, self._end) + 7 >> 3, self.align)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


class Declarations:
    """Types made from C declarations, in one BTF.

    Everything here raises BTFError for what is no C, not read here, or not known.
    """

    def __init__(self, byte_order: str = sys.byteorder) -> None:
        self.builder = BTFBuilder(byte_order)
        self.names: dict[str, CType] = {}
        """Typedefs by name; structs, unions and enums as ``"struct stats"``."""
        self.constants: dict[str, int] = {}
        """Enum constants and defined numbers."""
        self._derived: dict[tuple[str, int, int], CType] = {}
        self._btf: BTF | None = None

    def type(self, text: str) -> int:
        """The id of the type that a text declares or names: ``"u32"``, ``"char[16]"``, ``"struct a { int b; }"``."""
        return self.parse(text).id

    def parse(self, text: str) -> CType:
        """The same as a `CType`, which has a size."""
        found = _Parser(self, text).declarations()
        if not found.size:
            raise BTFError(f"{text!r} declares a type without values")
        return found

    def btf(self) -> BTF:
        """All of it, as it is read."""
        if self._btf is None or len(self._btf) != len(self.builder):
            from pybpf.btf.reader import BTF

            self._btf = BTF.from_bytes(self.builder.to_bytes())
        return self._btf

    def codec(self, type_id: int) -> Codec:
        """The codec of one of the types."""
        from pybpf.btf.codec import codec

        return codec(self.btf(), type_id)

    # --- types -----------------------------------------------------------------------------------------------------

    def named(self, name: str) -> CType | None:
        """A type of C, of the kernel, or a typedef that was declared; None if there is none of this name."""
        found = self.names.get(name)
        if found is not None:
            return found
        if name in _INTEGERS:
            size, encoding = _INTEGERS[name]
            found = CType(self.builder.add_int(name, size, encoding=encoding), size, size, True)
        elif name in _FLOATS:
            found = CType(self.builder.add_float(name, _FLOATS[name]), _FLOATS[name], _FLOATS[name])
        elif name in _ALIASES:
            target = self.named(_ALIASES[name])
            assert target is not None
            found = CType(self.builder.add_typedef(name, target.id), target.size, target.align, True)
        elif name == "void":
            return CType(0, 0, 1)
        else:
            return None
        self.names[name] = found
        return found

    def pointer(self, target: CType) -> CType:
        return self._derive("*", target, 0, lambda: CType(self.builder.add_ptr(target.id), 8, 8))

    def array(self, element: CType, count: int) -> CType:
        if not element.size:
            raise BTFError("an array of what has no size")
        if not 0 <= element.size * count <= MAX_SIZE:
            raise BTFError(f"an array of {count} times {element.size} bytes is too large")

        def make() -> CType:
            index = self.named("unsigned int")
            assert index is not None
            made = self.builder.add_array(element.id, index.id, count)
            return CType(made, element.size * count, element.align)

        return self._derive("[]", element, count, make)

    def function(self) -> CType:
        """What pointers to functions point to. Which arguments they take does not matter to values."""
        return self._derive("()", CType(0, 0, 1), 0, lambda: CType(self.builder.add_func_proto(0, ()), 0, 1))

    def _derive(self, kind: str, target: CType, count: int, make: Callable[[], CType]) -> CType:
        found = self._derived.get((kind, target.id, count))
        if found is None:
            found = self._derived[kind, target.id, count] = make()
        return found

    def composite(self, name: str, frame: Frame) -> CType:
        """A struct or union of this layout. The name may be empty."""
        word = "union" if frame.is_union else "struct"
        if name and f"{word} {name}" in self.names:
            raise BTFError(f"{word} {name} is declared twice")
        size = frame.size()
        if size > MAX_SIZE:
            raise BTFError(f"{word} {name or '{...}'} has {size} bytes, which is too large")
        add = self.builder.add_union if frame.is_union else self.builder.add_struct
        made = CType(add(name, size, frame.members), size, frame.align)
        if name:
            self.names[f"{word} {name}"] = made
        return made

    def enumeration(self, name: str, values: Sequence[tuple[str, int]], is_packed: bool = False) -> CType:
        """An enum of 4 bytes, of 8 if its values need them; packed, of as few as they need. The name may be empty."""
        if name and f"enum {name}" in self.names:
            raise BTFError(f"enum {name} is declared twice")
        is_signed = any(number < 0 for _, number in values)
        low, high = min(number for _, number in values), max(number for _, number in values)
        least = 1 if is_packed else 4
        fitting = (size for size in (1, 2, 4) if low >= -(1 << 8 * size - 1) and high < 1 << 8 * size - is_signed)
        size = max(least, next(fitting, 8))
        add = self.builder.add_enum64 if size == 8 else self.builder.add_enum
        made = CType(add(name, size, is_signed, values), size, size, True)
        if name:
            self.names[f"enum {name}"] = made
        return made

    def typedef(self, name: str, target: CType) -> CType:
        """Another name. Saying the same twice is allowed."""
        made = CType(self.builder.add_typedef(name, target.id), target.size, target.align, target.is_integer)
        self.names[name] = made
        return made


class _Parser:
    """Reads one text."""

    def __init__(self, types: Declarations, text: str) -> None:
        self.types = types
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        """(kind, text, position); at the end one of kind "end"."""
        self.next = 0
        self.depth = 0
        self._split()

    def _split(self) -> None:
        position = 0
        while position < len(self.text):
            found = _TOKEN.match(self.text, position)
            if found is None:
                raise self._error(f"{self.text[position]!r} is not understood", position)
            kind = found.lastgroup or ""
            if found["define"] is not None:
                value = _Parser(self.types, found["body"])
                self.types.constants[found["macro"]] = value.expression()
                if value.kind != "end":
                    raise self._error(f"#define {found['macro']}: this is not a number", position)
            elif kind != "space":
                self.tokens.append((kind, found[0], position))
            position = found.end()
        self.tokens.append(("end", "the end", len(self.text)))

    def _error(self, what: str, position: int | None = None) -> BTFError:
        if position is None:
            position = self.tokens[self.next][2]
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1) + 1
        return BTFError(f"C declaration, line {line}, column {column}: {what}")

    @property
    def kind(self) -> str:
        return self.tokens[self.next][0]

    @property
    def word(self) -> str:
        return self.tokens[self.next][1]

    def take(self) -> str:
        word = self.word
        if self.kind != "end":
            self.next += 1
        return word

    def has(self, word: str) -> bool:
        """Whether this comes next; then it is taken."""
        if self.kind == "end" or self.word != word:
            return False
        self.next += 1
        return True

    def want(self, word: str) -> None:
        if not self.has(word):
            raise self._error(f"{word!r} is missing before {self.word!r}")

    def name(self, what: str) -> str:
        if self.kind != "name":
            raise self._error(f"{what} is missing before {self.word!r}")
        return self.take()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise self._error("nested too deep")

    # --- declarations ----------------------------------------------------------------------------------------------

    def declarations(self) -> CType:
        """All of them; the last one's type."""
        found: CType | None = None
        while self.kind != "end":
            if self.has(";"):
                continue
            is_typedef = self.has("typedef")
            base = self.specifiers()
            name, found, _ = self.declarator(base)
            if is_typedef:
                if not name:
                    raise self._error("the name of the typedef is missing")
                found = self.types.typedef(name, found)
            if self.kind != "end":
                self.want(";")
        if found is None:
            raise self._error("there is no type")
        return found

    def specifiers(self) -> CType:
        """A type without stars and brackets."""
        words: list[str] = []
        found: CType | None = None
        while self.kind == "name":
            word = self.word
            if word in _QUALIFIERS:
                self.take()
            elif word == "__attribute__":
                self.attributes()
            elif word in ("struct", "union") and not words and found is None:
                self.take()
                found = self.composite(word)
            elif word == "enum" and not words and found is None:
                self.take()
                found = self.enumeration()
            elif word in _WORDS and found is None:
                words.append(self.take())
            elif not words and found is None:
                found = self.types.named(word)
                if found is None:
                    raise self._error(f"the type {word!r} is not known")
                self.take()
            else:
                break
        if words:
            plain = _plain_name(words)
            found = self.types.named(plain)
            if found is None:
                raise self._error(f"{' '.join(words)} is no type")
        if found is None:
            raise self._error(f"a type is missing before {self.word!r}")
        return found

    def attributes(self) -> tuple[bool, int]:
        """Whether it says packed, and what it says for aligned."""
        is_packed, align = False, 0
        while self.has("__attribute__"):
            self.want("(")
            self.want("(")
            while not self.has(")"):
                word = self.name("an attribute").strip("_")
                if word == "packed":
                    is_packed = True
                elif word == "aligned":
                    align = 16
                    if self.has("("):
                        align = self.expression()
                        self.want(")")
                    if align < 1 or align & align - 1 or align > 4096:
                        raise self._error(f"aligned({align}): it takes a power of two up to 4096")
                elif word != "preserve_access_index":
                    raise self._error(f"the attribute {word!r} is not known here")
                self.has(",")
            self.want(")")
        return is_packed, align

    def composite(self, word: str) -> CType:
        is_packed, align = self.attributes()
        name = self.take() if self.kind == "name" else ""
        if not self.has("{"):
            found = self.types.names.get(f"{word} {name}")
            if found is None and not name:
                raise self._error("'{' is missing")
            if found is None and word == "struct" and name in KERNEL_FIELDS:
                return self.types.parse(KERNEL_FIELDS[name])
            # Pointers may point to what is not declared.
            return found or CType(self.types.builder.add_fwd(name, word == "union"), 0, 1)
        self.deeper()
        members: list[tuple[str, CType, int | None, int, bool]] = []
        while not self.has("}"):
            self.members(members)
        self.depth -= 1
        packed_behind, align_behind = self.attributes()
        frame = Frame(word == "union", is_packed or packed_behind)
        seen: set[str] = set()
        for member, type, bits, aligned, is_packed in members:
            if member and member in seen:
                raise self._error(f"{word} {name}: there are two members {member!r}")
            seen.add(member)
            frame.add(member, type, bits, aligned, is_packed)
        frame.align = max(frame.align, align, align_behind)
        return self.types.composite(name, frame)

    def members(self, members: list[tuple[str, CType, int | None, int, bool]]) -> None:
        """One declaration of members: ``u32 a, b[2], c:3;``."""
        if self.has(";"):
            return
        base = self.specifiers()
        while True:
            start = self.next
            name, type, is_bare = self.declarator(base)
            bits = None
            if self.has(":"):
                bits = self.expression()
                if not type.is_integer or not is_bare:
                    raise self._error("only integers can be bitfields")
                if not (0 if not name else 1) <= bits <= type.size * 8:
                    raise self._error(f"a bitfield of {bits} bits does not fit its type")
                if type.size > 8:
                    raise self._error("bitfields of more than 64 bits are not read here")
            is_packed, align = self.attributes()
            if not name and bits is None and start != self.next:
                raise self._error("the member has no name")
            is_anonymous = not name and bits is None
            # ``[]`` at the end of a struct has no size either; void and what is only declared are not even a type here.
            if not type.size and (is_bare or is_anonymous):
                raise self._error(f"{name or 'the member'} has a type without a size")
            members.append((name, type, bits, align, is_packed))
            if self.has(";"):
                return
            self.want(",")

    def declarator(self, base: CType) -> tuple[str, CType, bool]:
        """Name (may be empty), type, and whether that is the base itself."""
        found, is_bare = base, True
        while self.has("*"):
            found, is_bare = self.types.pointer(found), False
            while self.kind == "name" and self.word in _QUALIFIERS:
                self.take()
        name, stars, inner = "", 0, []
        if self.word == "(" and self.kind == "sign":
            self.take()
            self.deeper()
            while self.has("*"):
                stars += 1
            name = self.take() if self.kind == "name" else ""
            inner = self.dimensions()
            self.want(")")
            self.depth -= 1
        elif self.kind == "name" and self.word != "__attribute__":
            name = self.take()
        if self.has("("):
            if not stars:
                raise self._error("a function is no value")
            while not self.has(")"):
                if self.kind == "end":
                    raise self._error("')' is missing")
                self.take()
            found, is_bare = self.types.function(), False
        found, is_bare = self._arrays(found, self.dimensions(), is_bare)
        for _ in range(stars):
            found, is_bare = self.types.pointer(found), False
        found, is_bare = self._arrays(found, inner, is_bare)
        return name, found, is_bare

    def _arrays(self, found: CType, dimensions: list[int], is_bare: bool) -> tuple[CType, bool]:
        for count in reversed(dimensions):
            try:
                found = self.types.array(found, count)
            except BTFError as error:
                raise self._error(str(error)) from None
        return found, is_bare and not dimensions

    def dimensions(self) -> list[int]:
        found: list[int] = []
        while self.has("["):
            count = 0
            if self.word != "]":
                count = self.expression()
                if not 0 <= count <= MAX_SIZE:
                    raise self._error(f"an array cannot have {count} elements")
            elif found:
                raise self._error("only the first dimension may be left out")
            self.want("]")
            found.append(count)
        return found

    def enumeration(self) -> CType:
        is_packed, _ = self.attributes()
        name = self.take() if self.kind == "name" else ""
        if not self.has("{"):
            found = self.types.names.get(f"enum {name}")
            if found is None:
                raise self._error(f"enum {name} is not known")
            return found
        values: list[tuple[str, int]] = []
        following = 0
        while not self.has("}"):
            constant = self.name("the name of a constant")
            if self.has("="):
                following = self.expression()
            if not -(1 << 63) <= following < 1 << 64:
                raise self._error(f"{constant} = {following} does not fit 64 bits")
            values.append((constant, following))
            self.types.constants[constant] = following
            following += 1
            if self.word != "}":
                self.want(",")
        if not values:
            raise self._error(f"enum {name} has no constants")
        packed_behind, _ = self.attributes()
        return self.types.enumeration(name, values, is_packed or packed_behind)

    # --- numbers ---------------------------------------------------------------------------------------------------

    def expression(self, above: int = 0) -> int:
        """A number; operators that bind closer than `above`."""
        self.deeper()
        left = self.operand()
        while self.kind == "sign" and _PRECEDENCE.get(self.word, 0) > above:
            sign = self.take()
            left = self.operate(sign, left, self.expression(_PRECEDENCE[sign]))
            if abs(left) >= 1 << 128:
                raise self._error("the number is too large")
        self.depth -= 1
        return left

    def operate(self, sign: str, left: int, right: int) -> int:
        if sign in ("/", "%"):
            if not right:
                raise self._error("division by zero")
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            return quotient if sign == "/" else left - quotient * right
        if sign in ("<<", ">>"):
            if not 0 <= right < 64:
                raise self._error(f"a shift by {right}")
            return left << right if sign == "<<" else left >> right
        return _OPERATE[sign](left, right)

    def operand(self) -> int:
        if self.has("("):
            value = self.expression()
            self.want(")")
            return value
        if self.kind == "sign" and self.word in "+-~":
            self.deeper()
            sign = self.take()
            value = self.operand()
            self.depth -= 1
            return {"+": value, "-": -value, "~": ~value}[sign]
        if self.has("sizeof"):
            self.want("(")
            _, type, _ = self.declarator(self.specifiers())
            self.want(")")
            return type.size
        if self.kind == "number":
            digits = self.take().rstrip("uUlL")
            is_octal = digits.startswith("0") and digits.isdigit() and digits.strip("0") != ""
            try:
                return int(digits, 8 if is_octal else 0) if digits.strip("0") else 0
            except ValueError:
                raise self._error(f"{digits!r} is no number") from None
        if self.kind == "name" and self.word in self.types.constants:
            return self.types.constants[self.take()]
        raise self._error(f"a number is missing before {self.word!r}")


_OPERATE: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "&": int.__and__,
    "|": int.__or__,
    "^": int.__xor__,
}


def _plain_name(words: list[str]) -> str:
    """The one name that a type has of those that C allows: ``long unsigned int`` is ``unsigned long``."""
    left = sorted(words)
    is_unsigned = "unsigned" in left
    is_signed = "signed" in left
    rest = [word for word in left if word not in ("unsigned", "signed")]
    if len(left) - len(rest) > 1 or ("double" in rest and (is_unsigned or is_signed)):
        return ""
    if rest in (["double"], ["double", "long"]):
        return " ".join(sorted(rest, reverse=True))
    if "int" in rest and len(rest) > 1:
        rest.remove("int")
    name = " ".join(rest) or "int"
    if name == "char":
        return "unsigned char" if is_unsigned else "signed char" if is_signed else "char"
    if name in ("void", "_Bool", "float") and (is_unsigned or is_signed):
        return ""
    return f"unsigned {name}" if is_unsigned else name
