"""The notes of USDT probes, and what they say about arguments."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thrift import few
from usdt_file import BASE_ADDRESS, BIAS, CODE_OFFSET, DATA_BIAS, DATA_OFFSET, UsdtFile

from pybpf.btf.reader import BTFNameError
from pybpf.errors import BPFNotFoundError, ObjectError
from pybpf.symbols import usdt_probes
from pybpf.symbols.usdt_arguments import (
    CONSTANT,
    INDEXED_MEMORY,
    MEMORY,
    REGISTER,
    dialect,
    parse_arguments,
)

# Notes


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_notes_of_every_class_and_byte_order(tmp_path: Path, bits: int, order: str) -> None:
    file = UsdtFile(bits=bits, order=order)
    first, second = file.place(b"\x90"), file.place(b"\x90")
    file.note("app", "one", "4@%eax", first)
    file.note("app", "two", "", second, semaphore=DATA_BIAS + DATA_OFFSET + 6)
    file.note("other", "one", ":no", second)
    path = tmp_path / "file"
    path.write_bytes(file.build())
    one, two, other = usdt_probes(str(path))
    assert (one.provider, one.name, one.arguments, one.address, one.offset, one.semaphore) == (
        *("app", "one", "4@%eax", BIAS + CODE_OFFSET),
        *(CODE_OFFSET, 0),
    )
    assert (two.offset, two.semaphore) == (CODE_OFFSET + 16, DATA_OFFSET + 6)
    assert (other.provider, other.arguments) == ("other", "")
    assert [probe.name for probe in usdt_probes(str(path), "app")] == ["one", "two"]
    assert [probe.provider for probe in usdt_probes(str(path), "", "one")] == ["app", "other"]
    assert repr(one) == "<UsdtProbe app:one at 0x1000 (4@%eax)>"


def test_member_of_an_archive(tmp_path: Path) -> None:
    file = UsdtFile()
    file.note("app", "one", "", file.place(b"\x90"), semaphore=DATA_BIAS + DATA_OFFSET)
    with zipfile.ZipFile(tmp_path / "bundle.apk", "w") as archive:
        archive.writestr("lib/app.so", file.build())
    (found,) = usdt_probes(f"{tmp_path}/bundle.apk!/lib/app.so")
    base = 30 + len("lib/app.so")
    assert (found.offset, found.semaphore) == (base + CODE_OFFSET, base + DATA_OFFSET)


def test_notes_of_others_are_passed_over(tmp_path: Path) -> None:
    file = UsdtFile()
    place = file.place(b"\x90")
    file.note("app", "no", "", place, owner=b"GNU\0")
    file.note("app", "no", "", place, kind=2)
    file.note("app", "yes", "", place)
    path = tmp_path / "file"
    path.write_bytes(file.build())
    assert [probe.name for probe in usdt_probes(str(path))] == ["yes"]


def test_files_without_probes(tmp_path: Path) -> None:
    assert usdt_probes(shutil.which("true") or "/bin/true") == []
    with pytest.raises(BPFNotFoundError):
        usdt_probes(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("address", "semaphore", "message"),
    [
        (5, 0, "probe app:bad: its place 0x5 is in no segment"),
        (DATA_BIAS + DATA_OFFSET, 0, "its place 0x32000 is in a segment without code"),
        (BIAS + CODE_OFFSET, 5, "its semaphore 0x5 is in no segment"),
        (BIAS + CODE_OFFSET, BIAS + CODE_OFFSET, "its semaphore 0x11000 is in a segment of code"),
    ],
)
def test_places_outside_of_the_file(tmp_path: Path, address: int, semaphore: int, message: str) -> None:
    file = UsdtFile()
    file.note("app", "bad", "", address, semaphore=semaphore)
    file.note("app", "good", "", BIAS + CODE_OFFSET)
    path = tmp_path / "file"
    path.write_bytes(file.build())
    with pytest.raises(ObjectError, match=message):
        usdt_probes(str(path), "app", "bad")
    assert len(usdt_probes(str(path), "app", "good")) == 1


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"", "does not name"),
        (bytes(24) + b"app", "does not name"),
        (bytes(24) + b"app\0name\0", "does not name"),
        (bytes(24) + b"app\0\0\0", "does not name"),
    ],
)
def test_damaged_notes(tmp_path: Path, description: bytes, message: str) -> None:
    file = UsdtFile()
    file.raw_note(b"stapsdt\0", 3, description)
    path = tmp_path / "file"
    path.write_bytes(file.build())
    with pytest.raises(ObjectError, match=f"note at 0x0 of .note.stapsdt {message}"):
        usdt_probes(str(path))


@given(st.binary(max_size=80))
@example(struct.pack("<III", 8, 0xFFFFFFFF, 3) + b"stapsdt\0")
@example(struct.pack("<III", 0xFFFFFFFF, 4, 3))
@settings(max_examples=few(300), deadline=None)
def test_any_bytes_as_notes(tmp_path_factory: pytest.TempPathFactory, notes: bytes) -> None:
    file = UsdtFile()
    file.notes = notes
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(file.build())
    try:
        usdt_probes(str(path))
    except ObjectError as error:
        assert "note at" in str(error) or "probe " in str(error)


def test_beside_readelf() -> None:
    """The probes of this machine's own files."""
    readelf = shutil.which("readelf")
    libraries = Path("/usr/lib").glob("*/lib*.so.*")
    files = [path for path in libraries if path.name.startswith(("libstdc++", "libpython", "libc."))]
    files += [Path("/usr/bin/python3")]
    if readelf is None:
        pytest.skip("no readelf")
    total = 0
    for path in files:
        told = subprocess.run([readelf, "-nW", str(path)], capture_output=True, text=True).stdout
        words = [line.split(": ", 1) for line in map(str.strip, told.splitlines()) if ": " in line]
        names = [value for key, value in words if key == "Name"]
        arguments = [line.strip()[len("Arguments: ") :] for line in told.splitlines() if "Arguments:" in line]
        probes = usdt_probes(str(path))
        assert [probe.name for probe in probes] == names
        assert [probe.arguments for probe in probes] == [text.strip() for text in arguments]
        total += len(probes)
        for probe in probes:
            parse_arguments(probe.arguments, "x86_64")
    if not total:
        pytest.skip("none of the files has probes")


