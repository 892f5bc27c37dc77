"""Makes an executable file with USDT probes, without a compiler: some code, some data, and the notes.

`MappedFile` maps it into this process as a program would be, so that its code can be called with known arguments.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from pathlib import Path
from typing import Self

MACHINES = {"x86_64": (62, b"\x90", b"\xc3"), "aarch64": (183, bytes.fromhex("1f2003d5"), bytes.fromhex("c0035fd6"))}
MACHINES["s390x"] = (22, bytes.fromhex("0707"), bytes.fromhex("07fe"))
"""Machine: its number in ELF, an instruction that does nothing, and a return."""

CODE_OFFSET, DATA_OFFSET = 0x1000, 0x2000
BIAS = 0x10000
"""Addresses in the file are so much larger than offsets, so that mixing them up shows."""
DATA_BIAS = 0x30000
BASE_ADDRESS = BIAS + CODE_OFFSET + 0xF00
LIBC = ctypes.CDLL(None)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


class UsdtFile:
    """The parts of such a file."""

    def __init__(self, *, bits: int = 64, order: str = "<", machine: int = 62, file_type: int = 3) -> None:
        self.wide, self.order, self.machine, self.file_type = bits == 64, order, machine, file_type
        self.code = bytearray()
        self.notes = b""
        self.base_address = BASE_ADDRESS

    def place(self, code: bytes) -> int:
        """Put some code in; the address of it."""
        self.code += bytes(-len(self.code) % 16)
        address = BIAS + CODE_OFFSET + len(self.code)
        self.code += code
        return address

    def note(
        self,
        provider: str,
        name: str,
        arguments: str,
        address: int,
        *,
        semaphore: int = 0,
        base: int = BASE_ADDRESS,
        owner: bytes = b"stapsdt\0",
        kind: int = 3,
    ) -> None:
        addresses = struct.pack(self.order + ("QQQ" if self.wide else "III"), address, base, semaphore)
        self.raw_note(owner, kind, addresses + f"{provider}\0{name}\0{arguments}\0".encode())

    def raw_note(self, owner: bytes, kind: int, description: bytes) -> None:
        self.notes += struct.pack(self.order + "III", len(owner), len(description), kind)
        self.notes += owner + bytes(-len(owner) % 4) + description + bytes(-len(description) % 4)

    def build(self) -> bytes:
        names = b"\0.note.stapsdt\0.stapsdt.base\0.shstrtab\0"
        header_size, program_row, section_row = (64, 56, "IIQQQQIIQQ") if self.wide else (52, 32, "IIIIIIIIII")
        page = mmap.PAGESIZE if mmap.PAGESIZE > 0x1000 else 0x1000
        segments = b"".join(
            self._segment(flags, address, offset)
            for flags, address, offset in (
                (5, BIAS + CODE_OFFSET, CODE_OFFSET),
                (6, DATA_BIAS + DATA_OFFSET, DATA_OFFSET),
            )
        )
        rest = DATA_OFFSET + page
        rows = (
            (0, 0, 0, 0, 0),
            (1, 7, 0, rest, len(self.notes)),
            (15, 1, self.base_address, CODE_OFFSET + 0xF00, 1),
            (29, 3, 0, rest + len(self.notes), len(names)),
        )
        table = b"".join(
            struct.pack(self.order + section_row, name, kind, 0, address, offset, size, 0, 0, 1, 0)
            for name, kind, address, offset, size in rows
        )
        numbers = (header_size, rest + len(self.notes) + len(names), 0, header_size, program_row, 2)
        ident = b"\x7fELF" + bytes([2 if self.wide else 1, 1 if self.order == "<" else 2, 1]) + bytes(9)
        header = ident + struct.pack(
            self.order + ("HHIQQQIHHHHHH" if self.wide else "HHIIIIIHHHHHH"),
            *(self.file_type, self.machine, 1, 0, *numbers, len(table) // len(rows), len(rows), 3),
        )
        data = (header + segments).ljust(CODE_OFFSET, b"\0") + bytes(self.code)
        return data.ljust(rest, b"\0") + self.notes + names + table

    def _segment(self, flags: int, address: int, offset: int) -> bytes:
        if self.wide:
            return struct.pack(self.order + "IIQQQQQQ", 1, flags, offset, address, address, 0x1000, 0x1000, 0x1000)
        return struct.pack(self.order + "IIIIIIII", 1, offset, address, address, 0x1000, 0x1000, flags, 0x1000)


class MappedFile(UsdtFile):
    """Such a file for this machine, which this process has mapped. A context manager."""

    def __init__(self, path: Path) -> None:
        number, self.nothing, self.back = MACHINES[platform.machine()]
        super().__init__(order="<" if sys.byteorder == "little" else ">", machine=number)
        self.path = path

    def __enter__(self) -> Self:
        self.path.write_bytes(self.build())
        with self.path.open("r+b") as file:
            # Python's mmap would tell the address of writable memory only, and there uprobes are not placed.
            self.start = LIBC.mmap(
                None, 0x1000, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file.fileno(), CODE_OFFSET
            )
            self.data = mmap.mmap(
                file.fileno(), 0x1000, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=DATA_OFFSET
            )
        self.data[0] = 0  # the page is there
        return self

    def call(self, address: int, *arguments: int) -> None:
        """Run the code at an address of the file with these numbers in the registers of arguments."""
        function = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * len(arguments))
        function(self.start + address - BIAS - CODE_OFFSET)(*arguments)

    def __exit__(self, *_: object) -> None:
        LIBC.munmap(ctypes.c_void_p(self.start), ctypes.c_size_t(0x1000))
        self.data.close()
