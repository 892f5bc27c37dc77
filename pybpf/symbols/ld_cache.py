"""The dynamic linker's cache: where the libraries are that no standard directory has.

ldconfig(8) writes it from the directories that /etc/ld.so.conf names.

Source: sysdeps/generic/dl-cache.h of the GNU C library.
"""

from __future__ import annotations

import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/etc/ld.so.cache"
OLD_MAGIC, MAGIC = b"ld.so-1.7.0\0", b"glibc-ld.so.cache1.1"
HEADER, ENTRY = 48, 24
LITTLE, BIG = 2, 3


def cached_libraries(name: str, *, path: str = PATH) -> Iterator[str]:
    """The paths of the libraries of this name, in the cache's order, which is that of preference.

    Libraries of the other pointer size are left out. A cache that is missing, damaged or of another C library has none.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return
    start = 0
    if data.startswith(OLD_MAGIC) and len(data) >= 16:  # the old form comes first, the new one is aligned behind it
        start = 16 + struct.unpack_from("=I", data, 12)[0] * 12 + 7 & ~7
    if not data.startswith(MAGIC, start) or len(data) < start + HEADER:
        return
    count, _, order = struct.unpack_from("=IIB", data, start + len(MAGIC))
    if order & 3 in (0, LITTLE if sys.byteorder == "little" else BIG):
        wanted = name.encode("utf-8", "surrogateescape")
        for number in range(min(count, (len(data) - start - HEADER) // ENTRY)):
            _, key, value = struct.unpack_from("=iII", data, start + HEADER + number * ENTRY)
            if _text(data, start + key) == wanted:
                found = _text(data, start + value).decode("utf-8", "surrogateescape")
                if _is_native(found):
                    yield found


def _text(data: bytes, at: int) -> bytes:
    end = data.find(b"\0", at)
    return data[at : end if end >= 0 else None]


def _is_native(path: str) -> bool:
    """Whether a library has the pointers of this process: the fifth byte of an ELF file (elf(5), EI_CLASS)."""
    try:
        with open(path, "rb") as file:
            return file.read(5) == b"\x7fELF" + (b"\2" if struct.calcsize("P") == 8 else b"\1")
    except OSError:
        return False
