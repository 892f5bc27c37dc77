"""Values of what an object declares `extern`: kernel configuration and kernel symbols.

Rules:

* `.kconfig` variables become bytes of the `.kconfig` map; `.ksyms` become a `Resolution` each.
* A weak extern that is not there is zero; a strong one ends the load with an error that names it.
* The first source that sets a CONFIG_ value wins: the caller's text, then /boot/config-RELEASE, then /proc/config.gz.

Source of the rules: bpf_object__resolve_externs() of libbpf.
"""

from __future__ import annotations

import os
import sys

from pybpf.btf.kinds import KIND_FUNC, KIND_VAR, Func, Var
from pybpf.btf.reader import essential_name
from pybpf.btf.relocation import types_compatible
from pybpf.errors import BPFNotFoundError, BPFPermissionError, BTFError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pybpf.btf.reader import BTF
    from pybpf.spec import Extern, ObjectSpec

_INT_RANGES = {
    (size, signed): (-(1 << (8 * size - 1)) if signed else 0, (1 << (8 * size - signed)) - 1)
    for size in (1, 2, 4, 8)
    for signed in (False, True)
}


class Resolution:
    """What a `.ksyms` extern turned out to be.

    Attributes:
        found: False for a weak extern that the kernel does not have.
        address: of an untyped symbol.
        type_id: of a typed variable or a function, in the BTF of vmlinux or of `module`.
        module: name of the module whose BTF holds `type_id`, or an empty string for vmlinux.
    """

    __slots__ = ("address", "found", "module", "type_id")

    def __init__(self, found: bool, *, address: int = 0, type_id: int = 0, module: str = "") -> None:
        self.found = found
        self.address = address
        self.type_id = type_id
        self.module = module

    @property
    def is_typed(self) -> bool:
        return self.type_id != 0


# Kernel configuration


def kernel_version() -> int:
    """The running kernel's version as KERNEL_VERSION() encodes it: ``major << 16 | minor << 8 | patch``.

    Debian and Ubuntu put the upstream version elsewhere than in the release (uname(2)); libbpf's
    get_kernel_version() looks in the same places.
    """
    text = os.uname().release
    try:
        with open("/proc/version_signature") as file:  # Ubuntu: "Ubuntu 6.8.0-31.31-generic 6.8.1"
            text = file.read().split()[2]
    except (OSError, IndexError):
        version = os.uname().version
        if "Debian " in version:  # "#1 SMP Debian 6.1.90-1 (2024-05-03)"
            text = version.partition("Debian ")[2]
    numbers = []
    for part in text.split("-")[0].split(".")[:3]:
        digits = ""
        for character in part:
            if not character.isdigit():
                break
            digits += character
        numbers.append(int(digits or 0))
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major << 16 | minor << 8 | min(patch, 255)


def _configurations(text: str | None) -> Iterator[str]:
    """The texts with CONFIG_ values, in order of precedence."""
    if text:
        yield text
    for path in (f"/boot/config-{os.uname().release}", "/proc/config.gz"):
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            continue
        if data.startswith(b"\x1f\x8b"):
            from zlib import decompress

            data = decompress(data, 31)  # gzip's header and window; importing gzip takes longer than this
        yield data.decode("utf-8", "replace")
        return


def config_values(wanted: set[str], text: str | None) -> dict[str, str]:
    """Values of the kernel's configuration by name; what is not set is left out.

    Args:
        wanted: names: ``"CONFIG_BPF_JIT"``.
        text: lines that go before the running kernel's own.
    """
    found: dict[str, str] = {}
    for configuration in _configurations(text):
        lines = f"\n{configuration}\n"
        for name in wanted - found.keys():
            place = lines.find(f"\n{name}=") + 1
            if place:
                found[name] = lines[place + len(name) + 1 : lines.index("\n", place)].strip()
        if len(found) == len(wanted):
            break
    return found


def _encode_config(extern: Extern, value: str, is_signed: bool) -> bytes:
    """The bytes of one CONFIG_ value in the form of its variable."""
    what = f"extern {extern.name}"
    if value in ("y", "n", "m"):
        if extern.kind == "bool":
            if value == "m":
                raise ObjectError(f"{what}: the kernel has it as a module (m), which a bool cannot say")
            return bytes([value == "y"])
        if extern.kind == "tristate":
            return "nym".index(value).to_bytes(extern.size, sys.byteorder)
        if extern.kind == "char":
            return value.encode()
        raise ObjectError(f"{what}: the kernel's value {value!r} does not fit a variable of kind {extern.kind}")
    if value.startswith('"'):
        if extern.kind != "string":
            raise ObjectError(f"{what}: the kernel's value {value} is a string, the variable a {extern.kind}")
        return value.strip('"').encode()[: extern.size - 1].ljust(extern.size, b"\0")
    if extern.kind not in ("int", "char"):
        raise ObjectError(f"{what}: the kernel's value {value!r} does not fit a variable of kind {extern.kind}")
    try:
        number = int(value, 0)
    except ValueError:
        raise ObjectError(f"{what}: the kernel's value {value!r} is not a number") from None
    return _encode_int(extern, number, is_signed)