# Arguments


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", "8@%rdi", (REGISTER, 8, False, 0, 112, 0, 0)),
        ("x86_64", "-4@%eax", (REGISTER, 4, True, 0, 80, 0, 0)),
        ("x86_64", "-1@%sil", (REGISTER, 1, True, 0, 104, 0, 0)),
        ("x86_64", "2@%r15w", (REGISTER, 2, False, 0, 0, 0, 0)),
        ("x86_64", "8@%rip", (REGISTER, 8, False, 0, 128, 0, 0)),
        ("x86_64", "4@$-9", (CONSTANT, 4, False, -9, 0, 0, 0)),
        ("x86_64", "-4@-1204(%rbp)", (MEMORY, 4, True, -1204, 32, 0, 0)),
        ("x86_64", "8@(%rsp)", (MEMORY, 8, False, 0, 152, 0, 0)),
        ("x86_64", "1@-96(%rbp,%rax,8)", (INDEXED_MEMORY, 1, False, -96, 32, 80, 3)),
        ("x86_64", "1@(%rbp,%rax,4)", (INDEXED_MEMORY, 1, False, 0, 32, 80, 2)),
        ("x86_64", "1@7(%rbp,%rax)", (INDEXED_MEMORY, 1, False, 7, 32, 80, 0)),
        ("x86_64", " 1 @ ( %rbp , %rax ) ", (INDEXED_MEMORY, 1, False, 0, 32, 80, 0)),
        ("i686", "-4@8(%ebp)", (MEMORY, 4, True, 8, 20, 0, 0)),
        ("i386", "1@%bl", (REGISTER, 1, False, 0, 0, 0, 0)),
        ("i386", "4@%esp", (REGISTER, 4, False, 0, 60, 0, 0)),
        ("aarch64", "-4@[sp, 96]", (MEMORY, 4, True, 96, 248, 0, 0)),
        ("aarch64", "8@[x3]", (MEMORY, 8, False, 0, 24, 0, 0)),
        ("aarch64", "8@x30", (REGISTER, 8, False, 0, 240, 0, 0)),
        ("aarch64", "4@-5", (CONSTANT, 4, False, -5, 0, 0, 0)),
        ("s390x", "-2@-28(%r15)", (MEMORY, 2, True, -28, 144, 0, 0)),
        ("s390x", "-8@%r0", (REGISTER, 8, True, 0, 24, 0, 0)),
        ("s390x", "4@71", (CONSTANT, 4, False, 71, 0, 0, 0)),
        ("riscv64", "-8@-88(s0)", (MEMORY, 8, True, -88, 64, 0, 0)),
        ("riscv64", "-8@a1", (REGISTER, 8, True, 0, 88, 0, 0)),
        ("riscv64", "4@5", (CONSTANT, 4, False, 5, 0, 0, 0)),
        ("armv7l", "-4@[fp, #-96]", (MEMORY, 4, True, -96, 44, 0, 0)),
        ("armv7l", "-4@[sp]", (MEMORY, 4, True, 0, 52, 0, 0)),
        ("armv7l", "4@#5", (CONSTANT, 4, False, 5, 0, 0, 0)),
        ("armv7l", "4@r4", (REGISTER, 4, False, 0, 16, 0, 0)),
    ],
)
def test_argument(machine: str, text: str, expected: tuple[int, ...]) -> None:
    (found,) = parse_arguments(text, machine)
    assert found.facts() == expected


