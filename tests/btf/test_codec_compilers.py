"""What the codec makes of a struct is what compilers make of it.

Random C types get a random constant each. Clang for BPF (both byte orders) and gcc for the host lay the constant out;
the codec, knowing only the BTF, must produce the same bytes from the Python value and the same value from the bytes.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf.codec import codec
from pybpf.btf.reader import BTF
from pybpf.btf.records import to_json

CLANG = shutil.which("clang-19") or shutil.which("clang")
GCC = shutil.which("gcc")
pytestmark = pytest.mark.skipif(not (CLANG and GCC), reason="needs clang and gcc")

PRELUDE = """
typedef unsigned int u32; typedef const u32 cu32; typedef unsigned char byte_t; typedef char name_t[7];
enum small { SMALL_A, SMALL_B = 7, SMALL_C = 100 };
enum negative { NEG_A = -5, NEG_B, NEG_C = 1000 };
enum wide { WIDE_A = 1, WIDE_B = 1LL << 40 };
"""
INTEGERS = [
    ("char", 1, True),
    ("signed char", 1, True),
    ("unsigned char", 1, False),
    ("short", 2, True),
    ("unsigned short", 2, False),
    ("int", 4, True),
    ("cu32", 4, False),
    ("long", 8, True),
    ("unsigned long long", 8, False),
]
ENUMS = {"small": (0, 7, 100, 55), "negative": (-5, -4, 1000, 3), "wide": (1, 1 << 40, 12)}


class Type:
    """A C type with a constant: `declare(name)` is a declarator, `literal` the constant in C, `value` in Python."""

    def __init__(self, prefix: str, suffix: str, literal: str, value: Any) -> None:
        self.prefix, self.suffix, self.literal, self.value = prefix, suffix, literal, value

    def declare(self, name: str) -> str:
        return f"{self.prefix} {name}{self.suffix}"


def integer_literal(value: int, size: int) -> str:
    if value == -(1 << 63):
        return "(-0x7fffffffffffffffLL - 1)"
    return f"{value}{'ULL' if value >= 1 << 63 else 'LL' if size == 8 else 'U' if value >= 1 << 31 else ''}"


def bounds(bits: int, signed: bool) -> st.SearchStrategy[int]:
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return st.integers(low, high) | st.sampled_from([low, high])


@st.composite
def integers(draw: st.DrawFn) -> Type:
    name, size, signed = draw(st.sampled_from(INTEGERS))
    value = draw(bounds(size * 8, signed))
    return Type(name, "", integer_literal(value, size), value)


@st.composite
def bitfields(draw: st.DrawFn) -> Type:
    name, size, signed = draw(st.sampled_from([*INTEGERS, ("_Bool", 0, False)]))
    bits = draw(st.integers(1, size * 8 or 1))
    value = draw(bounds(bits, signed))
    return Type(name, f":{bits}", integer_literal(value, size), bool(value) if not size else value)


@st.composite
def scalars(draw: st.DrawFn) -> Type:
    kind = draw(st.sampled_from(["bool", "float", "double", "pointer", "enum"]))
    if kind == "bool":
        truth = draw(st.booleans())
        return Type("_Bool", "", str(int(truth)), truth)
    if kind == "float":
        number = draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
        return Type("float", "", f"{number.hex()}f", number)
    if kind == "double":
        number = draw(st.floats(allow_nan=False, allow_infinity=False))
        return Type("double", "", number.hex(), number)
    if kind == "pointer":
        address = draw(st.integers(0, (1 << 64) - 1))
        return Type("void *", "", f"(void *){address}ULL", address)
    name = draw(st.sampled_from(sorted(ENUMS)))
    value = draw(st.sampled_from(ENUMS[name]))
    return Type(f"enum {name}", "", integer_literal(value, 8), value)


@st.composite
def texts(draw: st.DrawFn) -> Type:
    size = draw(st.integers(1, 20))
    data = draw(st.binary(max_size=size)).replace(b"\0", b"x")
    literal = "{" + ", ".join(str(byte - 256 if byte > 127 else byte) for byte in data) + "}"
    return Type("char", f"[{size}]", literal if data else "{0}", data.decode("utf-8", "surrogateescape"))


@st.composite
def byte_arrays(draw: st.DrawFn) -> Type:
    data = draw(st.binary(min_size=1, max_size=20))
    return Type("byte_t", f"[{len(data)}]", "{" + ", ".join(map(str, data)) + "}", data)


@st.composite
def arrays(draw: st.DrawFn) -> Type:
    name, size, signed = draw(st.sampled_from(INTEGERS[3:]))
    rows, columns = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 17]))
    table = draw(
        st.lists(st.lists(bounds(size * 8, signed), min_size=columns, max_size=columns), min_size=rows, max_size=rows)
    )
    literal = "{" + ", ".join("{" + ", ".join(integer_literal(v, size) for v in row) + "}" for row in table) + "}"
    return Type(name, f"[{rows}][{columns}]", literal, table)


class Member:
    def __init__(self, name: str, type: Type) -> None:
        self.name, self.type = name, type


@st.composite
def composites(draw: st.DrawFn, depth: int = 2, prefix: str = "f") -> Type:
    """A struct or union body. `value` is a dict of the members that the constant sets."""
    is_union = draw(st.integers(0, 3)) == 0
    choices = [integers(), scalars(), texts(), byte_arrays(), arrays()]
    if not is_union:
        choices += [bitfields(), bitfields(), bitfields()]
    if depth:
        choices.append(composites(depth - 1))
    members = [
        Member(f"{prefix}{number}", draw(st.one_of(choices)))
        for number in range(draw(st.integers(1, 3 if is_union else 7)))
    ]
    set_members = [draw(st.sampled_from(members))] if is_union else members
    literal = [f".{member.name} = {member.type.literal}" for member in set_members]
    value = {member.name: member.type.value for member in set_members}
    body = " ".join(f"{member.type.declare(member.name)};" for member in members)
    if depth and not is_union and draw(st.booleans()):
        anonymous = draw(composites(depth - 1, f"{prefix}a"))
        body += f" {anonymous.prefix};"
        literal.append(anonymous.literal[1:-1])
        value.update(anonymous.value)
    packed = " __attribute__((packed))" if draw(st.integers(0, 4)) == 0 else ""
    prefix = f"{'union' if is_union else 'struct'} {{ {body} }}{packed}"
    return Type(prefix, "", "{" + ", ".join(literal) + "}", value)


def compile_to_sections(command: list[str], source: str, directory: Path) -> dict[str, bytes]:
    output = directory / "out.o"
    subprocess.run([*command, "-x", "c", "-", "-c", "-o", str(output)], input=source, text=True, check=True)
    with io.BytesIO(output.read_bytes()) as file:
        return {section.name: section.data() for section in ELFFile(file).iter_sections()}


def agree(decoded: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(agree(getattr(decoded, name), value) for name, value in expected.items())
    if isinstance(expected, float):
        return struct.pack("<d", decoded) == struct.pack("<d", expected)
    return bool(decoded == expected) and isinstance(decoded, int | str | bytes | list)


# No shrinking: each step would call three compilers.
@settings(
    max_examples=few(6),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(types=st.lists(composites(), min_size=12, max_size=25))
def test_random_types(types: list[Type], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("types")
    source = PRELUDE + "\n".join(
        f'typedef {type.declare(f"t{number}")}; t{number} v{number} __attribute__((section(".data.v{number}"))) = '
        f"{type.literal};"
        for number, type in enumerate(types)
    )
    quiet = ["-w", "-O1", "-fno-strict-aliasing"]
    assert CLANG and GCC
    little = compile_to_sections([CLANG, "-target", "bpfel", "-g", *quiet], source, directory)
    big = compile_to_sections([CLANG, "-target", "bpfeb", "-g", *quiet], source, directory)
    host = compile_to_sections([GCC, *quiet], source, directory)
    for sections, data in ((little, little), (big, big), (little, host)):
        btf = BTF.from_bytes(sections[".BTF"])
        for number, type in enumerate(types):
            found = codec(btf, btf.find(f"t{number}").id)
            expected = data[f".data.v{number}"]
            told = f"{type.declare('v')} = {type.literal}"
            assert found.size == len(expected), told
            assert found.encode(type.value) == expected, told
            decoded = found.decode(expected)
            assert agree(decoded, type.value), f"{told}: {decoded}"
            assert found.encode(decoded) == expected, f"{told}: {decoded}"
            again = list(found.decode_run(b"\xff" + expected * 3, 1, found.size, 3))
            assert to_json(again) == [to_json(decoded)] * 3