def _encode_int(extern: Extern, number: int, is_signed: bool) -> bytes:
    low, high = _INT_RANGES[extern.size, is_signed]
    if not low <= number <= high:
        raise ObjectError(f"extern {extern.name}: {number} is outside {low}..{high} of its {extern.size} byte(s)")
    return number.to_bytes(extern.size, sys.byteorder, signed=is_signed)


def kconfig_image(spec: ObjectSpec, text: str | None, virtual: dict[str, Callable[[], int]]) -> bytes:
    """The contents of the `.kconfig` map.

    Args:
        text: lines ``CONFIG_X=y`` that go before the running kernel's own.
        virtual: the values that are no configuration, by name (LINUX_KERNEL_VERSION ...), asked only when used.

    Raises:
        ObjectError: a strong extern has no value, or a value does not fit its variable.
    """
    externs = [extern for extern in spec.externs.values() if extern.section == ".kconfig"]
    image = bytearray(max((extern.offset + extern.size for extern in externs), default=0))
    configs = config_values({e.name for e in externs if e.name.startswith("CONFIG_")}, text)
    for extern in externs:
        is_signed = extern.kind == "int" and _is_signed(spec, extern)
        if extern.name in configs:
            data = _encode_config(extern, configs[extern.name], is_signed)
        elif extern.name in virtual:
            data = _encode_int(extern, virtual[extern.name](), is_signed)
        elif extern.is_weak:
            continue
        elif extern.name.startswith("CONFIG_"):
            raise ObjectError(f"extern {extern.name}: the running kernel's configuration does not set it")
        else:
            raise ObjectError(f"extern {extern.name}: only CONFIG_ and LINUX_ names have values in .kconfig")
        image[extern.offset : extern.offset + len(data)] = data
    return bytes(image)


def _is_signed(spec: ObjectSpec, extern: Extern) -> bool:
    assert spec.btf is not None  # externs are only found through BTF
    return bool(getattr(spec.btf.resolve(extern.type_id), "is_signed", False))


# Kernel symbols


def resolve_ksyms(
    spec: ObjectSpec, vmlinux: Callable[[], BTF], modules: Callable[[], Iterable[BTF]]
) -> dict[str, Resolution]:
    """What each `.ksyms` extern is in the running kernel.

    Raises:
        ObjectError: a strong extern is not there, is ambiguous, or has another type.
    """
    externs = [extern for extern in spec.externs.values() if extern.section == ".ksyms"]
    if not externs:
        return {}
    assert spec.btf is not None  # externs are only found through BTF, or written with it
    result: dict[str, Resolution] = {}
    untyped = []
    for extern in externs:
        if extern.is_function:
            result[extern.name] = _typed(spec.btf, extern, essential_name(extern.name), KIND_FUNC, vmlinux, modules)
        elif spec.btf.skip_modifiers(extern.type_id) == 0:
            untyped.append(extern)
        else:
            result[extern.name] = _typed(spec.btf, extern, extern.name, KIND_VAR, vmlinux, modules)
    if untyped:
        result.update(_untyped(untyped))
    return result


def _untyped(externs: list[Extern]) -> dict[str, Resolution]:
    from pybpf.symbols.kallsyms import kernel_addresses

    try:
        addresses = kernel_addresses(extern.name for extern in externs)
    except (BPFNotFoundError, BPFPermissionError):
        if not all(extern.is_weak for extern in externs):
            raise
        addresses = {}
    result = {}
    for extern in externs:
        found = set(addresses.get(extern.name, ()))
        if len(found) > 1:
            raise ObjectError(f"extern {extern.name}: the kernel has {len(found)} symbols of this name")
        if not found and not extern.is_weak:
            raise ObjectError(f"extern {extern.name}: the kernel has no such symbol")
        result[extern.name] = Resolution(bool(found), address=found.pop() if found else 0)
    return result


def _typed(
    local: BTF,
    extern: Extern,
    name: str,
    kind: int,
    vmlinux: Callable[[], BTF],
    modules: Callable[[], Iterable[BTF]],
) -> Resolution:
    """A variable or function of the kernel's BTF: vmlinux first, then each module's own types."""
    noun = "function" if kind == KIND_FUNC else "variable"
    target: BTF | None = None
    type_id = 0
    for candidate in _kernel_btfs(vmlinux, modules):
        try:
            ids = candidate.own_ids(name, kind)
        except BTFError:
            if candidate.base is None:
                raise
            continue  # a module whose BTF is broken must not stop a load that does not need it
        if ids:
            target, type_id = candidate, ids[0]
            break
    if target is None:
        if extern.is_weak:
            return Resolution(False)
        raise ObjectError(f"extern {extern.name}: no {noun} {name!r} in the BTF of the kernel or its modules")
    declared = target.type(type_id)
    assert isinstance(declared, (Func, Var))
    # Without a type, as assembly declares them, any is right.
    if extern.type_id and not types_compatible(local, extern.type_id, target, declared.type_id):
        if extern.is_weak and kind == KIND_FUNC:
            return Resolution(False)
        raise ObjectError(f"extern {extern.name}: the kernel's {noun} {name!r} has another type")
    return Resolution(True, type_id=type_id, module="" if target.base is None else target.name)


def _kernel_btfs(vmlinux: Callable[[], BTF], modules: Callable[[], Iterable[BTF]]) -> Iterator[BTF]:
    yield vmlinux()
    yield from modules()
