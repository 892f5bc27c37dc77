"""The running kernel's own BTF: vmlinux and modules, and the stored index of vmlinux.

Rules of this file:

* What is opened is kept for the life of the process: it describes a kernel that does not change under it. A module
  that was loaded anew is read anew.
* /sys/kernel/btf/vmlinux is mapped where the kernel allows it (Linux 6.16), read otherwise.
* The index is never built on the way to the first answer. Without it names are found by searching (about 30 ms for the
  first, once); `store_index()` after a load makes the next process quick, `warm()` does it when asked. It is stored in
  the user's cache directory, keyed to the kernel's build id, or its boot id where there is none. ``PYBPF_NO_INDEX=1``
  in the environment neither uses nor writes it.
"""

from __future__ import annotations

import os

from pybpf.btf import cachefile
from pybpf.btf.index import FINGERPRINT_SIZE, NameIndex, build
from pybpf.btf.layout import Header
from pybpf.btf.reader import BTF
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

SYSFS = "/sys/kernel/btf"
NOTES = "/sys/kernel/notes"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
INDEX_NAME = "vmlinux.index"
NO_INDEX = "PYBPF_NO_INDEX"

PLACES = (
    "/boot/vmlinux-{release}",
    "/lib/modules/{release}/vmlinux-{release}",
    "/lib/modules/{release}/build/vmlinux",
    "/usr/lib/modules/{release}/kernel/vmlinux",
    "/usr/lib/debug/boot/vmlinux-{release}",
    "/usr/lib/debug/boot/vmlinux-{release}.debug",
    "/usr/lib/debug/lib/modules/{release}/vmlinux",
)
"""Where the kernel's image or its BTF may lie when sysfs has none, in order (libbpf's btf__load_vmlinux_btf)."""

_NT_GNU_BUILD_ID = 3

_vmlinux: BTF | None = None
_stored: BTF | None = None
_modules: dict[tuple[str, int, int], BTF] = {}


class KernelBTFMissing(BTFError, FileNotFoundError):
    """The running kernel, or the module, has no BTF that could be found."""


def vmlinux() -> BTF:
    """The kernel's BTF.

    Raises:
        KernelBTFMissing: neither sysfs (Linux 5.4, CONFIG_DEBUG_INFO_BTF) nor any of `PLACES` has it.
        BTFError: it is there and cannot be read.
    """
    global _vmlinux
    if _vmlinux is None:
        data = _vmlinux_data()
        _vmlinux = BTF(data, None, "vmlinux", index=_stored_index(data), deduplicated=True)
    return _vmlinux


def module(name: str) -> BTF:
    """The BTF of a loaded module, split over `vmlinux()`. It is walked at once, so later questions do not fail.

    Raises:
        KernelBTFMissing: no such module, or it has no BTF (Linux 5.11, CONFIG_DEBUG_INFO_BTF_MODULES).
        BTFError: its BTF is malformed, which says nothing about that of others.
    """
    path = f"{SYSFS}/{name}"
    if name == "vmlinux" or "/" in name:
        raise KernelBTFMissing(f"{name!r} is not the name of a module")
    base = vmlinux()
    try:
        status = os.stat(path)
        key = (name, status.st_ino, status.st_size)
        found = _modules.get(key)
        if found is None:
            with open(path, "rb") as file:
                found = BTF(file.read(), base, name)
            found.check()
            _modules[key] = found
    except FileNotFoundError:
        raise KernelBTFMissing(f"the kernel has no BTF of a module named {name!r}") from None
    except (OSError, ValueError) as error:
        raise BTFError(f"module {name}: {error}") from error
    return found


def module_names() -> list[str]:
    """The names of the modules that have BTF, sorted; built-in code is in vmlinux."""
    try:
        return sorted(name for name in os.listdir(SYSFS) if name != "vmlinux")
    except OSError:
        return []


def modules() -> Iterator[BTF]:
    """The BTF of every module that has one and can be read: a broken one must not stop what does not need it."""
    for name in module_names():
        try:
            yield module(name)
        except BTFError:
            continue


