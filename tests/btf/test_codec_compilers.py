"""What the codec makes of a struct is what compilers make of it.

Random C types get a random constant each. Clang for BPF (both byte orders) and gcc for the host lay the constant out;
the codec, knowing only the BTF, must produce the same bytes from the Python value and the same value from the bytes.
It knows the BTF of clang, which gcc's layout is held against too, and that of gcc.

Some ten seconds' worth of types is drawn each time. For a long run say how many files of some twenty types it shall be:

    PYBPF_LAYOUTS=1000 pytest -s tests/btf/test_codec_compilers.py    # five minutes

What fails is made smaller, which takes a minute or two: the compilers run for each step. The note under the error shows
the type; the others are as small as they can be and of no meaning.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from c_layouts import PRELUDE, Layout, layouts
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from thrift import few

from pybpf.btf.codec import Codec, codec
from pybpf.btf.composites import StructCodec
from pybpf.btf.reader import BTF
from pybpf.btf.records import to_json

CLANG = shutil.which("clang-19") or shutil.which("clang")
GCC = shutil.which("gcc")
FILES = int(os.environ.get("PYBPF_LAYOUTS", 0)) or few(30)
QUIET = ["-w", "-O1", "-Wno-packed-bitfield-compat"]
pytestmark = pytest.mark.skipif(not (CLANG and GCC), reason="needs clang and gcc")

# Features of types that gcc lays out otherwise than clang: where aligned(n) puts a bitfield, when n is less than the
# alignment of its type or under `#pragma pack`.
GCC_DIFFERS = [{"aligned bitfield"}]
# Features that gcc 12 describes wrongly in its own BTF: what comes behind a bitfield without a name may have its
# offset; the lengths of int[2][3] are swapped; all enums are unsigned; values of 64 bits are cut or left out.
GCC_BTF_IS_WRONG = [{"gap"}, {"table"}, {"negative enum"}, {"enum64"}]


@pytest.fixture(scope="module")
def checked() -> Iterator[Counter[str]]:
    """How many types were compared, by who described them. A long run shows it (``-s``)."""
    counter: Counter[str] = Counter()
    yield counter
    print("\ncompared:", dict(counter))


def compile_to_sections(command: list[str], source: str, directory: Path) -> dict[str, bytes]:
    output = directory / "out.o"
    subprocess.run([*command, *QUIET, "-x", "c", "-", "-c", "-o", str(output)], input=source, text=True, check=True)
    with io.BytesIO(output.read_bytes()) as file:
        return {section.name: section.data() for section in ELFFile(file).iter_sections()}


def agree(decoded: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(agree(getattr(decoded, name), value) for name, value in expected.items())
    if isinstance(expected, list):
        return len(decoded) == len(expected) and all(map(agree, decoded, expected))
    if isinstance(expected, float):
        return struct.pack("<d", decoded) == struct.pack("<d", expected)
    return bool(decoded == expected) and isinstance(decoded, bool) >= isinstance(expected, bool)


def check(btf: BTF, number: int, layout: Layout, size: int, data: bytes) -> None:
    found = codec(btf, btf.find(f"t{number}").id)
    assert found.size == size
    encoded = found.encode(layout.value)
    if not layout.flexible:
        assert len(data) == size
    assert encoded.ljust(len(data), b"\0") == data  # behind an array without a length gcc leaves room
    decoded = found.decode(data, 0, len(encoded))
    expected = dict(layout.value)
    if layout.flexible and begins_in_padding(found, expected):
        expected.popitem()  # it has a few zeros more
    assert agree(decoded, expected), decoded
    assert found.encode(decoded) == encoded, decoded
    if not layout.flexible:
        again = list(found.decode_run(b"\xff" + data * 3, 1, size, 3))
        assert to_json(again) == [to_json(decoded)] * 3


def begins_in_padding(found: Codec, value: dict[str, Any]) -> bool:
    """Whether the array without a length ends before the struct, which is then filled up."""
    assert isinstance(found, StructCodec) and found.tail is not None
    *_, items = value.values()
    return found.fields[-1].offset + len(found.tail.encode_items(items, "")) < found.size


@settings(
    max_examples=FILES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),  # Phase.explain compiles as often again
)
@given(drawn=st.lists(layouts(), min_size=16, max_size=24))
def test_random_types(drawn: list[Layout], checked: Counter[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("types")
    sizes = ", ".join(f"sizeof(t{number})" for number in range(len(drawn)))
    source = "\n".join(
        [
            PRELUDE,
            *(layout.define(number) for number, layout in enumerate(drawn)),
            f'unsigned long long sizes[] __attribute__((section(".data.sizes"))) = {{{sizes}}};',
        ]
    )
    assert CLANG and GCC
    little = compile_to_sections([CLANG, "-target", "bpfel", "-g"], source, directory)
    big = compile_to_sections([CLANG, "-target", "bpfeb", "-g"], source, directory)
    host = compile_to_sections([GCC, "-gbtf", "-fsigned-char"], source, directory)
    for reader, types, data, order, wrong in (
        ("clang", little, little, "<", []),
        ("clang, big-endian", big, big, ">", []),
        ("gcc by clang's BTF", little, host, "<", GCC_DIFFERS),
        ("gcc", host, host, "<", GCC_BTF_IS_WRONG),
    ):
        btf = BTF.from_bytes(types[".BTF"])
        count = struct.unpack(f"{order}{len(drawn)}Q", data[".data.sizes"])
        for number, layout in enumerate(drawn):
            if any(features <= layout.features for features in wrong):
                continue
            try:
                check(btf, number, layout, count[number], data.get(f".data.v{number}", b""))
            except Exception as error:
                error.add_note(f"{reader}: {layout}")
                raise
            checked[reader] += 1
