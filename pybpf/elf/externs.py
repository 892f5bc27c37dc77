"""Externs: what a program takes from the kernel it is loaded into: settings, symbols, functions.

Rules of this module:

* An extern is an undefined symbol whose BTF stands in the section ``.kconfig`` or ``.ksyms``.
* Settings (``.kconfig``) get an offset in one read-only map, ordered as libbpf orders them. Their values are filled in
  at load time, and so are the addresses of kernel symbols.
* An extern of any other section was meant for static linking and is an `ObjectError`.

Source: tools/lib/bpf/libbpf.c, bpf_object__collect_externs().
"""

from __future__ import annotations

from pybpf.btf.kinds import LINKAGE_EXTERN, Array, Datasec, Enumeration, Func, Int, Var
from pybpf.elf.container import STB_WEAK, STT_NOTYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pybpf.btf.reader import BTF
    from pybpf.elf.container import Container, Symbol

    KconfigKind = Literal["", "bool", "char", "int", "tristate", "string"]

KCONFIG = ".kconfig"
KSYMS = ".ksyms"

_TRISTATE = "libbpf_tristate"


class Extern:
    """One thing that the kernel has to provide.

    Attributes:
        name: of the symbol, with a ``___flavor`` if it has one.
        section: ``".kconfig"`` or ``".ksyms"``.
        btf_id: the VAR or FUNC in the object's BTF.
        type_id: its type in the object's BTF: of a variable the variable's type (0: ``void``, a symbol without a
            type), of a function its FUNC_PROTO.
        is_weak: may be missing; then it is 0.
        is_function: a kernel function (kfunc), not a variable.
        offset, size: kconfig: place in the ``.kconfig`` map, bytes.
        kind: kconfig: ``"bool"``, ``"char"``, ``"int"``, ``"tristate"`` or ``"string"``, otherwise empty.
        is_signed: kconfig: whether an ``"int"`` is signed.
    """

    __slots__ = (
        "btf_id",
        "is_function",
        "is_signed",
        "is_weak",
        "kind",
        "name",
        "offset",
        "section",
        "size",
        "type_id",
    )

    def __init__(self, name: str, section: str, btf_id: int, type_id: int) -> None:
        self.name = name
        self.section = section
        self.btf_id = btf_id
        self.type_id = type_id
        self.is_weak = False
        self.is_function = False
        self.offset = 0
        self.size = 0
        self.kind: KconfigKind = ""
        self.is_signed = False

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal externs."""
        return (
            self.name,
            self.section,
            self.btf_id,
            self.type_id,
            self.is_weak,
            self.is_function,
            self.offset,
            self.size,
            self.kind,
            self.is_signed,
        )

    def __repr__(self) -> str:
        weak = " weak" if self.is_weak else ""
        return (
            f"<Extern {self.name!r} {self.section}{weak} {'function' if self.is_function else self.kind or 'symbol'}>"
        )


def read_externs(container: Container, btf: BTF | None, datasecs: list[Datasec]) -> dict[int, Extern]:
    """The externs of a file by the index of their symbol: settings first, in the order of their offsets.

    Raises:
        ObjectError: an extern has no BTF, or a type that the kernel cannot provide.
    """
    symbols = [symbol for symbol in container.symbols(STT_NOTYPE) if symbol.is_extern]
    if not symbols:
        return {}
    if btf is None:
        raise container.error(f"extern {symbols[0].name!r}: the file has no BTF that says what it is")
    declared = {
        btf.name_of(entry.type_id): (entry.type_id, datasec.name)
        for datasec in datasecs
        if datasec.name in (KCONFIG, KSYMS)
        for entry in datasec.entries
    }
    found_externs = []
    for symbol in symbols:
        found = declared.get(symbol.name)
        if found is None:
            raise container.error(
                f"extern {symbol.name!r} is neither in {KCONFIG} nor in {KSYMS}: "
                "it has to be linked with the object that defines it"
            )
        extern = _read_extern(container, btf, symbol, *found)
        alignment = btf.align_of(extern.type_id) if extern.section == KCONFIG else 0
        found_externs.append((extern.section, -alignment, extern.size, extern.name, symbol.index, extern))
    found_externs.sort(key=lambda item: item[:4])
    end = 0
    for section, negative_alignment, size, _, _, extern in found_externs:
        if section == KCONFIG:
            extern.offset = end - end % negative_alignment  # the next multiple
            end = extern.offset + size
    return {index: extern for *_, index, extern in found_externs}


def kconfig_size(externs: dict[str, Extern]) -> int:
    """Bytes of the map that holds the settings; 0 if there are none."""
    return max((extern.offset + extern.size for extern in externs.values() if extern.section == KCONFIG), default=0)


def _read_extern(container: Container, btf: BTF, symbol: Symbol, btf_id: int, section: str) -> Extern:
    declaration = btf.type(btf_id)
    if not isinstance(declaration, Var | Func) or declaration.linkage != LINKAGE_EXTERN:
        raise container.error(f"extern {symbol.name!r}: BTF id {btf_id} in {section} does not declare an extern")
    extern = Extern(symbol.name, section, btf_id, declaration.type_id)
    extern.is_weak = symbol.bind == STB_WEAK
    extern.is_function = isinstance(declaration, Func)
    if section == KSYMS:
        if not extern.is_function:
            extern.type_id = btf.skip_modifiers(declaration.type_id)
        return extern
    if extern.is_function:
        raise container.error(f"extern {symbol.name!r}: a function cannot be in {KCONFIG}")
    extern.kind, extern.is_signed = _kconfig_kind(btf, declaration.type_id)
    if not extern.kind:
        raise container.error(
            f"extern {symbol.name!r}: a setting must be bool, char, an integer, enum {_TRISTATE} or an array of char"
        )
    extern.size = btf.size_of(declaration.type_id)
    return extern


def _kconfig_kind(btf: BTF, type_id: int) -> tuple[KconfigKind, bool]:
    """What a setting of a type can hold, and whether that is signed; an empty kind if it cannot be a setting."""
    target = btf.resolve(type_id)
    if isinstance(target, Int):
        if target.is_bool:
            return ("bool" if target.size == 1 else ""), False
        if target.size == 1:
            return "char", target.is_signed
        return ("int" if target.size in (2, 4, 8) else ""), target.is_signed
    if isinstance(target, Enumeration):
        known = target.name == _TRISTATE and target.size in (4, 8)
        return ("tristate" if known else ""), False
    if isinstance(target, Array):
        return ("string" if target.nelems and _kconfig_kind(btf, target.type_id)[0] == "char" else ""), False
    return "", False