def test_variables() -> None:
    """Their distance from the instruction is added to its address."""
    places = {"counter": 100, ".LC0": -40, "name.0": 7}
    found = parse_arguments(
        "4@counter(%rip) 8@8+counter(%rip) 8@.LC0(%rip) 1@name.0-1(%rip)", "x86_64", places.__getitem__
    )
    assert [(one.kind, one.value, one.register) for one in found] == [
        (MEMORY, value, 128) for value in (100, 108, -40, 6)
    ]


def test_many_arguments() -> None:
    text = "-4@-1204(%rbp) -4@%edi  -8@-1216(%rbp) -8@%r8 -4@$5 -8@%r9 8@%rdx 8@%r10 -4@$-9 -2@%cx -2@%ax -1@%sil"
    assert [argument.size for argument in parse_arguments(text, "x86_64")] == [4, 4, 8, 8, 4, 8, 8, 8, 4, 2, 2, 1]
    with pytest.raises(ObjectError, match="more than 12 arguments"):
        parse_arguments(text + " 8@%rax", "x86_64")
    assert parse_arguments("", "x86_64") == []


@pytest.mark.parametrize(
    ("machine", "text", "message"),
    [
        ("x86_64", "8f@%xmm0", "argument 1 of '8f@%xmm0' is not of a form of x86_64"),
        ("x86_64", "8@%xmm0", "names a register that programs cannot read: 'xmm0'"),
        ("x86_64", "4@%eax 8@counter(%rip)", "argument 2 of .* is the variable 'counter', whose place is not known"),
        ("x86_64", "8@counter(%rbx)", r"argument 1 of .* is not of a form of x86_64: '8@counter\(%rbx\)'"),
        ("x86_64", "3@%eax", "is of 3 bytes"),
        ("x86_64", "4@(%rax,%rbx,3)", "has a scale of 3"),
        ("x86_64", "4@%eax%ebx", "is not of a form"),
        ("x86_64", "4@(%rax", "is not of a form"),
        ("x86_64", "@%eax", "is not of a form"),
        pytest.param("x86_64", f"8@${'9' * 5000}", "is not of a form", id="more digits than int() takes"),
        ("aarch64", "8@x31", "cannot read: 'x31'"),
        ("s390x", "8@%r16", "cannot read: 'r16'"),
        ("riscv64", "8@s12", "cannot read: 's12'"),
        ("i386", "8@%r8", "cannot read: 'r8'"),
        ("mips64", "8@$4", "USDT probes of mips64 are not known"),
    ],
)
def test_arguments_that_are_not_understood(machine: str, text: str, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        parse_arguments(text, machine)


@given(
    st.text(alphabet="0123456789-+@%$()[],# abcdefrstx", max_size=40), st.sampled_from(["x86_64", "aarch64", "s390x"])
)
@settings(max_examples=few(500), deadline=None)
def test_any_text_as_arguments(text: str, machine: str) -> None:
    try:
        parse_arguments(text, machine)
    except ObjectError as error:
        assert "argument" in str(error)


@pytest.mark.kernel
def test_registers_are_where_the_kernel_has_them() -> None:
    """struct pt_regs of this kernel, by its own type information."""
    import platform

    from pybpf.btf.kernel import vmlinux
    from pybpf.btf.kinds import KIND_STRUCT

    machine = platform.machine()
    known = dialect(machine)
    if known is None:
        pytest.skip(f"no probes on {machine}")
    name = "user_pt_regs" if machine in ("aarch64", "s390x") else "pt_regs"
    try:
        described = vmlinux().find(name, KIND_STRUCT)
    except OSError:
        pytest.skip("the kernel has no BTF")
    except BTFNameError:
        pytest.skip(f"the kernel's BTF has no struct {name}")
    offsets = {member.name: member.bit_offset // 8 for member in described.members}
    if machine == "x86_64":
        for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip"):
            assert known.registers[f"r{name}"] == offsets[name]
        for number in range(8, 16):
            assert known.registers[f"r{number}"] == offsets[f"r{number}"]
    elif machine == "aarch64":
        assert (known.registers["x1"], known.registers["sp"]) == (offsets["regs"] + 8, offsets["sp"])
    elif machine == "s390x":
        assert known.registers["r2"] == offsets["gprs"] + 16
    else:
        for name in set(known.registers) & set(offsets):
            assert known.registers[name] == offsets[name]


def test_base_that_is_missing(tmp_path: Path) -> None:
    """Without a base, in the note or in the file, addresses are as they are."""
    for base, section in ((0, BASE_ADDRESS), (BASE_ADDRESS - 64, 0)):
        file = UsdtFile()
        file.base_address = section
        file.note("app", "one", "", file.place(b"\x90"), base=base)
        path = tmp_path / "file"
        path.write_bytes(file.build())
        assert usdt_probes(str(path))[0].address == BIAS + CODE_OFFSET