def store_index() -> str | None:
    """Store the index if it would have helped this process; a loader calls this when its programs are loaded.

    It takes some 100 ms, once for each kernel, and is tried once in each process. Returns the path, or None when there
    is nothing to do (vmlinux was not searched here, or the index was in use, or stored already, or it is switched off)
    or the cache cannot be written.
    """
    global _stored
    if _vmlinux is None or _stored is _vmlinux or _vmlinux.is_indexed or not _vmlinux.is_walked:
        return None
    if not _index_allowed():
        return None
    _stored = _vmlinux
    try:
        return _store(_vmlinux)
    except (OSError, BTFError):
        return None


def warm() -> str:
    """Build and store the index of the kernel's BTF and return its path, so that the next load is quick.

    Raises:
        OSError: the cache directory cannot be written, or others could write to it.
        BTFError: the kernel has no BTF, or it is malformed.
    """
    return _store(vmlinux())


def clear_cache() -> None:
    """Forget everything that was opened. For tests."""
    global _stored, _vmlinux
    _stored = _vmlinux = None
    _modules.clear()


def _vmlinux_data() -> bytes | mmap:
    path = f"{SYSFS}/vmlinux"
    try:
        with open(path, "rb") as file:
            return _map(file.fileno()) or file.read()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BTFError(f"{path}: {error.strerror}") from error
    release = os.uname().release
    for place in PLACES:
        path = place.format(release=release)
        try:
            return BTF.from_file(path).data
        except (OSError, BTFError):
            continue
    raise KernelBTFMissing("the running kernel has no BTF: it was built without CONFIG_DEBUG_INFO_BTF")


def _map(fd: int) -> mmap | None:
    """The file mapped privately for reading; None where sysfs cannot do that."""
    from mmap import MAP_PRIVATE, PROT_READ, mmap

    try:
        return mmap(fd, os.fstat(fd).st_size, flags=MAP_PRIVATE, prot=PROT_READ)
    except (OSError, ValueError):
        return None


def _index_allowed() -> bool:
    return os.environ.get(NO_INDEX, "") in ("", "0")


def _stored_index(data: bytes | mmap) -> NameIndex | None:
    if not _index_allowed():
        return None
    image = cachefile.map_file(INDEX_NAME)
    if image is None:
        return None
    header = Header(data, split=False)
    return NameIndex.open(image, _fingerprint(data, header), data, header)


def _store(btf: BTF) -> str:
    cachefile.prepare()
    image = build(btf, _fingerprint(btf.data, btf.header))
    return cachefile.store_file(INDEX_NAME, image)


def _fingerprint(data: bytes | mmap, header: Header) -> bytes:
    """What tells this kernel's BTF from any other: an identity of the kernel, the size, and a checksum of samples."""
    from binascii import crc32

    identity = _build_id() or _boot_id()
    samples = data[: header.types + 4096] + data[header.strings_end - 4096 : header.strings_end]
    text = len(data).to_bytes(8, "little") + crc32(samples).to_bytes(4, "little") + identity
    return text[:FINGERPRINT_SIZE].ljust(FINGERPRINT_SIZE, b"\0")


def _build_id() -> bytes:
    """The running kernel's GNU build id, empty when it does not tell."""
    try:
        with open(NOTES, "rb") as file:
            notes = file.read()
    except OSError:
        return b""
    return build_id(notes)


def build_id(notes: bytes) -> bytes:
    """The GNU build id among ELF notes in host byte order, empty when there is none."""
    words = memoryview(notes[: len(notes) & ~3]).cast("I")
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = words[at // 4 : at // 4 + 3].tolist()
        start = at + 12 + (name_size + 3 & ~3)
        if kind == _NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_size] == b"GNU\0":
            return notes[start : start + size]
        at = start + (size + 3 & ~3)
    return b""


def _boot_id() -> bytes:
    try:
        with open(BOOT_ID, "rb") as file:
            return file.read().strip()
    except OSError:
        return b""
