"""C declarations to BTF: the layouts are clang's, what is wrong is named with its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from c_layouts import PRELUDE, Layout, layouts
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_codec_compilers import CLANG, GCC, compile_to_sections
from thrift import few

from pybpf.btf.codec import codec
from pybpf.btf.declarations import Declarations
from pybpf.btf.kinds import Struct
from pybpf.btf.reader import BTF
from pybpf.errors import BTFError


@pytest.mark.parametrize(
    ("text", "size", "zero"),
    [
        ("u32", 4, 0),
        ("unsigned long int", 8, 0),
        ("long unsigned", 8, 0),
        ("const volatile __s16", 2, 0),
        ("bool", 1, False),
        ("double", 8, 0.0),
        ("char[16]", 16, ""),
        ("u8[4]", 4, bytes(4)),
        ("struct { struct bpf_spin_lock lock; u32 n; }", 8, ((0,), 0)),
        ("struct { char c; struct bpf_timer timer; }", 24, (0, ([0, 0],))),
        ("u16 [2][3]", 12, [[0, 0, 0], [0, 0, 0]]),
        ("void *", 8, 0),
        ("int (*)(void *, int)", 8, 0),
        ("char (*)[4]", 8, 0),
        ("struct pair { u32 a, b; }", 8, (0, 0)),
        ("struct pair { u8 a; u64 b; };", 16, (0, 0)),
        ("struct pair { u8 a; u64 b; } __attribute__((packed))", 9, (0, 0)),
        ("struct { u8 a __attribute__((aligned(8))); u8 b; }", 8, (0, 0)),
        ("struct point { int x; int y; }; struct line { struct point from, to; }", 16, ((0, 0), (0, 0))),
        ("typedef u32 ids_t[3]; struct set { ids_t ids; u8 count; }", 16, ([0, 0, 0], 0)),
        ("#define N 4\n#define M (N * 2)\nu8[M - 1]", 7, bytes(7)),
        ("enum { SIZE = 1 << 3, NEXT }; u8[NEXT]", 9, bytes(9)),
        ("u8[sizeof(struct pair { u32 a; u64 b; })]", 16, bytes(16)),
        ("u8[010 + 0x10 + 0b11 + 7 % 4 - ~0]", 31, bytes(31)),
        ("/* a */ u32 // b", 4, 0),
    ],
)
def test_examples(text: str, size: int, zero: object) -> None:
    types = Declarations()
    found = types.parse(text)
    assert found.size == size
    made = types.codec(found.id)
    assert made.size == size
    assert made.default() == zero


def test_names_and_bitfields() -> None:
    types = Declarations()
    found = types.codec(
        types.type(
            "struct flags { u32 kind:3, :5, level:8; u64 wide:40; enum state { IDLE, BUSY = 5 } state; u8 rest[]; }"
        )
    )
    value = found.decode(found.encode({"kind": 5, "level": 200, "wide": 1 << 39, "state": "BUSY"}))
    assert (value.kind, value.level, value.wide, value.state.name, value.rest) == (5, 200, 1 << 39, "BUSY", b"")
    assert found.c_name == "struct flags"


def test_anonymous_members() -> None:
    types = Declarations()
    found = types.codec(
        types.type("struct v { u32 tag; union { u64 number; u8 raw[8]; struct { u32 low, high; }; }; }")
    )
    value = found.decode(found.encode({"tag": 1, "low": 2, "high": 3}))
    assert (value.low, value.high, value.tag) == (2, 3, 1)
    assert bytes(value.raw) == value.number.to_bytes(8, sys.byteorder)
    assert value.number == (3 << 32 | 2 if sys.byteorder == "little" else 2 << 32 | 3)


def test_later_texts_know_earlier_ones() -> None:
    types = Declarations()
    types.type("struct a { u32 x; }; typedef struct a a_t")
    assert types.parse("a_t[2]").size == 8
    assert types.parse("struct a").size == 4
    assert types.btf().find("a_t") is not None


def test_structs_of_the_kernel_may_be_declared() -> None:
    types = Declarations()
    assert types.parse("struct bpf_spin_lock { u32 val; }; struct a { struct bpf_spin_lock lock; }").size == 4
    assert types.parse("struct bpf_spin_lock").size == 4


def test_types_are_made_once() -> None:
    types = Declarations()
    types.type("struct a { u32 x; u32 y; u32 *p; u32 *q; u32 v[2]; u32 w[2]; }")
    before = len(types.builder)
    types.type("u32 *")
    types.type("u32[2]")
    assert len(types.builder) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: there is no type"),
        ("u33", "column 1: the type 'u33' is not known"),
        ("u32 a b", "column 7: ';' is missing before 'b'"),
        ("struct {", "column 9: a type is missing"),
        ("struct a {\n  u32 b\n}", "line 3, column 1: ',' is missing before '}'"),
        ("struct a { struct a b; }", "b has a type without a size"),
        ("struct a { u32 b; u64 b; }", "two members 'b'"),
        ("struct a { u32 b:33; }", "a bitfield of 33 bits"),
        ("struct a { u32 b:0; }", "a bitfield of 0 bits"),
        ("struct a { float b:3; }", "only integers can be bitfields"),
        ("struct a { u32 *b:3; }", "only integers can be bitfields"),
        ("void", "without values"),
        ("struct nobody", "without values"),
        ("struct nobody[2]", "no size"),
        ("int f(void)", "a function is no value"),
        ("signed unsigned int", "is no type"),
        ("unsigned float", "is no type"),
        ("long long long", "is no type"),
        ("u8[-1]", "an array cannot have -1 elements"),
        ("u8[1 / 0]", "division by zero"),
        ("u8[1 << 64]", "a shift by 64"),
        ("u8[N]", "a number is missing before 'N'"),
        ("u8[08]", "'08' is no number"),
        ("u64[1 << 30]", "too large"),
        ("u8[2][]", "only the first dimension"),
        ("enum e", "enum e is not known"),
        ("enum e { }", "has no constants"),
        ("enum e { A = 1 << 63, B = A * 4 }", "does not fit 64 bits"),
        ("struct a { u32 b; } __attribute__((aligned(3)))", "a power of two"),
        ("struct a { u32 b; } __attribute__((weak))", "attribute 'weak' is not known"),
        ("u32 $", r"'\$' is not understood"),
        ("#define N x y\nu32", "a number is missing"),
        ("typedef u32", "name of the typedef"),
        ("struct a { u32 x; }; struct a { u32 x; }", "declared twice"),
        ("(" * 500, "a type is missing"),
        ("u8[" + "(" * 500, "nested too deep"),
        ("u8[" + "-" * 500 + "1]", "nested too deep"),
        ("struct {" * 500, "nested too deep"),
        ("u32 " + "(" * 500, "missing|nested"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(BTFError, match=message):
        Declarations().type(text)


WORDS = """struct union enum a b { } ; , : u32 char [ ] ( ) * 3 = 1 - << typedef __attribute__ ((packed)) long unsigned
sizeof void"""


@settings(max_examples=few(300), deadline=None)
@given(
    st.lists(
        st.sampled_from([*WORDS.split(), "#define X 1\n", " "]),
        max_size=25,
    ).map(" ".join)
    | st.text(max_size=30)
)
def test_whatever_comes_is_a_type_or_a_refusal(text: str) -> None:
    types = Declarations()
    try:
        found = types.type(text)
    except BTFError:
        return
    try:
        assert types.codec(found).size > 0
    except BTFError as error:  # what only the codec refuses
        assert "nested" in str(error) or "large" in str(error) or "overlap" in str(error) or "bytes" in str(error)


PLAIN = layouts(is_plain=True).filter(lambda layout: "empty" not in layout.features)
"""Without arrays of empty structs, which are refused here."""


@pytest.mark.skipif(not (CLANG and GCC), reason="needs clang and gcc")
@settings(
    max_examples=few(8),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(types=st.lists(PLAIN, min_size=12, max_size=25))
def test_layouts_are_those_of_clang(types: list[Layout], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Random types, a constant of each: it has the same bytes with the types from our BTF and from clang's."""
    names = [f"t{number}" for number in range(len(types))]
    declared = "\n".join(f"typedef {type.shape.declare(name)};" for name, type in zip(names, types, strict=True))
    variables = "\n".join(f"{name} v_{name};" for name in names)
    assert CLANG
    sections = compile_to_sections(
        [CLANG, "-target", "bpfel", "-g", "-w", "-O1"],
        f"{PRELUDE}{declared}\n{variables}",
        tmp_path_factory.mktemp("c"),
    )
    theirs, ours = BTF.from_bytes(sections[".BTF"]), Declarations("little")
    ours.type(PRELUDE + declared)
    for name, type in zip(names, types, strict=True):
        told = repr(type)
        their_codec, our_codec = codec(theirs, theirs.find(name).id), ours.codec(ours.type(name))
        assert our_codec.size == their_codec.size, told
        assert our_codec.encode(type.value) == their_codec.encode(type.value), told


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="for machines with BTF")
def test_c_that_we_print_is_read_back() -> None:
    """A struct of the kernel, as a header has it."""
    types = Declarations()
    made = types.parse(
        """
        struct bpf_map_info_like {
            __u32 type; __u32 id; __u32 key_size; __u32 value_size; __u32 max_entries; __u32 map_flags;
            char name[16]; __u32 ifindex; __u32 btf_vmlinux_value_type_id; __u64 netns_dev; __u64 netns_ino;
        } __attribute__((aligned(8)));
        """
    )
    assert (made.size, made.align) == (64, 8)


@pytest.mark.parametrize(
    ("declaration", "size", "offsets"),
    [
        ("struct s { u8 a; u32 b __attribute__((packed)); u16 c; }", 8, [0, 8, 48]),
        ("struct s { u8 a; int b:4 __attribute__((aligned(2))); }", 4, [0, 16]),
        ("struct s { u8 a; enum __attribute__((packed)) { A, B = 200 } b; u8 c; }", 3, [0, 8, 16]),
        ("struct s { u8 a; enum { C = -3, D = 200 } __attribute__((packed)) b; }", 4, [0, 16]),
    ],
)
def test_attributes_of_members_and_enums(declaration: str, size: int, offsets: list[int]) -> None:
    """As clang 19 lays them out for BPF."""
    types = Declarations("little")
    number = types.type(declaration)
    struct = types.btf().type(number)
    assert isinstance(struct, Struct)
    assert (struct.size, [member.bit_offset for member in struct.members]) == (size, offsets)
