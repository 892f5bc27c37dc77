"""USDT: the probes that a program's authors have put into it, read from the notes of its ELF file.

A probe is a no-operation instruction in the code and a note that tells where it is, what it is called, and where its
arguments are at that moment. One probe may be at many places: everywhere the compiler has inlined it.

Rules:

* A note is of type 3 and name ``stapsdt`` in the section ``.note.stapsdt``. It holds three addresses (the place, that
  of ``.stapsdt.base`` when the file was linked, the semaphore or 0) and three texts (provider, name, arguments).
* The section ``.stapsdt.base`` may have moved since (prelink(8)): the addresses of the note have moved with it.
* What is given out are offsets in the file that the kernel is given, because that is what a uprobe is placed on.

Source: sourceware.org/systemtap/wiki/UserSpaceProbeImplementation; usdt.c of libbpf.
"""

from __future__ import annotations

import struct

from pybpf.errors import ObjectError
from pybpf.symbols.elf import Binary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.symbols.elf import Section

NOTES, BASE = ".note.stapsdt", ".stapsdt.base"
NOTE_NAME, NOTE_TYPE = b"stapsdt\0", 3


class UsdtProbe:
    """One place of a probe.

    Attributes:
        provider: who made it, usually the program's name.
        name: which event it is.
        arguments: where the arguments are, as the assembler wrote it: ``"8@%rdi -4@-20(%rbp)"``.
        address: where the instruction is, in the file's own addresses.
        offset: where it is in the file that the kernel is given.
        semaphore: where in that file the counter is that the kernel has to raise; 0 when there is none.
    """

    __slots__ = ("address", "arguments", "name", "offset", "provider", "semaphore")

    def __init__(
        self, provider: str, name: str, arguments: str, *, address: int, offset: int, semaphore: int = 0
    ) -> None:
        self.provider = provider
        self.name = name
        self.arguments = arguments
        self.address = address
        self.offset = offset
        self.semaphore = semaphore

    def __repr__(self) -> str:
        return f"<UsdtProbe {self.provider}:{self.name} at {self.offset:#x} ({self.arguments})>"


def usdt_probes(path: str, provider: str = "", name: str = "") -> list[UsdtProbe]:
    """Every place of every probe of an executable or library, in the order of its notes.

    Args:
        path: the file, or ``archive.zip!/member``.
        provider: only of this provider.
        name: only of this name.

    Raises:
        BPFNotFoundError: there is no such file.
        ObjectError: it is no executable or library, or its notes are damaged.
    """
    with Binary(path) as binary:
        return read_probes(binary, provider, name)


def read_probes(binary: Binary, provider: str = "", name: str = "") -> list[UsdtProbe]:
    """The same for a file that is open."""
    notes = binary.section(NOTES)
    if notes is None:
        return []
    base = binary.section(BASE)
    found = []
    for place, linked_base, semaphore, texts in _notes(binary, notes):
        if (provider and texts[0] != provider) or (name and texts[1] != name):
            continue
        moved = base.address - linked_base if base is not None and base.address and linked_base else 0
        what = f"{binary.name}: probe {texts[0]}:{texts[1]}"
        found.append(
            UsdtProbe(
                *texts,
                address=place + moved,
                offset=_file_offset(binary, place + moved, f"{what}: its place", is_code=True),
                semaphore=_file_offset(binary, semaphore + moved, f"{what}: its semaphore", is_code=False)
                if semaphore
                else 0,
            )
        )
    return found


def _file_offset(binary: Binary, address: int, what: str, *, is_code: bool) -> int:
    segment = binary.segment_at(address)
    if segment is None:
        raise ObjectError(f"{what} {address:#x} is in no segment of the file")
    if segment.is_code != is_code:
        raise ObjectError(f"{what} {address:#x} is in a segment {'without' if is_code else 'of'} code")
    return address - segment.address + segment.offset + binary.base


def _notes(binary: Binary, section: Section) -> Iterator[tuple[int, int, int, tuple[str, str, str]]]:
    """The place, the linked base, the semaphore and the texts of each note; notes of other kinds are passed over."""
    data = binary.data(section)
    header = struct.Struct(binary.order + "III")
    addresses = struct.Struct(binary.order + ("QQQ" if binary.pointer_size == 8 else "III"))
    at = 0
    while at < len(data):
        where = f"{binary.name}: note at {at:#x} of {section.name}"
        if at + header.size > len(data):
            raise ObjectError(f"{where} is cut off")
        name_size, size, kind = header.unpack_from(data, at)
        start = at + header.size + _aligned(name_size)
        end = start + size
        if end > len(data):
            raise ObjectError(f"{where} reaches past the end of the section")
        if kind == NOTE_TYPE and data[at + header.size : at + header.size + name_size] == NOTE_NAME:
            texts = data[start + addresses.size : end].split(b"\0")
            if len(texts) < 4 or not texts[1]:
                raise ObjectError(f"{where} does not name a provider, a probe and its arguments")
            provider, name, arguments = (text.decode("utf-8", "replace") for text in texts[:3])
            place, linked_base, semaphore = addresses.unpack_from(data, start)
            yield place, linked_base, semaphore, (provider, name, "" if arguments.startswith(":") else arguments)
        at = start + _aligned(size)


def _aligned(size: int) -> int:
    return size + 3 & ~3
